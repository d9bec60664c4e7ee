//! The innermost layer: writes the forwarding fields and sends the request to its app.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Response, Version, header};
use tower::Service;

use super::cache::sessions;
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
use crate::policy::ServerPolicy;
use crate::runtime::clock;
use crate::upstream::{Call, ForwardError, Pool, Streaming};

/// See the head of the file.
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
    let mut body = std::mem::replace(routed.request.body_mut(), Body::empty());
    let record = routed.record.clone();
    let server = &record.snapshot.policy.server;
    let client = record.client_slot();
    let mut memory = None;
    if body.is_streaming() && !request_body::is_stream(&routed) {
        let reservation = record.reserve_buffer();
        // In a box: most requests have no body, or all of it.
        let buffering = Box::pin(request_body::buffer(body, server.buffer_request, reservation));
        let buffered = buffering.await.map_err(ForwardError::Body)?;
        (body, memory) = (buffered.body, buffered.memory);
    }
    let chosen = routed.route.upstream.unwrap_or(0);
    let upstream = record.snapshot.upstreams.get(chosen).ok_or("the route's upstream does not exist")?;
    let fields = forwarding(&mut routed, server);
    let covered = if routed.signed { covered(&routed.request) } else { Vec::new() };
    let beside = fields.is_some() && covered.is_empty();
    let trusted = server.trusts(routed.peer.address.ip());
    let identified = identified(&record, routed.request.headers_mut(), beside, trusted);
    covered.into_iter().for_each(|(name, value)| drop(routed.request.headers_mut().insert(name, value)));
    // HTTP/1.0 may come without a Host; HTTP/1.1 may not go without (RFC 9112 3.2).
    let hostless = host::from_headers(routed.request.headers()).is_none();
    let rewritten = !upstream.policy.preserve_host && !routed.signed;
    if (hostless || rewritten)
        && let Some(endpoint) = upstream.policy.endpoints.first()
        && let Ok(host) = HeaderValue::from_str(endpoint.authority.as_str())
    {
        routed.request.headers_mut().insert(header::HOST, host);
    }
    let route = routed.route.clone();
    let keeps_users = record.snapshot.policy.keeps_users;
    // As they came, where what goes to the app is another thing.
    let asked = (keeps_users && is_edited(&routed)).then(|| routed.request.headers().clone());
    for route in routed.rewritten_by.iter().chain([&route]) {
        route.request.apply(routed.request.headers_mut());
    }
    let timeout = route.timeout.or(routed.rewritten_by.as_ref().and_then(|route| route.timeout));
    let target = routed.request.uri().path_and_query().cloned();
    let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let method = routed.request.method().clone();
    let peer = routed.peer.clone();
    let streaming = match route.stream {
        true => Streaming::Always,
        // Over HTTP/1 there are no gRPC calls, so a request that claims to be one is an ordinary one.
        false if record.grpc && routed.request.version() == Version::HTTP_2 => Streaming::OverHttp2,
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
        rank: (record.rank(), record.snapshot.policy.limits.tiers.len()),
    };
    let since = clock::now();
    record.upstream_started(since);
    let result = upstream.send(&pool, call, since, &record.upstream).await;
    drop(memory);
    record.upstream_ended();
    let response = result?;
    record.upstream_status.set(Some(response.status()));
    if keeps_users && sessions::sets_cookie(response.headers()) {
        let asked = asked.as_ref().unwrap_or(routed.request.headers());
        sessions::heed(&record, &method, asked, response.headers());
    }
    // RFC 8441 5, RFC 9110 9.3.6: a 2xx would tell an HTTP/2 client that the tunnel is open.
    let http2 = routed.request.version() == Version::HTTP_2;
    if http2 && routed.upgrade.is_some() && response.status().is_success() {
        return Err(ForwardError::NotUpgraded.into());
    }
    Ok(response)
}

/// Whether a route changes the fields of the request.
fn is_edited(routed: &Routed) -> bool {
    let mut routes = [Some(&routed.route), routed.rewritten_by.as_ref()].into_iter().flatten();
    routes.any(|route| !route.request.is_empty())
}

/// Tells the app about the client. What an untrusted client says about itself is not passed on; the
/// fields in its place are the same for every request of a connection to one host, so they are kept
/// ready. What a trusted proxy says stays, and we add ourselves.
fn forwarding(routed: &mut Routed, server: &ServerPolicy) -> Option<Rc<ForwardedFields>> {
    let (peer, https) = (routed.peer.clone(), routed.https);
    let version = routed.request.version();
    let edited = is_edited(routed);
    let headers = routed.request.headers_mut();
    let said = SeenFields::scan(headers);
    // The wait for 100 (Continue) is between us and the client (RFC 9110 10.1.1).
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

/// The fields of this request alone. They stand in place of what the client says, and are put into the map where that
/// says so or is edited, else beside it. X-Correlation-Id is another name for the same, which only a trusted proxy gives.
fn identified<'r>(
    record: &'r RequestRecord,
    headers: &mut HeaderMap,
    beside: bool,
    trusted: bool,
) -> Option<Identified<'r>> {
    let trace = record.trace.as_ref().and_then(|trace| trace.passed_on(headers));
    let identified = Identified { id: &record.id, trace, alike: record.has_id_of_trace() };
    let (mut said, mut correlated) = (false, false);
    for name in headers.keys() {
        said |= identified.says(name);
        correlated |= *name == X_CORRELATION_ID;
    }
    if correlated && !trusted {
        headers.insert(X_CORRELATION_ID, record.id.clone());
    }
    if beside && !said {
        return Some(identified);
    }
    identified.insert_into(headers);
    None
}

/// The fields among those of [`identified`] that a signature covers: the app is shown the client's, and ours stands in
/// the log. Forwarding claims are never among them, whatever is signed.
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

/// The fields for one host, made at its first request.
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

/// What is among the fields of a request: looked at once, as comparing is quicker than looking up.
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
            claims: said.claims || is_claim(name),
        })
    }
}

/// Whether it is a field by which proxies tell apps about clients; there are more than anybody lists.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.starts_with(['x', 'f']) {
        return false;
    }
    // CGI and WSGI apps cannot tell X_Forwarded_For from X-Forwarded-For.
    let spelt = name.contains('_').then(|| name.replace('_', "-"));
    let name = spelt.as_deref().unwrap_or(name);
    name.starts_with("x-forwarded-") || name == "x-real-ip" || name == "forwarded"
}

fn drop_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// Extended: what a trusted proxy says stays, and where we got it from is added on the right.
fn extend(headers: &mut HeaderMap, peer: &Peer, https: bool) {
    let ip = peer.address.ip();
    let host = host::from_headers(headers).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
    if headers.contains_key(header::FORWARDED) && !headers.contains_key(X_FORWARDED_FOR) {
        // The two must not contradict each other.
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

/// RFC 9110 7.6.3.
fn via(headers: &mut HeaderMap, version: Version) {
    forwarded::append(headers, header::VIA, forwarded::via(version));
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
