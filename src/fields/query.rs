//! Queries and forms (application/x-www-form-urlencoded of the URL standard).

use std::borrow::Cow;

/// Parses two hexadecimal digits as a byte. A sign is rejected.
pub(crate) fn octet(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Iterates over the decoded names and values of a query.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    fn meant(part: &str) -> Cow<'_, [u8]> {
        if part.contains(['%', '+']) {
            Cow::Owned(decoded(part.as_bytes()))
        } else {
            Cow::Borrowed(part.as_bytes())
        }
    }
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (meant(name), meant(value))
    })
}

/// Decodes a name or a value of a form: percent-escapes, and `+` for a space.
pub(crate) fn decoded(text: &[u8]) -> Vec<u8> {
    octets(text, b' ')
}

/// Decodes percent-escapes (RFC 3986 2.1). Malformed escapes stay as they are.
pub(crate) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    octets(text, b'+')
}

fn octets(text: &[u8], plus: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(plus),
            b'%' => match after.get(..2).and_then(octet) {
                Some(byte) => {
                    bytes.push(byte);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => bytes.push(b'%'),
            },
            byte => bytes.push(*byte),
        }
    }
    bytes
}

/// Returns the names that lenient parsers may read a parameter's name as. Such parsers decode twice, cut at NUL, skip
/// leading spaces or ignore case. PHP also reads `a[b]` and `a.b` as `a` with members, or replaces characters that a
/// name cannot have by `_`.
pub(crate) fn folds(name: &[u8]) -> [Vec<u8>; 2] {
    let mut name = decoded(&decoded(name));
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    let start = name.iter().position(|byte| *byte != b' ').unwrap_or(name.len());
    name.drain(..start);
    name.make_ascii_lowercase();
    let end = name.iter().position(|byte| matches!(byte, b'[' | b'.')).unwrap_or(name.len());
    let up_to = name.get(..end).unwrap_or_default().to_vec();
    for byte in &mut name {
        if matches!(byte, b'[' | b'.' | b' ') {
            *byte = b'_';
        }
    }
    [up_to, name]
}

/// Returns the decoded parameters of a query or a form as text.
pub(crate) fn parameters(text: &str) -> Vec<(String, String)> {
    let text_of = |part: Cow<'_, [u8]>| String::from_utf8_lossy(&part).into_owned();
    pairs(text).map(|(name, value)| (text_of(name), text_of(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n2_2_names_that_are_read_in_other_ways() {
        for (name, first, second) in [
            ("page", "page", "page"),
            ("PAGE", "page", "page"),
            ("page[]", "page", "page_]"),
            ("page[a][b]", "page", "page_a]_b]"),
            ("page.x", "page", "page_x"),
            ("my.page", "my", "my_page"),
            ("my page", "my page", "my_page"),
            ("%20page", "page", "page"),
            ("++page", "page", "page"),
            ("page%00x", "page", "page"),
            ("p%2561ge", "page", "page"),
            ("page%255B0", "page", "page_0"),
            ("", "", ""),
        ] {
            let wanted = [first.as_bytes().to_vec(), second.as_bytes().to_vec()];
            assert_eq!(folds(name.as_bytes()), wanted, "{name}");
        }
    }

    #[test]
    fn forms() {
        let of = |text: &str| parameters(text);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(of("a=1&b&c=%41+%zz%+f%4"), [pair("a", "1"), pair("b", ""), pair("c", "A %zz% f%4")]);
        assert_eq!(of(""), []);
        assert_eq!(percent_decoded(b"a+%2b%2"), b"a++%2");
    }
}
