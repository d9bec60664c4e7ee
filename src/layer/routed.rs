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

/// A request as `rescue` and `route` see it.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The request as it was received.
    pub inbound: Inbound,
    /// The record of the request, with the policy that applies to it.
    pub record: Rc<RequestRecord>,
}

/// A request with its route, as the layers below `route` see it.
#[derive(Debug)]
pub(crate) struct Routed {
    /// The request. Its URI is the one for the upstream, and its `Host` is set.
    pub request: Box<Request<Body>>,
    pub peer: Rc<Peer>,
    /// The protocols that the client wants to upgrade to.
    pub upgrade: Option<http::HeaderValue>,
    /// Whether the client accepts trailers.
    pub takes_trailers: bool,
    /// The number that identifies this exchange for interim responses; see [`crate::message::inbound::Interim`].
    pub interim: Option<u32>,
    /// Whether the client uses https, with Pillion or with a trusted proxy.
    pub https: bool,
    /// Whether a signature lists fields. Such a request is forwarded unchanged and bypasses the cache.
    pub signed: bool,
    pub route: Arc<RoutePolicy>,
    /// The variant of the response head that the client needs, to look up a rendered head.
    pub form: Option<HeadVariant>,
    /// A number for the outcomes of the conditions that decided about the route, for cache keys; 0 if there were none.
    pub whens: u64,
    /// Whether an app that reads paths leniently may see a request for another route.
    pub readings_differ: bool,
    /// Whether a field has an underscore in its name, which some apps read as a hyphen.
    pub underscored: bool,
    /// The route that rewrote the path earlier.
    pub rewritten_by: Option<Arc<RoutePolicy>>,
    /// The record of the request, with the policy that applies to it.
    pub record: Rc<RequestRecord>,
    /// The buffer memory of the request, if it is accounted for.
    pub memory: Option<BufferReservation>,
}

impl Routed {
    /// Copies the request for a background fetch whose response is not observed. Returns `None` if the content is no
    /// longer available.
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
            whens: self.whens,
            readings_differ: self.readings_differ,
            underscored: self.underscored,
            rewritten_by: self.rewritten_by.clone(),
            record: Rc::new(self.record.for_background(now)),
            memory: None,
        }))
    }
}
