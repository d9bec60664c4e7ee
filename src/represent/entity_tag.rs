//! The tags Pillion sends: those it makes itself, and an app's strong tag on content that Pillion coded.
//!
//! - Made: `W/"pillion-<hash>"`, the same for equal content on every replica and after every restart. They
//!   never reach the app, which would not know them.
//! - Coded: two codings of one content must not share a strong tag (RFC 9110 8.8.3.3), so `"x"` goes out as
//!   `W/"x~gzip"`, and that form alone comes back as exactly `"x"`. The app's own weak tags stand for all
//!   codings already, go out as they are, and are never made strong.

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::coding::Coding;
use crate::fields::entity_tag::EntityTag;
use crate::fields::fresh;

/// What begins the tags that we make.
const MADE: &[u8] = b"pillion-";
/// What stands between the app's tag and the coding.
const MARK: u8 = b'~';
/// What stands in place of a coding where we took the app's away.
const DECODED: &str = "identity";

/// The tag of content in these pieces: 128 bits of XXH3, which is fast and no secret. Whoever writes both of
/// two contents can make their tags equal; nobody else meets that in the age of the universe.
pub fn made<'a>(mut pieces: impl ExactSizeIterator<Item = &'a Bytes>) -> HeaderValue {
    if pieces.len() == 1 {
        return value(xxh3_128(pieces.next().map_or(&[], |content| content)));
    }
    let mut hash = Box::new(Xxh3::new());
    pieces.for_each(|piece| hash.update(piece));
    value(hash.digest128())
}

fn value(hash: u128) -> HeaderValue {
    let mut text = *b"W/\"pillion-00000000000000000000000000000000\"";
    text[11..43].copy_from_slice(&fresh::hex(hash));
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

/// Whether we made it.
pub fn is_made(tag: &EntityTag<'_>) -> bool {
    tag.weak && tag.opaque.starts_with(MADE)
}

/// How the app's tag goes out on content coded so; `None`: decoded by us. A weak tag stays as it is.
pub fn outgoing(tag: &EntityTag<'_>, coding: Option<Coding>) -> HeaderValue {
    if tag.weak {
        return tag.to_value();
    }
    let mut opaque = tag.opaque.to_vec();
    opaque.push(MARK);
    opaque.extend_from_slice(coding.map_or(DECODED, Coding::as_str).as_bytes());
    EntityTag { weak: true, opaque: &opaque }.to_value()
}

/// The app's strong tag behind one that [`outgoing`] made; `None`: it is not of that form.
pub fn original<'a>(tag: &EntityTag<'a>) -> Option<EntityTag<'a>> {
    let suffixes = Coding::ALL.iter().map(|coding| coding.as_str()).chain([DECODED]);
    suffixes
        .filter(|_| tag.weak)
        .find_map(|suffix| tag.opaque.strip_suffix(suffix.as_bytes())?.strip_suffix(&[MARK]))
        .map(|opaque| EntityTag { weak: false, opaque })
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
        for (app, coding, out) in [
            ("\"x\"", Some(Coding::Gzip), "W/\"x~gzip\""),
            ("\"x\"", Some(Coding::Zstd), "W/\"x~zstd\""),
            ("\"x\"", None, "W/\"x~identity\""),
            ("W/\"x\"", Some(Coding::Gzip), "W/\"x\""),
        ] {
            assert_eq!(outgoing(&tag(app), coding), out);
        }
        for (incoming, app) in [
            ("W/\"x~gzip\"", Some("\"x\"")),
            ("W/\"x~br\"", Some("\"x\"")),
            ("W/\"~zstd\"", Some("\"\"")),
            ("W/\"a~b~identity\"", Some("\"a~b\"")),
            ("\"x~gzip\"", None),
            ("W/\"x~deflate\"", None),
            ("W/\"x\"", None),
            ("\"x\"", None),
        ] {
            assert_eq!(original(&tag(incoming)), app.map(tag), "{incoming}");
        }
        let made = made([&Bytes::from_static(b"content")].into_iter());
        assert!(is_made(&EntityTag::parse(made.as_bytes()).unwrap()), "{made:?}");
        assert!(!is_made(&tag("\"pillion-0\"")) && !is_made(&tag("W/\"x\"")));
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_back(opaque in "[!#-~]{0,30}") {
            let app = EntityTag { weak: false, opaque: opaque.as_bytes() };
            for coding in Coding::ALL.map(Some).into_iter().chain([None]) {
                let value = outgoing(&app, coding);
                prop_assert_eq!(original(&EntityTag::parse(value.as_bytes()).unwrap()), Some(app));
            }
        }

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
