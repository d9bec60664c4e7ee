//! The end of a request: it is counted, logged, and reported to the trace receiver.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use http::uri::PathAndQuery;
use tokio::sync::Notify;

use super::{ByCache, CLIENT_GONE, Limited, Place, RequestRecord};
use crate::layer::limit;
use crate::log::{Decision, Line, Secrets, masked};
use crate::message::body::{BodyError, Observer};
use crate::message::error::Fault;
use crate::metrics::{Spent, Traced};
use crate::performance::Noted;
use crate::performance::window::Sample;
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::state::live_policy::REFUSED;
use crate::trace::{ClientSpanInfo, ServerSpanInfo, Trace};

/// Maximum ended requests that wait to be reported together.
const TOGETHER: usize = 64;

thread_local! {
    /// The requests of this worker that ended and are not reported yet.
    static ENDED: RefCell<Vec<(Rc<RequestRecord>, End)>> = const { RefCell::new(Vec::new()) };
    static SOME: Rc<Notify> = Rc::default();
}

#[derive(Clone, Copy)]
struct End {
    at: Instant,
    duration: Duration,
    status: StatusCode,
    /// Whether the request failed. Failures after its end do not count.
    failed: bool,
    logged: bool,
}

/// Reports ended requests of this thread to the log and the trace receiver, for as long as it is polled. It is a task
/// of its own, so that it runs after all work that is ready now. Several reports in a row share the instruction cache;
/// a report in the middle of a request would displace the instructions that the request still needs.
pub(crate) async fn tell_as_they_end() {
    let some = SOME.with(Rc::clone);
    loop {
        some.notified().await;
        tell_of_ended();
    }
}

/// Reports the requests that have ended so far.
pub(crate) fn tell_of_ended() {
    let mut ended = ENDED.take();
    for (record, end) in ended.drain(..) {
        record.report(&end);
    }
    // Requests that ended meanwhile are reported the next time.
    ENDED.with_borrow_mut(|later| {
        if later.is_empty() {
            *later = ended;
        }
    });
}

impl RequestRecord {
    /// Ends the request when its response has ended or its client has left. It is counted at once and reported later.
    pub(crate) fn finish(self: &Rc<Self>) {
        let Some(end) = self.end() else { return };
        // Reports at once, because a waiting record would keep the permit.
        if self.permit.borrow().is_some() {
            return self.report(&end);
        }
        let waiting = ENDED.with_borrow_mut(|ended| {
            ended.push((self.clone(), end));
            ended.len()
        });
        match waiting {
            1 => SOME.with(|some| some.notify_one()),
            TOGETHER.. => tell_of_ended(),
            _ => (),
        }
    }

    /// Ends the request if the client left before its response.
    pub(crate) fn client_left(&self) {
        if self.done.get() {
            return;
        }
        self.failed(Fault::Client, "the client disconnected before the response ended".to_owned());
        if let Some(end) = self.end() {
            self.report(&end);
        }
    }

    /// Counts the request. Returns its end if it is to be reported.
    fn end(&self) -> Option<End> {
        if self.done.replace(true) {
            return None;
        }
        self.sink.shared_state.metrics.routes.in_flight.fetch_sub(1, Ordering::Relaxed);
        let now = clock::now();
        let duration = now.saturating_duration_since(self.started);
        let gone = StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
        let status = self.status.get().unwrap_or(gone);
        let series = match self.route.get() {
            Place::Refused => self.snapshot.refused(),
            Place::Route(order) => self.snapshot.series(order),
        };
        if self.upstream_time.get().is_none() && self.forwarded.get().is_some() {
            // The client left before the upstream responded; the request to the upstream may continue.
            self.upstream_took_until(now);
        }
        let upstream = self.upstream_time.get();
        let until_head = self.until_head.get().unwrap_or(duration);
        let own = until_head.saturating_sub(upstream.unwrap_or_default());
        let sampled = self.trace.as_ref().filter(|trace| trace.is_sampled());
        let traced = sampled.map(|trace| Traced { trace: trace.id, at: clock::unix_at(now) });
        let spent = Spent {
            whole: duration,
            first_byte: until_head,
            upstream,
            own,
            bytes: self.bytes.get(),
            received: self.received.get(),
            traced,
        };
        series.record(&self.method, status, &spent);
        let error = self.error.borrow();
        self.count_performance(status, duration, error.as_ref());
        let failed = error.is_some();
        let logged = self.sink.log.wants(&self.snapshot.policy.log, status, failed, duration);
        let recorded = self.trace.as_ref().is_some_and(Trace::is_recorded);
        (logged || recorded).then_some(End { at: now, duration, status, failed, logged })
    }

