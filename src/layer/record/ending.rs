//! The end of a request: it is counted, logged, and told to whoever takes traces.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use http::uri::PathAndQuery;

use super::{CLIENT_GONE, Limited, Place, Record};
use crate::body::{BodyError, Observer};
use crate::clock::{self, Instant};
use crate::error::Fault;
use crate::layer::limit;
use crate::layer::live::REFUSED;
use crate::log::{Decision, Line, Secrets, masked};
use crate::metrics::{Spent, Traced};
use crate::performance::Noted;
use crate::performance::window::Sample;
use crate::trace::{Asked, Told, Trace};

impl Record {
    /// The answer has ended, or nobody waits for it any more.
    pub fn finish(&self) {
        if self.done.replace(true) {
            return;
        }
        self.sink.lasting.metrics.routes.in_flight.fetch_sub(1, Ordering::Relaxed);
        let now = clock::now();
        let duration = now.saturating_duration_since(self.started);
        let gone = StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
        let status = self.status.get().unwrap_or(gone);
        let (series, route) = match self.route.get() {
            Place::Refused => (self.snapshot.refused(), &REFUSED),
            Place::Route(order) => (self.snapshot.series(order), &self.snapshot.route(order).label),
        };
        let upstream = self.upstream_time.get();
        let until_head = self.until_head.get().unwrap_or(duration);
        let own = until_head.saturating_sub(upstream.unwrap_or_default());
        let sampled = self.trace.as_ref().filter(|trace| trace.is_sampled());
        let traced = sampled.map(|trace| Traced { trace: trace.id, at: clock::unix_at(now) });
        let spent = Spent { whole: duration, upstream, own, bytes: self.bytes.get(), traced };
        series.record(&self.method, status, &spent);
        let policy = &self.snapshot.policy.log;
        let error = self.error.borrow();
        let told_error = error.as_ref().map(|(fault, error)| (fault.as_str(), error.as_str()));
        self.count_performance(status, duration, error.as_ref());
        if let Some(trace) = self.trace.as_ref().filter(|trace| trace.is_recorded()) {
            self.tell_receiver(trace, status, duration, told_error);
        }
        if !self.sink.log.wants(policy, status, error.is_some(), duration) {
            return;
        }
        let (limited, asked) = (self.limited.borrow(), self.upstream.borrow());
        let violated = limited.as_ref().map(|limited| limit::names(&limited.violated, &limited.tier));
        self.sink.log.write(
            policy,
            &Line {
                at: now,
                id: &self.id,
                trace: self.trace.as_ref().and_then(|trace| trace.to_find(self.id_is_ours)),
                client: self.client,
                method: &self.method,
                target: self.target.as_ref().map_or("", PathAndQuery::as_str),
                secrets: self.secrets(),
                protocol: self.protocol,
                route,
                status,
                bytes: self.bytes.get(),
                coded: self.coded.borrow().as_ref().map(|(coding, before)| (*coding, before.get())),
                duration,
                upstream_time: self.upstream_time.get(),
                upstream: asked.as_ref().map(|address| &address.name),
                retries: self.retries.get(),
                first_byte: self.until_head.get(),
                cache: self.by_cache.get(),
                not_stored: self.not_stored.get(),
                principal: self.principal.get(),
                limited: limited.as_ref().map(|limited| Decision {
                    caller: (limited.key.kind.as_str(), limited.key.hash),
                    tier: &limited.tier.name,
                    word: limited.word(),
                    limits: violated.as_deref().unwrap_or_default(),
                }),
                error: told_error,
            },
        );
    }

