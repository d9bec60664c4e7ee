//! Builds the stack: the order of these lines is the proxy's behaviour.

use std::convert::Infallible;
use std::rc::Rc;

use http::Response;
use tower::Service;

use super::cache::service::CacheLayer;
use super::forward::Forward;
use super::limit::Limit;
use super::observe::Observe;
use super::record::Sink;
use super::represent::Represent;
use super::rescue::Rescue;
use super::route::Route;
use crate::message::body::Body;
use crate::message::inbound::Inbound;
use crate::state::live_policy::{PolicyView, SharedState};
use crate::upstream::Pool;

/// What one worker's stack is built with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub view: PolicyView,
    /// Where requests are counted and logged.
    pub sink: Rc<Sink>,
    /// The worker's connections to apps.
    pub pool: Rc<Pool>,
    pub shared_state: SharedState,
}

/// The stack of one connection, innermost first.
pub(crate) fn build(
    parts: &Parts,
) -> impl Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + use<> {
    // Picks the address, writes the forwarding fields, sends, retries.
    let stack = Forward::new(parts.pool.clone());
    // Answers from what is stored, stores what may be, and invalidates.
    let stack = CacheLayer::new(stack, parts.shared_state.cache.clone());
    // Outside of what stores answers, so that stored and fresh ones get the same treatment.
    let stack = Represent(stack);
    // Before any work is done for a request that may not pass.
    let stack = Limit::new(stack, parts.shared_state.limiter.clone());
    // Everything below reads only the route found here.
    let stack = Route(stack);
    // Inside observe, so that errors are counted like answers.
    let stack = Rescue(stack);
    // Must see everything, refusals too.
    Observe::new(stack, parts.view.clone(), parts.sink.clone())
}
