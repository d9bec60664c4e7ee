//! The buffer memory that a request holds until it ends.

use std::cell::RefCell;

use crate::memory::buffers::BufferReservation;

/// The buffer memory of one request: its target, the fields that stay, and content that is part of the cache key.
#[derive(Default)]
pub(crate) struct HeldMemory {
    reservation: RefCell<Option<BufferReservation>>,
}

impl HeldMemory {
    /// Keeps a reservation until the request ends.
    pub(crate) fn hold(&self, reservation: BufferReservation) {
        let mut held = self.reservation.borrow_mut();
        match &mut *held {
            Some(held) => held.join(reservation),
            None => *held = Some(reservation),
        }
    }
}
