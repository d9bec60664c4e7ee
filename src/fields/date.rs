//! HTTP-date (RFC 9110 5.6.7), in all three of its forms.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName};

/// The date of a field; `None` where it is missing or malformed.
pub fn of(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    parse(headers.get(name)?.to_str().ok()?)
}

/// Names of days and months are read whatever their case (RFC 9111 4.2).
fn parse(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text).ok().or_else(|| {
        let mut first = true;
        let spelt: String = text
            .chars()
            .map(|c| {
                let upper = std::mem::replace(&mut first, !c.is_ascii_alphabetic());
                if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
            })
            .collect();
        httpdate::parse_http_date(&spelt.replace("Gmt", "GMT")).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let known = parse("Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(known.is_some());
        for text in [
            "sun, 06 nov 1994 08:49:37 gmt",
            "SUN, 06 NOV 1994 08:49:37 GMT",
            "sunday, 06-nov-94 08:49:37 GMT",
            "sun nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text), known, "{text}");
        }
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 EST"), None);
        assert_eq!(parse("0"), None);
    }
}
