//! The outermost layer: gives each request an id and a policy, and counts and logs it when the last byte of the
//! response was sent or the client left.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response, Version};
use tower::Service;

use super::record::{
    HTTP_2, RequestBodyObserver, RequestInfo, RequestRecord, ResponseBodyObserver, Sink, request_id,
};
use super::routed::Observed;
use crate::fields::request_id::{X_CORRELATION_ID, X_REQUEST_ID};
use crate::fields::{forwarded, grpc, rate_limit};
use crate::message::body::Body;
use crate::message::inbound::Inbound;
use crate::state::live_policy::{PolicyView, Snapshot};
use crate::trace::Trace;

/// Maximum length of a request id that is accepted from a trusted peer.
const MAX_ID_LENGTH: usize = 128;

/// The observe layer as a tower layer; see the head of the file.
#[derive(Clone)]
pub(super) struct Observe<S> {
    inner: S,
    view: PolicyView,
    sink: Rc<Sink>,
}

impl<S> Observe<S> {
    /// Wraps the service `inner` for one worker.
    pub(super) fn new(inner: S, view: PolicyView, sink: Rc<Sink>) -> Observe<S> {
        Observe { inner, view, sink }
    }
}

impl<S> Service<Inbound> for Observe<S>
where
    S: Service<Observed, Response = Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut inbound: Inbound) -> Self::Future {
        let snapshot: Arc<Snapshot> = self.view.load().clone();
        let server = &snapshot.policy.server;
        let peer = inbound.peer.address.ip();
        let headers = inbound.request.headers();
        let trusted = server.trusts(peer);
        let client = forwarded::client_ip(headers, peer, |ip| server.trusts(ip));
        let received_id = if trusted { received_id(headers) } else { None };
        let trace = Trace::from_headers(&snapshot.policy.tracing, headers);
        let id_is_ours = received_id.is_none();
        let id = received_id.unwrap_or_else(|| request_id(trace.and_then(|trace| trace.begun_here())));
        let target = match inbound.refused {
            Some(_) => None,
            None => inbound.request.uri().path_and_query().cloned(),
        };
        // Copies the values: a slice would keep a large head in memory until the response ends.
        let (id, target) = match inbound.counted {
            0 => (id, target),
            _ => (HeaderValue::from_bytes(id.as_bytes()).unwrap_or(id), target.map(detached)),
        };
        let info = RequestInfo {
            started: inbound.received,
            id,
            id_is_ours,
            method: inbound.request.method().clone(),
            target,
            client,
            tls: inbound.peer.tls,
            protocol: match inbound.request.version() {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => HTTP_2,
                _ => "HTTP/1.1",
            },
            grpc: grpc::is_call(inbound.request.method(), headers),
            trace,
            trace_state: trace.and_then(|trace| trace.state(headers)),
            snapshot,
        };
        let record = Rc::new(RequestRecord::start(info, self.sink.clone()));
        let content = inbound.request.body_mut();
        if !http_body::Body::is_end_stream(content) {
            content.observe(Box::new(RequestBodyObserver(Rc::downgrade(&record))));
        }
        let inner = self.inner.call(Observed { inbound, record: record.clone() });
        ObserveFuture { inner, record }
    }
}

/// Copies a target to memory of its own.
fn detached(target: PathAndQuery) -> PathAndQuery {
    PathAndQuery::try_from(target.as_str()).unwrap_or(target)
}

/// Returns the request id that a trusted peer sent under either name, if it can be written anywhere without escapes.
fn received_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let fits =
        |id: &&HeaderValue| !id.is_empty() && id.len() <= MAX_ID_LENGTH && id.as_bytes().iter().all(is_plain);
    [X_REQUEST_ID, X_CORRELATION_ID].iter().find_map(|name| headers.get(name).filter(fits)).cloned()
}

/// The future of an observed request's response.
pub(super) struct ObserveFuture<F> {
    inner: F,
    record: Rc<RequestRecord>,
}

impl<F> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(Pin::new(&mut self.inner).poll(cx));
        let record = &self.record;
        record.response_started(response.status());
        // Done here, so that refusals and failures have these fields too. HTTP/1 writes them as lines beside the field
        // map unless a layer has to see them.
        let as_lines = record.info.takes_lines()
            && !response.body().is_tunnel()
            && !response
                .headers()
                .keys()
                .any(|name| *name == X_REQUEST_ID || rate_limit::is_rate_limit_field(name));
        if as_lines {
            response.body_mut().set_own_fields(record.clone());
        } else {
            record.add_own_fields(response.headers_mut());
        }
        let body = response.body_mut();
        record.head_sent(body.is_endless() || body.is_tunnel());
        if http_body::Body::is_end_stream(body) && !body.is_tunnel() {
            record.finish();
        } else {
            body.set_client(record.info.client_slot());
            body.observe(Box::new(ResponseBodyObserver(record.clone())));
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests;
