//! `X-Forwarded-*` and `Forwarded` (RFC 7239): which address is the client's, and which fields tell the upstream.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::list;

/// De-facto standard: the chain of addresses of the client and the proxies.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// De-facto standard: the scheme that the client used.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// De-facto standard: the `Host` that the client sent.
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Prefix of the pseudonym that every Pillion uses in `Via`.
pub(crate) const PSEUDONYM: &str = "pillion";

/// Returns this process's pseudonym in `Via`. It is random, so that the process can tell its own looping request from a
/// request that passed another Pillion.
pub(crate) fn pseudonym() -> &'static str {
    static OURS: LazyLock<String> = LazyLock::new(|| format!("{PSEUDONYM}-{:016x}", fastrand::u64(..)));
    &OURS
}

/// Returns whether proxies use a field to tell apps about clients. The prefix covers more fields than any list.
pub(crate) fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.starts_with(['x', 'f']) {
        return false;
    }
    // CGI and WSGI apps cannot tell `X_Forwarded_For` from `X-Forwarded-For`.
    let spelt = name.contains('_').then(|| name.replace('_', "-"));
    let name = spelt.as_deref().unwrap_or(name);
    name.starts_with("x-forwarded-") || name == "x-real-ip" || name == "forwarded"
}

/// Maximum number of hops that are examined in a chain.
const MAX_HOPS: usize = 64;

/// Returns the client's address: the rightmost address of the chain that is no trusted proxy. Addresses left of it are
/// not trusted, because the client may have written them.
pub(crate) fn client_ip(headers: &HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    believed(headers, peer, trusts).0
}

/// Returns the client's address and its position in the chain, counted from the right. Position 0 is the last element,
/// or stands for the peer if the chain names no address.
fn believed(headers: &HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> (IpAddr, usize) {
    if !trusts(peer) {
        return (peer, 0);
    }
    let chain = if headers.contains_key(X_FORWARDED_FOR) {
        hops(headers, &X_FORWARDED_FOR, parse_hop)
    } else {
        hops(headers, &http::header::FORWARDED, parse_element)
    };
    let mut client = (peer, 0);
    for (at, hop) in chain.into_iter().rev().take(MAX_HOPS).enumerate() {
        // A hop that is unreadable or hidden ends the part of the chain that can be trusted.
        let Some(hop) = hop else { break };
        client = (hop, at);
        if !trusts(hop) {
            break;
        }
    }
    client
}

/// Returns whether the trusted proxies say that the client used https; `None` if they do not say.
///
/// Proxies append to `X-Forwarded-Proto` as they append to `X-Forwarded-For`. The element about the client is therefore
/// as far from the right as the client's address; the client may have written the elements left of it. Some proxies set
/// a single value instead, which is about the client, so the leftmost element of a shorter list counts. Without that
/// field, the element of `Forwarded` at the same position counts (RFC 7239 5.4).
pub(crate) fn told_https(headers: &HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> Option<bool> {
    let is_there = |name: &HeaderName| headers.keys().any(|key| key == name);
    let (protos, elements) = (is_there(&X_FORWARDED_PROTO), is_there(&http::header::FORWARDED));
    if !protos && !elements {
        return None;
    }
    let (_, at) = believed(headers, peer, trusts);
    let told = if protos { from_right(headers, &X_FORWARDED_PROTO, at, Some) } else { None };
    let told = told.or_else(|| from_right(headers, &http::header::FORWARDED, at, proto_of_element));
    told.map(is_https)
}

/// Returns the part that `read` extracts from the list element at position `at` from the right, or from the leftmost
/// element of a shorter list. Empty elements are skipped (RFC 9110 5.6.1.2).
fn from_right<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    at: usize,
    read: fn(&'h str) -> Option<&'h str>,
) -> Option<&'h str> {
    let lines = headers.get_all(name).iter().rev();
    let elements = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',').map(str::trim));
    elements.filter(|element| !element.is_empty()).take(at + 1).last().and_then(read)
}

/// Returns the `proto` parameter of one element of `Forwarded`.
fn proto_of_element(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.trim().eq_ignore_ascii_case("proto").then(|| value.trim().trim_matches('"'))
    })
}

/// Returns whether a scheme means TLS. Some proxies report WebSocket's own schemes (RFC 6455 3) for the same transport.
fn is_https(proto: &str) -> bool {
    let proto = proto.trim_matches('"');
    proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss")
}

/// Returns the HTTP scheme for a WebSocket scheme, because apps compare only with `https`.
fn plain_scheme(proto: &[u8]) -> Option<&'static str> {
    match proto {
        [b'w' | b'W', b's' | b'S'] => Some("http"),
        [b'w' | b'W', b's' | b'S', b's' | b'S'] => Some("https"),
        _ => None,
    }
}

