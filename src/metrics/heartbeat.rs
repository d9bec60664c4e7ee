//! Heartbeats of the workers. A worker that is stuck gives none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::clock::Instant;

/// The heartbeats of all workers.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    origin: Instant,
    beats: Box<[AtomicU64]>,
}

impl Heartbeats {
    /// Creates heartbeats for `workers` workers, as if each had its last heartbeat at `origin`.
    pub(crate) fn new(workers: usize, origin: Instant) -> Heartbeats {
        Heartbeats { origin, beats: (0..workers).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn beat(&self, worker: usize, now: Instant) {
        let since = now.saturating_duration_since(self.origin).as_millis();
        if let Some(beat) = self.beats.get(worker) {
            beat.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Returns the time since each worker's last heartbeat.
    pub(crate) fn ages(&self, now: Instant) -> Vec<Duration> {
        let since = now.saturating_duration_since(self.origin);
        let age =
            |beat: &AtomicU64| since.saturating_sub(Duration::from_millis(beat.load(Ordering::Relaxed)));
        self.beats.iter().map(age).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    #[test]
    fn ages() {
        let origin = clock::now();
        let beats = Heartbeats::new(2, origin);
        beats.beat(1, origin + Duration::from_secs(3));
        beats.beat(7, origin);
        assert_eq!(beats.ages(origin + Duration::from_secs(5)), [5, 2].map(Duration::from_secs));
    }
}
