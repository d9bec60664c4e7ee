//! Memory for what waits for a slow peer or for its turn, and each client's share of what clients have in common.
//!
//! Clients are counted in fixed tables of atomics, by a hash of their address: counting a client takes no lock, and
//! no number of clients makes a table grow. Clients in one slot share its allowance.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;

mod arrivals;
mod buffer_memory;
mod client_slot;

pub(crate) use arrivals::Arrival;
pub(crate) use buffer_memory::{BufferMemory, BufferReservation};
pub(crate) use client_slot::{ClientSlot, SLOTS, client_share};

/// Memory of a waiting connection beside its buffers (its task, its request, its place in a line); bytes, measured with
/// `benches/attacks`.
pub(crate) const OF_A_WAIT: usize = 16 * 1024;

/// Memory that the allocator takes for buffers of `bytes` bytes: it rounds up.
pub(crate) const fn weight(bytes: usize) -> usize {
    bytes + bytes / 8
}

/// How what is polled just now is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Freely,
    /// Ahead of a peer that is slow: no buffer is so large that its end, which waits, holds much that is gone.
    Ahead,
    /// There is no room in the buffer memory: in small pieces.
    Pressed,
}

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::Freely) };
}

/// How to read just now.
pub(crate) fn reading() -> Reading {
    READING.get()
}

/// Whether what is read just now finds no room in the buffer memory, and is to be read in small pieces.
pub(crate) fn is_pressed() -> bool {
    reading() == Reading::Pressed
}

/// Polls something that reads so.
pub(crate) fn while_reading<T>(reading: Reading, poll: impl FnOnce() -> T) -> T {
    READING.set(reading);
    let polled = poll();
    READING.set(Reading::Freely);
    polled
}

/// Polls something for a peer that is slow; without room it is read in small pieces.
pub(crate) fn while_pressed<T>(pressed: bool, poll: impl FnOnce() -> T) -> T {
    while_reading(if pressed { Reading::Pressed } else { Reading::Freely }, poll)
}

/// Whether a client may buffer more, for the code that decides so before anything is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<'a> {
    memory: &'a Arc<BufferMemory>,
    client: ClientSlot,
}

impl<'a> Room<'a> {
    /// The room of `client`.
    pub(crate) fn new(memory: &'a Arc<BufferMemory>, client: ClientSlot) -> Room<'a> {
        Room { memory, client }
    }

    /// A reservation of nothing yet in it.
    pub(crate) fn reservation(&self) -> BufferReservation {
        BufferReservation::new(self.memory.clone(), self.client)
    }

    /// See [`BufferMemory::try_reserve`].
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<BufferReservation> {
        self.memory.try_reserve(self.client, bytes)
    }

    /// See [`BufferMemory::has_room`].
    pub(crate) fn is_left(&self) -> bool {
        self.memory.has_room(self.client)
    }

    pub(crate) fn memory(self) -> &'a Arc<BufferMemory> {
        self.memory
    }

    /// A reservation for what comes unasked.
    pub(crate) fn arrival(self) -> Arrival {
        Arrival::new(self.memory.clone(), self.client)
    }

    /// A reservation of nothing yet.
    pub(crate) fn reserve(self) -> BufferReservation {
        BufferReservation::new(self.memory.clone(), self.client)
    }
}

/// Content that holds something, its part of the memory say, until the last reference to it is gone: a library that it was
/// handed to may keep it for as long as a client does not take it.
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
