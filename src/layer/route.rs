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
use super::routed::{Observed, Routed};
use super::underscores;
use crate::fields::{connection_auth, forwarded, host, signature};
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::message::inbound::{Peer, Refused};
use crate::policy::loose;
use crate::policy::path::{self, NormalPath};
use crate::policy::{Action, RoutePolicy, Routes, ServerPolicy};

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
    let (found, target) = match_route(&snapshot.policy.routes, &request, &record)?;
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
        return Err(RouteError::Denied(status).into());
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

#[derive(Default)]
struct Found {
    order: Option<u32>,
    rewritten_by: Option<Arc<RoutePolicy>>,
    /// Whether a loose reading of the path matches another route.
    readings_differ: bool,
    /// The route of the loose reading and the status with which it denies the request.
    denied: Option<(u32, StatusCode)>,
}

impl Found {
    /// Compares the route of the normal reading, `self.order`, with that of the loose one (see
    /// [`crate::policy::loose`]).
    fn read_loosely(&mut self, routes: &Routes, asked: (&Method, &str), path: (&str, bool), from: u32) {
        let (method, host) = asked;
        let (normal, is_odd) = path;
        let loose = &routes.loose;
        if !is_odd {
            let other = loose.find_plain(method, host, normal, (from, self.order));
            return self.compare(routes, asked, other, normal);
        }
        let read = loose::reading(normal);
        let other = loose.find(method, host, &read, from);
        self.compare(routes, asked, other, &read);
    }

    fn compare(&mut self, routes: &Routes, (method, host): (&Method, &str), other: Option<u32>, read: &str) {
        if other == self.order {
            return;
        }
        self.readings_differ = true;
        let Some(order) = other else { return };
        let route = routes.routes.get(order as usize);
        self.denied = match (route.map(|route| &route.action), routes.loose.template(order)) {
            (Some(Action::Rewrite(to)), Some(template)) => {
                let read = loose::reading(&to.fill(template, read));
                let next = routes.loose.find(method, host, &read, order + 1);
                next.and_then(|next| denial(routes, next))
            }
            _ => denial(routes, order),
        };
    }
}

/// Returns the status with which a route denies its requests, if it does.
fn denial(routes: &Routes, order: u32) -> Option<(u32, StatusCode)> {
    match routes.routes.get(order as usize)?.action {
        Action::Deny(status) => Some((order, status)),
        _ => None,
    }
}

/// Returns the route of a request, and the target for the upstream.
fn match_route(
    routes: &Routes,
    request: &Request<Body>,
    record: &super::record::RequestRecord,
) -> Result<(Found, PathAndQuery), BoxError> {
    // Errors before a route is found are counted as matching none.
    record.route.set_route(None);
    let host = host(request);
    let given = request.uri();
    if given.path() == "*" {
        return Ok((Found::default(), PathAndQuery::from_static("*")));
    }
    let NormalPath { normal, onward, is_odd } = path::normalise(given.path())?;
    let asked = (request.method(), host);
    let order = routes.table.find(request.method(), host, &normal, 0);
    record.route.set_route(order);
    let mut found = Found { order, ..Found::default() };
    found.read_loosely(routes, asked, (&normal, is_odd), 0);
    let route = order.and_then(|order| routes.routes.get(order as usize));
    if let (Some(order), Some(route)) = (order, route)
        && let (Action::Rewrite(to), Some(pattern)) = (&route.action, &route.pattern)
    {
        let onward = to.fill(&pattern.template, &onward);
        let normal = to.fill(&pattern.template, &normal);
        // Matching continues once, with the routes below. A second rewrite is not followed.
        let next = routes.table.find(request.method(), host, &normal, order + 1);
        record.route.set_route(next.or(Some(order)));
        record.route.set_rewritten_by(order);
        (found.order, found.rewritten_by) = (next, Some(route.clone()));
        // A denial of the original path stays in force.
        if found.denied.is_none() {
            found.read_loosely(routes, asked, (&normal, path::is_odd(&normal)), order + 1);
        }
        return Ok((found, with_query(&onward, given.query())?));
    }
    let target = match given.path_and_query() {
        // An absolute-form target may have no path (RFC 9112 3.2.1).
        Some(target) if target.path() == onward && target.as_str().starts_with('/') => target.clone(),
        _ => with_query(&onward, given.query())?,
    };
    Ok((found, target))
}

fn with_query(path: &str, query: Option<&str>) -> Result<PathAndQuery, BoxError> {
    let target = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    target.map_err(Into::into)
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