/// Returns whether a field describes the client with a single value, and becomes a list when a proxy appends to it.
fn is_single(name: &HeaderName) -> bool {
    let said = name.as_str().strip_prefix("x-forwarded-");
    said.is_some_and(|said| matches!(said, "proto" | "host" | "port" | "scheme" | "ssl"))
}

/// Reduces the lists of a trusted proxy to the trusted element, found as in [`told_https`], because apps read the
/// leftmost element, which the client may have written. Fields with a single meaning keep one value. `Forwarded` keeps
/// its chain of addresses, as `X-Forwarded-For` does, since an app may trust proxies that Pillion does not know. Its
/// elements left of the trusted one lose all other parameters.
pub(crate) fn keep_believed(headers: &mut HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) {
    // Most requests have no list and return here without an allocation.
    let mut lists: Vec<HeaderName> = Vec::new();
    let mut last: Option<&HeaderName> = None;
    for (name, value) in &*headers {
        let is_told = *name == http::header::FORWARDED || is_single(name);
        // All lines of a field are adjacent in the map's iteration.
        let is_list = last == Some(name) || value.as_bytes().contains(&b',');
        if is_told && (is_list || plain_scheme(value.as_bytes()).is_some()) && lists.last() != Some(name) {
            lists.push(name.clone());
        }
        last = Some(name);
    }
    if lists.is_empty() {
        return;
    }
    let (_, at) = believed(headers, peer, trusts);
    for name in lists {
        let kept = match name == http::header::FORWARDED {
            true => chain_up_to(headers, at),
            false => from_right(headers, &name, at, Some)
                .map(|said| plain_scheme(said.as_bytes()).unwrap_or(said).to_owned()),
        };
        match kept.and_then(|kept| HeaderValue::from_str(&kept).ok()) {
            Some(kept) => drop(headers.insert(name, kept)),
            None => drop(headers.remove(name)),
        }
    }
}

/// Rebuilds `Forwarded`: elements left of position `at` from the right keep only their address. Those elements are
/// written anew, because an unclosed quote would hide the next element from some parsers.
fn chain_up_to(headers: &HeaderMap, at: usize) -> Option<String> {
    let lines = headers.get_all(http::header::FORWARDED).iter().rev();
    let elements = lines.flat_map(|line| line.to_str().unwrap_or("").rsplit(',').map(str::trim));
    let elements = elements.filter(|element| !element.is_empty()).enumerate();
    let mut shown: Vec<String> = elements
        .filter_map(|(place, element)| match place <= at {
            true => Some(element.to_owned()),
            false => has_pair(element, "for").then(|| for_pair(parse_element(element))),
        })
        .collect();
    shown.reverse();
    (!shown.is_empty()).then(|| shown.join(", "))
}

fn has_pair(element: &str, wanted: &str) -> bool {
    let mut names = element.split(';').filter_map(|pair| pair.split_once('='));
    names.any(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))
}

/// Formats a `for` parameter. IPv6 addresses are quoted, and an unreadable address becomes `unknown` (RFC 7239 4, 6).
fn for_pair(ip: Option<IpAddr>) -> String {
    match ip {
        Some(IpAddr::V4(ip)) => format!("for={ip}"),
        Some(IpAddr::V6(ip)) => format!("for=\"[{ip}]\""),
        None => "for=unknown".to_owned(),
    }
}

fn hops(headers: &HeaderMap, name: &HeaderName, parse: fn(&str) -> Option<IpAddr>) -> Vec<Option<IpAddr>> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(|hop| parse(hop.trim()))
        .collect()
}

/// Parses an address with or without brackets and port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let ip = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse());
    ip.ok().map(|ip| ip.to_canonical())
}

/// Returns the address in the `for` parameter of one element of `Forwarded`.
fn parse_element(element: &str) -> Option<IpAddr> {
    let pair = element
        .split(';')
        .map(str::trim)
        .find(|pair| pair.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("for=")))?;
    parse_hop(pair[4..].trim_matches('"'))
}

/// Converts `Forwarded` to the values of `X-Forwarded-For` and `X-Forwarded-Host`, for apps that read only those behind
/// a proxy that writes only `Forwarded`. Hidden hops become `unknown`. The host is that of the nearest hop that names
/// one.
pub(crate) fn in_older_words(headers: &HeaderMap) -> (String, Option<HeaderValue>) {
    let hops = hops(headers, &http::header::FORWARDED, parse_element);
    let shown = hops.iter().map(|hop| hop.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string()));
    let elements = headers.get_all(http::header::FORWARDED).iter();
    let elements = elements.flat_map(|value| value.to_str().unwrap_or("").split(','));
    let mut hosts = elements.filter_map(|element| {
        let pair = element
            .split(';')
            .map(str::trim)
            .find(|pair| pair.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("host=")))?;
        HeaderValue::from_str(pair.get(5..)?.trim_matches('"')).ok()
    });
    (shown.collect::<Vec<_>>().join(", "), hosts.next_back())
}

