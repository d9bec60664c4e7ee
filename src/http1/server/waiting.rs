//! The memory of a waiting client connection whose buffers have grown.

use std::rc::Rc;

use crate::http1::buffered;
use crate::http1::buffered::{Buffered, ORDINARY_BUFFERS};
use crate::memory::buffers::{BufferReservation, ClientSlot, OF_A_WAIT};
use crate::message::inbound::Peer;

/// Bits of an IPv6 address that identify a client: only the missing head could tell the real client.
const IPV6_PREFIX: u8 = 64;

/// The counted memory of one connection. Ordinary buffers count nothing.
#[derive(Debug)]
pub(crate) struct Waiting {
    peer: Rc<Peer>,
    counted: Option<BufferReservation>,
}

impl Waiting {
    /// Creates an empty count for a connection of `peer`.
    pub(crate) fn new(peer: Rc<Peer>) -> Waiting {
        Waiting { peer, counted: None }
    }

    /// Counts the read buffer and the queue.
    pub(crate) fn count(&mut self, io: &mut Buffered) {
        io.release_written();
        self.count_bytes(io.held_by_read() + io.held_by_queue());
    }

    /// Counts the read buffer alone, because the queue is counted elsewhere.
    pub(crate) fn count_read(&mut self, io: &Buffered) {
        self.count_bytes(io.held_by_read());
    }

    fn count_bytes(&mut self, bytes: usize) {
        // Ordinary buffers count nothing; larger ones count with everything that the connection holds.
        let bytes = if bytes > ORDINARY_BUFFERS { bytes + OF_A_WAIT } else { 0 };
        buffered::count(bytes, &mut self.counted, || reserve(&self.peer));
    }

    /// Returns whether the buffers may grow.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.counted.is_none() {
            self.counted = reserve(&self.peer);
        }
        self.counted.as_ref().is_none_or(BufferReservation::has_room)
    }

    /// Returns whether the counted memory fits into the buffer memory.
    pub(crate) fn fits(&self) -> bool {
        self.counted.as_ref().is_none_or(|counted| counted.bytes() == 0 || counted.has_room())
    }

    /// Releases the counted memory, once the connection no longer waits.
    pub(crate) fn clear(&mut self) {
        self.counted = None;
    }
}

fn reserve(peer: &Peer) -> Option<BufferReservation> {
    let buffers = peer.buffers.as_ref()?;
    Some(BufferReservation::new(buffers.clone(), ClientSlot::new(peer.address.ip(), IPV6_PREFIX)))
}
