//! The cache key: what makes two requests ask for the same (RFC 9111 2). It is kept and compared whole, every part
//! with its length before it, so that no two different requests have one key.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, Method};

use super::canonical;
use crate::fields::{glob, query};

/// The keyed hash of the credentials of a principal.
pub(crate) type Partition = [u8; 32];

/// What a key is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// The app that is asked.
    pub upstream: &'a str,
    /// Everything that decides who shares what under the route: what was stored under other rules is not found.
    pub rules: u64,
    /// Whether the client came by https.
    pub https: bool,
    /// Whether the route says that one copy is for all: what was stored so is never used where it says less.
    pub shared: bool,
    /// The authority, as the app gets it.
    pub host: &'a [u8],
    /// The path, as the app gets it: what spells it in another way may get another answer.
    pub path: &'a str,
    /// As it came; its parameters are sorted here.
    pub query: Option<&'a str>,
    /// The parameters that alone count; `None`: all but the ignored ones.
    pub only: Option<&'a [String]>,
    /// Patterns of the parameters that do not count.
    pub ignored: &'a [String],
    /// The principal, where copies are one for each.
    pub partition: Option<&'a Partition>,
    pub fields: &'a [HeaderName],
    /// The fields of the request.
    pub headers: &'a HeaderMap,
    /// Fields of a trusted proxy by which an app finds its way, in case they are there.
    pub told: &'a [HeaderName],
    /// What a trusted proxy says in Forwarded, but for addresses; empty where it says nothing.
    pub forwarded: &'a [u8],
    /// The hash of the content and what describes it.
    pub content: Option<&'a [u8; 32]>,
}

fn part(key: &mut Vec<u8>, text: &[u8]) {
    // No part is longer than a head, whose bound is far below 4 GiB.
    key.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend_from_slice(text);
}

/// What the parameters that are not part of the key mean for a request. The app reads them all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uncounted {
    None,
    /// The app's response may depend on them: it is stored under no key.
    Some,
    /// The app may read one of them as one that counts: not even what is stored may be the response.
    Confusable,
}

/// Writes the key of a request to `key`.
pub(crate) fn write(parts: &Parts<'_>, key: &mut Vec<u8>) -> Uncounted {
    key.clear();
    let flags = [parts.https, parts.partition.is_some(), parts.shared];
    key.push(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    part(key, parts.upstream.as_bytes());
    key.extend_from_slice(&parts.rules.to_be_bytes());
    part(key, parts.host);
    part(key, parts.path.as_bytes());
    let uncounted = match parts.query {
        None => {
            part(key, b"");
            Uncounted::None
        }
        Some(query) => write_query(query, parts.only, parts.ignored, key),
    };
    key.extend_from_slice(parts.partition.map_or(&[][..], |partition| &partition[..]));
    for name in parts.fields.iter().chain(parts.told) {
        part(key, name.as_str().as_bytes());
        let lines = || parts.headers.get_all(name).iter();
        key.extend_from_slice(&u32::try_from(lines().count()).unwrap_or(u32::MAX).to_be_bytes());
        lines().for_each(|line| part(key, line.as_bytes()));
    }
    if !parts.forwarded.is_empty() {
        part(key, b"forwarded");
        key.extend_from_slice(&1u32.to_be_bytes());
        part(key, parts.forwarded);
    }
    key.extend_from_slice(parts.content.map_or(&[][..], |content| &content[..]));
    uncounted
}

fn name(parameter: &[u8]) -> &[u8] {
    parameter.iter().position(|byte| *byte == b'=').map_or(parameter, |end| &parameter[..end])
}

/// Whether a parameter is part of the key.
fn counts(parameter: &[u8], only: Option<&[String]>, ignored: &[String]) -> bool {
    let name = name(parameter);
    // A name that can be read in two ways may be one that counts, and some apps separate at semicolons too.
    if is_spelt(name) || parameter.contains(&b';') {
        return true;
    }
    only.map_or_else(|| !any(ignored, name), |only| any(only, name))
}

fn any(patterns: &[String], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| glob::matches(pattern.as_bytes(), name))
}

