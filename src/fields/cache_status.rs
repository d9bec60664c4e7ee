//! `Cache-Status` (RFC 9211 2): the member that says what our cache did.

use bytes::BufMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fresh;
use crate::rendering::words::words;

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The same in one word, as people know it from other caches. It has no specification.
pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// How the stored response was used, beyond what the parameters of the member say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Used {
    #[default]
    AsSaid,
    Stale,
    /// After the app said with a 304 that it still holds.
    Revalidated,
}

words! {
    /// The words of `X-Cache`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum XCache {
        /// Answered with a stored response, or with one that another request fetched.
        Hit => "HIT",
        /// Answered with a stale one.
        Stale => "STALE",
        /// Answered with one that the app confirmed.
        Revalidated => "REVALIDATED",
        /// The cache was passed by.
        Bypass => "BYPASS",
        Miss => "MISS",
    }
}

/// A member without a key is no longer.
const MAX_LENGTH: usize = 128;

/// Our member; what is `None` or false is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member<'a> {
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
    /// Told in `X-Cache` alone.
    pub used: Used,
}

impl Member<'_> {
    /// It, if it can be kept for longer than what was asked for.
    pub(crate) fn without_key(self) -> Option<Member<'static>> {
        let Member { hit, forwarded, forwarded_status, ttl, stored, collapsed, key, detail, used } = self;
        let without =
            Member { hit, forwarded, forwarded_status, ttl, stored, collapsed, key: None, detail, used };
        key.is_none().then_some(without)
    }

    /// The word for `X-Cache`.
    pub(crate) fn word(&self) -> &'static str {
        let word = match (self.used, self.forwarded) {
            (Used::Stale, _) => XCache::Stale,
            (Used::Revalidated, _) => XCache::Revalidated,
            (Used::AsSaid, _) if self.hit || self.collapsed => XCache::Hit,
            (Used::AsSaid, Some("bypass" | "method")) => XCache::Bypass,
            (Used::AsSaid, _) => XCache::Miss,
        };
        word.as_str()
    }

    /// Appends the word, behind that of a cache that is nearer to the origin.
    pub(crate) fn append_word(&self, headers: &mut HeaderMap) {
        headers.append(X_CACHE, HeaderValue::from_static(self.word()));
    }

    /// Appends it: we are further from the origin than whoever wrote a member before (2).
    pub(crate) fn append(&self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS, self.to_value());
    }

    /// It, in the place of all that stands there.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(CACHE_STATUS, self.to_value());
    }

    fn to_value(self) -> HeaderValue {
        // All of it is printable.
        fresh::value(MAX_LENGTH, |out| self.write(out)).unwrap_or_else(|| HeaderValue::from_static("pillion"))
    }

    pub(crate) fn write(&self, text: &mut impl BufMut) {
        let mut digits = itoa::Buffer::new();
        text.put_slice(b"pillion");
        if self.hit {
            text.put_slice(b"; hit");
        }
        if let Some(reason) = self.forwarded {
            text.put_slice(b"; fwd=");
            text.put_slice(reason.as_bytes());
        }
        if let Some(status) = self.forwarded_status {
            text.put_slice(b"; fwd-status=");
            text.put_slice(digits.format(status).as_bytes());
        }
        if let Some(ttl) = self.ttl {
            text.put_slice(b"; ttl=");
            text.put_slice(digits.format(ttl).as_bytes());
        }
        if self.stored {
            text.put_slice(b"; stored");
        }
        if self.collapsed {
            text.put_slice(b"; collapsed");
        }
        if let Some(key) = self.key {
            // sf-string (RFC 9651 3.3.3): printable ASCII, quotes and backslashes escaped.
            text.put_slice(b"; key=\"");
            for byte in key.bytes().filter(|byte| matches!(byte, b' '..=b'~')) {
                if matches!(byte, b'"' | b'\\') {
                    text.put_u8(b'\\');
                }
                text.put_u8(byte);
            }
            text.put_u8(b'"');
        }
        if let Some(detail) = self.detail {
            text.put_slice(b"; detail=");
            text.put_slice(detail.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n5_3_words_of_x_cache() {
        let none = Member::default();
        let went = |why| Member { forwarded: Some(why), forwarded_status: Some(200), ..none };
        for (member, wanted) in [
            (Member { hit: true, ..none }, "HIT"),
            (Member { hit: true, used: Used::Stale, ..none }, "STALE"),
            (Member { collapsed: true, ..went("uri-miss") }, "HIT"),
            (Member { used: Used::Stale, ..went("stale") }, "STALE"),
            (Member { used: Used::Revalidated, ..went("stale") }, "REVALIDATED"),
            (went("bypass"), "BYPASS"),
            (went("method"), "BYPASS"),
            (Member { stored: true, ..went("uri-miss") }, "MISS"),
            (went("vary-miss"), "MISS"),
            (went("miss"), "MISS"),
            (went("request"), "MISS"),
            (went("stale"), "MISS"),
            (went("partial"), "MISS"),
        ] {
            assert_eq!(member.word(), wanted, "{member:?}");
        }
    }

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
