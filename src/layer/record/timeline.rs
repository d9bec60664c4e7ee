//! The course of a request: when it passed each step, and how many bytes passed.

use std::cell::Cell;
use std::time::Duration;

use crate::runtime::clock::Instant;

/// The course of one request. Its start is in [`super::RequestInfo`].
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// The time when the request was passed to the upstream.
    forwarded: Cell<Option<Instant>>,
    /// Time from passing the request to the upstream to the head of its response, or to its failure.
    upstream_time: Cell<Option<Duration>>,
    /// Time from the start to the head of the response.
    until_head: Cell<Option<Duration>>,
    /// Whether the response has no expected end.
    endless: Cell<bool>,
    /// Bytes of request content received.
    received: Cell<u64>,
    /// Bytes of response content sent.
    sent: Cell<u64>,
    done: Cell<bool>,
}

impl Timeline {
    /// Creates the timeline of a request whose end is not counted.
    pub(super) fn uncounted() -> Timeline {
        Timeline { done: Cell::new(true), ..Timeline::default() }
    }

    /// Records that the upstream is asked from `now` on. Earlier time is Pillion's own, and that of an earlier upstream
    /// request no longer counts.
    pub(super) fn upstream_started(&self, now: Instant) {
        self.upstream_time.set(None);
        self.forwarded.set(Some(now));
    }

    /// Records that the upstream responded or failed at `at`.
    pub(super) fn upstream_ended(&self, at: Instant) {
        let since = self.forwarded.get();
        self.upstream_time.set(since.map(|since| at.saturating_duration_since(since)));
    }

    /// Ends the wait for the upstream if it has not responded: the client left, and the upstream request may continue.
    pub(super) fn abandon_upstream(&self, now: Instant) {
        if self.upstream_time.get().is_none() && self.forwarded.get().is_some() {
            self.upstream_ended(now);
        }
    }

    /// Returns the time from `started` to passing the request to the upstream; zero if it was not passed.
    pub(super) fn until_forwarded(&self, started: Instant) -> Duration {
        self.forwarded.get().map_or(Duration::ZERO, |at| at.saturating_duration_since(started))
    }

    /// Returns the time that the upstream took until the head of its response, if it was asked.
    pub(super) fn upstream_time(&self) -> Option<Duration> {
        self.upstream_time.get()
    }

    /// Records that the head of the response is sent `after` this time since the start. `endless` means that its
    /// content has no expected end.
    pub(crate) fn head_sent(&self, after: Duration, endless: bool) {
        self.until_head.set(Some(after));
        self.endless.set(endless);
    }

    /// Returns whether the head of the response was sent.
    pub(crate) fn is_head_sent(&self) -> bool {
        self.until_head.get().is_some()
    }

    /// Returns the time from the start to the head of the response, if it was sent.
    pub(super) fn until_head(&self) -> Option<Duration> {
        self.until_head.get()
    }

    /// Returns the time that the response took, for comparing responses: the lifetime of a response without an expected
    /// end tells nothing, so only the time to its head counts.
    pub(super) fn response_time(&self, duration: Duration) -> Duration {
        if self.endless.get() { self.until_head.get().unwrap_or(duration) } else { duration }
    }

    /// Returns Pillion's own share of the time to the head of the response.
    pub(super) fn own_time(&self, duration: Duration) -> Duration {
        self.until_head.get().unwrap_or(duration).saturating_sub(self.upstream_time.get().unwrap_or_default())
    }

