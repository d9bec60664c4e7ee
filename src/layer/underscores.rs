//! Fields that some apps mistake for others: names with underscores, which CGI, WSGI, PHP and Rack cannot tell from
//! hyphens, and `Proxy`, which CGI programs read as `HTTP_PROXY` (httpoxy, CVE-2016-5385). A twin of a meaningful field
//! would bypass every rule about that field, so it is dropped. Requests that keep other fields of this kind bypass the
//! cache, since no cache key includes them.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName};

use super::record::RequestRecord;
use crate::fields::misleading::is_misleading;
use crate::identity::unlisted;
use crate::policy::limits::{ApiKeyPlace, TierSource};
use crate::policy::underscores::Underscores;
use crate::policy::{Policy, RoutePolicy};

/// Maximum names that are logged. A client that sends more is inventing them.
const MAX_TOLD: usize = 32;

/// Returns whether some apps mistake a name for another.
pub(super) fn is_odd(name: &HeaderName) -> bool {
    let name = name.as_str();
    // A plain loop, because names are shorter than the inputs a byte search is made for.
    name.bytes().any(|octet| octet == b'_') || name == "proxy"
}

/// Drops fields as configured. Returns whether the request must not be served from the cache, because no cache key
/// distinguishes it.
pub(super) fn filter(
    headers: &mut HeaderMap,
    record: &RequestRecord,
    routes: [Option<&RoutePolicy>; 2],
) -> bool {
    let proxy = HeaderName::from_static("proxy");
    if headers.contains_key(&proxy) {
        drop_field(headers, &proxy, record, "proxy");
    }
    let policy = &record.info.snapshot.policy;
    let odd: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    let mut ambiguous = false;
    for name in odd {
        let meant = name.as_str().replace('_', "-");
        let misleads = is_misleading(&meant);
        let dropped = match policy.server.underscores {
            Underscores::Pass => false,
            Underscores::Drop => true,
            Underscores::Twins => {
                misleads || headers.contains_key(&meant) || means_something(&meant, policy, routes)
            }
        };
        if dropped {
            drop_field(headers, &name, record, "underscore");
        }
        // A request with a misleading field never gets or leaves a shared response.
        ambiguous |= !dropped || misleads;
    }
    ambiguous
}

/// Returns whether a field has a meaning: Pillion writes or trusts it, it identifies the sender, or the route names it.
fn means_something(name: &str, policy: &Policy, routes: [Option<&RoutePolicy>; 2]) -> bool {
    if is_believed(name) || unlisted::field(name).is_some() || policy.identity.tells_by(name) {
        return true;
    }
    let limits = &policy.limits;
    let of_limits =
        limits.tier_from.iter().any(|source| matches!(source, TierSource::Header(known) if known == name))
            || matches!(&limits.api_key, ApiKeyPlace::Header(known) if known == name);
    of_limits
        || policy.routes.is_condition(name)
        || routes.into_iter().flatten().any(|route| {
            let edits = &route.request;
            let written = edits.set.iter().chain(&edits.append).map(|(known, _)| known);
            let mut named = written.chain(&edits.remove).chain(&route.cache.route_settings.key_headers);
            named.any(|known| known == name)
        })
}

/// Returns whether a field concerns the connection, framing, credentials, conditions, or proxies.
fn is_believed(name: &str) -> bool {
    const NAMES: [&str; 32] = [
        "accept-encoding",
        "authorization",
        "cache-control",
        "cdn-loop",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "referer",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-client-ip",
        "x-correlation-id",
        "x-real-ip",
        "x-request-id",
        "true-client-ip",
    ];
    const BEGINNINGS: [&str; 5] = ["x-forwarded-", "if-", "proxy-", "x-pillion-", "cf-connecting-"];
    NAMES.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

fn drop_field(headers: &mut HeaderMap, name: &HeaderName, record: &RequestRecord, reason: &'static str) {
    headers.remove(name);
    record.count_dropped_field(reason);
    static TOLD: Mutex<Vec<HeaderName>> = Mutex::new(Vec::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < MAX_TOLD && !told.contains(name) {
        told.push(name.clone());
        tracing::warn!(
            field = name.as_str(),
            reason,
            "request field dropped: some apps read it as another field (server.underscores); logged \
            once"
        );
    }
}

#[cfg(test)]
mod tests;
