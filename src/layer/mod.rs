//! The adapters: thin tower services between a connection and an app, outermost first
//! observe, rescue, route, limit, represent, cache, forward. `stack` builds them in one place.
//!
//! A layer decides little by itself: it asks an engine or the policy and turns the answer into HTTP.

mod cache;
pub(crate) mod certificates;
mod either;
pub(crate) mod explain;
mod forward;
mod limit;
mod observe;
pub(crate) mod record;
mod represent;
mod request_body;
mod rescue;
mod route;
pub(crate) mod stack;
mod underscores;

use std::rc::Rc;
use std::sync::Arc;

use http::Request;

use crate::limit::cells::Kind;
use crate::limit::counters::Verdict;
use crate::memory::buffers::BufferReservation;
use crate::message::body::Body;
use crate::message::inbound::{Inbound, Peer};
use crate::policy::RoutePolicy;
use crate::rendering::rendered_head::HeadVariant;
use record::RequestRecord;

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

/// The words that the layers tell users, by where they stand, and every problem type with its title.
pub(crate) fn words() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all = cache::words();
    all.push(("log limit", Verdict::ALL.map(Verdict::as_str).to_vec()));
    all.push(("log caller (before the colon)", Kind::ALL.map(Kind::as_str).to_vec()));
    all
}

pub(crate) use rescue::problem_types;

/// Whether mimalloc has a block of this many bytes at once. It makes a detour for what fills one of its classes to the last
/// byte, four to each power of two, unless that is a power of two itself: such a block could do without the room that
/// alignment may need, but it does not look for one (`alloc-aligned.c`). A box for each request has another size.
#[cfg(test)]
fn is_quick(size: usize) -> bool {
    const LARGEST: usize = 1024;
    size <= LARGEST && (size.is_power_of_two() || !size.is_multiple_of((1 << size.ilog2()) / 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_every_request_are_allocated_quickly() {
        assert!(is_quick(104) && !is_quick(112) && is_quick(128) && !is_quick(384));
        let sizes = [size_of::<Routed>(), size_of::<Request<Body>>(), size_of::<RequestRecord>()];
        assert!(sizes.into_iter().all(is_quick), "{sizes:?}");
    }
}
