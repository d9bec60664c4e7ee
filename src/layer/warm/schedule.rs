//! When a response of `[[warm]]` is asked for again.

use std::time::Duration;

use crate::runtime::clock::Instant;

/// Interval at which a response is tried that is not stored.
const NOT_STORED: Duration = Duration::from_secs(300);
/// Pauses after failures: the first, doubled with each, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// Shortest time between two requests for a response whose freshness is short.
const MIN: Duration = Duration::from_secs(1);

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is stored, and fresh for this time.
    Fresh(Duration),
    NotStored,
    Failed,
}

/// The request that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It may be missing: at the start, or after an invalidation.
    Look,
    /// It is to be fetched anew although it is stored.
    Renew,
}

/// One response, as the schedule knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// When it is due in any case, and for what.
    at: Instant,
    due: Due,
    /// Where the invalidation clock stood when it was last asked for.
    number: u64,
    failures: u32,
    every: Option<Duration>,
    /// Whether a request is on its way.
    pub asking: bool,
}

impl Plan {
    /// A response that was never asked for.
    pub(super) fn new(every: Option<Duration>, now: Instant) -> Plan {
        Plan { at: now, due: Due::Look, number: 0, failures: 0, every, asking: false }
    }

    /// Returns the request that is due, at a standing of the invalidation clock.
    pub(super) fn due(&self, number: u64, now: Instant) -> Option<Due> {
        if self.asking {
            return None;
        }
        if now >= self.at {
            return Some(self.due);
        }
        // While it cannot be had, an invalidation changes nothing.
        (number != self.number && self.failures == 0 && self.due == Due::Renew).then_some(Due::Look)
    }

    /// Begins a request.
    pub(super) fn begin(&mut self, number: u64) {
        (self.number, self.asking) = (number, true);
    }

    /// Ends it. `jitter` is a number from 0 to 1, so that processes do not ask together.
    pub(super) fn end(&mut self, outcome: Outcome, now: Instant, jitter: f64) {
        self.asking = false;
        self.failures = if outcome == Outcome::Failed { self.failures.saturating_add(1) } else { 0 };
        let (after, due) = match outcome {
            // The last tenth of its freshness.
            Outcome::Fresh(left) => {
                let ahead = left.mul_f64(0.9 + 0.05 * jitter).max(MIN);
                (self.every.map_or(ahead, |every| every.min(ahead)), Due::Renew)
            }
            Outcome::NotStored => (self.every.unwrap_or(NOT_STORED), Due::Look),
            Outcome::Failed => {
                let doubled = PAUSES.0 * 2u32.saturating_pow(self.failures.saturating_sub(1).min(10));
                (doubled.min(PAUSES.1).mul_f64(0.75 + 0.5 * jitter), Due::Look)
            }
        };
        (self.at, self.due) = (now + after, due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn a_response_is_due_at_the_start_when_invalidated_and_before_its_end() {
        let now = clock::now();
        let later = |seconds: f64| now + Duration::from_secs_f64(seconds);
        let ended = |every, outcome| {
            let mut plan = Plan::new(every, now);
            assert_eq!(plan.due(7, now), Some(Due::Look));
            plan.begin(7);
            assert_eq!(plan.due(8, now), None, "one request at a time");
            plan.end(outcome, now, 0.0);
            plan
        };
        let fresh = Outcome::Fresh(Duration::from_secs(100));
        let five = Some(Duration::from_secs(5));
        for (every, outcome, number, at, wanted) in [
            (None, fresh, 7, 89.0, None),
            (None, fresh, 7, 90.0, Some(Due::Renew)),
            (None, fresh, 8, 1.0, Some(Due::Look)),
            (five, fresh, 7, 5.0, Some(Due::Renew)),
            (None, Outcome::Fresh(Duration::from_millis(10)), 7, 0.9, None),
            (None, Outcome::Fresh(Duration::from_millis(10)), 7, 1.0, Some(Due::Renew)),
            (None, Outcome::NotStored, 8, 299.0, None),
            (None, Outcome::NotStored, 7, 300.0, Some(Due::Look)),
            (five, Outcome::NotStored, 7, 5.0, Some(Due::Look)),
            (None, Outcome::Failed, 8, 0.3, None),
            (None, Outcome::Failed, 7, 0.5, Some(Due::Look)),
        ] {
            assert_eq!(ended(every, outcome).due(number, later(at)), wanted, "{every:?} {outcome:?} {at}");
        }
    }

    #[test]
    fn failures_are_tried_less_and_less_often() {
        let now = clock::now();
        let mut plan = Plan::new(None, now);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            plan.begin(1);
            plan.end(Outcome::Failed, now, 0.5);
            pauses.push((plan.at - now).as_millis());
        }
        assert_eq!(pauses[..4], [500, 1000, 2000, 4000]);
        assert_eq!(pauses[19], 60_000);
        plan.end(Outcome::Fresh(Duration::from_secs(10)), now, 0.0);
        plan.end(Outcome::Failed, now, 0.5);
        assert_eq!((plan.at - now).as_millis(), 500);
    }
}
