//! A maximum number of events in each span of time, counted by all threads without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::clock::Instant;

/// The count of events in the latest span.
pub(super) struct RateWindow {
    /// The moment from which spans are counted.
    origin: Instant,
    span: Duration,
    max: u32,
    /// The number of the latest span, and in the lower half the events in it.
    counted: AtomicU64,
}

impl RateWindow {
    /// Creates a window that admits at most `max` events in each `span`, counted from `origin`.
    pub(super) fn new(max: u32, span: Duration, origin: Instant) -> RateWindow {
        RateWindow { origin, span, max, counted: AtomicU64::new(0) }
    }

    /// Counts an event at `at`; returns false if its span has enough of them.
    pub(super) fn admits(&self, at: Instant) -> bool {
        let since = at.saturating_duration_since(self.origin);
        let span = (since.as_millis() / self.span.as_millis()) as u64;
        let counted = self.counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
            let (at, count) = (known >> 32, known as u32);
            // Another thread may be in the next span already.
            let (at, count) = if at < span { (span, 0) } else { (at, count) };
            (count < self.max).then_some(at << 32 | u64::from(count + 1))
        });
        counted.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn span_admits_its_maximum_and_the_next_as_many_again() {
        for span in [Duration::from_secs(1), Duration::from_millis(100)] {
            let origin = clock::now();
            let window = RateWindow::new(3, span, origin);
            let admitted = |at: Instant| (0..5).filter(|_| window.admits(at)).count();
            assert_eq!(admitted(origin), 3);
            assert_eq!(admitted(origin + span / 2), 0);
            assert_eq!(admitted(origin + span), 3);
            // A thread that is late counts in the latest span.
            assert_eq!(admitted(origin), 0);
            assert_eq!(admitted(origin + span * 1000), 3);
        }
    }
}
