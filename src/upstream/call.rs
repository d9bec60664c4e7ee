//! One request to an upstream, and its progress.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use super::address::Address;
use crate::fields::forwarded::ForwardedFields;
use crate::fields::request_id::Identified;
use crate::http1::client::{Sent, reach};
use crate::http1::head::HeadLimits;
use crate::memory::buffers::{ClientSlot, Room};
use crate::message::body::Body;
use crate::message::inbound::{Interim, Peer};
use crate::runtime::clock::Instant;
use crate::upstream::queue::Queued;

/// A request on its way to an app.
pub(crate) struct Call<'a> {
    pub method: &'a Method,
    /// Path and query as they go on; `*` for OPTIONS *.
    pub target: &'a PathAndQuery,
    pub headers: &'a mut HeaderMap,
    /// The forwarding fields, where they are not among the others.
    pub forwarding: Option<&'a ForwardedFields>,
    /// Which request it is, where that is not among the fields.
    pub identified: Option<Identified<'a>>,
    /// Whose share of the places it takes.
    pub client: ClientSlot,
    pub body: Body,
    /// The protocols to upgrade to.
    pub upgrade: Option<&'a HeaderValue>,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// Where interim responses go, and under which number.
    pub interim: Option<(&'a Interim, u32)>,
    /// The client connection, where what it uses belongs to it alone.
    pub pinned: Option<&'a Rc<Peer>>,
    /// Instead of `response_timeout`.
    pub timeout: Option<Duration>,
    /// Whether it is a stream from its start.
    pub streaming: Streaming,
    /// For streams without an expected end.
    pub stream_idle_timeout: Duration,
    /// Bounds on the head of the answer.
    pub limits: HeadLimits,
    /// The client's room in the buffer memory: without it the response stays at the upstream until it is taken.
    pub room: Option<Room<'a>>,
    /// Whether the request is counted there already.
    pub counted: bool,
    /// The rank of its caller's tier, and how many there are.
    pub rank: (usize, usize),
}

/// Whether a request is a stream from its start: one that counts in `max_streams`, whose response is waited for as long
/// as the connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    /// No: only the head of its response makes it one.
    No,
    /// A gRPC call: where the upstream is spoken to in HTTP/2. Any other upstream takes it for an ordinary request.
    OverHttp2,
    Always,
}

/// What is known about how a request goes, as soon as it is: also when it fails, or nobody waits for it any more.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub address: RefCell<Option<Arc<Address>>>,
    pub retries: Cell<u32>,
    /// When the last try was sent.
    pub sent: Cell<Option<Instant>>,
    /// When the head of the answer came.
    pub responded: Cell<Option<Instant>>,
    /// Where it waits for a place, as long as it does.
    pub line: RefCell<Option<Queued>>,
    /// How much of it left in all tries but one over HTTP/2.
    pub(super) left: Cell<Sent>,
    /// How much of it left in the last try over HTTP/2, which the upstream may say it did not process.
    pub(super) left_over_http2: Cell<Sent>,
}

impl Outcome {
    /// Nothing is known yet, whatever was asked before.
    pub(crate) fn forget(&self) {
        let Outcome { address, retries, sent, responded, line, left, left_over_http2 } = self;
        address.replace(None);
        line.replace(None);
        retries.set(0);
        sent.set(None);
        responded.set(None);
        left.set(Sent::Nothing);
        left_over_http2.set(Sent::Nothing);
    }

    /// How much of the request its app can have received, over all tries.
    pub(crate) fn how_much_left(&self) -> Sent {
        self.left.get().max(self.left_over_http2.get())
    }

    /// Another try over HTTP/2 begins.
    pub(super) fn begin_over_http2(&self) {
        reach(&self.left, self.left_over_http2.take());
    }
}

/// Methods whose requests are reads, spread over replicas (RFC 9110 9.2.1, RFC 10008).
pub(super) fn is_spread(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || method.as_str() == "QUERY"
}

/// Methods that may be sent twice (RFC 9110 9.2.2, RFC 10008).
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_spread(method) || matches!(*method, Method::PUT | Method::DELETE | Method::TRACE)
}
