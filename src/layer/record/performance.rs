//! A request in the performance data of its route.

use std::time::Duration;

use http::StatusCode;

use super::{CacheHandling, RequestRecord};
use crate::log::masked;
use crate::message::error::Fault;
use crate::performance::Noted;
use crate::performance::window::Sample;
use crate::runtime::clock;

impl RequestRecord {
    /// Adds the request to the performance data of its route, and records it alone if it was slow or failed.
    pub(super) fn count_performance(
        &self,
        status: StatusCode,
        duration: Duration,
        error: Option<&(Fault, String)>,
    ) {
        let info = &self.info;
        let Some(route) = self.route.times(&info.snapshot) else { return };
        let duration = self.timeline.response_time(duration);
        let sample = Sample {
            duration,
            bytes: self.timeline.sent(),
            failed: status.is_server_error(),
            slow: duration >= info.snapshot.policy.log.slow,
            cache: self.cache.handling().and_then(CacheHandling::is_hit),
        };
        route.times.add(&sample);
        let performance = &self.sink.shared_state.performance;
        if !(sample.failed || sample.slow) || !performance.may_note() {
            return;
        }
        let noted = Noted {
            at: clock::wall(),
            id: info.id.to_str().unwrap_or("-").to_owned(),
            method: info.method.to_string(),
            target: masked(info.target_text(), self.route.secrets(&info.snapshot)).into_owned(),
            route: self.route.label(&info.snapshot).to_string(),
            status: status.as_u16(),
            duration,
            upstream_time: self.timeline.upstream_time(),
            upstream: self.upstream.address().as_ref().map(|address| address.name.to_string()),
            cache: self.cache.handling().map(CacheHandling::as_str),
            error: match error {
                Some((fault, error)) => Some((fault.as_str(), error.clone())),
                None => (sample.failed && self.upstream.status() == Some(status)).then(|| {
                    (Fault::Upstream.as_str(), "the upstream responded with this status".to_owned())
                }),
            },
        };
        performance.note(noted, &sample);
    }
}
