//! The content of one access log line.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use super::mask::Secrets;
use crate::rendering::json_text::EscapedText;
use crate::runtime::clock::Instant;

#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// The time when the last byte of the response was sent.
    pub at: Instant,
    pub id: &'a HeaderValue,
    /// The trace that has the spans of this request.
    pub trace: Option<u128>,
    pub client: IpAddr,
    pub method: &'a Method,
    /// The path and query as received.
    pub target: &'a str,
    /// The parts of the target that are masked.
    pub secrets: Secrets<'a>,
    pub protocol: &'static str,
    pub route: &'a EscapedText,
    pub status: StatusCode,
    /// Bytes of content sent to clients.
    pub bytes: u64,
    /// The coding that Pillion applied, and the bytes of content before it.
    pub coded: Option<(&'static str, u64)>,
    pub duration: Duration,
    /// Time until the head of the upstream's response.
    pub upstream_time: Option<Duration>,
    pub upstream: Option<&'a EscapedText>,
    pub retries: u32,
    /// Time until the head of the response was sent to the client.
    pub first_byte: Option<Duration>,
    pub cache: Option<&'static str>,
    /// The reason why the response was not stored.
    pub not_stored: Option<&'static str>,
    /// The keyed hash of the principal whose stored responses the request may use, if they are separate.
    pub principal: Option<u128>,
    pub limited: Option<Decision<'a>>,
    pub error: Option<(&'static str, &'a str)>,
}

#[cfg(test)]
impl<'a> Line<'a> {
    /// Creates a line with only the required values.
    pub(super) fn bare(id: &'a HeaderValue, method: &'a Method, route: &'a EscapedText) -> Line<'a> {
        Line {
            at: crate::runtime::clock::now(),
            id,
            trace: None,
            client: [127, 0, 0, 1].into(),
            method,
            target: "/",
            secrets: Secrets { names: &[], segments: &crate::policy::secrets::NO_SECRET_SEGMENTS },
            protocol: "HTTP/1.1",
            route,
            status: StatusCode::OK,
            bytes: 0,
            coded: None,
            duration: Duration::ZERO,
            upstream_time: None,
            upstream: None,
            retries: 0,
            first_byte: None,
            cache: None,
            not_stored: None,
            principal: None,
            limited: None,
            error: None,
        }
    }
}

/// The decision of the limits about a request.
#[derive(Clone, Copy)]
pub(crate) struct Decision<'a> {
    /// The kind of the caller's partition key, and its keyed hash.
    pub caller: (&'static str, u128),
    pub tier: &'a EscapedText,
    pub word: &'static str,
    /// The names of the exceeded limits.
    pub limits: &'a [&'a str],
}
