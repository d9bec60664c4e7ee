//! The content of one access log line.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use super::mask::Secrets;
use crate::rendering::json_text::EscapedText;
use crate::runtime::clock::Instant;

#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    /// When its last byte had gone.
    pub at: Instant,
    pub id: &'a HeaderValue,
    /// The trace it is to be found in.
    pub trace: Option<u128>,
    pub client: IpAddr,
    pub method: &'a Method,
    /// Path and query as they came.
    pub target: &'a str,
    /// What of that is not written.
    pub secrets: Secrets<'a>,
    pub protocol: &'static str,
    pub route: &'a EscapedText,
    pub status: StatusCode,
    /// Bytes of content sent.
    pub bytes: u64,
    /// The coding Pillion put on it, and bytes of content before that.
    pub coded: Option<(&'static str, u64)>,
    pub duration: Duration,
    /// Until the head of the app's answer.
    pub upstream_time: Option<Duration>,
    pub upstream: Option<&'a EscapedText>,
    pub retries: u32,
    /// Until the head of the answer went out.
    pub first_byte: Option<Duration>,
    pub cache: Option<&'static str>,
    /// Why the answer was not stored.
    pub not_stored: Option<&'static str>,
    /// Whose answers it may be given, where they are kept apart: a keyed hash.
    pub principal: Option<u128>,
    pub limited: Option<Decision<'a>>,
    pub error: Option<(&'static str, &'a str)>,
}

#[cfg(test)]
impl<'a> Line<'a> {
    /// That says nothing it need not.
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

/// What the limits said of a request.
#[derive(Clone, Copy)]
pub(crate) struct Decision<'a> {
    /// What its caller is known by, and the keyed hash of that.
    pub caller: (&'static str, u128),
    pub tier: &'a EscapedText,
    pub word: &'static str,
    /// The limits that were exceeded.
    pub limits: &'a [&'a str],
}
