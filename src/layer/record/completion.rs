//! The end of a request: it is counted once, and then reported.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use http::StatusCode;

use super::report::{self, Completion, Kept};
use super::{CLIENT_GONE, RequestRecord};
use crate::message::error::Fault;
use crate::metrics::{Spent, Traced};
use crate::runtime::clock;
use crate::trace::Trace;

impl RequestRecord {
    /// Ends the request when its response has ended or its client has left. It is counted at once and reported later.
    pub(crate) fn finish(self: &Rc<Self>) {
        let Some(completion) = self.complete() else { return };
        // Reports at once, because a waiting record would keep the permit.
        if self.limit.holds_permit() {
            return self.report(&completion);
        }
        report::report_later(self.clone(), completion);
    }

    /// Ends the request if the client left before its response.
    pub(crate) fn client_left(&self) {
        if self.timeline.is_done() {
            return;
        }
        self.error.set(Fault::Client, "the client disconnected before the response ended".to_owned());
        if let Some(completion) = self.complete() {
            self.report(&completion);
        }
    }

    /// Counts the request, if this is its first end. Returns its completion if it is to be reported.
    fn complete(&self) -> Option<Completion> {
        if !self.timeline.end() {
            return None;
        }
        self.sink.shared_state.metrics.routes.in_flight.fetch_sub(1, Ordering::Relaxed);
        let (info, timeline) = (&self.info, &self.timeline);
        let now = clock::now();
        let duration = now.saturating_duration_since(info.started);
        let gone = StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
        let status = self.status.get().unwrap_or(gone);
        timeline.abandon_upstream(now);
        let sampled = info.trace.as_ref().filter(|trace| trace.is_sampled());
        let traced = sampled.map(|trace| Traced { trace: trace.id, at: clock::unix_at(now) });
        let spent = Spent {
            whole: duration,
            first_byte: timeline.until_head().unwrap_or(duration),
            upstream: timeline.upstream_time(),
            own: timeline.own_time(duration),
            bytes: timeline.sent(),
            received: timeline.received(),
            traced,
        };
        self.route.series(&info.snapshot).record(&info.method, status, &spent);
        let error = self.error.get();
        self.count_performance(status, duration, error.as_ref());
        let failed = error.is_some();
        let logged = self.sink.log.wants(&info.snapshot.policy.log, status, failed, duration);
        let recorded = info.trace.as_ref().is_some_and(Trace::is_recorded);
        let tailed = self.is_tailed();
        let notable = failed || status.as_u16() >= 400 || duration >= info.snapshot.policy.log.slow;
        let kept = self.sink.shared_state.recent.admits(notable).then_some(Kept { notable });
        let is_reported = logged || recorded || tailed || kept.is_some();
        is_reported.then_some(Completion { at: now, duration, status, failed, logged, tailed, kept })
    }
}
