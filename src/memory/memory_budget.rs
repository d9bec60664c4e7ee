//! Counted memory: a budget of bytes that all workers share, and reservations in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory that all workers together may hold for one purpose, and the bytes reserved so far.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    bytes: AtomicUsize,
    max: AtomicUsize,
}

impl MemoryBudget {
    /// Creates an empty store of at most `max` bytes.
    pub(crate) fn at_most(max: usize) -> MemoryBudget {
        MemoryBudget { bytes: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// Reserves `bytes`. Returns `None` if the budget does not have them.
    pub(crate) fn take(self: &Arc<MemoryBudget>, bytes: usize) -> Option<Reservation> {
        let place = self.take_over(bytes);
        (self.get() <= self.max()).then_some(place)
    }

    /// Reserves `bytes` even beyond the budget; the caller then has to free memory.
    pub(crate) fn take_over(self: &Arc<MemoryBudget>, bytes: usize) -> Reservation {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: self.clone(), bytes }
    }

    /// Returns the estimated memory of the variant in bytes.
    pub(crate) fn get(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the size of the budget in bytes.
    pub(crate) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Returns the bytes reserved beyond the budget.
    pub(crate) fn excess(&self) -> usize {
        self.get().saturating_sub(self.max())
    }
}

/// A reservation of bytes, returned to the budget when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// Returns the bytes beyond `bytes` to the budget.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.budget.bytes.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = self.bytes.min(bytes);
    }

    /// Reserves `bytes` more, even beyond the budget; the caller then has to free memory.
    pub(crate) fn grow_over(&mut self, bytes: usize) {
        self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    /// Merges another reservation of the same budget into this one.
    pub(crate) fn join(&mut self, mut other: Reservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Moves the whole reservation to another owner; this one becomes empty.
    pub(crate) fn split(&mut self) -> Reservation {
        Reservation { budget: self.budget.clone(), bytes: std::mem::take(&mut self.bytes) }
    }

    /// Returns the estimated memory of the variant in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let held = Arc::new(MemoryBudget::at_most(100));
        let mut place = held.take(60).unwrap();
        assert!(held.take(60).is_none());
        assert_eq!(held.get(), 60, "what was refused is not held");
        place.grow_over(40);
        place.shrink(50);
        assert_eq!(held.get(), 50);
        place.join(held.take_over(70));
        assert_eq!((held.get(), held.excess(), place.bytes()), (120, 20, 120));
        drop(place);
        assert_eq!(held.get(), 0);
    }
}
