//! `Cache-Control` (RFC 9111 5.2) of requests and responses as types, and the targeted fields that replace it for one
//! kind of cache (RFC 9213).

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::list;
use super::structured::{self, Value};

/// Maximum number of seconds; larger values are capped. RFC 9111 1.2.2 asks for at least 2^31.
const MAX_SECONDS: u64 = 1 << 31;

/// A directive: its name as written, and the text after `=`, quotes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Directive<'a> {
    /// The name as written; compare it with [`Directive::is`].
    pub name: &'a [u8],
    /// The argument; `None` if there is no `=`.
    pub argument: Option<&'a [u8]>,
}

impl Directive<'_> {
    /// Compares the name with `name`, ignoring case (RFC 9111 5.2).
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Returns the argument without quotes. A recipient must accept both the token and the quoted form (RFC 9111 5.2).
    fn unquoted(&self) -> Option<&[u8]> {
        let argument = self.argument?;
        Some(argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument))
    }

    /// Parses the argument as delta-seconds (RFC 9111 1.2.2); `None` if it is missing or malformed.
    fn seconds(&self) -> Option<u64> {
        let digits = self.unquoted()?;
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        // A number too large to parse is still a valid, very large number.
        let value = std::str::from_utf8(digits).ok()?.parse().unwrap_or(MAX_SECONDS);
        Some(value.min(MAX_SECONDS))
    }
}

/// Iterates over the directives of a message, in order.
pub(crate) fn directives(headers: &HeaderMap) -> impl Iterator<Item = Directive<'_>> {
    list::elements_in_field(headers, &header::CACHE_CONTROL).map(|element| {
        let mut parts = element.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default().trim_ascii();
        Directive { name, argument: parts.next().map(<[u8]>::trim_ascii) }
    })
}

/// Returns whether a message has a directive, with or without an argument.
pub(crate) fn has(headers: &HeaderMap, name: &str) -> bool {
    directives(headers).any(|directive| directive.is(name))
}

/// A directive that applies either to the whole response or to the fields it lists, like `no-cache` and `private`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listed {
    #[default]
    Absent,
    /// The directive applies to the whole response.
    All,
    /// The directive applies only to these fields.
    Fields(Vec<HeaderName>),
}

impl Listed {
    /// Returns whether the directive applies to the whole response.
    pub(crate) fn is_all(&self) -> bool {
        *self == Listed::All
    }

    /// Returns the fields that the directive lists; empty if it applies to the whole response or is absent.
    pub(crate) fn fields(&self) -> &[HeaderName] {
        match self {
            Listed::Fields(names) => names,
            Listed::Absent | Listed::All => &[],
        }
    }

    fn add(&mut self, argument: Option<&[u8]>) {
        // `private=1` is a mistaken way to write `private`; it does not name a field `1`.
        let is_flag = |text: &&[u8]| {
            text.iter().all(u8::is_ascii_digit)
                || text.eq_ignore_ascii_case(b"true")
                || text.eq_ignore_ascii_case(b"yes")
        };
        let argument = argument.filter(|text| !is_flag(text));
        let names = |text: &[u8]| -> Option<Vec<HeaderName>> {
            list::elements(text).map(|name| HeaderName::from_bytes(name).ok()).collect()
        };
        // An argument that is no list of field names makes the directive apply to the whole response, the stricter
        // reading.
        let names = argument.and_then(names).filter(|names| !names.is_empty());
        match (&mut *self, names) {
            (Listed::All, _) => {}
            (_, None) => *self = Listed::All,
            (Listed::Fields(known), Some(names)) => known.extend(names),
            (Listed::Absent, Some(names)) => *self = Listed::Fields(names),
        }
    }
}

/// A number of seconds that a message may give in several directives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Delta(Option<u64>);

impl Delta {
    /// Adds a value. A malformed value, or two different values, count as stale (RFC 9111 4.2.1).
    fn add(&mut self, seconds: Option<u64>) {
        let seconds = seconds.unwrap_or(0);
        self.0 = match self.0 {
            Some(before) if before != seconds => Some(0),
            _ => Some(seconds),
        };
    }

    fn get(self) -> Option<Duration> {
        self.0.map(Duration::from_secs)
    }
}

