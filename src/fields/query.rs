//! Queries and forms (the URL standard's application/x-www-form-urlencoded).

use std::borrow::Cow;

/// The octet that two hexadecimal digits are; a sign is none.
pub fn octet(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The pairs of a query, as they were meant.
pub fn pairs(text: &str) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
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

/// A name or a value as it was meant.
pub fn decoded(text: &[u8]) -> Vec<u8> {
    octets(text, b' ')
}

/// Percent-decoded (RFC 3986 2.1); what is no such triplet stays.
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
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

/// The parameters of a query or a form.
pub fn parameters(text: &str) -> Vec<(String, String)> {
    let text_of = |part: Cow<'_, [u8]>| String::from_utf8_lossy(&part).into_owned();
    pairs(text).map(|(name, value)| (text_of(name), text_of(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let of = |text: &str| parameters(text);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(of("a=1&b&c=%41+%zz%+f%4"), [pair("a", "1"), pair("b", ""), pair("c", "A %zz% f%4")]);
        assert_eq!(of(""), []);
        assert_eq!(percent_decoded(b"a+%2b%2"), b"a++%2");
    }
}
