//! The innermost layer: writes the forwarding fields and sends the request to its upstream.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Version, header};
use tower::Service;

use super::cache::sessions;
use super::maintenance;
use super::request_body;
use super::routed::Routed;
use crate::fields::forwarded::{self, ForwardedFields, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::fields::request_id::{Identified, X_CORRELATION_ID, X_REQUEST_ID};
use crate::fields::traceparent::{TRACEPARENT, TRACESTATE};
use crate::fields::{host, signature};
use crate::layer::record::RequestRecord;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::message::inbound::Peer;
use crate::policy::{ServerPolicy, UpstreamPolicy};
use crate::runtime::clock;
use crate::upstream::{Call, ForwardError, Pool, Streaming};

/// The forward layer as a tower layer; see the head of the file.
#[derive(Clone)]
pub(super) struct Forward {
    pool: Rc<Pool>,
}

impl Forward {
    pub(super) fn new(pool: Rc<Pool>) -> Forward {
        Forward { pool }
    }
}

impl Service<Box<Routed>> for Forward {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Box<Routed>) -> Self::Future {
        Box::pin(forward(self.pool.clone(), routed))
    }
}

async fn forward(pool: Rc<Pool>, mut routed: Box<Routed>) -> Result<Response<Body>, BoxError> {
    let record = routed.record.clone();
    if let Some(refusal) = maintenance::refusal(&record, routed.request.headers(), true) {
        return Err(refusal.into());
    }
    let mut body = std::mem::replace(routed.request.body_mut(), Body::empty());
    let server = &record.info.snapshot.policy.server;
    let client = record.info.client_slot();
    let mut memory = None;
    if body.is_streaming() && !request_body::is_stream(&routed) {
        let reservation = record.reserve_buffer();
        // Boxed, because most requests have no body or a complete one, and should not pay for this future's size.
        let buffering = Box::pin(request_body::buffer(body, server.buffer_request, reservation));
        let buffered = buffering.await.map_err(ForwardError::Body)?;
        (body, memory) = (buffered.body, buffered.memory);
    }
    let chosen = routed.route.upstream.unwrap_or(0);
    let upstream = record.info.snapshot.upstreams.get(chosen).ok_or("the route's upstream does not exist")?;
    let Prepared { fields, identified, asked } = prepare(&record, &mut routed, &upstream.policy);
    let route = routed.route.clone();
    let timeout = route.timeout.or(routed.rewritten_by.as_ref().and_then(|route| route.timeout));
    let target = routed.request.uri().path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let method = routed.request.method().clone();
    let peer = routed.peer.clone();
    let streaming = match route.stream {
        true => Streaming::Always,
        // gRPC does not exist over HTTP/1, so such a request is an ordinary one.
        false if record.info.grpc && routed.request.version() == Version::HTTP_2 => Streaming::OverHttp2,
        false => Streaming::No,
    };
    let call = Call {
        method: &method,
        target: &target,
        headers: routed.request.headers_mut(),
        forwarding: fields.as_deref(),
        identified,
        client,
        body,
        upgrade: routed.upgrade.as_ref(),
        takes_trailers: routed.takes_trailers,
        interim: routed.interim.map(|exchange| (&peer.interim, exchange)),
        pinned: peer.pinned.active.get().then_some(&peer),
        timeout,
        streaming,
        stream_idle_timeout: server.settings.stream_idle_timeout,
        limits: server.head_limits(),
        room: Some(record.room(client)),
        counted: memory.is_some() || routed.memory.is_some(),
        rank: (record.limit.rank(), record.info.snapshot.policy.limits.tiers.len()),
    };
    let since = clock::now();
    record.upstream_started(since);
    let result = upstream.send(&pool, call, since, &record.upstream.progress).await;
    drop(memory);
    record.upstream_ended();
    let response = result?;
    record.upstream.set_status(response.status());
    heed_session(&record, &method, asked.as_ref().unwrap_or(routed.request.headers()), response.headers());
    // A 2xx would tell an HTTP/2 client that the tunnel is open (RFC 8441 5, RFC 9110 9.3.6).
    let http2 = routed.request.version() == Version::HTTP_2;
    if http2 && routed.upgrade.is_some() && response.status().is_success() {
        return Err(ForwardError::NotUpgraded.into());
    }
    Ok(response)
}

