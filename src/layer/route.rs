//! Normalizes the path, finds the route, and performs actions that need no upstream: deny, redirect, rewrite. On the
//! way back it edits the fields of the response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use tower::Service;

use super::cache::purge;
use super::either::Either;
use super::maintenance;
use super::matching::match_route;
use super::routed::{Observed, Routed};
use super::underscores;
use crate::fields::{connection_auth, forwarded, host, signature};
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::message::inbound::{Peer, Refused};
use crate::policy::{Action, RoutePolicy, ServerPolicy};

/// Maximum hops through Pillions; more indicate a loop.
const MAX_HOPS: usize = 10;

/// The reason why a request was not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteError {
    Connect,
    /// The request passed through this process before.
    CameBack,
    /// The request passed through too many Pillions.
    Loop,
    Denied(StatusCode),
    /// The route serves other clients.
    NotAllowed,
    /// No buffer memory is left for the request.
    NoMemory,
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::Connect => f.write_str("CONNECT is not served"),
            RouteError::CameBack => {
                f.write_str("the request passed through this Pillion before: its upstream leads back here")
            }
            RouteError::Loop => write!(f, "the request passed through more than {MAX_HOPS} Pillions"),
            RouteError::Denied(_) => f.write_str("this path is not served"),
            RouteError::NotAllowed => f.write_str("this path is not served to this client's address"),
            RouteError::NoMemory => {
                f.write_str("server.buffer_memory is used up, or this client's share of it")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// The route layer as a tower layer; see the head of the file.
#[derive(Clone)]
pub(super) struct Route<S>(pub S);

impl<S> Service<Observed> for Route<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = RouteFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, observed: Observed) -> Self::Future {
        match decide(observed) {
            Ok(Decision::Respond(response)) => {
                RouteFuture { inner: Either::ready(*response), edits: [None, None] }
            }
            Ok(Decision::Below(routed)) => {
                let edits = [Some(routed.route.clone()), routed.rewritten_by.clone()]
                    .map(|route| route.filter(|route| !route.response.is_empty()));
                if edits.iter().any(Option::is_some) {
                    routed.record.route.set_edits_response();
                }
                RouteFuture { inner: Either::Below(self.0.call(routed)), edits }
            }
            Err(error) => RouteFuture { inner: Either::error(error), edits: [None, None] },
        }
    }
}

/// The decision about a request.
pub(super) enum Decision {
    Below(Box<Routed>),
    Respond(Box<Response<Body>>),
}

pub(super) fn decide(observed: Observed) -> Result<Decision, BoxError> {
    let Observed { inbound, record } = observed;
    let snapshot = &record.info.snapshot;
    if let Some(refused) = inbound.refused {
        return Err(refused.into());
    }
    let mut request = inbound.request;
    if *request.method() == Method::CONNECT {
        record.route.set_route(None);
        return Err(RouteError::Connect.into());
    }
    let server = &snapshot.policy.server;
    let ip = inbound.peer.address.ip();
    let trusted = server.trusts(ip);
    let https = is_https(&request, &inbound.peer, server, trusted);
    if trusted {
        forwarded::keep_believed(request.headers_mut(), ip, |hop| server.trusts(hop));
    }
    fill_host(&mut request);
    let (found, target) = match_route(&snapshot.policy.routes, &request, &record, trusted)?;
    let route = snapshot.route(found.order).clone();
    let seen = Seen::scan(&request);
    if seen.via
        && let Some(error) = went_in_a_circle(&request)
    {
        return Err(error.into());
    }
    if seen.authorization && connection_auth::is_tried(request.headers()) {
        inbound.peer.pinned.active.set(true);
    }
    let signed = seen.signature && signature::names_fields(request.headers(), request.uri().query());
    let to_be_https = server.redirect_https && !https && !purge::is_for_us(&request, &record, &inbound.peer);
    if to_be_https && host(&request).is_empty() {
        let detail = "a redirect to https needs a Host field";
        return Err(Refused { status: StatusCode::BAD_REQUEST, detail }.into());
    }
    if to_be_https {
        let mut response = to_https(server, &request);
        record.edit_own_response(response.headers_mut());
        return Ok(Decision::Respond(Box::new(response)));
    }
    if let Some((order, status)) = found.denied {
        record.route.set_route(Some(order));
        return Err(status.map_or(RouteError::NotAllowed, RouteError::Denied).into());
    }
    let passed = [Some(&route), found.rewritten_by.as_ref()];
    if passed.into_iter().flatten().any(|route| !route.admits(record.info.client)) {
        return Err(RouteError::NotAllowed.into());
    }
    match &route.action {
        Action::Deny(status) => return Err(RouteError::Denied(*status).into()),
        Action::Redirect { base, to, status } => {
            let path = match &route.pattern {
                Some(pattern) => to.fill(&pattern.template, target.path()),
                None => "/".to_owned(),
            };
            let query = target.query().map_or_else(String::new, |query| format!("?{query}"));
            let mut response = redirect(*status, &format!("{base}{path}{query}"));
            record.edit_own_response(response.headers_mut());
            return Ok(Decision::Respond(Box::new(response)));
        }
        Action::Forward | Action::Rewrite(_) => {}
    }
    if let Some(refusal) = maintenance::refusal(&record, request.headers(), false)
        && !purge::is_for_us(&request, &record, &inbound.peer)
    {
        return Err(refusal.into());
    }
    let underscored = seen.odd_name && {
        let routes = [Some(&*route), found.rewritten_by.as_deref()];
        underscores::filter(request.headers_mut(), &record, routes)
    };
    *request.uri_mut() = Uri::from(target);
    let memory = match inbound.counted {
        0 => None,
        bytes => {
            let reserved = record.reserve_request(bytes, inbound.kept, inbound.reserved);
            Some(reserved.ok_or(RouteError::NoMemory)?)
        }
    };
    Ok(Decision::Below(Box::new(Routed {
        request,
        interim: inbound.peer.interim.current(),
        peer: inbound.peer,
        upgrade: inbound.upgrade,
        takes_trailers: inbound.takes_trailers,
        https,
        signed,
        form: None,
        whens: found.whens,
        readings_differ: found.readings_differ,
        underscored,
        rewritten_by: found.rewritten_by,
        route,
        record,
        memory,
    })))
}

