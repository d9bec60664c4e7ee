//! `Cache-Status` (RFC 9211 2): the member that describes how this cache handled a request.

use bytes::BufMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fresh;
use crate::rendering::words::words;

pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The de-facto field `X-Cache`: the outcome in one word, as other caches report it. No specification defines it.
pub(crate) const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// How a stored response was used, where the parameters of the member do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Used {
    #[default]
    AsSaid,
    Stale,
    /// Revalidated: the upstream confirmed the stored response with a 304.
    Revalidated,
}

words! {
    /// The words that `X-Cache` can have.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum XCache {
        /// Served from a stored response, or from one that another request fetched.
        Hit => "HIT",
        /// Served from a stale stored response.
        Stale => "STALE",
        /// Served from a stored response that the upstream confirmed.
        Revalidated => "REVALIDATED",
        /// The request bypassed the cache.
        Bypass => "BYPASS",
        Miss => "MISS",
    }
}

/// Maximum length of a member without a key, in bytes.
const MAX_LENGTH: usize = 128;

/// The member of this cache. Parameters that are `None` or false are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// The response came from the cache without a request to the upstream (RFC 9211 2.1). Excludes `forwarded`.
    pub hit: bool,
    /// The reason why the request went to the upstream (RFC 9211 2.2).
    pub forwarded: Option<&'static str>,
    /// The status of the upstream's response (RFC 9211 2.3).
    pub forwarded_status: Option<u16>,
    /// Remaining freshness lifetime in seconds; negative if stale (RFC 9211 2.4).
    pub ttl: Option<i64>,
    /// Whether the response was stored (RFC 9211 2.5).
    pub stored: bool,
    /// Whether the request was collapsed with another request's fetch (RFC 9211 2.6).
    pub collapsed: bool,
    /// The cache key, for debugging (RFC 9211 2.7).
    pub key: Option<&'a str>,
    /// Additional detail, for debugging (RFC 9211 2.8).
    pub detail: Option<&'static str>,
    /// How a stored response was used; only `X-Cache` shows it.
    pub used: Used,
}

impl Member<'_> {
    /// Returns the member with a static lifetime, or `None` if it has a key.
    pub(crate) fn without_key(self) -> Option<Member<'static>> {
        let Member { hit, forwarded, forwarded_status, ttl, stored, collapsed, key, detail, used } = self;
        let without =
            Member { hit, forwarded, forwarded_status, ttl, stored, collapsed, key: None, detail, used };
        key.is_none().then_some(without)
    }

    /// Returns the word for `X-Cache`.
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

    /// Appends the `X-Cache` word, after the words of caches nearer to the origin.
    pub(crate) fn append_word(&self, headers: &mut HeaderMap) {
        headers.append(X_CACHE, HeaderValue::from_static(self.word()));
    }

    /// Appends the member. Caches nearer to the origin come first in the list (RFC 9211 2).
    pub(crate) fn append(&self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS, self.to_value());
    }

    /// Replaces all values of the field with the member.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(CACHE_STATUS, self.to_value());
    }

    fn to_value(self) -> HeaderValue {
        // Every parameter is printable, so this cannot fail.
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
            // An sf-string (RFC 9651 3.3.3): printable ASCII, with quotes and backslashes escaped.
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
