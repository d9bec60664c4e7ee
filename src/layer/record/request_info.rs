//! Facts about a request when its head has come, and the id that it gets.

use bytes::BufMut as _;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use crate::fields::fresh;
use crate::runtime::clock::Instant;
use crate::trace::Trace;

/// The values known when a request starts; see the fields of [`super::RequestRecord`].
pub(crate) struct RequestInfo {
    pub started: Instant,
    pub id: HeaderValue,
    pub id_is_ours: bool,
    pub method: Method,
    pub target: Option<PathAndQuery>,
    pub client: std::net::IpAddr,
    pub tls: bool,
    pub protocol: &'static str,
    pub grpc: bool,
    pub trace: Option<Trace>,
    pub trace_state: Option<Box<str>>,
}

/// Makes a new id: 128 random bits in hexadecimal. For a trace that starts with this request, the id equals the trace
/// id, so that each leads to the other.
pub(crate) fn request_id(trace: Option<u128>) -> HeaderValue {
    let id = trace.unwrap_or_else(|| fastrand::u128(..));
    let id = fresh::value(32, |out| out.put_slice(&fresh::hex(id)));
    id.unwrap_or_else(|| HeaderValue::from_static("-"))
}