/// Returns whether the client uses https. A trusted proxy's report about the client takes precedence over the proxy's
/// own connection.
fn is_https(request: &Request<Body>, peer: &Peer, server: &ServerPolicy, trusted: bool) -> bool {
    let ip = peer.address.ip();
    let told =
        if trusted { forwarded::told_https(request.headers(), ip, |hop| server.trusts(hop)) } else { None };
    told.unwrap_or(peer.tls)
}

/// Sets `Host` from the authority of the target, which takes precedence (RFC 9112 3.2.2, RFC 9113 8.3.1).
fn fill_host(request: &mut Request<Body>) {
    if let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// The fields that a request may have, found in one pass. Comparing names is much faster than a hash lookup.
#[derive(Default)]
struct Seen {
    via: bool,
    authorization: bool,
    /// Whether a field or the query may list fields that a signature covers.
    signature: bool,
    /// Whether a field has a name that some apps mistake for another.
    odd_name: bool,
}

impl Seen {
    fn scan(request: &Request<Body>) -> Seen {
        let mut seen = Seen { signature: request.uri().query().is_some(), ..Seen::default() };
        for name in request.headers().keys() {
            match *name {
                header::VIA => seen.via = true,
                header::AUTHORIZATION => (seen.authorization, seen.signature) = (true, true),
                // Most requests have only these fields; they are told apart without reading their names.
                header::HOST
                | header::USER_AGENT
                | header::ACCEPT
                | header::ACCEPT_ENCODING
                | header::ACCEPT_LANGUAGE
                | header::CACHE_CONTROL
                | header::CONNECTION
                | header::CONTENT_LENGTH
                | header::CONTENT_TYPE
                | header::COOKIE
                | header::IF_MODIFIED_SINCE
                | header::IF_NONE_MATCH
                | header::ORIGIN
                | header::RANGE
                | header::REFERER
                | header::UPGRADE_INSECURE_REQUESTS => {}
                _ => {
                    seen.signature |= signature::may_hold(name);
                    seen.odd_name |= underscores::is_odd(name);
                }
            }
        }
        seen
    }
}

/// Detects a loop by `Via` (RFC 9110 7.6.3). Several different Pillions in a chain are no loop. The same one twice is,
/// and a GET would then wait for its own collapsed fetch.
fn went_in_a_circle(request: &Request<Body>) -> Option<RouteError> {
    let vias = || request.headers().get_all(header::VIA).iter().map(HeaderValue::as_bytes);
    let words = || vias().flat_map(|via| via.split(|byte| matches!(byte, b',' | b' ' | b'\t')));
    if words().any(|word| word == forwarded::pseudonym().as_bytes()) {
        return Some(RouteError::CameBack);
    }
    let pillions = words().filter(|word| word.starts_with(forwarded::PSEUDONYM.as_bytes())).count();
    (pillions > MAX_HOPS).then_some(RouteError::Loop)
}

fn redirect(status: StatusCode, to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    // A URI is ASCII (RFC 3986 2), so raw UTF-8 is percent-encoded.
    let mut ascii = String::with_capacity(to.len());
    for c in to.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| ascii.push_str(&format!("%{byte:02X}")));
        }
    }
    if let Ok(to) = HeaderValue::from_str(&ascii) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// Returns `Host` as text; empty if it is missing.
fn host(request: &Request<Body>) -> &str {
    host::text(request.headers())
}

fn to_https(server: &ServerPolicy, request: &Request<Body>) -> Response<Body> {
    let name = host::name(host(request));
    let port = match server.tls.as_ref().and_then(|tls| tls.listen.first()).map(std::net::SocketAddr::port) {
        // The system chooses the port for port 0, so the redirect cannot know it.
        None | Some(443 | 0) => String::new(),
        Some(port) => format!(":{port}"),
    };
    // `OPTIONS *` concerns the server as a whole, which the root stands for.
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let target = if target == "*" { "/" } else { target };
    redirect(StatusCode::PERMANENT_REDIRECT, &format!("https://{name}{port}{target}"))
}

/// The future of a response, with the edits of the routes it passed.
pub(super) struct RouteFuture<F> {
    inner: Either<F>,
    edits: [Option<Arc<RoutePolicy>>; 2],
}

impl<F> Future for RouteFuture<F>
where
    F: Future<Output = Result<Response<Body>, BoxError>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut result = ready!(Pin::new(&mut self.inner).poll(cx));
        if let Ok(response) = &mut result {
            for route in self.edits.iter().flatten() {
                route.response.apply(response.headers_mut());
            }
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests;