/// Whether a name stands after another one, without regard to case, in which some apps take no difference.
fn comes_after(one: &[u8], other: &[u8]) -> bool {
    one.iter().map(u8::to_ascii_lowercase).gt(other.iter().map(u8::to_ascii_lowercase))
}

/// The parameters that count, in the order of their names; those of one name keep theirs.
fn write_query(query: &str, only: Option<&[String]>, ignored: &[String], key: &mut Vec<u8>) -> Uncounted {
    let counts = |parameter: &&[u8]| counts(parameter, only, ignored);
    let start = key.len();
    part(key, b"");
    let mut first = true;
    let mut add = |parameter: &[u8], key: &mut Vec<u8>| {
        // A query that holds nothing is not no query.
        key.push(if std::mem::take(&mut first) { b'?' } else { b'&' });
        key.extend_from_slice(parameter);
    };
    // Bytes are split far more quickly than text.
    let all = || query.as_bytes().split(|byte| *byte == b'&');
    let parameters = || all().filter(counts);
    let (mut sorted, mut uncounted, mut plain, mut spelt) = (true, false, true, false);
    let mut before = &b""[..];
    for parameter in all() {
        if !counts(&parameter) {
            uncounted = true;
            continue;
        }
        let name = name(parameter);
        sorted &= !comes_after(before, name);
        // Two spellings of one name may be two values of one parameter to the app: their order means something.
        plain &= name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        before = name;
        spelt |= is_spelt(name);
    }
    if sorted || !plain {
        parameters().for_each(|parameter| add(parameter, key));
    } else {
        let mut parameters: Vec<&[u8]> = parameters().collect();
        parameters.sort_by_key(|parameter| name(parameter).to_ascii_lowercase());
        parameters.into_iter().for_each(|parameter| add(parameter, key));
    }
    let length = u32::try_from(key.len() - start - 4).unwrap_or(u32::MAX).to_be_bytes();
    key[start..start + 4].copy_from_slice(&length);
    // Where all count but a few, one that is spelt in another way is in the key, and is read as no other.
    if (uncounted || (spelt && only.is_some())) && is_confusable(query, only, ignored) {
        return Uncounted::Confusable;
    }
    if uncounted { Uncounted::Some } else { Uncounted::None }
}

/// Whether a name is spelt with escapes.
fn is_spelt(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'%' | b'+'))
}

/// Whether a parameter can be read as one that counts although it does not, or as another one than it is in the key: one
/// that is named as part of the key, or one that is in this query. One that is a name of the key but for its escapes is
/// that parameter for every app.
fn is_confusable(query: &str, only: Option<&[String]>, ignored: &[String]) -> bool {
    let all = || query.as_bytes().split(|byte| *byte == b'&').filter(|parameter| !parameter.is_empty());
    let is_plain = |parameter: &[u8]| counts(parameter, only, ignored) && !is_spelt(name(parameter));
    // Names of the configuration are patterns, those of the query are not: an asterisk there is one. By their hashes, as a
    // query may have very many of both kinds.
    let named = only.unwrap_or_default().iter().flat_map(|name| query::folds(name.as_bytes()));
    let named: Vec<Vec<u8>> = named.collect();
    let there = all().filter(|parameter| is_plain(parameter)).map(name);
    let there: HashSet<Vec<u8>> = there.flat_map(query::folds).collect();
    let is_odd = |parameter: &&[u8]| match counts(parameter, only, ignored) {
        true => {
            let name = name(parameter);
            is_spelt(name) && only.is_some_and(|only| !any(only, &query::decoded(name)))
        }
        false => true,
    };
    all().filter(is_odd).any(|parameter| {
        let is_counted =
            |fold: &Vec<u8>| there.contains(fold) || named.iter().any(|name| glob::matches(name, fold));
        query::folds(name(parameter)).iter().any(is_counted)
    })
}

/// The query without the parameters that do not count; `None`: none is left.
pub(crate) fn counted_query(query: &str, only: Option<&[String]>, ignored: &[String]) -> Option<String> {
    let counted = query.split('&').filter(|parameter| counts(parameter.as_bytes(), only, ignored));
    let counted: Vec<&str> = counted.collect();
    if counted.is_empty() { None } else { Some(counted.join("&")) }
}

