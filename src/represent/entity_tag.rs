//! The tags Pillion sends: those it makes itself, and an app's strong tag on content that Pillion coded.
//!
//! - Made: `W/"pillion-<hash>"`, the same for equal content on every replica and after every restart. They
//!   never reach the app, which would not know them.
//! - Coded: two codings of one content must not share a strong tag (RFC 9110 8.8.3.3), so `"x"` goes out as
//!   `W/"x"`, and both forms are asked of the app where a client sends the weak one back. The text stays as the app
//!   wrote it, because CalDAV and WebDAV clients compare it with `getetag` and the like. The app's own weak tags
//!   stand for all codings already, and go out as they are.

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::fields::entity_tag::EntityTag;
use crate::fields::fresh;

/// What begins the tags that we make.
const MADE: &[u8] = b"pillion-";
/// The tag of content in these pieces: 128 bits of XXH3, which is fast and no secret. Whoever writes both of
/// two contents can make their tags equal; nobody else meets that in the age of the universe.
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

/// The app's tag on content that Pillion coded: the same text, weak.
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
        /// Equal content has an equal tag however it came in pieces; other content has another.
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
