//! Builds the stack: the order of these lines is the proxy's behaviour.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::Response;
use tower::Service;

use super::forward::Forward;
use super::limit::Limit;
use super::live::View;
use super::observe::Observe;
use super::rescue::Rescue;
use super::route::Route;
use crate::body::Body;
use crate::inbound::Inbound;
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::upstream::Pool;

/// What one worker's stack is built with.
#[derive(Clone)]
pub struct Parts {
    /// The policy in force.
    pub view: View,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are logged.
    pub log: AccessLog,
    /// The worker's connections to apps.
    pub pool: Rc<Pool>,
}

/// The stack of one connection, innermost first.
pub fn build(parts: &Parts) -> impl Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + use<> {
    // Picks the address, writes the forwarding fields, sends, retries.
    let stack = Forward::new(parts.pool.clone());
    // Before any work is done for a request that may not pass.
    let stack = Limit(stack);
    // Everything below reads only the route found here.
    let stack = Route(stack);
    // Inside observe, so that errors are counted like answers.
    let stack = Rescue(stack);
    // Must see everything, refusals too.
    Observe::new(stack, parts.view.clone(), parts.metrics.clone(), parts.log.clone())
}
