//! Traces: a request's place in a trace, and what an OTLP receiver is told of it.
//!
//! Two spans a request that is sampled: the server's, from its head to the last byte of its answer, and the
//! client's, from sending it to an app to the head of the app's answer. The app finds the client's in
//! `traceparent`. Without a receiver nothing is changed: what came is passed on, so that no trace has a hole in it.

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

/// Where a request stands in a trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trace {
    pub id: u128,
    /// The span that asked, where the client named one.
    parent: Option<u64>,
    /// The one that asks the app; `None`: nobody is told, and the fields pass unchanged.
    span: Option<u64>,
    flags: u8,
}

impl Trace {
    /// Of a request with these fields. Who asks within a trace decides whether it is recorded; one that begins
    /// here is by its id, so that everybody who asks that question by the same share answers alike.
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

    /// Its trace, if that begins with this request.
    pub(crate) fn begun_here(&self) -> Option<u128> {
        self.parent.is_none().then_some(self.id)
    }

    /// Its trace, where somebody may look for it by that: it is recorded, or others began it. What begins here and is not
    /// recorded has the request's id, if that one is ours: then that is enough.
    pub(crate) fn to_find(self, id_is_ours: bool) -> Option<u128> {
        (!id_is_ours || self.parent.is_some() || self.is_sampled()).then_some(self.id)
    }

    /// What tells an app where it stands, beside `headers` or in place of what they say.
    pub(crate) fn passed_on(&self, headers: &mut HeaderMap) -> Option<TraceParent> {
        let span = self.span?;
        if self.parent.is_none() && headers.keys().any(|name| *name == TRACESTATE) {
            // Of a trace that was not understood.
            headers.remove(TRACESTATE);
        }
        Some(TraceParent { trace: self.id, span, flags: self.flags })
    }

    /// `tracestate` of a request that the receiver is told of, all lines of it (W3C Trace Context 3.3.1.1).
    pub(crate) fn state(&self, headers: &HeaderMap) -> Option<Box<str>> {
        if !self.is_recorded() || self.parent.is_none() {
            return None;
        }
        let lines = headers.get_all(TRACESTATE).iter().filter_map(|line| line.to_str().ok());
        let all = lines.collect::<Vec<_>>().join(",");
        (!all.is_empty()).then(|| all.into())
    }

    /// Whether it is recorded, by us or by others.
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Whether the receiver is told.
    pub(crate) fn is_recorded(&self) -> bool {
        self.span.is_some() && self.is_sampled()
    }
}

/// Who asks within a trace. Of two fields nobody knows which one is meant.
fn parent(headers: &HeaderMap) -> Option<TraceParent> {
    // Most requests come without, and comparing is quicker than looking up.
    if !headers.keys().any(|name| *name == TRACEPARENT) {
        return None;
    }
    let mut said = headers.get_all(TRACEPARENT).into_iter();
    let only = said.next().filter(|_| said.next().is_none())?;
    TraceParent::parse(only.as_bytes())
}

/// Not 0. Drawing from a range would divide.
fn trace_id() -> u128 {
    fastrand::u128(..).max(1)
}

fn span_id() -> u64 {
    fastrand::u64(..).max(1)
}

/// The bits that are random in a trace whose flag says so, the last ones (W3C Trace Context 2, "Random Trace ID Flag").
const RANDOM_BITS: u32 = 56;

/// From which number on this share of traces is recorded, of 0 to 1; the consistent sampling of OpenTelemetry. The
/// greatest are, so that a smaller share samples some of what a greater one does.
pub(crate) fn threshold(share: f64) -> u64 {
    ((1.0 - share) * (1u64 << RANDOM_BITS) as f64) as u64
}

fn is_sampled(id: u128, threshold: u64) -> bool {
    id as u64 & ((1 << RANDOM_BITS) - 1) >= threshold
}

/// What is told of a request when its last byte has gone.
#[derive(Debug)]
pub(crate) struct ServerSpanInfo<'a> {
    pub trace: Trace,
    /// `tracestate`, where it came within a trace.
    pub state: Option<&'a str>,
    /// `X-Request-Id`.
    pub id: &'a HeaderValue,
    /// When its head was whole; since the Unix epoch.
    pub started: Duration,
    /// Until the last byte of its answer.
    pub duration: Duration,
    pub method: &'a Method,
    /// Path and query, without secrets.
    pub target: &'a str,
    /// The route's template; `None`: it matches none.
    pub route: Option<&'a EscapedText>,
    /// `1.0`, `1.1` or `2`.
    pub protocol: &'static str,
    pub client: IpAddr,
    /// `http` or `https`, as it came to us.
    pub scheme: &'static str,
    pub status: u16,
    /// Content sent; bytes.
    pub bytes: u64,
    pub cache: Option<&'static str>,
    pub limit: Option<&'static str>,
    /// The app that was asked.
    pub asked: Option<ClientSpanInfo<'a>>,
    pub error: Option<(&'static str, &'a str)>,
}

/// What is told of a request to an app.
#[derive(Debug)]
pub(crate) struct ClientSpanInfo<'a> {
    /// The address that was asked.
    pub address: &'a Address,
    /// From the head of the request until it was given to the app.
    pub after: Duration,
    /// From there until the head of its answer, or until there was none to be had.
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