    /// Writes the log line and the spans, as required.
    fn report(&self, end: &End) {
        let End { at, duration, status, failed, logged } = *end;
        let error = self.error.borrow();
        let told_error =
            error.as_ref().filter(|_| failed).map(|(fault, error)| (fault.as_str(), error.as_str()));
        if let Some(trace) = self.trace.as_ref().filter(|trace| trace.is_recorded()) {
            self.tell_receiver(trace, status, duration, told_error);
        }
        if !logged {
            return;
        }
        let route = match self.route.get() {
            Place::Refused => &REFUSED,
            Place::Route(order) => &self.snapshot.route(order).label,
        };
        let (limited, asked) = (self.limited.borrow(), self.upstream.address.borrow());
        let violated = limited.as_ref().map(|limited| limit::names(&limited.violated, &limited.tier));
        self.sink.log.write(
            &self.snapshot.policy.log,
            &Line {
                at,
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
                retries: self.upstream.retries.get(),
                first_byte: self.until_head.get(),
                cache: self.by_cache.get().map(ByCache::as_str),
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

    /// Sends the spans to the trace receiver. Not inlined, because only some requests need it.
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
        let upstream = self.upstream.address.borrow();
        let since = |at: Instant| at.saturating_duration_since(self.started);
        let asked = upstream.as_ref().map(|address| ClientSpanInfo {
            address,
            after: self.forwarded.get().map_or(Duration::ZERO, since),
            duration: self.upstream_time.get(),
            retries: self.upstream.retries.get(),
            status: self.upstream_status.get().map(|status| status.as_u16()),
        });
        self.sink.shared_state.spans.put(&ServerSpanInfo {
            trace: *trace,
            state: self.trace_state.as_deref(),
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
            cache: self.by_cache.get().map(ByCache::as_str),
            limit: self.limited.borrow().as_ref().map(Limited::word),
            asked,
            error,
        });
    }

    /// Adds the request to the performance data of its route, and records it alone if it was slow or failed.
    fn count_performance(&self, status: StatusCode, duration: Duration, error: Option<&(Fault, String)>) {
        let Place::Route(order) = self.route.get() else { return };
        let Some(route) = self.snapshot.times(order) else { return };
        let policy = &self.snapshot.policy.log;
        // The lifetime of a stream does not tell how fast its response was.
        let duration = if self.endless.get() { self.until_head.get().unwrap_or(duration) } else { duration };
        let sample = Sample {
            duration,
            bytes: self.bytes.get(),
            failed: status.is_server_error(),
            slow: duration >= policy.slow,
            cache: self.by_cache.get().and_then(had_it),
        };
        route.times.add(&sample);
        let performance = &self.sink.shared_state.performance;
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
            upstream: self.upstream.address.borrow().as_ref().map(|address| address.name.to_string()),
            cache: self.by_cache.get().map(ByCache::as_str),
            error: match error {
                Some((fault, error)) => Some((fault.as_str(), error.clone())),
                None => (sample.failed && self.upstream_status.get() == Some(status)).then(|| {
                    (Fault::Upstream.as_str(), "the upstream responded with this status".to_owned())
                }),
            },
        };
        performance.note(noted, &sample);
    }
}

/// Returns whether the cache had the response; `None` if the cache was not asked.
fn had_it(did: ByCache) -> Option<bool> {
    match did {
        ByCache::Hit | ByCache::Stale | ByCache::StaleIfError | ByCache::Revalidated | ByCache::Collapsed => {
            Some(true)
        }
        ByCache::Miss | ByCache::Expired => Some(false),
        ByCache::Bypass | ByCache::Write | ByCache::Purge => None,
    }
}

/// Counts the content of a request as it passes. The weak reference does not keep a request that ended.
pub(crate) struct Receiving(pub Weak<RequestRecord>);

impl Observer for Receiving {
    fn data(&mut self, bytes: usize) {
        if let Some(record) = self.0.upgrade() {
            record.received.set(record.received.get() + bytes as u64);
        }
    }

    fn end(&mut self, _: Result<(), &BodyError>) {}
}

/// Observes the body of a response to its end.
pub(crate) struct Ending(pub Rc<RequestRecord>);

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
