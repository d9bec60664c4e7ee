//! Facts about a request when its head has come, and the id that it gets.

use bytes::BufMut as _;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use crate::fields::fresh;
use crate::runtime::clock::Instant;
use crate::trace::Trace;

/// What a record is made of.
pub(crate) struct RequestInfo {
    /// See [`Record`].
    pub started: Instant,
    /// See [`Record`].
    pub id: HeaderValue,
    /// See [`Record`].
    pub id_is_ours: bool,
    /// See [`Record`].
    pub method: Method,
    /// See [`Record`].
    pub target: Option<PathAndQuery>,
    /// See [`Record`].
    pub client: std::net::IpAddr,
    /// See [`Record`].
    pub tls: bool,
    /// See [`Record`].
    pub protocol: &'static str,
    /// See [`Record`].
    pub grpc: bool,
    /// See [`Record`].
    pub trace: Option<Trace>,
    /// See [`Record`].
    pub trace_state: Option<Box<str>>,
}

/// A new id, 128 random bits in hexadecimal; of a trace that begins with this request, so that one finds the other.
pub(crate) fn request_id(trace: Option<u128>) -> HeaderValue {
    let id = trace.unwrap_or_else(|| fastrand::u128(..));
    let id = fresh::value(32, |out| out.put_slice(&fresh::hex(id)));
    id.unwrap_or_else(|| HeaderValue::from_static("-"))
}
