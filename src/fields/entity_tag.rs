//! Entity tags (RFC 9110 8.8.3), and the lists of them in `If-Match` and `If-None-Match` (13.1.1, 13.1.2).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::list;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntityTag<'a> {
    /// Whether the tag is weak: it identifies equivalent content, not equal bytes.
    pub weak: bool,
    /// The bytes between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Parses one entity tag; a list is an error.
    pub(crate) fn parse(text: &'a [u8]) -> Option<EntityTag<'a>> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let opaque = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        // The rule etagc allows no quote, space or control character (RFC 9110 8.8.3).
        let fine = opaque.iter().all(|byte| !matches!(byte, b'"' | 0..=b' ' | 0x7f));
        fine.then_some(EntityTag { weak, opaque })
    }

    /// Parses the `ETag` of a message.
    pub(crate) fn from_headers(headers: &'a HeaderMap) -> Option<EntityTag<'a>> {
        headers.get(http::header::ETAG).and_then(|tag| EntityTag::parse(tag.as_bytes()))
    }

    /// Compares two tags strongly: equal, and neither is weak (RFC 9110 8.8.3.2).
    pub(crate) fn strong_eq(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Compares two tags weakly: equal, weak or not (RFC 9110 8.8.3.2).
    pub(crate) fn weak_eq(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }

    pub(crate) fn to_value(self) -> HeaderValue {
        let mut text = Vec::with_capacity(self.opaque.len() + 4);
        self.write(&mut text);
        // Every byte of a valid tag is valid in a field value.
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    /// Appends the tag in its wire format.
    pub(crate) fn write(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(if self.weak { b"W/\"" } else { b"\"" });
        text.extend_from_slice(self.opaque);
        text.push(b'"');
    }
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TagList<'a> {
    /// The value `*`, which matches any existing representation.
    Any,
    Tags(Vec<EntityTag<'a>>),
}

impl<'a> TagList<'a> {
    /// Parses the field of a request; `None` if it is missing or malformed.
    pub(crate) fn from_headers(headers: &'a HeaderMap, name: &HeaderName) -> Option<TagList<'a>> {
        if !headers.contains_key(name) {
            return None;
        }
        let mut elements = list::of_unescaped(headers, name).peekable();
        if elements.peek() == Some(&&b"*"[..]) {
            elements.next();
            return elements.next().is_none().then_some(TagList::Any);
        }
        let mut tags = Vec::new();
        for element in elements {
            tags.push(EntityTag::parse(element)?);
        }
        (!tags.is_empty()).then_some(TagList::Tags(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::IF_NONE_MATCH;
    use proptest::prelude::*;

    fn strong(opaque: &str) -> EntityTag<'_> {
        EntityTag { weak: false, opaque: opaque.as_bytes() }
    }

    fn weak(opaque: &str) -> EntityTag<'_> {
        EntityTag { weak: true, opaque: opaque.as_bytes() }
    }

    fn list(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_NONE_MATCH, line.parse().unwrap());
        }
        headers
    }

    #[test]
    fn lists() {
        for (lines, wanted) in [
            (&["\"a\""][..], Some(TagList::Tags(vec![strong("a")]))),
            (&["W/\"a\", \"b,c\""], Some(TagList::Tags(vec![weak("a"), strong("b,c")]))),
            (&["\"a\"", "\"b\""], Some(TagList::Tags(vec![strong("a"), strong("b")]))),
            (&["\"\""], Some(TagList::Tags(vec![strong("")]))),
            (&["*"], Some(TagList::Any)),
            (&[" * "], Some(TagList::Any)),
            (&["*, \"a\""], None),
            (&["\"a\", *"], None),
            (&["a"], None),
            (&["w/\"a\""], None),
            (&["\"a b\""], None),
            (&["\"a"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(TagList::from_headers(&list(lines), &IF_NONE_MATCH), wanted, "{lines:?}");
        }
    }

    /// Checks the comparison table of RFC 9110 8.8.3.2.
    #[test]
    fn comparison() {
        for (one, other, is_strong, is_weak) in [
            (weak("1"), weak("1"), false, true),
            (weak("1"), weak("2"), false, false),
            (weak("1"), strong("1"), false, true),
            (strong("1"), strong("1"), true, true),
        ] {
            assert_eq!((one.strong_eq(&other), one.weak_eq(&other)), (is_strong, is_weak));
            assert_eq!((other.strong_eq(&one), other.weak_eq(&one)), (is_strong, is_weak));
        }
    }

    proptest! {
        #[test]
        fn a_tag_survives_being_written(opaque in "[!#-~]{0,40}", is_weak: bool) {
            let tag = EntityTag { weak: is_weak, opaque: opaque.as_bytes() };
            let value = tag.to_value();
            prop_assert_eq!(EntityTag::parse(value.as_bytes()), Some(tag));
            let headers = list(&[&format!("{0}, W/\"x\", {0}", value.to_str().unwrap())]);
            prop_assert_eq!(TagList::from_headers(&headers, &IF_NONE_MATCH), Some(TagList::Tags(vec![tag, weak("x"), tag])));
        }

        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(IF_NONE_MATCH, value);
                let _ = TagList::from_headers(&headers, &IF_NONE_MATCH);
            }
        }
    }
}