/// A request as its upstream gets it. The fields that are not in its map stand beside it.
pub(super) struct Prepared<'r> {
    /// The forwarding fields, if they are not in the map.
    pub fields: Option<Rc<ForwardedFields>>,
    /// The request id, if it is not in the map.
    pub identified: Option<Identified<'r>>,
    /// The fields before a route edited them, if that happened and sessions need them.
    pub asked: Option<HeaderMap>,
}

/// Prepares the fields of a request for its upstream: forwarding fields, request id, host, and the edits of its routes.
// Inlined because every forwarded request comes here, and a call would move the result once more.
#[inline(always)]
pub(super) fn prepare<'r>(
    record: &'r RequestRecord,
    routed: &mut Routed,
    upstream: &UpstreamPolicy,
) -> Prepared<'r> {
    let server = &record.info.snapshot.policy.server;
    let fields = forwarding(routed, server);
    let covered = if routed.signed { covered(&routed.request) } else { Vec::new() };
    let beside = fields.is_some() && covered.is_empty();
    let trusted = server.trusts(routed.peer.address.ip());
    let identified = identified(record, routed.request.headers_mut(), beside, trusted);
    covered.into_iter().for_each(|(name, value)| drop(routed.request.headers_mut().insert(name, value)));
    // An HTTP/1.0 request may lack `Host`, but HTTP/1.1 requires it (RFC 9112 3.2).
    let hostless = host::from_headers(routed.request.headers()).is_none();
    let rewritten = !upstream.preserve_host && !routed.signed;
    if (hostless || rewritten)
        && let Some(endpoint) = upstream.endpoints.first()
        && let Ok(host) = HeaderValue::from_str(endpoint.authority.as_str())
    {
        routed.request.headers_mut().insert(header::HOST, host);
    }
    let keeps_users = record.info.snapshot.policy.keeps_users;
    let asked = (keeps_users && is_edited(routed)).then(|| routed.request.headers().clone());
    let Routed { request, rewritten_by, route, .. } = routed;
    for route in rewritten_by.iter().chain([&*route]) {
        route.request.apply(request.headers_mut());
    }
    Prepared { fields, identified, asked }
}

/// Invalidates the stored responses of a session that this response begins or ends. `asked` has the fields of the
/// request as the client sent them.
#[inline(always)]
pub(super) fn heed_session(record: &RequestRecord, method: &Method, asked: &HeaderMap, response: &HeaderMap) {
    if record.info.snapshot.policy.keeps_users && sessions::sets_cookie(response) {
        sessions::heed(record, method, asked, response);
    }
}

/// Returns whether a route edits the fields of the request.
fn is_edited(routed: &Routed) -> bool {
    let mut routes = [Some(&routed.route), routed.rewritten_by.as_ref()].into_iter().flatten();
    routes.any(|route| !route.request.is_empty())
}

/// Prepares the fields that tell the upstream about the client. Claims of an untrusted client are removed. Their
/// replacements are equal for all requests of a connection to one host, so they are cached. Fields of a trusted proxy
/// are extended instead.
fn forwarding(routed: &mut Routed, server: &ServerPolicy) -> Option<Rc<ForwardedFields>> {
    let (peer, https) = (routed.peer.clone(), routed.https);
    let version = routed.request.version();
    let edited = is_edited(routed);
    let headers = routed.request.headers_mut();
    let said = SeenFields::scan(headers);
    // The wait for 100 (Continue) concerns only the client and Pillion (RFC 9110 10.1.1).
    if said.expect {
        headers.remove(header::EXPECT);
    }
    if server.trusts(peer.address.ip()) {
        extend(headers, &peer, https);
        via(headers, version);
        return None;
    }
    if said.claims {
        warn_once(headers, peer.address.ip());
        drop_claims(headers);
    }
    let fields = ready(headers, &peer, https, version);
    if edited || said.via {
        fields.insert_into(headers, false);
        via(headers, version);
        return None;
    }
    Some(fields)
}