/// What a key says, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown<'a> {
    /// Whether the client came by https.
    pub https: bool,
    /// Whose it is, where it is one principal's.
    pub principal: Option<&'a Partition>,
    pub upstream: &'a [u8],
    pub host: &'a [u8],
    /// The one that trusted proxies tell of beside it.
    pub told_host: Option<&'a [u8]>,
    pub path: &'a [u8],
    /// The parameters that count, in order.
    pub query: &'a [u8],
}

impl Shown<'_> {
    /// Whether it is this query, in whatever order its parameters stand, and however they are spelt.
    pub(crate) fn is_query(&self, query: &str) -> bool {
        let parameters = |query: &[u8]| {
            let mut all: Vec<Vec<u8>> = query
                .split(|byte| *byte == b'&')
                .map(query::percent_decoded)
                .filter(|one| !one.is_empty())
                .collect();
            all.sort_unstable();
            all
        };
        parameters(query.as_bytes()) == parameters(self.query)
    }
}

/// The hash of a principal, as the access log has it.
pub(crate) fn principal_hash(partition: &Partition) -> String {
    partition.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a key that [`write()`] wrote.
pub(crate) fn read(key: &[u8]) -> Option<Shown<'_>> {
    fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (part, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        *rest = after;
        Some(part)
    }
    let (flags, mut rest) = key.split_first()?;
    let upstream = next(&mut rest)?;
    let (_, mut rest) = rest.split_first_chunk::<8>()?;
    let host = next(&mut rest)?;
    let path = next(&mut rest)?;
    let query = next(&mut rest)?;
    let query = query.strip_prefix(b"?").unwrap_or(query);
    let principal = if flags & 2 != 0 { Some(rest.first_chunk()?) } else { None };
    let told = host.iter().position(|byte| *byte == 0);
    let (host, told_host) = told.map_or((host, None), |at| (&host[..at], Some(&host[at + 1..])));
    Some(Shown { https: flags & 1 != 0, principal, upstream, host, told_host, path, query })
}