/// The cache directives of a response (RFC 9111 5.2.2, RFC 5861, RFC 8246).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseDirectives {
    /// Whether the directives come from a targeted field. `Expires` is ignored then (RFC 9213 2.1).
    pub targeted: bool,
    /// Freshness lifetime for any cache (RFC 9111 5.2.2.1).
    pub max_age: Option<Duration>,
    /// Freshness lifetime for shared caches (RFC 9111 5.2.2.10).
    pub s_maxage: Option<Duration>,
    /// Whether the response, or some of its fields, may be reused only after revalidation (RFC 9111 5.2.2.4).
    pub no_cache: Listed,
    /// Whether no cache may store the response (RFC 9111 5.2.2.5).
    pub no_store: bool,
    /// Whether shared caches must not store the response, or some of its fields (RFC 9111 5.2.2.7).
    pub private: Listed,
    /// Whether a shared cache may store the response even where it otherwise must not (RFC 9111 5.2.2.9).
    pub public: bool,
    /// Whether a cache must not use the response stale (RFC 9111 5.2.2.2).
    pub must_revalidate: bool,
    /// Whether a shared cache must not use the response stale (RFC 9111 5.2.2.8).
    pub proxy_revalidate: bool,
    /// Whether a cache may store the response only if it understands the status (RFC 9111 5.2.2.3).
    pub must_understand: bool,
    /// Time for which a stale response may be used during background revalidation (RFC 5861 3).
    pub stale_while_revalidate: Option<Duration>,
    /// Time for which a stale response may be used in place of an error (RFC 5861 4).
    pub stale_if_error: Option<Duration>,
}

impl ResponseDirectives {
    /// Reads the directives of a response from the first of the `targeted` fields that is present and valid, else from
    /// `Cache-Control`.
    pub(crate) fn from_headers(headers: &HeaderMap, targeted: &[HeaderName]) -> ResponseDirectives {
        let by_target = targeted.iter().find_map(|name| ResponseDirectives::targeted(headers, name));
        by_target.unwrap_or_else(|| {
            let mut found = ResponseDirectives::default();
            let mut told: [Delta; 4] = Default::default();
            for directive in directives(headers) {
                found.take(&directive, &mut told);
            }
            found.with(told)
        })
    }

    fn with(mut self, told: [Delta; 4]) -> ResponseDirectives {
        let [max_age, s_maxage, while_revalidate, if_error] = told.map(Delta::get);
        (self.max_age, self.s_maxage) = (max_age, s_maxage);
        (self.stale_while_revalidate, self.stale_if_error) = (while_revalidate, if_error);
        self
    }

    fn take(&mut self, directive: &Directive<'_>, told: &mut [Delta; 4]) {
        let [max_age, s_maxage, while_revalidate, if_error] = told;
        if directive.name.contains(&b'"') {
            // The intended directive is unknown, so the strictest reading is the safe choice.
            self.no_store = true;
        }
        let mut name = [0u8; 24];
        let Some(name) = name.get_mut(..directive.name.len()) else { return };
        name.copy_from_slice(directive.name);
        name.make_ascii_lowercase();
        match &*name {
            b"max-age" => max_age.add(directive.seconds()),
            b"s-maxage" => s_maxage.add(directive.seconds()),
            b"stale-while-revalidate" => while_revalidate.add(directive.seconds()),
            b"stale-if-error" => if_error.add(directive.seconds()),
            b"no-cache" => self.no_cache.add(directive.unquoted()),
            b"private" => self.private.add(directive.unquoted()),
            b"no-store" => self.no_store = true,
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            _ => {}
        }
    }

    /// Reads a targeted field, which is a Dictionary (RFC 9213 2.1); `None` if it is missing, empty or malformed. A
    /// value whose type does not fit its directive is ignored.
    fn targeted(headers: &HeaderMap, name: &HeaderName) -> Option<ResponseDirectives> {
        let members = structured::dictionary(headers, name)?;
        if members.is_empty() {
            return None;
        }
        let mut found = ResponseDirectives { targeted: true, ..Default::default() };
        for (name, value) in members {
            let seconds = match &value {
                Value::Integer(seconds) => u64::try_from(*seconds).ok().or(Some(0)),
                _ => None,
            };
            let seconds = seconds.map(|seconds| Duration::from_secs(seconds.min(MAX_SECONDS)));
            let flag = value == Value::Boolean(true);
            let mut listed = Listed::Absent;
            match &value {
                Value::Boolean(true) => listed.add(None),
                Value::Text(names) => listed.add(Some(names.as_bytes())),
                _ => {}
            }
            match name.as_str() {
                "max-age" => found.max_age = seconds,
                "s-maxage" => found.s_maxage = seconds,
                "stale-while-revalidate" => found.stale_while_revalidate = seconds,
                "stale-if-error" => found.stale_if_error = seconds,
                "no-cache" => found.no_cache = listed,
                "private" => found.private = listed,
                "no-store" => found.no_store = flag,
                "public" => found.public = flag,
                "must-revalidate" => found.must_revalidate = flag,
                "proxy-revalidate" => found.proxy_revalidate = flag,
                "must-understand" => found.must_understand = flag,
                _ => {}
            }
        }
        Some(found)
    }
}

