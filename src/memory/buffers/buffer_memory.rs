//! The account of buffered bytes: in total, for each client, and of content that comes unasked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::client_slot::{ClientSlot, SLOTS, client_share};

/// Requests may go beyond the limit by this part of it: responses that fill the memory slow their upstreams, but refuse
/// no request.
const REQUESTS_BEYOND: usize = 16;
/// ... and by no less than this; bytes.
const MIN_BEYOND: usize = 1024 * 1024;

/// Once something arrived that part is left free for it.
const KEPT: usize = 4;

/// Memory that all buffers together may hold, and how much of it each client holds.
#[derive(Debug)]
pub(crate) struct BufferMemory {
    bytes: AtomicUsize,
    max: AtomicUsize,
    /// The most that one client may hold of it.
    share: AtomicUsize,
    by_client: Box<[AtomicUsize]>,
    pub(super) arrivals: Arrivals,
}

impl BufferMemory {
    /// At most `max` bytes.
    pub(crate) fn new(max: usize) -> BufferMemory {
        BufferMemory {
            bytes: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            share: AtomicUsize::new(client_share(max)),
            by_client: (0..SLOTS).map(|_| AtomicUsize::new(0)).collect(),
            arrivals: Arrivals::default(),
        }
    }

    /// Whether a client may buffer more. The next piece may then exceed the limit, by one for each worker: its length is
    /// not known before. Room for content that may come unasked is left free.
    pub(crate) fn has_room(&self, client: ClientSlot) -> bool {
        let (max, kept) = (self.max(), self.kept_for_arrivals());
        self.bytes() + kept < max && self.held_by(client) + kept < self.share.load(Ordering::Relaxed)
    }

    /// A reservation for a request that is here already; `None` where it has to be refused.
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

    /// How far requests may go beyond the limit; bytes.
    pub(super) fn beyond(&self) -> usize {
        (self.max() / REQUESTS_BEYOND).max(MIN_BEYOND)
    }

    /// A reservation for something that can be done without; `None` where there is no room for all of it.
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

    /// Bytes held for one client.
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

    /// What is left free for what may come: a client that reads slowly has it from responses that begin later; bytes.
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

/// Unasked content of all workers.
#[derive(Debug)]
pub(super) struct Arrivals {
    pub(super) by_client: Box<[AtomicUsize]>,
    pub(super) any: AtomicBool,
    pub(super) beyond: Notify,
    /// Responses of which something was given up.
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

/// The part of the memory that one buffer holds, given back when dropped.
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

    /// Whether the buffer may grow.
    pub(crate) fn has_room(&self) -> bool {
        self.memory.has_room(self.client)
    }

    /// The buffer holds so many bytes now.
    pub(crate) fn resize(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.memory.add(self.client, bytes - self.bytes);
        } else if bytes < self.bytes {
            self.memory.subtract(self.client, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Hands `bytes` of it, or all there is, to another owner.
    pub(crate) fn split(&mut self, bytes: usize) -> BufferReservation {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        BufferReservation { memory: self.memory.clone(), client: self.client, bytes }
    }

    /// Takes over what another one of the same client and memory holds.
    pub(crate) fn join(&mut self, mut other: BufferReservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Whose share it is of.
    pub(crate) fn client(&self) -> ClientSlot {
        self.client
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is a part of this client's share.
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
