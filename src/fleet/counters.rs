//! The counters of a process in its fleet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::fleet::tracker::Loss;

/// The counters of this process in its fleet.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Entries written to the log.
    pub published: AtomicU64,
    /// Entries of others, and own ones, that were applied.
    pub applied: AtomicU64,
    /// Entries that were read a second time.
    pub repeated: AtomicU64,
    /// Failed attempts to write an entry.
    pub failed: AtomicU64,
    losses: [AtomicU64; Loss::ALL.len()],
    /// The time from writing the last own entry to reading it, in microseconds.
    round_trip: AtomicU64,
}

impl Counters {
    pub(super) fn count_loss(&self, loss: Loss) {
        if let Some(count) =
            Loss::ALL.iter().position(|known| *known == loss).and_then(|at| self.losses.get(at))
        {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how often everything was invalidated, by reason.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (Loss, u64)> {
        Loss::ALL.iter().zip(&self.losses).map(|(loss, count)| (*loss, count.load(Ordering::Relaxed)))
    }

    pub(super) fn set_round_trip(&self, time: Duration) {
        self.round_trip.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns the time from writing the last own entry to reading it.
    pub(crate) fn round_trip(&self) -> Duration {
        Duration::from_micros(self.round_trip.load(Ordering::Relaxed))
    }
}
