//! Limits repeated log events: a flood of failures must not become a flood of lines.

use std::cell::Cell;
use std::time::Duration;

use crate::runtime::clock::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A maximum number of log events per second.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    max: u32,
    since: Cell<Option<Instant>>,
    said: Cell<u32>,
    unsaid: Cell<u64>,
}

impl LogThrottle {
    /// Creates a throttle of `max` events per second.
    pub(crate) const fn new(max: u32) -> LogThrottle {
        LogThrottle { max, since: Cell::new(None), said: Cell::new(0), unsaid: Cell::new(0) }
    }

    /// Returns whether an event may be logged now, and if so the number of suppressed events before it.
    pub(crate) fn may(&self, now: Instant) -> Option<u64> {
        if self.since.get().is_none_or(|since| now.saturating_duration_since(since) >= SECOND) {
            self.since.set(Some(now));
            self.said.set(0);
        }
        if self.said.get() >= self.max {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.said.set(self.said.get() + 1);
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn what_could_not_be_said_is_counted() {
        let (pace, now) = (LogThrottle::new(2), clock::now());
        let after = |milliseconds| pace.may(now + Duration::from_millis(milliseconds));
        assert_eq!([after(0), after(1), after(2), after(999)], [Some(0), Some(0), None, None]);
        assert_eq!([after(1_000), after(1_001), after(1_002)], [Some(2), Some(0), None]);
        assert_eq!(after(60_000), Some(1));
    }
}
