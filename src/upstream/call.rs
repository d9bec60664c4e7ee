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

/// A request on its way to an upstream.
pub(crate) struct Call<'a> {
    pub method: &'a Method,
    /// Path and query to send; `*` for OPTIONS *.
    pub target: &'a PathAndQuery,
    pub headers: &'a mut HeaderMap,
    /// The forwarding fields, if they are not among the others.
    pub forwarding: Option<&'a ForwardedFields>,
    /// The request ID, if it is not among the fields.
    pub identified: Option<Identified<'a>>,
    /// The client in whose share of the permits it counts.
    pub client: ClientSlot,
    pub body: Body,
    /// The protocols to upgrade to.
    pub upgrade: Option<&'a HeaderValue>,
    /// Whether the client accepts trailers.
    pub takes_trailers: bool,
    /// Destination of interim responses, with the number of the request.
    pub interim: Option<(&'a Interim, u32)>,
    /// The client connection, if the upstream connection must belong to it alone.
    pub pinned: Option<&'a Rc<Peer>>,
    /// Timeout that replaces the upstream's `response_timeout`.
    pub timeout: Option<Duration>,
    /// Whether the request is a stream from its start.
    pub streaming: Streaming,
    /// Silence timeout of streams without an expected end.
    pub stream_idle_timeout: Duration,
    /// Limits on the response head.
    pub limits: HeadLimits,
    /// The client's room in the buffer memory: without room the response stays at the upstream until it is read.
    pub room: Option<Room<'a>>,
    /// Whether the request is already counted there.
    pub counted: bool,
    /// Rank of the caller's tier, and the number of ranks.
    pub rank: (usize, usize),
}

/// Whether a request is a stream from its start. A stream counts in `max_streams`, and its response is awaited for the
/// life of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    /// An ordinary request, unless the head of its response makes it a stream.
    No,
    /// A gRPC call: a stream at an upstream over HTTP/2, an ordinary request at any other.
    OverHttp2,
    Always,
}

/// Progress of one upstream request, updated as it happens, so it is complete even on failure or client disconnect.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub address: RefCell<Option<Arc<Address>>>,
    pub retries: Cell<u32>,
    /// Time at which the last try was sent.
    pub sent: Cell<Option<Instant>>,
    /// When the response head arrived.
    pub responded: Cell<Option<Instant>>,
    /// The request's place in the queue for a permit, while it waits.
    pub line: RefCell<Option<Queued>>,
    /// The part of the request that was sent in all tries but the last over HTTP/2.
    pub(super) sent_earlier: Cell<Sent>,
    /// The part of the request that was sent in the last try over HTTP/2, which the upstream may declare unprocessed.
    pub(super) sent_over_http2: Cell<Sent>,
}

impl Progress {
    /// Resets all progress before another request.
    pub(crate) fn reset(&self) {
        let Progress { address, retries, sent, responded, line, sent_earlier, sent_over_http2 } = self;
        address.replace(None);
        line.replace(None);
        retries.set(0);
        sent.set(None);
        responded.set(None);
        sent_earlier.set(Sent::Nothing);
        sent_over_http2.set(Sent::Nothing);
    }

    /// Returns the part of the request that its upstream can have received, over all tries.
    pub(crate) fn sent_part(&self) -> Sent {
        self.sent_earlier.get().max(self.sent_over_http2.get())
    }

    /// Records that all of the request was sent.
    pub(crate) fn sent_whole(&self, now: Instant) {
        self.sent.set(Some(now));
        reach(&self.sent_earlier, Sent::Whole);
    }

    /// Starts another try over HTTP/2.
    pub(super) fn start_over_http2(&self) {
        reach(&self.sent_earlier, self.sent_over_http2.take());
    }
}

/// Returns whether requests with this method are reads, which are spread over replicas (RFC 9110 9.2.1, RFC 10008).
pub(super) fn is_spread(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || method.as_str() == "QUERY"
}

/// Returns whether requests with this method may be sent twice (RFC 9110 9.2.2, RFC 10008).
pub(super) fn is_idempotent(method: &Method) -> bool {
    is_spread(method) || matches!(*method, Method::PUT | Method::DELETE | Method::TRACE)
}