/// The hash of a request's method, its content and the fields that say what that is (RFC 10008 2.7). JSON that differs in
/// white space or the order of members alone is the same, unless the request wants nothing transformed.
pub(crate) fn content(method: &Method, headers: &HeaderMap, content: &[u8], transform: bool) -> [u8; 32] {
    use ring::digest::{Context, SHA256};
    let mut hash = Context::new(&SHA256);
    hash.update(method.as_str().as_bytes());
    hash.update(&[0]);
    for name in [http::header::CONTENT_TYPE, http::header::CONTENT_ENCODING, http::header::CONTENT_LANGUAGE] {
        for line in headers.get_all(&name) {
            hash.update(&(line.len() as u64).to_be_bytes());
            hash.update(line.as_bytes());
        }
        hash.update(&[0xff; 8]);
    }
    let kind = headers.get(http::header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let coded = headers.contains_key(http::header::CONTENT_ENCODING);
    match canonical::json(content).filter(|_| transform && !coded && canonical::is_json(kind)) {
        Some(canonical) => hash.update(&canonical),
        None => hash.update(content),
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts<'a>(path: &'a str, query: Option<&'a str>, headers: &'a HeaderMap) -> Parts<'a> {
        Parts {
            upstream: "upstream",
            rules: 1,
            https: false,
            shared: false,
            host: b"a",
            path,
            query,
            only: None,
            ignored: &[],
            partition: None,
            fields: &[],
            headers,
            told: &[],
            forwarded: &[],
            content: None,
        }
    }

    fn key(parts: &Parts<'_>) -> Vec<u8> {
        let mut key = Vec::new();
        write(parts, &mut key);
        key
    }

    /// CPU time of a key with this query, the best of five.
    fn cost(query: &str) -> f64 {
        use rustix::time::{ClockId, clock_gettime};
        let now = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
        };
        let (headers, ignored) = (HeaderMap::new(), ["utm_*".to_owned(), "*x*y".to_owned()]);
        let parts = Parts { ignored: &ignored, ..parts("/", Some(query), &headers) };
        let once = || {
            let since = now();
            std::hint::black_box(key(&parts));
            now() - since
        };
        (0..5).map(|_| once()).fold(f64::MAX, f64::min)
    }

    #[test]
    fn n3_1_queries_are_read_in_linear_time() {
        for part in ["?*b&utm_a&", "a&utm_&", "%61&a[b]&utm_a.b&", "x*****y&*x&", "b=1&a=1&"] {
            let of = |length: usize| {
                // Names that differ, so that none is found at once.
                let numbered = (0..).flat_map(|n| [part.replace('&', &format!("{n}&"))]);
                let mut text = String::new();
                numbered
                    .take_while(|piece| {
                        text.push_str(piece);
                        text.len() < length
                    })
                    .for_each(drop);
                text
            };
            let (small, large) = (cost(&of(8 * 1024)), cost(&of(64 * 1024)));
            assert!(
                large < 0.002 || large <= small * 12.0,
                "{part}: {small} s for 8 KiB, {large} s for 64 KiB"
            );
        }
    }

    #[test]
    fn queries() {
        let headers = HeaderMap::new();
        let ignored: Vec<String> = ["utm_*", "fbclid"].map(str::to_owned).to_vec();
        let only = ["page".to_owned()];
        for (one, other, wanted) in [
            (Some("a=1&b=2"), Some("b=2&a=1"), true),
            (Some("a=1&a=2"), Some("a=2&a=1"), false),
            (Some("a=1&utm_source=x"), Some("a=1"), true),
            (Some("fbclid=1"), None, true),
            (Some("a"), Some("a="), false),
            (Some("a=1&utm_x=1;b=2"), Some("a=1"), false),
            (Some("a=1&utm%5Fx=1"), Some("a=1"), false),
            (Some("a=1"), Some("a=1&b=2"), false),
            (Some(""), Some("a"), false),
        ] {
            let of = |query| key(&Parts { ignored: &ignored, ..parts("/", query, &headers) });
            assert_eq!(of(one) == of(other), wanted, "{one:?} {other:?}");
        }
        let of = |query| key(&Parts { only: Some(&only), ..parts("/", Some(query), &headers) });
        assert_eq!(of("page=1&x=2"), of("y=1&page=1"));
        assert_ne!(of("page=1"), of("page=2"));
        assert_ne!(of("p%61ge=1"), of(""));
    }

    #[test]
    fn n2_1_parameters_that_do_not_count_are_told() {
        let ignored: Vec<String> = ["utm_*", "fbclid"].map(str::to_owned).to_vec();
        let only: Vec<String> = ["page", "f.*"].map(str::to_owned).to_vec();
        use Uncounted::{Confusable, None as No, Some as Yes};
        let headers = HeaderMap::new();
        for (query, by, wanted, left) in [
            ("a=1", None, No, Some("a=1")),
            ("a=1&utm_x=2&b", None, Yes, Some("a=1&b")),
            ("utm_x=2&fbclid", None, Yes, None),
            ("b=1&utm_x;y=1", None, No, Some("b=1&utm_x;y=1")),
            ("utm.x=1&utm_x=2", None, Confusable, Some("utm.x=1")),
            ("Fbclid=1&fbclid=2", None, Confusable, Some("Fbclid=1")),
            ("page=1", Some(&only[..]), No, Some("page=1")),
            ("page=1&x=2", Some(&only), Yes, Some("page=1")),
            ("page=1&pages=2", Some(&only), Yes, Some("page=1")),
            ("page=1&page[]=2", Some(&only), Confusable, Some("page=1")),
            ("PAGE=1", Some(&only), Confusable, None),
            ("page.x=1", Some(&only), Confusable, None),
            ("f_x=1", Some(&only), Confusable, None),
            ("f[x]=1", Some(&only), Confusable, None),
            ("p%61ge=1", Some(&only), No, Some("p%61ge=1")),
            ("page%5B%5D=1", Some(&only), Confusable, Some("page%5B%5D=1")),
            ("page=1&+page=2", Some(&only), Confusable, Some("page=1&+page=2")),
            ("page%00x=1", Some(&only), Confusable, Some("page%00x=1")),
            ("%50age=1", Some(&only), Confusable, Some("%50age=1")),
            ("p%2561ge=1", Some(&only), Confusable, Some("p%2561ge=1")),
            ("oth%65r=1", Some(&only), No, Some("oth%65r=1")),
            ("utm%5Fx=1&utm_y=2", None, Yes, Some("utm%5Fx=1")),
            ("x=1&", Some(&only), Yes, None),
        ] {
            let mut key = Vec::new();
            let parts = Parts { ignored: &ignored, only: by, ..parts("/", Some(query), &headers) };
            assert_eq!(write(&parts, &mut key), wanted, "{query}");
            assert_eq!(counted_query(query, by, &ignored).as_deref(), left, "{query}");
        }
    }

    #[test]
    fn parts_that_count() {
        let mut headers = HeaderMap::new();
        headers.insert("x-a", "1".parse().unwrap());
        let none = HeaderMap::new();
        let plain = parts("/a", None, &none);
        let names = [HeaderName::from_static("x-a")];
        let (one, other) = ([1; 32], [2; 32]);
        let all = [
            key(&plain),
            key(&Parts { https: true, ..plain }),
            key(&Parts { shared: true, ..plain }),
            key(&Parts { upstream: "media", ..plain }),
            key(&Parts { rules: 2, ..plain }),
            key(&Parts { host: b"b", ..plain }),
            key(&Parts { host: b"A", ..plain }),
            key(&Parts { path: "/a/", ..plain }),
            key(&Parts { path: "/", query: Some("a"), ..plain }),
            key(&Parts { partition: Some(&one), ..plain }),
            key(&Parts { partition: Some(&other), ..plain }),
            key(&Parts { content: Some(&one), ..plain }),
            key(&Parts { fields: &names, ..plain }),
            key(&Parts { forwarded: b"proto=https", ..plain }),
            key(&Parts { forwarded: b"proto=http", ..plain }),
            key(&Parts { fields: &names, headers: &headers, ..plain }),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
    }

    #[test]
    fn keys_can_be_shown() {
        let headers = HeaderMap::new();
        let partition = [7; 32];
        let written = key(&Parts { partition: Some(&partition), ..parts("/a", Some("c=1&b=2"), &headers) });
        let shown = read(&written).unwrap();
        let wanted = Shown {
            https: false,
            principal: Some(&[7; 32]),
            told_host: None,
            upstream: b"upstream",
            host: b"a",
            path: b"/a",
            query: b"b=2&c=1",
        };
        assert_eq!(shown, wanted);
        assert!(shown.is_query("c=1&b=2") && !shown.is_query("c=1") && shown.is_query("b=%32&%63=1"));
        assert_eq!(read(&written[..9]), None);
    }

    #[test]
    fn contents() {
        let mut json = HeaderMap::new();
        json.insert("content-type", "application/json; charset=utf-8".parse().unwrap());
        let mut text = HeaderMap::new();
        text.insert("content-type", "text/plain".parse().unwrap());
        let (one, other) = (&b"{\"a\": 1, \"b\":[2]}"[..], &b"{\"b\":[2],\"a\":1}"[..]);
        assert_eq!(content(&Method::POST, &json, one, true), content(&Method::POST, &json, other, true));
        assert_ne!(content(&Method::POST, &json, one, false), content(&Method::POST, &json, other, false));
        assert_ne!(content(&Method::POST, &text, one, true), content(&Method::POST, &text, other, true));
        assert_ne!(content(&Method::POST, &text, one, true), content(&Method::POST, &json, one, true));
        assert_ne!(content(&Method::POST, &text, one, true), content(&Method::PUT, &text, one, true));
    }

    proptest! {
        #[test]
        fn different_requests_have_different_keys(
            one in ("(/[ab]{0,2}){1,3}", proptest::option::of("[ab]{1,2}")),
            other in ("(/[ab]{0,2}){1,3}", proptest::option::of("[ab]{1,2}")),
        ) {
            let headers = HeaderMap::new();
            let of = |(path, query): &(String, Option<String>)| key(&parts(path, query.as_deref(), &headers));
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }
}