/// The staleness that a request accepts (RFC 9111 5.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MaxStale {
    Any,
    For(Duration),
}

/// The cache directives of a request (RFC 9111 5.2.1, 5.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestDirectives {
    /// Maximum age of an acceptable response (RFC 9111 5.2.1.1).
    pub max_age: Option<Duration>,
    /// Maximum staleness of an acceptable response (RFC 9111 5.2.1.2).
    pub max_stale: Option<MaxStale>,
    /// Minimum time that the response must remain fresh (RFC 9111 5.2.1.3).
    pub min_fresh: Option<Duration>,
    /// Whether the client requires revalidation (RFC 9111 5.2.1.4). `Pragma: no-cache` counts if `Cache-Control` is
    /// absent (5.4).
    pub no_cache: bool,
    /// Whether the response must not be stored (RFC 9111 5.2.1.5).
    pub no_store: bool,
    /// Whether the client accepts only a stored response (RFC 9111 5.2.1.7).
    pub only_if_cached: bool,
}

impl RequestDirectives {
    pub(crate) fn from_headers(headers: &HeaderMap) -> RequestDirectives {
        let mut found = RequestDirectives::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            let says = |element: &[u8]| element.eq_ignore_ascii_case(b"no-cache");
            found.no_cache = list::elements_in_field(headers, &header::PRAGMA).any(says);
            return found;
        }
        let (mut max_age, mut min_fresh) = (Delta::default(), Delta::default());
        for directive in directives(headers) {
            if directive.is("max-age") {
                max_age.add(directive.seconds());
            } else if directive.is("min-fresh") {
                min_fresh.add(directive.seconds().or(Some(MAX_SECONDS)));
            } else if directive.is("max-stale") {
                found.max_stale = Some(match directive.argument {
                    None => MaxStale::Any,
                    // A malformed argument allows no staleness.
                    Some(_) => MaxStale::For(Duration::from_secs(directive.seconds().unwrap_or(0))),
                });
            } else if directive.is("no-cache") {
                found.no_cache = true;
            } else if directive.is("no-store") {
                found.no_store = true;
            } else if directive.is("only-if-cached") {
                found.only_if_cached = true;
            }
        }
        (found.max_age, found.min_fresh) = (max_age.get(), min_fresh.get());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn directives_of_all_lines() {
        let headers = lines(&[
            ("cache-control", "Public, max-age=60"),
            ("cache-control", "private=\"a, no-store\" , no-transform"),
        ]);
        let names: Vec<&[u8]> = directives(&headers).map(|directive| directive.name).collect();
        assert_eq!(names, [&b"Public"[..], b"max-age", b"private", b"no-transform"]);
        assert!(has(&headers, "public") && has(&headers, "private") && !has(&headers, "no-store"));
        let age = directives(&headers).find(|directive| directive.is("max-age"));
        assert_eq!(age.and_then(|directive| directive.argument), Some(&b"60"[..]));
    }