    fn secrets(&self) -> Secrets<'_> {
        let segments = &self.snapshot.route(self.matched.get()).secrets;
        Secrets { names: &self.snapshot.policy.log.mask, segments }
    }

    /// Tells the receiver of traces. Not every request, so it stands apart from what is done for every one.
    #[inline(never)]
    fn tell_receiver(
        &self,
        trace: &Trace,
        status: StatusCode,
        duration: Duration,
        error: Option<(&'static str, &str)>,
    ) {
        let route = match self.route.get() {
            Place::Route(Some(order)) => Some(&self.snapshot.route(Some(order)).label),
            Place::Route(None) | Place::Refused => None,
        };
        let target = self.target.as_ref().map_or("", PathAndQuery::as_str);
        let upstream = self.upstream.borrow();
        let since = |at: Instant| at.saturating_duration_since(self.started);
        let asked = upstream.as_ref().map(|address| Asked {
            address,
            after: self.forwarded.get().map_or(Duration::ZERO, since),
            duration: self.upstream_time.get(),
            retries: self.retries.get(),
            status: self.upstream_status.get().map(|status| status.as_u16()),
        });
        self.sink.lasting.spans.put(&Told {
            trace: *trace,
            id: &self.id,
            started: clock::unix_at(self.started),
            duration,
            method: &self.method,
            target: &masked(target, self.secrets()),
            route,
            protocol: self.protocol.strip_prefix("HTTP/").unwrap_or(self.protocol),
            client: self.client,
            scheme: if self.tls { "https" } else { "http" },
            status: status.as_u16(),
            bytes: self.bytes.get(),
            cache: self.by_cache.get(),
            limit: self.limited.borrow().as_ref().map(Limited::word),
            asked,
            error,
        });
    }

    /// Counts it among its route's, and notes it where it was slow or failed.
    fn count_performance(&self, status: StatusCode, duration: Duration, error: Option<&(Fault, String)>) {
        let Place::Route(order) = self.route.get() else { return };
        let Some(route) = self.snapshot.times(order) else { return };
        let policy = &self.snapshot.policy.log;
        // How long a stream lives says nothing of how quick its answer was.
        let duration = if self.endless.get() { self.until_head.get().unwrap_or(duration) } else { duration };
        let sample = Sample {
            duration,
            bytes: self.bytes.get(),
            failed: status.is_server_error(),
            slow: duration >= policy.slow,
            cache: self.by_cache.get().and_then(had_it),
        };
        route.times.add(&sample);
        let performance = &self.sink.lasting.performance;
        if !(sample.failed || sample.slow) || !performance.may_note() {
            return;
        }
        let target = self.target.as_ref().map_or("", PathAndQuery::as_str);
        let noted = Noted {
            at: clock::wall(),
            id: self.id.to_str().unwrap_or("-").to_owned(),
            method: self.method.to_string(),
            target: masked(target, self.secrets()).into_owned(),
            route: self.snapshot.route(order).label.to_string(),
            status: status.as_u16(),
            duration,
            upstream_time: self.upstream_time.get(),
            upstream: self.upstream.borrow().as_ref().map(|address| address.name.to_string()),
            cache: self.by_cache.get(),
            error: match error {
                Some((fault, error)) => Some((fault.as_str(), error.clone())),
                None => (sample.failed && self.upstream_status.get() == Some(status))
                    .then(|| (Fault::Upstream.as_str(), "the app said so".to_owned())),
            },
        };
        performance.note(noted, &sample);
    }
}

/// Whether the cache had what it was asked for, by its word; `None`: it was not asked.
fn had_it(word: &str) -> Option<bool> {
    match word {
        "hit" | "stale" | "stale-if-error" | "revalidated" | "collapsed" => Some(true),
        "miss" | "expired" => Some(false),
        _ => None,
    }
}

/// Follows an answer's body to its end.
pub struct Ending(pub Rc<Record>);

impl Observer for Ending {
    fn data(&mut self, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes as u64);
    }

    fn end(&mut self, result: Result<(), &BodyError>) {
        if let Err(error) = result {
            let fault = match error {
                BodyError::UpstreamGone | BodyError::UpstreamMalformed(_) | BodyError::UpstreamSilent => {
                    Fault::Upstream
                }
                BodyError::Http2(_) => Fault::Upstream,
                BodyError::Draining => Fault::Pillion,
                _ => Fault::Client,
            };
            self.0.failed(fault, error.to_string());
        }
        self.0.finish();
    }
}
