//! `Cache-Status` (RFC 9211 2): the member that says what our cache did.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Our member; what is `None` or false is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Member<'a> {
    /// Answered from what is stored, without asking the app (2.1). Never together with `forwarded`.
    pub hit: bool,
    /// Why the app was asked (2.2).
    pub forwarded: Option<&'static str>,
    /// What it answered (2.3).
    pub forwarded_status: Option<u16>,
    /// What is left of the lifetime, in seconds; negative once it is stale (2.4).
    pub ttl: Option<i64>,
    /// Whether the answer was stored (2.5).
    pub stored: bool,
    /// Whether the request waited for another one's answer (2.6).
    pub collapsed: bool,
    /// The key, for people (2.7).
    pub key: Option<&'a str>,
    /// Anything else, for people (2.8).
    pub detail: Option<&'static str>,
}

impl Member<'_> {
    /// Appends it: we are further from the origin than whoever wrote a member before (2).
    pub fn append(&self, headers: &mut HeaderMap) {
        let mut text = String::with_capacity(48);
        text.push_str("pillion");
        if self.hit {
            text.push_str("; hit");
        }
        if let Some(reason) = self.forwarded {
            text.push_str("; fwd=");
            text.push_str(reason);
        }
        if let Some(status) = self.forwarded_status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        if self.stored {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        if let Some(key) = self.key {
            // sf-string (RFC 9651 3.3.3): printable ASCII, quotes and backslashes escaped.
            text.push_str("; key=\"");
            for c in key.chars().filter(|c| matches!(c, ' '..='~')) {
                if matches!(c, '"' | '\\') {
                    text.push('\\');
                }
                text.push(c);
            }
            text.push('"');
        }
        if let Some(detail) = self.detail {
            text.push_str("; detail=");
            text.push_str(detail);
        }
        // All of it is printable.
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
            headers.append(CACHE_STATUS, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        let none = Member::default();
        for (member, wanted) in [
            (Member { hit: true, ttl: Some(57), ..none }, "pillion; hit; ttl=57"),
            (
                Member { hit: true, ttl: Some(-3), detail: Some("swr"), ..none },
                "pillion; hit; ttl=-3; detail=swr",
            ),
            (
                Member { forwarded: Some("uri-miss"), forwarded_status: Some(200), stored: true, ..none },
                "pillion; fwd=uri-miss; fwd-status=200; stored",
            ),
            (
                Member { forwarded: Some("uri-miss"), collapsed: true, ..none },
                "pillion; fwd=uri-miss; collapsed",
            ),
            (Member { hit: true, key: Some("a\"b\\c\u{e9}"), ..none }, "pillion; hit; key=\"a\\\"b\\\\c\""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_STATUS, "origin; hit".parse().unwrap());
            member.append(&mut headers);
            let found: Vec<_> =
                headers.get_all(CACHE_STATUS).iter().map(|line| line.to_str().unwrap()).collect();
            assert_eq!(found, ["origin; hit", wanted]);
        }
    }
}
