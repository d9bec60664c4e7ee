//! Memory for bytes that wait for a slow peer or for their turn, and each client's share of a common resource.
//!
//! Clients are counted in fixed tables of atomics, by a hash of their address: counting a client takes no lock, and no
//! number of clients makes a table grow. Clients in one slot share one allowance.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;

mod arrivals;
mod buffer_memory;
mod client_slot;

pub(crate) use arrivals::Arrival;
pub(crate) use buffer_memory::{BufferMemory, BufferReservation};
pub(crate) use client_slot::{ClientSlot, SLOTS, client_share};

/// Memory of a waiting connection in bytes beside its buffers (its task, its request, its queue entry), measured with
/// `benches/attacks`.
pub(crate) const OF_A_WAIT: usize = 16 * 1024;

/// Returns the memory that the allocator takes for `bytes` bytes of buffers: it rounds up.
pub(crate) const fn weight(bytes: usize) -> usize {
    bytes + bytes / 8
}

/// The way the body polled at present reads from its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Freely,
    /// Ahead of a slow peer. Buffers stay small, so that a buffer whose end still waits does not hold much consumed
    /// space.
    Ahead,
    /// Without room in the buffer memory: in small pieces.
    Pressed,
}

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::Freely) };
}

/// Returns the way to read in the present poll.
pub(crate) fn reading() -> Reading {
    READING.get()
}

/// Returns whether the present poll finds no room in the buffer memory and must read in small pieces.
pub(crate) fn is_pressed() -> bool {
    reading() == Reading::Pressed
}

/// Polls with the given way of reading.
pub(crate) fn while_reading<T>(reading: Reading, poll: impl FnOnce() -> T) -> T {
    READING.set(reading);
    let polled = poll();
    READING.set(Reading::Freely);
    polled
}

/// Polls for a slow peer. Without room in the buffer memory (`pressed`), reads are small.
pub(crate) fn while_pressed<T>(pressed: bool, poll: impl FnOnce() -> T) -> T {
    while_reading(if pressed { Reading::Pressed } else { Reading::Freely }, poll)
}

/// The memory as one client sees it, for code that checks for room before it holds anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    memory: &'a Arc<BufferMemory>,
    client: ClientSlot,
}

impl<'a> Room<'a> {
    /// Creates the view of `client`.
    pub(crate) fn new(memory: &'a Arc<BufferMemory>, client: ClientSlot) -> Room<'a> {
        Room { memory, client }
    }

    /// Returns an empty reservation of the client.
    pub(crate) fn reservation(&self) -> BufferReservation {
        BufferReservation::new(self.memory.clone(), self.client)
    }

    /// Reserves memory for an optional purpose of the client; see [`BufferMemory::try_reserve`].
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<BufferReservation> {
        self.memory.try_reserve(self.client, bytes)
    }

    /// Returns whether the client may buffer more; see [`BufferMemory::has_room`].
    pub(crate) fn is_left(&self) -> bool {
        self.memory.has_room(self.client)
    }

    pub(crate) fn memory(self) -> &'a Arc<BufferMemory> {
        self.memory
    }

    /// Returns an empty reservation for unsolicited content.
    pub(crate) fn arrival(self) -> Arrival {
        Arrival::new(self.memory.clone(), self.client)
    }
}

/// Returns content that keeps `held`, such as its reservation, alive until its last reference is dropped. A library
/// that gets the content may hold it until the client reads it.
pub(crate) fn hold<T: Send + 'static>(content: Bytes, held: T) -> Bytes {
    Bytes::from_owner(Holding { content, _held: held })
}

struct Holding<T> {
    content: Bytes,
    _held: T,
}

impl<T> AsRef<[u8]> for Holding<T> {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}
