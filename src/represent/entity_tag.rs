//! The entity tags that Pillion sends: those it makes itself, and an upstream's strong tag on content that Pillion
//! encoded.
//!
//! - Made: `W/"pillion-<hash>"`, the same for equal content on every replica and after every restart. Made tags are
//!   never sent to the upstream, which would not know them.
//! - Encoded: two codings of one content must not share a strong tag (RFC 9110 8.8.3.3), so `"x"` becomes `W/"x"`, and
//!   the upstream receives both forms of a tag that a client sends back. The text stays as the upstream wrote it,
//!   because CalDAV and WebDAV clients compare it with `getetag` and the like. An upstream's weak tags cover all
//!   codings already and are sent unchanged.

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::fields::entity_tag::EntityTag;
use crate::fields::fresh;

/// Prefix of the opaque part of made tags.
const MADE: &[u8] = b"pillion-";
/// Makes the tag of content in these pieces from 128 bits of XXH3, which is fast and not cryptographic. A party that
/// writes both of two contents can make their tags equal; otherwise a collision is practically impossible.
pub(crate) fn made<'a>(mut pieces: impl Iterator<Item = &'a Bytes>) -> HeaderValue {
    let first = pieces.next().map_or(&[][..], |piece| piece);
    let Some(second) = pieces.next() else { return value(xxh3_128(first)) };
    let mut hash = Box::new(Xxh3::new());
    hash.update(first);
    hash.update(second);
    pieces.for_each(|piece| hash.update(piece));
    value(hash.digest128())
}

fn value(hash: u128) -> HeaderValue {
    let mut text = *b"W/\"pillion-00000000000000000000000000000000\"";
    text[11..43].copy_from_slice(&fresh::hex(hash));
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

pub(crate) fn is_made(tag: &EntityTag<'_>) -> bool {
    tag.weak && tag.opaque.starts_with(MADE)
}

/// Returns the upstream's tag for content that Pillion encoded: the same text, weak.
pub(crate) fn on_coded(tag: &EntityTag<'_>) -> HeaderValue {
    EntityTag { weak: true, ..*tag }.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tag(text: &str) -> EntityTag<'_> {
        EntityTag::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn forms() {
        for (app, out) in [("\"x\"", "W/\"x\""), ("W/\"x\"", "W/\"x\""), ("\"a~gzip\"", "W/\"a~gzip\"")] {
            assert_eq!(on_coded(&tag(app)), out);
        }
        let made = made([&Bytes::from_static(b"content")].into_iter());
        assert!(is_made(&EntityTag::parse(made.as_bytes()).unwrap()), "{made:?}");
        assert!(!is_made(&tag("\"pillion-0\"")) && !is_made(&tag("W/\"x\"")));
    }

    proptest! {
        /// Equal content has an equal tag however it is split into pieces; other content has another tag.
        #[test]
        fn a_tag_is_one_of_the_content(content in proptest::collection::vec(any::<u8>(), 0..2000), at: usize) {
            let content = Bytes::from(content);
            let (before, after) = (content.slice(..at % (content.len() + 1)), content.slice(at % (content.len() + 1)..));
            let whole = made([&content].into_iter());
            prop_assert_eq!(&made([&before, &after].into_iter()), &whole);
            let other = Bytes::from([&content[..], &[0]].concat());
            prop_assert_ne!(&made([&other].into_iter()), &whole);
        }
    }
}
