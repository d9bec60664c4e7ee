//! A request on its way through the layers: before its route is found, and with it.

use std::rc::Rc;
use std::sync::Arc;

use http::Request;

use super::record::RequestRecord;
use crate::memory::buffers::BufferReservation;
use crate::message::body::Body;
use crate::message::inbound::{Inbound, Peer};
use crate::policy::RoutePolicy;
use crate::rendering::rendered_head::HeadVariant;

/// A request under observation: what `rescue` and `route` see.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The request as it came.
    pub inbound: Inbound,
    /// What is noted about it, and the policy it is served by.
    pub record: Rc<RequestRecord>,
}

/// A request with its route: what the layers below see.
#[derive(Debug)]
pub(crate) struct Routed {
    /// The request; its URI is what goes to the app, its Host is filled.
    pub request: Box<Request<Body>>,
    pub peer: Rc<Peer>,
    /// The protocols it asks to upgrade to.
    pub upgrade: Option<http::HeaderValue>,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// The number under which interim responses go to the client; see [`crate::message::inbound::Interim`].
    pub interim: Option<u32>,
    /// Whether the client speaks https, to us or to a trusted proxy.
    pub https: bool,
    /// Whether a signature of it names fields: it goes to the app as it is, and the cache has no part in it.
    pub signed: bool,
    pub route: Arc<RoutePolicy>,
    /// The form in which it is asked for, where the head of its answer may have been prepared.
    pub form: Option<HeadVariant>,
    /// Whether an app that reads paths loosely may take it for a request of another route.
    pub readings_differ: bool,
    /// Whether a field of it has an underscore in its name, which some apps take for a hyphen.
    pub underscored: bool,
    /// The route that rewrote it before.
    pub rewritten_by: Option<Arc<RoutePolicy>>,
    /// What is noted about it, and the policy it is served by.
    pub record: Rc<RequestRecord>,
    /// The buffer memory that it holds, where it is counted.
    pub memory: Option<BufferReservation>,
}

impl Routed {
    /// The same request once more, for nobody: its answer is not observed. `None` where its content is gone.
    pub(crate) fn again(&self, now: crate::runtime::clock::Instant) -> Option<Box<Routed>> {
        let mut request = Request::new(self.request.body().replica()?);
        *request.method_mut() = self.request.method().clone();
        *request.uri_mut() = self.request.uri().clone();
        *request.version_mut() = self.request.version();
        request.headers_mut().clone_from(self.request.headers());
        Some(Box::new(Routed {
            request: Box::new(request),
            peer: self.peer.clone(),
            upgrade: None,
            takes_trailers: self.takes_trailers,
            interim: None,
            https: self.https,
            signed: self.signed,
            route: self.route.clone(),
            form: None,
            readings_differ: self.readings_differ,
            underscored: self.underscored,
            rewritten_by: self.rewritten_by.clone(),
            record: Rc::new(self.record.for_background(now)),
            memory: None,
        }))
    }
}
