//! The innermost layer: writes the forwarding fields and sends the request to its app.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header};
use tower::Service;

use super::Routed;
use crate::body::Body;
use crate::clock;
use crate::error::BoxError;
use crate::fields::forwarded::{self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::inbound::{ForwardedMemo, Peer};
use crate::upstream::{Call, ForwardError, Outcome, Pool};

/// How Pillion calls itself in Via.
pub const PSEUDONYM: &str = "pillion";

/// See the head of the file.
#[derive(Clone)]
pub struct Forward {
    pool: Rc<Pool>,
}

impl Forward {
    /// With one worker's connections.
    pub fn new(pool: Rc<Pool>) -> Forward {
        Forward { pool }
    }
}

impl Service<Routed> for Forward {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed) -> Self::Future {
        Box::pin(forward(self.pool.clone(), routed))
    }
}

async fn forward(pool: Rc<Pool>, routed: Routed) -> Result<Response<Body>, BoxError> {
    let Routed { request, peer, upgrade, takes_trailers, https, snapshot, route, rewritten_by, record } = routed;
    let (mut parts, body) = request.into_parts();
    let server = &snapshot.policy.server;
    let headers = &mut parts.headers;
    if server.trusts(peer.address.ip()) {
        extend(headers, &peer, https);
    } else {
        warn_once(headers, peer.address.ip());
        replace(headers, &peer, https);
    }
    via(headers, parts.version);
    // The wait for 100 (Continue) is between us and the client (RFC 9110 10.1.1).
    headers.remove(header::EXPECT);
    let chosen = route.upstream.unwrap_or(0);
    let upstream = snapshot.upstreams.get(chosen).ok_or("the route's upstream does not exist")?;
    if !upstream.policy.preserve_host
        && let Some(endpoint) = upstream.policy.endpoints.first()
        && let Ok(host) = HeaderValue::from_str(endpoint.authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    for route in rewritten_by.iter().chain([&route]) {
        route.request.apply(headers);
    }
    let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let call = Call {
        method: &parts.method,
        target: &target,
        headers: &mut parts.headers,
        body,
        upgrade: upgrade.as_ref(),
        takes_trailers,
        timeout: route.timeout.or(rewritten_by.as_ref().and_then(|route| route.timeout)),
        stream_idle_timeout: server.settings.stream_idle_timeout,
        limits: server.head_limits(),
    };
    let mut outcome = Outcome::default();
    let since = clock::now();
    let result = upstream.send(&pool, call, since, &mut outcome).await;
    record.upstream_time.set(Some(clock::now().saturating_duration_since(since)));
    record.retries.set(outcome.retries);
    *record.upstream.borrow_mut() = outcome.address;
    let response = result?;
    // RFC 8441 5, RFC 9110 9.3.6: a 2xx would tell an HTTP/2 client that the tunnel is open.
    if parts.version == Version::HTTP_2 && upgrade.is_some() && response.status().is_success() {
        return Err(ForwardError::NotUpgraded.into());
    }
    Ok(response)
}

/// Written anew: what an untrusted client says about itself is not passed on.
fn replace(headers: &mut HeaderMap, peer: &Peer, https: bool) {
    drop_claims(headers);
    let empty = HeaderValue::from_static("");
    let host = headers.get(header::HOST).cloned().unwrap_or(empty);
    let mut memo = peer.memo.borrow_mut();
    let fields = match &mut *memo {
        Some(fields) if fields.host == host => fields,
        memo => {
            let ip = peer.address.ip();
            let value = |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""));
            memo.insert(ForwardedMemo {
                x_forwarded_for: value(&ip.to_string()),
                forwarded: value(&forwarded::element(ip, &host, https)),
                // A copy: a slice would keep the whole head of this request for as long as the connection.
                host: HeaderValue::from_bytes(host.as_bytes()).unwrap_or_else(|_| host.clone()),
            })
        }
    };
    headers.insert(X_FORWARDED_FOR, fields.x_forwarded_for.clone());
    headers.insert(header::FORWARDED, fields.forwarded.clone());
    headers.insert(X_FORWARDED_PROTO, proto(https));
    headers.insert(X_FORWARDED_HOST, host);
}

/// Further fields by which proxies tell apps about clients; there are more than anybody lists.
fn drop_claims(headers: &mut HeaderMap) {
    let is_claim = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") || name == "x-real-ip"
    };
    if headers.keys().any(is_claim) {
        let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
}

/// Extended: what a trusted proxy says stays, and where we got it from is added on the right.
fn extend(headers: &mut HeaderMap, peer: &Peer, https: bool) {
    let ip = peer.address.ip();
    let host = headers.get(header::HOST).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
    forwarded::append(headers, X_FORWARDED_FOR, &ip.to_string());
    forwarded::append(headers, header::FORWARDED, &forwarded::element(ip, &host, https));
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| proto(https));
    headers.entry(X_FORWARDED_HOST).or_insert(host);
}

fn proto(https: bool) -> HeaderValue {
    HeaderValue::from_static(if https { "https" } else { "http" })
}

/// RFC 9110 7.6.3.
fn via(headers: &mut HeaderMap, version: Version) {
    let ours = match version {
        Version::HTTP_2 => "2 pillion",
        Version::HTTP_10 => "1.0 pillion",
        _ => "1.1 pillion",
    };
    if headers.contains_key(header::VIA) {
        forwarded::append(headers, header::VIA, ours);
    } else {
        headers.insert(header::VIA, HeaderValue::from_static(ours));
    }
}

/// A private peer that sends forwarding fields is most often a proxy somebody forgot to list.
fn warn_once(headers: &HeaderMap, peer: IpAddr) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    if WARNED.is_completed() || !headers.contains_key(X_FORWARDED_FOR) {
        return;
    }
    let private = match peer {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback(),
    };
    if private {
        WARNED.call_once(|| {
            tracing::warn!(%peer, "X-Forwarded-For from this peer is not believed; if it is your proxy, list it in server.trusted_proxies (\"private\" for all private networks)");
        });
    }
}