/// Returns `Forwarded` without the addresses, of which one stored response would see many: `for` and `by` are left out,
/// parameter names are in lower case, and elements without other parameters are dropped.
pub(crate) fn without_addresses(headers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::new();
    for element in list::elements_in_field(headers, &http::header::FORWARDED) {
        let start = text.len();
        for pair in list::split(element, b';') {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at(end);
            let name = name.trim_ascii().to_ascii_lowercase();
            if pair.is_empty() || name == b"for" || name == b"by" {
                continue;
            }
            text.extend_from_slice(if text.len() == start { b"," } else { b";" });
            text.extend_from_slice(&name);
            text.extend_from_slice(value);
        }
    }
    text
}

/// Formats Pillion's own element of `Forwarded`. IPv6 addresses and hosts with a port are quoted (RFC 7239 4, 6).
pub(crate) fn element(client: IpAddr, host: &HeaderValue, https: bool) -> String {
    let mut text = for_pair(Some(client));
    if let Ok(host) = host.to_str()
        && !host.is_empty()
    {
        let quoted =
            !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let quote = if quoted { "\"" } else { "" };
        let _ = write!(text, ";host={quote}{host}{quote}");
    }
    text.push_str(if https { ";proto=https" } else { ";proto=http" });
    text
}

/// Returns Pillion's element of `Via` (RFC 9110 7.6.3) for a request received in `version`.
pub(crate) fn via(version: Version) -> &'static str {
    static ELEMENTS: LazyLock<[String; 3]> =
        LazyLock::new(|| ["2", "1.0", "1.1"].map(|version| format!("{version} {}", pseudonym())));
    let [http2, http10, http11] = &*ELEMENTS;
    match version {
        Version::HTTP_2 => http2,
        Version::HTTP_10 => http10,
        _ => http11,
    }
}

/// Returns the value of `X-Forwarded-Proto`.
pub(crate) fn proto(https: bool) -> HeaderValue {
    HeaderValue::from_static(if https { "https" } else { "http" })
}

/// The forwarding fields about a client that is no trusted proxy, prepared once for several requests.
#[derive(Debug)]
pub(crate) struct ForwardedFields {
    host: HeaderValue,
    https: bool,
    version: Version,
    client: HeaderValue,
    forwarded: HeaderValue,
    /// The fields as the lines of an HTTP/1 head.
    lines: Vec<u8>,
}

impl ForwardedFields {
    /// Prepares the fields for one client and one `Host`.
    pub(crate) fn new(client: IpAddr, host: &[u8], https: bool, version: Version) -> ForwardedFields {
        // Copies the host: a slice would keep the whole request head in memory for as long as the connection lasts.
        let host = HeaderValue::from_bytes(host).unwrap_or_else(|_| HeaderValue::from_static(""));
        let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        let (client, forwarded) = (value(&client.to_string()), value(&element(client, &host, https)));
        let mut fields = ForwardedFields { host, https, version, client, forwarded, lines: Vec::new() };
        let mut headers = HeaderMap::new();
        fields.insert_into(&mut headers, true);
        for (name, value) in &headers {
            fields.lines.extend_from_slice(name.as_str().as_bytes());
            fields.lines.extend_from_slice(b": ");
            fields.lines.extend_from_slice(value.as_bytes());
            fields.lines.extend_from_slice(b"\r\n");
        }
        fields
    }

    /// Returns whether the fields were made for a request with these properties.
    pub(crate) fn is_for(&self, host: &[u8], https: bool, version: Version) -> bool {
        self.host.as_bytes() == host && self.https == https && self.version == version
    }

    /// Returns the fields as the lines of an HTTP/1 head.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Inserts the fields, and replaces existing values.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap, with_via: bool) {
        headers.insert(X_FORWARDED_FOR, self.client.clone());
        headers.insert(http::header::FORWARDED, self.forwarded.clone());
        headers.insert(X_FORWARDED_PROTO, proto(self.https));
        if !self.host.is_empty() {
            headers.insert(X_FORWARDED_HOST, self.host.clone());
        }
        if with_via {
            headers.insert(http::header::VIA, HeaderValue::from_static(via(self.version)));
        }
    }
}

/// Appends to a list field, and joins all its lines to one.
pub(crate) fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let mut list = String::new();
    for line in headers.get_all(&name) {
        if let Ok(line) = line.to_str() {
            list.push_str(line);
            list.push_str(", ");
        }
    }
    list.push_str(value);
    if let Ok(list) = HeaderValue::from_str(&list) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests;
