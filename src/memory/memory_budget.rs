//! Memory that is counted: a budget of bytes that all workers share, and the places taken of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory that all workers together may hold for one purpose, and how much of it is held just now.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    bytes: AtomicUsize,
    max: AtomicUsize,
}

impl MemoryBudget {
    /// At most `max` bytes.
    pub(crate) fn at_most(max: usize) -> MemoryBudget {
        MemoryBudget { bytes: AtomicUsize::new(0), max: AtomicUsize::new(max) }
    }

    /// A place for `bytes`; `None` when there is none just now.
    pub(crate) fn take(self: &Arc<MemoryBudget>, bytes: usize) -> Option<Reservation> {
        let place = self.take_over(bytes);
        (self.get() <= self.max()).then_some(place)
    }

    /// A place for `bytes`, also beyond what may be held: whoever takes it makes room afterwards.
    pub(crate) fn take_over(self: &Arc<MemoryBudget>, bytes: usize) -> Reservation {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Reservation { budget: self.clone(), bytes }
    }

    /// In bytes.
    pub(crate) fn get(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How much may be held; bytes.
    pub(crate) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// By how much more is held than may be.
    pub(crate) fn excess(&self) -> usize {
        self.get().saturating_sub(self.max())
    }
}

/// A place for so many bytes, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// Gives back what is more than `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.budget.bytes.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = self.bytes.min(bytes);
    }

    /// Takes so much more, also beyond what may be held: whoever does makes room afterwards.
    pub(crate) fn grow_over(&mut self, bytes: usize) {
        self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }

    /// Becomes one with another place of the same budget.
    pub(crate) fn join(&mut self, mut other: Reservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Hands all of it to another owner; nothing is left here.
    pub(crate) fn split(&mut self) -> Reservation {
        Reservation { budget: self.budget.clone(), bytes: std::mem::take(&mut self.bytes) }
    }

    /// In bytes.
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
