//! `Accept-Encoding` (RFC 9110 12.5.3): the codings a client accepts, with their weights.

use http::{HeaderMap, header};

use super::list;

/// A weight (RFC 9110 12.4.2) in thousandths. Zero means not acceptable.
pub(crate) type Weight = u16;

pub(crate) const MAX: Weight = 1000;

/// Registered codings. They are always remembered, however many others a request lists.
const KNOWN: [&str; 5] = ["gzip", "br", "zstd", "deflate", "identity"];
/// Maximum number of other codings that are remembered. Further ones count as not listed.
const MAX_OTHERS: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AcceptEncoding {
    /// Whether the request has the field. Without it, any coding is acceptable.
    present: bool,
    listed: Vec<(Box<str>, Weight)>,
    others: Option<Weight>,
}

impl AcceptEncoding {
    /// Parses the field of a request. A coding listed twice gets its lower weight, and a coding with a malformed weight
    /// counts as not acceptable. A mistake thus never leads to content that the client cannot decode.
    pub(crate) fn from_headers(headers: &HeaderMap) -> AcceptEncoding {
        let mut accepts = AcceptEncoding {
            present: headers.contains_key(header::ACCEPT_ENCODING),
            ..AcceptEncoding::default()
        };
        for element in list::elements_in_field(headers, &header::ACCEPT_ENCODING) {
            let mut parts = list::split(element, b';');
            let Some(name) = parts.next().and_then(|name| std::str::from_utf8(name).ok()) else { continue };
            let weight = parts.find_map(weight).unwrap_or(Some(MAX));
            let name = canonical(name);
            if name == "*" {
                accepts.others = accepts.others.min(Some(weight.unwrap_or(0))).or(weight);
                continue;
            }
            let weight = match weight {
                Some(weight) => weight,
                // A malformed weight is no reason to refuse content without a coding.
                None if name == "identity" => continue,
                None => 0,
            };
            let room = KNOWN.contains(&&*name) || accepts.listed.len() < MAX_OTHERS;
            match accepts.listed.iter_mut().find(|(known, _)| **known == name) {
                Some((_, known)) => *known = weight.min(*known),
                None if room => accepts.listed.push((name.into(), weight)),
                None => {}
            }
        }
        accepts
    }

    /// Returns whether the request has the field.
    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    /// Returns the weight of a coding other than `identity`; zero if it is not acceptable.
    pub(crate) fn weight(&self, coding: &str) -> Weight {
        if !self.present {
            return MAX;
        }
        self.listed(coding).or(self.others).unwrap_or(0)
    }

    /// Returns the weight of content without a coding, if the client gave one. `Some(0)` means not acceptable.
    pub(crate) fn identity(&self) -> Option<Weight> {
        self.listed("identity").or(self.others.filter(|others| *others == 0))
    }

    /// Returns whether every coding of a `Content-Encoding` is acceptable.
    pub(crate) fn takes(&self, content_encoding: &[String]) -> bool {
        content_encoding.iter().all(|coding| self.weight(coding) > 0)
    }

    fn listed(&self, coding: &str) -> Option<Weight> {
        self.listed.iter().find(|(name, _)| **name == *coding).map(|(_, weight)| *weight)
    }
}

/// Converts a coding to lower case and resolves the old `x-` aliases (RFC 9110 8.4.1.1, 8.4.1.3).
fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.strip_prefix("x-") {
        Some(known @ ("gzip" | "compress")) => known.to_owned(),
        _ => name,
    }
}

/// Parses a parameter such as `q=0.5`. Returns `None` for another parameter, and `Some(None)` for a malformed weight.
fn weight(parameter: &[u8]) -> Option<Option<Weight>> {
    let (name, value) = parameter.split_at(parameter.iter().position(|byte| *byte == b'=')?);
    name.trim_ascii().eq_ignore_ascii_case(b"q").then(|| thousandths(value.get(1..)?.trim_ascii()))
}

/// Parses a weight such as `0`, `0.5` or `1.000`: at most 1, with at most three digits after the point.
pub(crate) fn thousandths(text: &[u8]) -> Option<Weight> {
    let (whole, fraction) = match text {
        [whole @ (b'0' | b'1')] | [whole @ (b'0' | b'1'), b'.'] => (*whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', fraction @ ..] => (*whole, fraction),
        _ => return None,
    };
    if fraction.len() > 3 || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| fraction.get(at).map_or(0, |digit| Weight::from(digit - b'0'));
    let weight = Weight::from(whole - b'0') * MAX + digit(0) * 100 + digit(1) * 10 + digit(2);
    (weight <= MAX).then_some(weight)
}

/// Returns the codings of a message in the order they were applied, without `identity` (RFC 9110 8.4).
pub(crate) fn content_encoding(headers: &HeaderMap) -> Vec<String> {
    let codings = list::elements_in_field(headers, &header::CONTENT_ENCODING).map(String::from_utf8_lossy);
    codings.map(|coding| canonical(&coding)).filter(|coding| coding != "identity").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(lines: &[&str]) -> AcceptEncoding {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, line.parse().unwrap());
        }
        AcceptEncoding::from_headers(&headers)
    }

    #[test]
    fn weights() {
        for (lines, gzip, br, identity) in [
            (&[][..], MAX, MAX, None),
            (&[""], 0, 0, None),
            (&["gzip"], MAX, 0, None),
            (&["GZip"], MAX, 0, None),
            (&["x-gzip"], MAX, 0, None),
            (&["gzip;q=0.5, br; Q=0.123"], 500, 123, None),
            (&["gzip;q=0"], 0, 0, None),
            (&["gzip;q=0, *"], 0, MAX, None),
            (&["*;q=0"], 0, 0, Some(0)),
            (&["*;q=0, identity;q=0.2"], 0, 0, Some(200)),
            (&["*;q=0.7"], 700, 700, None),
            (&["identity;q=0, gzip"], MAX, 0, Some(0)),
            (&["gzip;q=1, gzip;q=0"], 0, 0, None),
            (&["gzip", "br;q=0.1"], MAX, 100, None),
            (&["gzip;q=nonsense, identity;q=nonsense"], 0, 0, None),
            (&["gzip;q=1.5, br;q=0.1234"], 0, 0, None),
            (&["gzip;q=1., br;q=0."], MAX, 0, None),
            (&["gzip;level=9;q=0.3"], 300, 0, None),
            (&["*;q=x"], 0, 0, None),
            (&["*", &"x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, ".repeat(9), "gzip;q=0, br;q=0"], 0, 0, None),
        ] {
            let accepts = accepts(lines);
            let found = (accepts.weight("gzip"), accepts.weight("br"), accepts.identity());
            assert_eq!(found, (gzip, br, identity), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(header::ACCEPT_ENCODING, value);
                let accepts = AcceptEncoding::from_headers(&headers);
                prop_assert!(accepts.weight("gzip") <= MAX);
            }
        }

        #[test]
        fn what_is_refused_anywhere_is_refused(
            before in "(gzip|br|\\*)(;q=0\\.[0-9])?", after in "(gzip|zstd|\\*)(;q=1)?", zeros in 0usize..4,
        ) {
            let dot = if zeros > 0 { "." } else { "" };
            let refusal = format!("gzip;q=0{dot}{}", "0".repeat(zeros));
            prop_assert_eq!(accepts(&[&format!("{before}, {refusal}, {after}")]).weight("gzip"), 0);
        }
    }
}