/// Prepares the fields that identify this request. They replace the client's values. They are inserted into the map if
/// the client sent such a field or the fields are edited; otherwise they are written beside the map. Only a trusted
/// proxy may send `X-Correlation-Id`, which is another name for the request id.
fn identified<'r>(
    record: &'r RequestRecord,
    headers: &mut HeaderMap,
    beside: bool,
    trusted: bool,
) -> Option<Identified<'r>> {
    let trace = record.info.trace.as_ref().and_then(|trace| trace.passed_on(headers));
    let identified = Identified { id: &record.info.id, trace, alike: record.info.has_id_of_trace() };
    let (mut said, mut correlated) = (false, false);
    for name in headers.keys() {
        said |= identified.says(name);
        correlated |= *name == X_CORRELATION_ID;
    }
    if correlated && !trusted {
        headers.insert(X_CORRELATION_ID, record.info.id.clone());
    }
    if beside && !said {
        return Some(identified);
    }
    identified.insert_into(headers);
    None
}

/// Returns the fields of [`identified`] that a signature covers. The upstream gets the client's values of these, while
/// Pillion's own values appear in the log. Forwarding claims are never kept, even if they are signed.
fn covered(request: &http::Request<Body>) -> Vec<(HeaderName, HeaderValue)> {
    let (headers, query) = (request.headers(), request.uri().query());
    let mut covered = Vec::new();
    for name in [X_REQUEST_ID, X_CORRELATION_ID, TRACEPARENT, TRACESTATE] {
        if let Some(value) = headers.get(&name)
            && signature::covers(headers, query, &name)
        {
            covered.push((name, value.clone()));
        }
    }
    covered
}

/// Returns the cached fields for one host, and creates them on its first request.
fn ready(headers: &HeaderMap, peer: &Peer, https: bool, version: Version) -> Rc<ForwardedFields> {
    let host = host::from_headers(headers).map_or(&b""[..], HeaderValue::as_bytes);
    let mut memo = peer.memo.borrow_mut();
    match &*memo {
        Some(fields) if fields.is_for(host, https, version) => fields.clone(),
        _ => {
            let fields = Rc::new(ForwardedFields::new(peer.address.ip(), host, https, version));
            memo.insert(fields).clone()
        }
    }
}

/// The fields that a request has, found in one pass, because comparing names is faster than a hash lookup.
#[derive(Default)]
struct SeenFields {
    expect: bool,
    via: bool,
    claims: bool,
}

impl SeenFields {
    fn scan(headers: &HeaderMap) -> SeenFields {
        headers.keys().fold(SeenFields::default(), |said, name| SeenFields {
            expect: said.expect | (*name == header::EXPECT),
            via: said.via | (*name == header::VIA),
            claims: said.claims || forwarded::is_claim(name),
        })
    }
}

fn drop_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| forwarded::is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Extends the fields of a trusted proxy: existing values stay, and the peer's address is added on the right.
fn extend(headers: &mut HeaderMap, peer: &Peer, https: bool) {
    let ip = peer.address.ip();
    let host = host::from_headers(headers).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
    if headers.contains_key(header::FORWARDED) && !headers.contains_key(X_FORWARDED_FOR) {
        // `X-Forwarded-For` must not contradict `Forwarded`.
        let (chain, told_host) = forwarded::in_older_words(headers);
        forwarded::append(headers, X_FORWARDED_FOR, &chain);
        if let Some(told) = told_host {
            headers.entry(X_FORWARDED_HOST).or_insert(told);
        }
    }
    forwarded::append(headers, X_FORWARDED_FOR, &ip.to_string());
    forwarded::append(headers, header::FORWARDED, &forwarded::element(ip, &host, https));
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| forwarded::proto(https));
    headers.entry(X_FORWARDED_HOST).or_insert(host);
}

/// Appends Pillion to `Via` (RFC 9110 7.6.3).
fn via(headers: &mut HeaderMap, version: Version) {
    forwarded::append(headers, header::VIA, forwarded::via(version));
}

/// Logs once if a private peer sends forwarding fields, because it is usually a proxy missing from the configuration.
fn warn_once(headers: &HeaderMap, peer: IpAddr) {
    static WARNED: std::sync::Once = std::sync::Once::new();
    if WARNED.is_completed() || !headers.contains_key(X_FORWARDED_FOR) {
        return;
    }
    let private = match peer {
        // 100.64.0.0/10 is the shared space of RFC 6598, which clusters use.
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    };
    if private {
        WARNED.call_once(|| {
            tracing::warn!(%peer, "X-Forwarded-For from this peer was ignored; if the peer is your \
                proxy, list it in server.trusted_proxies (\"private\" for all private networks)");
        });
    }
}

#[cfg(test)]
mod tests;
