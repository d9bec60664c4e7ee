//! Traces: a request's position in a trace, and the spans that an OTLP receiver gets. A sampled request has two spans:
//! the server span, from its head to the last byte of the response, and the client span, from sending it to the
//! upstream to the head of the upstream's response. `traceparent` tells the upstream the client span. Without a
//! receiver the trace fields are forwarded unchanged, so that no trace has a gap.

mod export;
mod otlp;
mod spans;

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};

use crate::fields::traceparent::{RANDOM, SAMPLED, TRACEPARENT, TRACESTATE, TraceParent};
use crate::policy::TracingPolicy;
use crate::rendering::json_text::EscapedText;
use crate::upstream::Address;

pub(crate) use export::{Spans, run};

/// The position of a request in a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    pub id: u128,
    /// The calling span, if the client named one.
    parent: Option<u64>,
    /// The client span; `None` without a receiver, when the trace fields are forwarded unchanged.
    span: Option<u64>,
    flags: u8,
}

impl Trace {
    /// Determines the trace of a request. The caller's sampling decision applies within an existing trace. A trace that
    /// starts here is sampled by its id, so that every service with the same ratio decides alike.
    pub(crate) fn from_headers(policy: &TracingPolicy, headers: &HeaderMap) -> Option<Trace> {
        let parent = parent(headers);
        let span = policy.receiver.as_ref().map(|_| span_id());
        match parent {
            Some(parent) => {
                Some(Trace { id: parent.trace, parent: Some(parent.span), span, flags: parent.flags })
            }
            None => span.map(|_| {
                let id = trace_id();
                let flags = RANDOM | if is_sampled(id, policy.threshold) { SAMPLED } else { 0 };
                Trace { id, parent: None, span, flags }
            }),
        }
    }

    /// Returns the trace id if the trace starts with this request.
    pub(crate) fn begun_here(&self) -> Option<u128> {
        self.parent.is_none().then_some(self.id)
    }

    /// Returns the trace id if somebody may search for it: the trace is recorded, or others started it. An unrecorded
    /// trace that starts here has the same id as the request unless the request id came from a proxy, so the request id
    /// is enough.
    pub(crate) fn to_find(self, id_is_ours: bool) -> Option<u128> {
        (!id_is_ours || self.parent.is_some() || self.is_sampled()).then_some(self.id)
    }

    /// Returns the trace fields for the upstream, and removes an unusable `tracestate` from `headers`.
    pub(crate) fn passed_on(&self, headers: &mut HeaderMap) -> Option<TraceParent> {
        let span = self.span?;
        if self.parent.is_none() && headers.keys().any(|name| *name == TRACESTATE) {
            // This `tracestate` belongs to a trace whose `traceparent` is malformed.
            headers.remove(TRACESTATE);
        }
        Some(TraceParent { trace: self.id, span, flags: self.flags })
    }

    /// Returns all lines of `tracestate`, if the request is reported to the receiver (W3C Trace Context 3.3.1.1).
    pub(crate) fn state(&self, headers: &HeaderMap) -> Option<Box<str>> {
        if !self.is_recorded() || self.parent.is_none() {
            return None;
        }
        let lines = headers.get_all(TRACESTATE).iter().filter_map(|line| line.to_str().ok());
        let all = lines.collect::<Vec<_>>().join(",");
        (!all.is_empty()).then(|| all.into())
    }

    /// Returns whether the trace is recorded, here or elsewhere.
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns whether the receiver gets the request's spans.
    pub(crate) fn is_recorded(&self) -> bool {
        self.span.is_some() && self.is_sampled()
    }
}

/// Parses the calling span. With two fields it is unknown which is meant, so neither counts.
fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    // Most requests have no such field, and comparing names is faster than a hash lookup.
    if !headers.keys().any(|name| *name == TRACEPARENT) {
        return None;
    }
    let mut said = headers.get_all(TRACEPARENT).into_iter();
    let only = said.next().filter(|_| said.next().is_none())?;
    TraceParent::parse(only.as_bytes())
}

/// Never 0. `max` avoids the division of a random range.
fn trace_id() -> u128 {
    fastrand::u128(..).max(1)
}

fn span_id() -> u64 {
    fastrand::u64(..).max(1)
}

/// Number of bits at the end of a trace id that are random if the trace has the flag (W3C Trace Context 2, "Random
/// Trace ID Flag").
const RANDOM_BITS: u32 = 56;

/// Returns the sampling threshold for a ratio from 0 to 1, by OpenTelemetry's consistent sampling. The greatest numbers
/// are sampled, so that a smaller ratio samples a subset of what a greater one does.
pub(crate) fn threshold(share: f64) -> u64 {
    ((1.0 - share) * (1u64 << RANDOM_BITS) as f64) as u64
}

fn is_sampled(id: u128, threshold: u64) -> bool {
    id as u64 & ((1 << RANDOM_BITS) - 1) >= threshold
}

/// The values of a server span, collected when the last byte of the response was sent.
#[derive(Debug)]
pub(crate) struct ServerSpanInfo<'a> {
    pub trace: Trace,
    /// The value of `tracestate`, if the request came within a trace.
    pub state: Option<&'a str>,
    /// The request id, sent as `X-Request-Id`.
    pub id: &'a HeaderValue,
    /// The time when the request's head was complete, since the Unix epoch.
    pub started: Duration,
    /// Time until the last byte of the response.
    pub duration: Duration,
    pub method: &'a Method,
    /// Path and query, with secrets masked.
    pub target: &'a str,
    /// The route's template; `None` if no route matches.
    pub route: Option<&'a EscapedText>,
    /// One of `1.0`, `1.1` and `2`.
    pub protocol: &'static str,
    pub client: IpAddr,
    /// Either `http` or `https`, as the client used it with Pillion.
    pub scheme: &'static str,
    pub status: u16,
    /// Bytes of response content sent.
    pub bytes: u64,
    pub cache: Option<&'static str>,
    pub limit: Option<&'static str>,
    /// The client span, if the upstream was asked.
    pub asked: Option<ClientSpanInfo<'a>>,
    pub error: Option<(&'static str, &'a str)>,
}

/// The values of a client span, for one request to an upstream.
#[derive(Debug)]
pub(crate) struct ClientSpanInfo<'a> {
    /// The upstream address that was used.
    pub address: &'a Address,
    /// Time from the head of the request until it was passed to the upstream.
    pub after: Duration,
    /// Time from there to the head of the upstream's response, or to the failure.
    pub duration: Option<Duration>,
    pub status: Option<u16>,
    pub retries: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_a_smaller_one_is_part_of_a_greater() {
        fastrand::seed(7);
        let ids: Vec<u128> = (0..20_000).map(|_| trace_id()).collect();
        for (share, min, max) in
            [(0.0, 0, 0), (0.1, 1_850, 2_150), (0.5, 9_700, 10_300), (1.0, 20_000, 20_000)]
        {
            let sampled = ids.iter().filter(|id| is_sampled(**id, threshold(share))).count();
            assert!((min..=max).contains(&sampled), "{share}: {sampled}");
        }
        assert!(
            ids.iter()
                .filter(|id| is_sampled(**id, threshold(0.1)))
                .all(|id| is_sampled(*id, threshold(0.2)))
        );
    }
}
