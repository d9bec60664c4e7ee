//! The cache key: decides which requests ask for the same thing (RFC 9111 2). It is stored and compared whole, and
//! every part is preceded by its length, so two different requests never have the same key.

use std::collections::HashSet;

use http::{HeaderMap, HeaderName, Method};

use super::canonical;
use crate::fields::{glob, query};

/// The partition key of a principal: the keyed hash of its credentials.
pub(crate) type Partition = [u8; 32];

/// The parts of a request that make up its cache key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// The name of the upstream that receives the request.
    pub upstream: &'a str,
    /// Hash of everything that decides who shares stored responses on the route: a change of these rules finds nothing
    /// of what was stored before.
    pub rules: u64,
    /// Number for the outcomes of the conditions that decided about the route; 0 if there were none.
    pub whens: u64,
    /// Whether the client connected with https.
    pub https: bool,
    /// Whether the route has scope "shared": a response stored under it is not used once the route no longer does.
    pub shared: bool,
    /// The authority as sent to the upstream.
    pub host: &'a [u8],
    /// The path as sent to the upstream: another spelling of it may get another response.
    pub path: &'a str,
    /// The query as received; [`write()`] sorts its parameters.
    pub query: Option<&'a str>,
    /// The only parameters that count; `None`: all parameters that are not ignored.
    pub only: Option<&'a [String]>,
    /// Patterns of parameters that do not count.
    pub ignored: &'a [String],
    /// The principal, on routes where each has its own copy.
    pub partition: Option<&'a Partition>,
    pub fields: &'a [HeaderName],
    /// The fields of the request.
    pub headers: &'a HeaderMap,
    /// Fields of a trusted proxy that upstreams route or build URLs by; they count if present.
    pub told: &'a [HeaderName],
    /// The Forwarded value of a trusted proxy without its addresses; empty if there is none.
    pub forwarded: &'a [u8],
    /// The hash of the request content and of the fields that describe it.
    pub content: Option<&'a [u8; 32]>,
}

fn part(key: &mut Vec<u8>, text: &[u8]) {
    // No part is longer than a request head, whose limit is far below 4 GiB.
    key.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    key.extend_from_slice(text);
}

/// The effect of query parameters that are not part of the key. The upstream still reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uncounted {
    None,
    /// The response may depend on them, so it is not stored.
    Some,
    /// The upstream may read one of them as a parameter that counts, so not even a stored response may be used.
    Confusable,
}

/// Writes the cache key of a request to `key`.
pub(crate) fn write(parts: &Parts<'_>, key: &mut Vec<u8>) -> Uncounted {
    key.clear();
    let flags = [parts.https, parts.partition.is_some(), parts.shared, parts.whens != 0];
    key.push(flags.iter().rev().fold(0, |bits, flag| bits << 1 | u8::from(*flag)));
    part(key, parts.upstream.as_bytes());
    key.extend_from_slice(&parts.rules.to_be_bytes());
    if parts.whens != 0 {
        key.extend_from_slice(&parts.whens.to_be_bytes());
    }
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

/// Returns whether a parameter is part of the key.
fn counts(parameter: &[u8], only: Option<&[String]>, ignored: &[String]) -> bool {
    let name = name(parameter);
    // An escaped name may be read as one that counts, and some upstreams also separate parameters at semicolons.
    if is_spelt(name) || parameter.contains(&b';') {
        return true;
    }
    only.map_or_else(|| !any(ignored, name), |only| any(only, name))
}

fn any(patterns: &[String], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| glob::matches(pattern.as_bytes(), name))
}

/// Returns whether a name sorts after another one, ignoring case as some upstreams do.
fn comes_after(one: &[u8], other: &[u8]) -> bool {
    one.iter().map(u8::to_ascii_lowercase).gt(other.iter().map(u8::to_ascii_lowercase))
}

/// Writes the parameters that count, sorted by name; parameters of the same name keep their order.
fn write_query(query: &str, only: Option<&[String]>, ignored: &[String], key: &mut Vec<u8>) -> Uncounted {
    let counts = |parameter: &&[u8]| counts(parameter, only, ignored);
    let start = key.len();
    part(key, b"");
    let mut first = true;
    let mut add = |parameter: &[u8], key: &mut Vec<u8>| {
        // An empty query differs from no query.
        key.push(if std::mem::take(&mut first) { b'?' } else { b'&' });
        key.extend_from_slice(parameter);
    };
    // Splitting bytes is far faster than splitting text.
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
        // An upstream may read two spellings of a name as one parameter with two values, whose order matters.
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
    // Without `only` an escaped name is part of the key as it is written, so it is confused with no other.
    if (uncounted || (spelt && only.is_some())) && is_confusable(query, only, ignored) {
        return Uncounted::Confusable;
    }
    if uncounted { Uncounted::Some } else { Uncounted::None }
}

/// Returns whether a name contains escapes.
fn is_spelt(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'%' | b'+'))
}

/// Returns whether an upstream may read a parameter outside the key as one that counts, or a parameter in the key as
/// another one. Those that count are the configured ones and those of this query. A parameter whose decoded name is one
/// of the key is that parameter for every upstream.
fn is_confusable(query: &str, only: Option<&[String]>, ignored: &[String]) -> bool {
    let all = || query.as_bytes().split(|byte| *byte == b'&').filter(|parameter| !parameter.is_empty());
    let is_plain = |parameter: &[u8]| counts(parameter, only, ignored) && !is_spelt(name(parameter));
    // Configured names are patterns; names of the query are not, and an asterisk in them is literal. Names of the
    // query are in a hash set, because a query may have very many of both kinds.
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

/// Returns the query without the parameters that do not count; `None` if none is left.
pub(crate) fn counted_query(query: &str, only: Option<&[String]>, ignored: &[String]) -> Option<String> {
    let counted = query.split('&').filter(|parameter| counts(parameter.as_bytes(), only, ignored));
    let counted: Vec<&str> = counted.collect();
    if counted.is_empty() { None } else { Some(counted.join("&")) }
}

/// The parts of a key that people are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown<'a> {
    /// Whether the client connected with https.
    pub https: bool,
    /// The principal whose own copy this is, if it is one principal's.
    pub principal: Option<&'a Partition>,
    pub upstream: &'a [u8],
    pub host: &'a [u8],
    /// The host that a trusted proxy reported beside `host`.
    pub told_host: Option<&'a [u8]>,
    pub path: &'a [u8],
    /// The parameters that count, sorted by name.
    pub query: &'a [u8],
}

impl Shown<'_> {
    /// Returns whether the key has this query, in any order of parameters and any percent-encoding.
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

/// Returns the hash of a principal as the access log shows it.
pub(crate) fn principal_hash(partition: &Partition) -> String {
    partition.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Parses a key that [`write()`] wrote.
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
    if flags & 8 != 0 {
        rest = rest.split_first_chunk::<8>()?.1;
    }
    let host = next(&mut rest)?;
    let path = next(&mut rest)?;
    let query = next(&mut rest)?;
    let query = query.strip_prefix(b"?").unwrap_or(query);
    let principal = if flags & 2 != 0 { Some(rest.first_chunk()?) } else { None };
    let told = host.iter().position(|byte| *byte == 0);
    let (host, told_host) = told.map_or((host, None), |at| (&host[..at], Some(&host[at + 1..])));
    Some(Shown { https: flags & 1 != 0, principal, upstream, host, told_host, path, query })
}

/// Hashes a request's method, its content and the fields that describe the content (RFC 10008 2.7). JSON that differs
/// only in white space or the order of members has the same hash, unless the request forbids transformation.
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
mod tests;
