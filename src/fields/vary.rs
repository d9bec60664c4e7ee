//! `Vary` (RFC 9110 12.5.5): adding a field name to it.

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::list;

/// Adds a field name to `Vary`, without duplicates and as one line. `*` already includes every field.
pub(crate) fn add(headers: &mut HeaderMap, name: &HeaderName) {
    if let Entry::Vacant(none) = headers.entry(header::VARY) {
        none.insert(HeaderValue::from_name(name.clone()));
        return;
    }
    let is_it = |element: &[u8]| element == b"*" || element.eq_ignore_ascii_case(name.as_str().as_bytes());
    if list::elements_in_field(headers, &header::VARY).any(is_it) {
        return;
    }
    let mut merged: Vec<u8> =
        list::elements_in_field(headers, &header::VARY).collect::<Vec<_>>().join(&b", "[..]);
    if !merged.is_empty() {
        merged.extend_from_slice(b", ");
    }
    merged.extend_from_slice(name.as_str().as_bytes());
    // The parts are valid field values, so the result is valid too.
    if let Ok(merged) = HeaderValue::from_bytes(&merged) {
        headers.insert(header::VARY, merged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_merged_into_one_field() {
        for (lines, wanted) in [
            (&[][..], &["accept-encoding"][..]),
            (&["Origin"], &["Origin, accept-encoding"]),
            (&["Origin", "Cookie"], &["Origin, Cookie, accept-encoding"]),
            (&["Origin, Accept-Encoding"], &["Origin, Accept-Encoding"]),
            (&["*"], &["*"]),
            (&["*, Foo"], &["*, Foo"]),
            (&["Origin", "*"], &["Origin", "*"]),
            (&[""], &["accept-encoding"]),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::VARY, line.parse().unwrap());
            }
            add(&mut headers, &header::ACCEPT_ENCODING);
            let found: Vec<&str> =
                headers.get_all(header::VARY).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(found, wanted, "{lines:?}");
        }
    }
}