    /// Counts bytes of request content.
    pub(super) fn add_received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    /// Counts bytes of response content.
    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.get()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Ends the request. Returns whether this is its first end.
    pub(super) fn end(&self) -> bool {
        !self.done.replace(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn upstream_time_of_request_that_was_not_forwarded_is_none() {
        let timeline = Timeline::default();
        let now = clock::now();
        timeline.abandon_upstream(now);
        timeline.upstream_ended(now);
        assert_eq!(timeline.upstream_time(), None);
        assert_eq!(timeline.until_forwarded(now), Duration::ZERO);
        assert_eq!(timeline.own_time(7 * MS), 7 * MS);
    }

    #[test]
    fn upstream_time_of_second_upstream_request_replaces_that_of_the_first() {
        let (timeline, start) = (Timeline::default(), clock::now());
        timeline.upstream_started(start + MS);
        timeline.upstream_ended(start + 4 * MS);
        assert_eq!(timeline.upstream_time(), Some(3 * MS));
        timeline.upstream_started(start + 10 * MS);
        assert_eq!(timeline.upstream_time(), None);
        assert_eq!(timeline.until_forwarded(start), 10 * MS);
        timeline.upstream_ended(start + 12 * MS);
        assert_eq!(timeline.upstream_time(), Some(2 * MS));
    }

    #[test]
    fn upstream_time_after_client_left_ends_then_only_without_response() {
        for (responded, expected) in [(None, 9), (Some(5), 4)] {
            let (timeline, start) = (Timeline::default(), clock::now());
            timeline.upstream_started(start + MS);
            if let Some(after) = responded {
                timeline.upstream_ended(start + after * MS);
            }
            timeline.abandon_upstream(start + 10 * MS);
            assert_eq!(timeline.upstream_time(), Some(expected * MS), "{responded:?}");
        }
    }

    #[test]
    fn upstream_time_of_response_before_request_is_zero() {
        let (timeline, start) = (Timeline::default(), clock::now());
        timeline.upstream_started(start + MS);
        timeline.upstream_ended(start);
        assert_eq!(timeline.upstream_time(), Some(Duration::ZERO));
        assert_eq!(timeline.until_forwarded(start + 2 * MS), Duration::ZERO);
    }

    #[test]
    fn own_time_excludes_the_upstream_and_all_after_the_head() {
        // Time to the head, time of the upstream, whole time; Pillion's share.
        let cases = [
            (Some(10), Some(7), 100, 3),
            (Some(10), None, 100, 10),
            (None, Some(7), 100, 93),
            (None, None, 100, 100),
            (Some(3), Some(7), 100, 0),
        ];
        for (until_head, upstream, duration, expected) in cases {
            let (timeline, start) = (Timeline::default(), clock::now());
            if let Some(upstream) = upstream {
                timeline.upstream_started(start);
                timeline.upstream_ended(start + upstream * MS);
            }
            if let Some(after) = until_head {
                timeline.head_sent(after * MS, false);
            }
            assert_eq!(timeline.own_time(duration * MS), expected * MS, "{until_head:?} {upstream:?}");
        }
    }

    #[test]
    fn response_time_of_endless_response_ends_with_its_head() {
        for (endless, until_head, expected) in
            [(false, Some(5), 90), (true, Some(5), 5), (false, None, 90), (true, None, 90)]
        {
            let timeline = Timeline::default();
            timeline.endless.set(endless);
            if let Some(after) = until_head {
                timeline.head_sent(after * MS, endless);
            }
            assert_eq!(timeline.is_head_sent(), until_head.is_some());
            assert_eq!(timeline.response_time(90 * MS), expected * MS, "{endless} {until_head:?}");
        }
    }

    #[test]
    fn bytes_of_each_direction_add_up_apart() {
        let timeline = Timeline::default();
        timeline.add_received(3);
        timeline.add_sent(10);
        timeline.add_received(4);
        timeline.add_sent(20);
        assert_eq!((timeline.received(), timeline.sent()), (7, 30));
    }

    #[test]
    fn end_is_the_first_only_once_and_never_for_an_uncounted_request() {
        let timeline = Timeline::default();
        assert!(!timeline.is_done());
        assert!(timeline.end());
        assert!(timeline.is_done() && !timeline.end());
        let uncounted = Timeline::uncounted();
        assert!(uncounted.is_done() && !uncounted.end());
    }
}
