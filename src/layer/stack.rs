//! Builds the stack of layers. Their order defines the behaviour of the proxy.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use tower::Service;

use super::cache::service::{CacheLayer, Others};
use super::forward::Forward;
use super::limit::Limit;
use super::observe::Observe;
use super::record::Sink;
use super::represent::Represent;
use super::rescue::Rescue;
use super::route::Route;
use super::routed::{Observed, Routed};
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::message::inbound::Inbound;
use crate::redis::link::Link;
use crate::state::live_policy::{PolicyView, SharedState};
use crate::upstream::Pool;

/// The parts that a worker's stack is built from.
#[derive(Clone)]
pub(crate) struct Parts {
    pub view: PolicyView,
    /// The metrics and the access log of the worker.
    pub sink: Rc<Sink>,
    /// The worker's pool of upstream connections.
    pub pool: Rc<Pool>,
    pub shared_state: SharedState,
    /// The worker's own link to the stored responses of other processes.
    pub copies_link: Option<Arc<Link>>,
}

/// Builds the stack of one connection, innermost layer first.
pub(crate) fn build(
    parts: &Parts,
) -> impl Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + use<> {
    // Chooses the address, writes the forwarding fields, sends and retries.
    let stack = around(Forward::new(parts.pool.clone()), &parts.shared_state, parts.copies_link.as_ref());
    // Outermost, because it must see everything, refusals too.
    Observe::new(stack, parts.view.clone(), parts.sink.clone())
}

/// Builds the layers between `observe` and the service that stands for the upstream, innermost layer first.
pub(super) fn around<S>(
    upstream: S,
    shared_state: &SharedState,
    copies_link: Option<&Arc<Link>>,
) -> impl Service<Observed, Response = Response<Body>, Error = Infallible, Future: Unpin> + Clone + use<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    // Before any work is done for a request that may be refused.
    let stack = Limit::new(cached(upstream, shared_state, copies_link), shared_state.limiter.clone());
    // Everything below uses the route found here.
    let stack = Route(stack);
    // Inside observe, so that errors are counted like other responses.
    Rescue(stack)
}

/// Builds the same without limits, for requests that no client sends.
pub(super) fn without_limits(
    parts: &Parts,
) -> impl Service<Observed, Response = Response<Body>, Error = Infallible, Future: Unpin> + Clone + use<> {
    Rescue(Route(cached(Forward::new(parts.pool.clone()), &parts.shared_state, parts.copies_link.as_ref())))
}

/// Builds the layers that serve and store.
fn cached<S>(
    upstream: S,
    shared_state: &SharedState,
    copies_link: Option<&Arc<Link>>,
) -> Represent<CacheLayer<S>>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    let others = Others {
        copies: shared_state.copies.clone().zip(copies_link.cloned()),
        own_writes: shared_state.own_writes.clone(),
    };
    // Serves stored responses, stores new ones, and invalidates.
    let stack = CacheLayer::new(upstream, shared_state.cache.clone(), others);
    // Outside of the cache, so that stored and new responses are treated alike.
    Represent(stack)
}
