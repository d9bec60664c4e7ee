//! Conditions of requests to the upstream: those of clients are taken off, those of stored validators are written (RFC
//! 9111 4.3.1).

use http::{HeaderMap, header};

use crate::fields::entity_tag::EntityTag;

/// Conditions that are removed from a fetch whose response may be stored; they are evaluated on its response.
pub(crate) static CONDITIONS: [http::HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Returns whether a request has conditions or a Range of its own, so that its response may fit no other request.
pub(crate) fn is_conditional(request: &HeaderMap) -> bool {
    request.keys().any(|name| *name == header::RANGE || CONDITIONS.contains(name))
}

/// Writes the validators of a stored response with `fields` as conditions; returns false if it has none. A response
/// that an invalidation removed (`gone`) may still be current, but only a strong entity tag confirms that.
pub(crate) fn write(fields: &HeaderMap, gone: bool, request: &mut HeaderMap) -> bool {
    let tag = EntityTag::from_headers(fields);
    if let Some(tag) = tag
        && !(gone && tag.weak)
    {
        request.insert(header::IF_NONE_MATCH, tag.to_value());
        if let (false, Some(modified)) = (gone, fields.get(header::LAST_MODIFIED)) {
            request.insert(header::IF_MODIFIED_SINCE, modified.clone());
        }
        return true;
    }
    match fields.get(header::LAST_MODIFIED) {
        Some(modified) if !gone => {
            request.insert(header::IF_MODIFIED_SINCE, modified.clone());
            true
        }
        _ => false,
    }
}

/// Returns whether a stored response with `fields` can be revalidated; see [`write()`].
pub(crate) fn has_validator(fields: &HeaderMap, gone: bool) -> bool {
    write(fields, gone, &mut HeaderMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn conditions_name_the_validators_that_the_upstream_can_confirm() {
        const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let (tag, weak, date) = (("etag", "\"a\""), ("etag", "W/\"a\""), ("last-modified", DATE));
        let (none_match, weak_match) = (("if-none-match", "\"a\""), ("if-none-match", "W/\"a\""));
        let since = ("if-modified-since", DATE);
        for (stored, gone, wanted) in [
            (&[][..], false, &[][..]),
            (&[tag], false, &[none_match]),
            (&[weak], false, &[weak_match]),
            (&[date], false, &[since]),
            (&[tag, date], false, &[none_match, since]),
            (&[("etag", "not a tag"), date], false, &[since]),
            (&[("etag", "not a tag")], false, &[]),
            (&[tag, date], true, &[none_match]),
            (&[weak, date], true, &[]),
            (&[date], true, &[]),
        ] {
            let mut request = HeaderMap::new();
            let found = write(&fields(stored), gone, &mut request);
            assert_eq!(request, fields(wanted), "{stored:?} gone: {gone}");
            assert_eq!(found, !wanted.is_empty(), "{stored:?} gone: {gone}");
            assert_eq!(has_validator(&fields(stored), gone), found, "{stored:?} gone: {gone}");
        }
    }

    #[test]
    fn requests_with_conditions_or_a_range_are_conditional() {
        for (line, wanted) in [
            (("accept", "*/*"), false),
            (("if-match", "\"a\""), true),
            (("if-none-match", "\"a\""), true),
            (("if-modified-since", "0"), true),
            (("if-unmodified-since", "0"), true),
            (("if-range", "\"a\""), true),
            (("range", "bytes=0-0"), true),
        ] {
            assert_eq!(is_conditional(&fields(&[line])), wanted, "{line:?}");
        }
    }
}
