//! The account of buffered bytes: in total, for each client, and of content that comes unasked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::client_slot::{ClientSlot, SLOTS, client_share};

/// Part of the limit (a 16th) by which requests may exceed it: responses that fill the memory slow their upstreams, but
/// refuse no request.
const REQUESTS_BEYOND: usize = 16;
/// Minimum number of bytes by which requests may exceed the limit.
const MIN_BEYOND: usize = 1024 * 1024;

/// Part of the limit (a quarter) that is left free for unsolicited content once any has arrived.
const KEPT: usize = 4;

/// The memory that all buffers together may hold, and each client's part of it.
#[derive(Debug)]
pub(crate) struct BufferMemory {
    bytes: AtomicUsize,
    max: AtomicUsize,
    /// Maximum bytes of one client.
    share: AtomicUsize,
    by_client: Box<[AtomicUsize]>,
    pub(super) arrivals: Arrivals,
}

impl BufferMemory {
    /// Creates an empty store of at most `max` bytes.
    pub(crate) fn new(max: usize) -> BufferMemory {
        BufferMemory {
            bytes: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            share: AtomicUsize::new(client_share(max)),
            by_client: (0..SLOTS).map(|_| AtomicUsize::new(0)).collect(),
            arrivals: Arrivals::default(),
        }
    }

    /// Returns whether a client may buffer more. The next piece may exceed the limit, by one piece for each worker,
    /// because its length is not known yet. Room for unsolicited content is left free.
    pub(crate) fn has_room(&self, client: ClientSlot) -> bool {
        let (max, kept) = (self.max(), self.kept_for_arrivals());
        self.bytes() + kept < max && self.held_by(client) + kept < self.share.load(Ordering::Relaxed)
    }

    /// Reserves memory for a received request. Returns `None` if the request has to be refused.
    pub(crate) fn try_reserve_request(
        self: &Arc<BufferMemory>,
        client: ClientSlot,
        bytes: usize,
    ) -> Option<BufferReservation> {
        let limit = self.max().saturating_add(self.beyond());
        let mut reserved = BufferReservation::new(self.clone(), client);
        reserved.resize(bytes);
        (self.bytes() <= limit && self.held_by(client) <= client_share(limit)).then_some(reserved)
    }

    /// Returns the bytes by which requests may exceed the limit.
    pub(super) fn beyond(&self) -> usize {
        (self.max() / REQUESTS_BEYOND).max(MIN_BEYOND)
    }

    /// Reserves memory for an optional purpose. Returns `None` if there is no room for all of it.
    pub(crate) fn try_reserve(
        self: &Arc<BufferMemory>,
        client: ClientSlot,
        bytes: usize,
    ) -> Option<BufferReservation> {
        let mut reserved = BufferReservation::new(self.clone(), client);
        reserved.resize(bytes);
        let (kept, share) = (self.kept_for_arrivals(), self.share.load(Ordering::Relaxed));
        (self.bytes() + kept <= self.max() && self.held_by(client) + kept <= share).then_some(reserved)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the bytes held for one client.
    pub(crate) fn held_by(&self, client: ClientSlot) -> usize {
        self.by_client.get(client.index()).map_or(0, |held| held.load(Ordering::Relaxed))
    }

    pub(crate) fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.share.store(client_share(max), Ordering::Relaxed);
    }

    /// Returns the bytes left free for content that may arrive: a client that reads slowly gets them from responses
    /// that begin later.
    pub(crate) fn kept_for_arrivals(&self) -> usize {
        if self.arrivals.any.load(Ordering::Relaxed) { self.max() / KEPT } else { 0 }
    }

    fn add(&self, client: ClientSlot, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(held) = self.by_client.get(client.index()) {
            held.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn subtract(&self, client: ClientSlot, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(held) = self.by_client.get(client.index()) {
            held.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The unsolicited content of all workers.
#[derive(Debug)]
pub(super) struct Arrivals {
    pub(super) by_client: Box<[AtomicUsize]>,
    pub(super) any: AtomicBool,
    pub(super) beyond: Notify,
    /// Number of responses canceled for lack of memory.
    pub(super) given_up: AtomicU64,
}

impl Default for Arrivals {
    fn default() -> Arrivals {
        Arrivals {
            by_client: (0..SLOTS).map(|_| AtomicUsize::new(0)).collect(),
            any: AtomicBool::new(false),
            beyond: Notify::new(),
            given_up: AtomicU64::new(0),
        }
    }
}

/// The memory that one buffer holds, released when dropped.
#[derive(Debug)]
pub(crate) struct BufferReservation {
    pub(super) memory: Arc<BufferMemory>,
    pub(super) client: ClientSlot,
    bytes: usize,
}

impl BufferReservation {
    pub(crate) fn new(memory: Arc<BufferMemory>, client: ClientSlot) -> BufferReservation {
        BufferReservation { memory, client, bytes: 0 }
    }

    /// Returns whether the buffer may grow.
    pub(crate) fn has_room(&self) -> bool {
        self.memory.has_room(self.client)
    }

    /// Sets the number of bytes that the buffer holds.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.add(self.client, bytes - self.bytes);
        } else if bytes < self.bytes {
            self.memory.subtract(self.client, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Moves `bytes` of the reservation, or all of it, to a new owner.
    pub(crate) fn split(&mut self, bytes: usize) -> BufferReservation {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        BufferReservation { memory: self.memory.clone(), client: self.client, bytes }
    }

    /// Takes over another reservation of the same client and memory.
    pub(crate) fn join(&mut self, mut other: BufferReservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Returns the client whose share this counts in.
    pub(crate) fn client(&self) -> ClientSlot {
        self.client
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether the reservation counts in this client's share.
    pub(crate) fn belongs_to(&self, client: ClientSlot) -> bool {
        self.client == client
    }
}

impl Drop for BufferReservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::buffers::client_slot::SHARED_FROM;

    #[test]
    fn n3_4_one_client_never_holds_more_than_seven_eighths() {
        for (total, share) in
            [(1, 1), (2, 2), (3, 2), (4, 3), (7, 6), (8, 7), (9, 7), (16, 14), (100, 87), (256, 224)]
        {
            assert_eq!(client_share(total), share, "of {total}");
            assert!(total < SHARED_FROM || client_share(total) * 8 <= total * 7, "of {total}");
        }
        let memory = Arc::new(BufferMemory::new(800));
        let (one, other) = (ClientSlot(1), ClientSlot(2));
        let mut held = BufferReservation::new(memory.clone(), one);
        held.resize(699);
        assert!(memory.has_room(one), "699 of 700");
        held.resize(700);
        assert!(!memory.has_room(one) && memory.has_room(other), "an eighth is left for others");
        let mut others = BufferReservation::new(memory.clone(), other);
        others.resize(100);
        assert!(!memory.has_room(other), "used up");
        held.resize(10);
        assert!(memory.has_room(one) && memory.has_room(other));
        drop((held, others));
        assert_eq!(memory.bytes(), 0);
        assert!(memory.by_client.iter().all(|held| held.load(Ordering::Relaxed) == 0));
    }
}
