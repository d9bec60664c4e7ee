//! Facts about a request that never change, and the id that it gets.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BufMut as _;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use crate::cache::settings::CacheSettings;
use crate::fields::fresh;
use crate::memory::buffers::ClientSlot;
use crate::runtime::clock::Instant;
use crate::state::live_policy::Snapshot;
use crate::trace::Trace;

/// The protocol whose heads are not lines, as logs write it.
pub(crate) const HTTP_2: &str = "HTTP/2";

/// The facts about a request that are known when its head has come.
#[derive(Clone)]
pub(crate) struct RequestInfo {
    /// The time when the head of the request was complete.
    pub started: Instant,
    /// The request id, sent as `X-Request-Id`.
    pub id: HeaderValue,
    /// Whether Pillion made the id, instead of a trusted proxy.
    pub id_is_ours: bool,
    pub method: Method,
    /// The target as received, for the log.
    pub target: Option<PathAndQuery>,
    pub client: IpAddr,
    /// Whether the client's connection uses TLS.
    pub tls: bool,
    /// The protocol, as logs write it.
    pub protocol: &'static str,
    /// Whether the request is a gRPC call, whose errors have another form.
    pub grpc: bool,
    /// The position of the request in a trace.
    pub trace: Option<Trace>,
    /// The `tracestate` of the request, if it is reported.
    pub trace_state: Option<Box<str>>,
    /// The policy that applies to the request up to the end of its response.
    pub snapshot: Arc<Snapshot>,
}

impl RequestInfo {
    /// Returns the facts of a background request that starts `now` for this one. Its trace fields are forwarded
    /// unchanged, because background requests have no spans.
    pub(super) fn for_background(&self, now: Instant) -> RequestInfo {
        RequestInfo { started: now, grpc: false, trace: None, trace_state: None, ..self.clone() }
    }

    /// Returns the target as text; empty for a message that was refused before it was a request.
    pub(super) fn target_text(&self) -> &str {
        self.target.as_ref().map_or("", PathAndQuery::as_str)
    }

    /// Returns whether the id equals the id of a trace that starts here.
    pub(crate) fn has_id_of_trace(&self) -> bool {
        self.id_is_ours && self.trace.is_some_and(|trace| trace.begun_here().is_some())
    }

    /// Returns whether the response is sent as HTTP/1 lines.
    pub(crate) fn takes_lines(&self) -> bool {
        self.protocol != HTTP_2
    }

    /// Returns the slot of the client, for its share of upstream slots and buffer memory.
    pub(crate) fn client_slot(&self) -> ClientSlot {
        ClientSlot::new(self.client, self.snapshot.policy.limits.ipv6_prefix)
    }

    /// Returns the cache settings of the request's policy.
    pub(crate) fn cache_settings(&self) -> &CacheSettings {
        &self.snapshot.policy.cache
    }
}

/// Makes a new id: 128 random bits in hexadecimal. For a trace that starts with this request, the id equals the trace
/// id, so that each leads to the other.
pub(crate) fn request_id(trace: Option<u128>) -> HeaderValue {
    let id = trace.unwrap_or_else(|| fastrand::u128(..));
    let id = fresh::value(32, |out| out.put_slice(&fresh::hex(id)));
    id.unwrap_or_else(|| HeaderValue::from_static("-"))
}