    #[test]
    fn lifetimes_of_responses() {
        for (value, wanted) in [
            ("max-age=60", Some(60)),
            ("MAX-AGE=60", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age = 60", Some(60)),
            ("max-age=060", Some(60)),
            ("max-age=60, max-age=60", Some(60)),
            ("max-age=60, max-age=30", Some(0)),
            ("max-age=60, max-age=x", Some(0)),
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age=99999999999999999999999", Some(MAX_SECONDS)),
            ("x-max-age=60", None),
            ("private=\"max-age=60\"", None),
            ("", None),
        ] {
            let found = ResponseDirectives::from_headers(&lines(&[("cache-control", value)]), &[]);
            assert_eq!(found.max_age, wanted.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn fields_that_directives_are_about() {
        let names = |names: &[&'static str]| {
            Listed::Fields(names.iter().copied().map(HeaderName::from_static).collect())
        };
        for (value, wanted) in [
            ("no-cache", Listed::All),
            ("no-cache=\"Set-Cookie\"", names(&["set-cookie"])),
            ("no-cache=set-cookie", names(&["set-cookie"])),
            ("no-cache=\"a, b\", no-cache=c", names(&["a", "b", "c"])),
            ("no-cache=\"a\", no-cache", Listed::All),
            ("no-cache, no-cache=\"a\"", Listed::All),
            ("no-cache=\"\"", Listed::All),
            ("no-cache=\"a b\"", Listed::All),
            ("no-cache=1", Listed::All),
            ("no-cache=true", Listed::All),
            ("x=\"never closed, no-cache", Listed::All),
            ("public", Listed::Absent),
        ] {
            let found = ResponseDirectives::from_headers(&lines(&[("cache-control", value)]), &[]);
            assert_eq!(found.no_cache, wanted, "{value}");
            let private = value.replace("no-cache", "private");
            let found = ResponseDirectives::from_headers(&lines(&[("cache-control", &private)]), &[]);
            assert_eq!(found.private, wanted, "{private}");
        }
    }

    #[test]
    fn targeted_fields_take_the_place() {
        let own = HeaderName::from_static("pillion-cache-control");
        let cdn = HeaderName::from_static("cdn-cache-control");
        let targets = [own, cdn];
        for (fields, max_age, targeted) in [
            (&[("cache-control", "max-age=1")][..], Some(1), false),
            (&[("cache-control", "max-age=1"), ("cdn-cache-control", "max-age=2")], Some(2), true),
            (&[("pillion-cache-control", "max-age=3"), ("cdn-cache-control", "max-age=2")], Some(3), true),
            // A field that is malformed or empty counts as missing.
            (&[("pillion-cache-control", "max-age=3,"), ("cdn-cache-control", "max-age=2")], Some(2), true),
            (&[("pillion-cache-control", ""), ("cache-control", "max-age=1")], Some(1), false),
            (&[("pillion-cache-control", "Max-Age=3"), ("cache-control", "max-age=1")], Some(1), false),
            // A value of the wrong type is ignored.
            (&[("pillion-cache-control", "max-age=\"3\""), ("cache-control", "max-age=1")], None, true),
            (&[("pillion-cache-control", "no-store"), ("cache-control", "max-age=1")], None, true),
            (&[("pillion-cache-control", "max-age=3, max-age=4")], Some(4), true),
            (&[("pillion-cache-control", "max-age=-3")], Some(0), true),
        ] {
            let found = ResponseDirectives::from_headers(&lines(fields), &targets);
            assert_eq!(found.max_age, max_age.map(Duration::from_secs), "{fields:?}");
            assert_eq!(found.targeted, targeted, "{fields:?}");
        }
        let found = ResponseDirectives::from_headers(&lines(&[("cdn-cache-control", "max-age=2")]), &[]);
        assert_eq!(found, ResponseDirectives::default(), "not obeyed unless asked for");
    }

    #[test]
    fn what_requests_say() {
        let of = |fields: &[(&'static str, &str)]| RequestDirectives::from_headers(&lines(fields));
        assert!(of(&[("pragma", "no-cache")]).no_cache);
        assert!(!of(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]).no_cache, "5.4");
        assert!(of(&[("cache-control", "No-Cache")]).no_cache);
        assert_eq!(of(&[("cache-control", "max-stale")]).max_stale, Some(MaxStale::Any));
        let for_five = Some(MaxStale::For(Duration::from_secs(5)));
        assert_eq!(of(&[("cache-control", "max-stale=5")]).max_stale, for_five);
        assert_eq!(of(&[("cache-control", "max-stale=x")]).max_stale, Some(MaxStale::For(Duration::ZERO)));
        assert_eq!(of(&[("cache-control", "max-age=x")]).max_age, Some(Duration::ZERO));
        assert!(of(&[("cache-control", "only-if-cached, no-store")]).only_if_cached);
        let min_fresh = of(&[("cache-control", "min-fresh=x")]).min_fresh;
        assert_eq!(min_fresh, Some(Duration::from_secs(MAX_SECONDS)), "more than anything has");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = http::HeaderValue::from_bytes(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(header::CACHE_CONTROL, value.clone());
                headers.insert("cdn-cache-control", value);
                let _ = ResponseDirectives::from_headers(&headers, &[HeaderName::from_static("cdn-cache-control")]);
                let _ = RequestDirectives::from_headers(&headers);
            }
        }
    }
}
