//! Access to the admin listener: which pages, which host names, and which token a request may come with.

use std::sync::LazyLock;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::endpoints::Guard;
use crate::fields::host;
use crate::policy::ServerPolicy;

/// Fetch Metadata header: how a browser relates the page that caused a request to the target of the request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Values of `Sec-Fetch-Site` for requests that no page of another site caused (Fetch Metadata 2.2).
const OUR_SITES: [&[u8]; 3] = [b"none", b"same-origin", b"same-site"];

/// The set of endpoints that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Admin,
    Probes,
}

/// Refuses a request that a web page of another site caused. The error is the detail for the client.
pub(super) fn check_page(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(header::ORIGIN) {
        return Err("requests from web pages are rejected here");
    }
    // Browsers send this header for pages of other sites even without `Origin`. An unknown value is refused too, since
    // it may be a new word for a page of another site.
    let is_ours =
        |site: &HeaderValue| OUR_SITES.iter().any(|ours| site.as_bytes().eq_ignore_ascii_case(ours));
    match headers.get_all(SEC_FETCH_SITE).iter().all(is_ours) {
        true => Ok(()),
        false => Err("requests from pages of other sites are rejected here"),
    }
}

/// Refuses a request unless it names a host that only the operator controls. Another name may belong to a web page's
/// owner who pointed it at this address (DNS rebinding). A request with the admin token always passes. The error is the
/// detail for the client.
pub(super) fn check_host(server: &ServerPolicy, parts: &Parts, guard: Guard) -> Result<(), &'static str> {
    // Endpoints that require the token check it anyway, so the host name does not matter for them.
    if server.admin_token.is_some() && (guard.needs_token() || has_token(server, &parts.headers)) {
        return Ok(());
    }
    let names = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let hosts = parts.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let is_ours = |given: &[u8]| {
        std::str::from_utf8(given).is_ok_and(|given| is_our_name(given, guard, &server.admin_hosts))
    };
    match names.into_iter().chain(hosts).all(is_ours) {
        true => Ok(()),
        false => Err(
            "without the admin token the Host must be localhost, an address or a name in server.admin_hosts",
        ),
    }
}

/// Returns whether a request has the admin token, or none is configured. The configuration compiler demands a token off
/// loopback.
pub(super) fn has_token(server: &ServerPolicy, headers: &HeaderMap) -> bool {
    let Some(token) = &server.admin_token else { return true };
    let given = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    // Authentication scheme names are case-insensitive (RFC 9110 11.1).
    let given = match given.split_at_checked(7) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => given.trim_ascii(),
        _ => b"",
    };
    same(given, token.expose().as_bytes())
}

/// Returns whether a host name is only this machine's or one that the operator listed. Open endpoints also accept a
/// name without a dot: no stranger can register such a name, and scrapers reach containers by it.
fn is_our_name(given: &str, guard: Guard, listed: &[String]) -> bool {
    let name = host::name(given);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    let is_loopback = matches!(name.as_str(), "localhost" | "ip6-localhost" | "ip6-loopback")
        || name.ends_with(".localhost")
        || name == "localhost.localdomain";
    is_loopback
        || address.parse::<std::net::IpAddr>().is_ok()
        || listed.contains(&name)
        || host_name().is_some_and(|ours| ours.eq_ignore_ascii_case(&name))
        || (guard == Guard::Open && !name.is_empty() && !name.contains('.'))
}

/// Returns the host name of this machine or container, read once.
fn host_name() -> Option<&'static str> {
    static NAME: LazyLock<Option<String>> = LazyLock::new(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    });
    NAME.as_deref()
}

/// Compares in constant time, so that the duration does not reveal how many bytes were correct.
fn same(given: &[u8], token: &[u8]) -> bool {
    given.len() == token.len() && given.iter().zip(token).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
}
