//! The report of a completed request: its log line, and its spans for the trace receiver.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;

use super::{CacheHandling, RequestRecord};
use crate::layer::limit;
use crate::log::{Decision, Line, masked};
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::trace::{ClientSpanInfo, ServerSpanInfo, Trace};

/// Maximum completed requests that wait to be reported together.
const MAX_WAITING: usize = 64;

thread_local! {
    /// The requests of this worker that are completed and not reported yet.
    static COMPLETED: RefCell<Vec<(Rc<RequestRecord>, Completion)>> = const { RefCell::new(Vec::new()) };
    /// Wakes the task that reports them.
    static WAKE: Rc<Notify> = Rc::default();
}

/// The end of a request that is to be reported.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    pub at: Instant,
    pub duration: Duration,
    pub status: StatusCode,
    /// Whether the request failed. Failures after its end do not count.
    pub failed: bool,
    pub logged: bool,
    /// Whether somebody reads live decisions.
    pub tailed: bool,
    /// Whether the request is kept among the latest decisions.
    pub kept: Option<Kept>,
}

/// A request that is kept among the latest decisions.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    /// Whether it failed, was slow, or has a status of 400 and above.
    pub notable: bool,
}

/// Reports completed requests of this thread to the log and the trace receiver, for as long as it is polled. It is a
/// task of its own, so that it runs after all work that is ready now. Several reports in a row share the instruction
/// cache; a report in the middle of a request would displace the instructions that the request still needs.
pub(crate) async fn report_until_stopped() {
    let wake = WAKE.with(Rc::clone);
    loop {
        wake.notified().await;
        report_completed();
    }
}

/// Reports the requests of this thread that are completed so far.
pub(crate) fn report_completed() {
    let mut completed = COMPLETED.take();
    for (record, completion) in completed.drain(..) {
        record.report(&completion);
    }
    // Requests that were completed meanwhile are reported the next time.
    COMPLETED.with_borrow_mut(|later| {
        if later.is_empty() {
            *later = completed;
        }
    });
}

/// Reports a request together with others.
pub(super) fn report_later(record: Rc<RequestRecord>, completion: Completion) {
    let waiting = COMPLETED.with_borrow_mut(|completed| {
        completed.push((record, completion));
        completed.len()
    });
    match waiting {
        1 => WAKE.with(|wake| wake.notify_one()),
        MAX_WAITING.. => report_completed(),
        _ => (),
    }
}

impl RequestRecord {
    /// Writes the log line and the spans, as required.
    pub(super) fn report(&self, completion: &Completion) {
        let Completion { duration, status, failed, logged, tailed, kept, .. } = *completion;
        let info = &self.info;
        if let Some(trace) = info.trace.as_ref().filter(|trace| trace.is_recorded()) {
            let error = self.error.get();
            let error =
                error.as_ref().filter(|_| failed).map(|(fault, error)| (fault.as_str(), error.as_str()));
            self.send_spans(trace, status, duration, error);
        }
        if logged {
            self.with_line(completion, |line| self.sink.log.write(&info.snapshot.policy.log, line));
        }
        if tailed {
            self.show(completion);
        }
        if let Some(kept) = kept {
            self.keep(completion, kept);
        }
    }

    /// Keeps the request among the latest decisions.
    #[cold]
    #[inline(never)]
    fn keep(&self, completion: &Completion, kept: Kept) {
        self.with_line(completion, |line| {
            self.sink.log.keep(&self.sink.shared_state.recent, kept.notable, line);
        });
    }

    /// Shows the request to the readers of live decisions. It is apart from the log, so that the log's line need not be
    /// in memory.
    #[cold]
    #[inline(never)]
    fn show(&self, completion: &Completion) {
        self.with_line(completion, |line| self.sink.log.show(&self.sink.shared_state.tail, line));
    }

    /// Calls `write` with the line of the request. Inlined, so that the line need not be in memory for another function.
    #[inline(always)]
    fn with_line(&self, completion: &Completion, write: impl FnOnce(&Line<'_>)) {
        let Completion { at, duration, status, failed, .. } = *completion;
        let (info, timeline) = (&self.info, &self.timeline);
        let error = self.error.get();
        let error = error.as_ref().filter(|_| failed).map(|(fault, error)| (fault.as_str(), error.as_str()));
        let (decision, address) = (self.limit.decision(), self.upstream.address());
        let violated = decision.as_ref().map(|decision| limit::names(&decision.violated, &decision.tier));
        write(&Line {
            at,
            id: &info.id,
            trace: info.trace.as_ref().and_then(|trace| trace.to_find(info.id_is_ours)),
            client: info.client,
            method: &info.method,
            target: info.target_text(),
            secrets: self.route.secrets(&info.snapshot),
            protocol: info.protocol,
            route: self.route.label(&info.snapshot),
            status,
            bytes: timeline.sent(),
            coded: self.represent.coding(),
            duration,
            upstream_time: timeline.upstream_time(),
            upstream: address.as_ref().map(|address| &address.name),
            retries: self.upstream.retries(),
            first_byte: timeline.until_head(),
            cache: self.cache.handling().map(CacheHandling::as_str),
            not_stored: self.cache.not_stored(),
            principal: self.cache.principal(),
            limited: decision.as_ref().map(|decision| Decision {
                caller: (decision.key.kind.as_str(), decision.key.hash),
                tier: &decision.tier.name,
                word: decision.verdict(),
                limits: violated.as_deref().unwrap_or_default(),
            }),
            error,
        });
    }

    /// Sends the spans to the trace receiver. Not inlined, because only some requests need it.
    #[inline(never)]
    fn send_spans(
        &self,
        trace: &Trace,
        status: StatusCode,
        duration: Duration,
        error: Option<(&'static str, &str)>,
    ) {
        let (info, timeline) = (&self.info, &self.timeline);
        let address = self.upstream.address();
        let asked = address.as_ref().map(|address| ClientSpanInfo {
            address,
            after: timeline.until_forwarded(info.started),
            duration: timeline.upstream_time(),
            retries: self.upstream.retries(),
            status: self.upstream.status().map(|status| status.as_u16()),
        });
        self.sink.shared_state.spans.put(&ServerSpanInfo {
            trace: *trace,
            state: info.trace_state.as_deref(),
            id: &info.id,
            started: clock::unix_at(info.started),
            duration,
            method: &info.method,
            target: &masked(info.target_text(), self.route.secrets(&info.snapshot)),
            route: self.route.matched_label(&info.snapshot),
            protocol: info.protocol.strip_prefix("HTTP/").unwrap_or(info.protocol),
            client: info.client,
            scheme: if info.tls { "https" } else { "http" },
            status: status.as_u16(),
            bytes: timeline.sent(),
            cache: self.cache.handling().map(CacheHandling::as_str),
            limit: self.limit.decision().map(|decision| decision.verdict()),
            asked,
            error,
        });
    }
}
