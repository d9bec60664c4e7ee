//! The memory of a client connection that waits, where its buffers have grown.

use std::rc::Rc;

use crate::http1::buffered;
use crate::http1::buffered::{Buffered, ORDINARY_BUFFERS};
use crate::memory::buffers::{BufferReservation, ClientSlot, OF_A_WAIT};
use crate::message::inbound::Peer;

/// As many bits of an IPv6 address are one client's: whose request it is in the end, only its head would say.
const IPV6_PREFIX: u8 = 64;

/// See the head of the file. A connection whose buffers are ordinary counts nothing.
#[derive(Debug)]
pub(crate) struct Waiting {
    peer: Rc<Peer>,
    counted: Option<BufferReservation>,
}

impl Waiting {
    /// Of a connection of `peer`.
    pub(crate) fn new(peer: Rc<Peer>) -> Waiting {
        Waiting { peer, counted: None }
    }

    /// Counts the read buffer, and what is queued.
    pub(crate) fn count(&mut self, io: &mut Buffered) {
        io.release_written();
        self.count_bytes(io.held_by_read() + io.held_by_queue());
    }

    /// Counts the read buffer alone: what is queued is counted elsewhere.
    pub(crate) fn count_read(&mut self, io: &Buffered) {
        self.count_bytes(io.held_by_read());
    }

    fn count_bytes(&mut self, bytes: usize) {
        // It is no more than ordinary buffers take, else with all that it holds.
        let bytes = if bytes > ORDINARY_BUFFERS { bytes + OF_A_WAIT } else { 0 };
        buffered::count(bytes, &mut self.counted, || reserve(&self.peer));
    }

    /// Whether its buffers may grow.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.counted.is_none() {
            self.counted = reserve(&self.peer);
        }
        self.counted.as_ref().is_none_or(BufferReservation::has_room)
    }

    /// Whether what is counted fits.
    pub(crate) fn fits(&self) -> bool {
        self.counted.as_ref().is_none_or(|counted| counted.bytes() == 0 || counted.has_room())
    }

    /// Nothing is counted any more.
    pub(crate) fn clear(&mut self) {
        self.counted = None;
    }
}

fn reserve(peer: &Peer) -> Option<BufferReservation> {
    let buffers = peer.buffers.as_ref()?;
    Some(BufferReservation::new(buffers.clone(), ClientSlot::new(peer.address.ip(), IPV6_PREFIX)))
}
