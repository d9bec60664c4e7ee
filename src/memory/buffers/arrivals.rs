//! Content that arrives without a read: an HTTP/2 upstream sends as much of each response as its flow-control window
//! permits (RFC 9113 5.2), whether the client reads it or not. It is counted on arrival, in the share of the client
//! whose response it is.
//!
//! When memory is scarce, upstreams get smaller windows, and buffers that can wait leave room for such content. Beyond
//! the limit, responses of the client that holds most are canceled: no client can fill the memory and leave none to the
//! others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::buffer_memory::{BufferMemory, BufferReservation};
use super::client_slot::{ClientSlot, client_share};

/// Part of the limit (a half) beyond which upstreams get smaller windows.
const SCARCE: usize = 2;
/// Part of the limit (a quarter) at or below which upstreams get their full windows back.
const AMPLE: usize = 4;
/// Part of the limit (a 64th) that canceled responses must free beyond the need, so that the next content finds room.
const MARGIN: usize = 64;

impl BufferMemory {
    /// Returns whether upstreams should have smaller windows now. `before` says whether they have them already.
    pub(crate) fn is_scarce(&self, before: bool) -> bool {
        self.bytes() > self.max() / if before { AMPLE } else { SCARCE }
    }

    /// Returns the limit in bytes that includes arriving content. It covers half of the excess that requests may use,
    /// so that requests find room beside arriving content.
    fn limit_of_arrivals(&self) -> usize {
        self.max().saturating_add(self.beyond() / 2)
    }

    /// Returns whether a response of `client`, or of any client, has to be canceled.
    pub(crate) fn is_beyond(&self, client: ClientSlot) -> bool {
        let limit = self.limit_of_arrivals();
        self.bytes() > limit || self.held_by(client) > client_share(limit)
    }

    /// Returns the client whose responses have to be canceled, and the bytes to free. Among the clients with arrived
    /// content, it is the client that holds most.
    pub(crate) fn excess(&self) -> Option<(ClientSlot, usize)> {
        let (limit, margin) = (self.limit_of_arrivals(), self.max() / MARGIN);
        let (_, client) = (0u16..)
            .zip(&self.arrivals.by_client)
            .filter(|(_, arrived)| arrived.load(Ordering::Relaxed) > 0)
            .map(|(at, _)| (self.held_by(ClientSlot(at)), ClientSlot(at)))
            .max_by_key(|(held, _)| *held)?;
        self.is_beyond(client).then(|| {
            let all = (self.bytes() + margin).saturating_sub(limit);
            (client, all.max((self.held_by(client) + margin).saturating_sub(client_share(limit))))
        })
    }

    /// Counts `responses` canceled for lack of memory.
    pub(crate) fn count_given_up(&self, responses: u64) {
        self.arrivals.given_up.fetch_add(responses, Ordering::Relaxed);
    }

    /// Returns the number of responses canceled so far.
    pub(crate) fn given_up(&self) -> u64 {
        self.arrivals.given_up.load(Ordering::Relaxed)
    }

    /// Notifies all workers that content has to be canceled.
    pub(crate) fn tell_beyond(&self) {
        self.arrivals.beyond.notify_waiters();
    }

    pub(crate) async fn told_beyond(&self) {
        self.arrivals.beyond.notified().await;
    }
}

/// The reservation for arriving content of one response.
#[derive(Debug)]
pub(crate) struct Arrival(BufferReservation);

impl Arrival {
    pub(crate) fn new(memory: Arc<BufferMemory>, client: ClientSlot) -> Arrival {
        if !memory.arrivals.any.load(Ordering::Relaxed) {
            memory.arrivals.any.store(true, Ordering::Relaxed);
        }
        Arrival(BufferReservation::new(memory, client))
    }

    pub(crate) fn memory(&self) -> &Arc<BufferMemory> {
        &self.0.memory
    }

    pub(crate) fn client(&self) -> ClientSlot {
        self.0.client
    }

    /// Returns whether the client may buffer more.
    pub(crate) fn has_room(&self) -> bool {
        self.0.has_room()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// Sets the number of bytes held now.
    pub(crate) fn resize(&mut self, bytes: usize) {
        let before = self.0.bytes();
        if let Some(arrived) = self.0.memory.arrivals.by_client.get(self.0.client.index()) {
            if bytes > before {
                arrived.fetch_add(bytes - before, Ordering::Relaxed);
            } else if bytes < before {
                arrived.fetch_sub(before - bytes, Ordering::Relaxed);
            }
        }
        self.0.resize(bytes);
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn n3_4_what_arrives_beyond_the_limit_is_given_up_by_who_holds_most() {
        let memory = Arc::new(BufferMemory::new(64 * MIB));
        let (greedy, modest) = (ClientSlot(7), ClientSlot(8));
        let mut arrived = [greedy, modest].map(|client| Arrival::new(memory.clone(), client));
        let [many, few] = &mut arrived;
        few.resize(4 * MIB);
        many.resize(28 * MIB);
        assert!(!memory.is_scarce(false), "half of it is used");
        many.resize(29 * MIB);
        assert!(memory.is_scarce(false));
        many.resize(12 * MIB + 1);
        assert!(memory.is_scarce(true), "it was scarce, and more than a quarter is used");
        many.resize(12 * MIB);
        assert!(!memory.is_scarce(true));
        // 57.5 MiB are within its share of 66 MiB.
        many.resize(57 * MIB + MIB / 2);
        assert!(!memory.is_beyond(greedy) && memory.excess().is_none());
        many.resize(58 * MIB);
        assert!(memory.is_beyond(greedy) && !memory.is_beyond(modest));
        assert_eq!(memory.excess(), Some((greedy, MIB / 4 + MIB)), "no more than its own");
        // Beyond the total limit, the client that holds most loses, not the client whose content came last.
        many.resize(57 * MIB);
        few.resize(10 * MIB);
        assert!(memory.is_beyond(modest));
        assert_eq!(memory.excess(), Some((greedy, MIB + MIB)));
        // Its other memory cannot be canceled, so it is the next client's turn.
        let mut asked = BufferReservation::new(memory.clone(), greedy);
        asked.resize(57 * MIB);
        many.resize(0);
        assert_eq!(memory.excess(), Some((modest, MIB + MIB)));
        drop((arrived, asked));
        let mut waits = BufferReservation::new(memory.clone(), modest);
        waits.resize(40 * MIB - 1);
        assert!(memory.has_room(modest), "of 56 MiB 16 are left free for what may come");
        waits.resize(40 * MIB);
        assert!(!memory.has_room(modest));
        drop(waits);
        assert_eq!((memory.bytes(), memory.excess()), (0, None));
        assert!(memory.arrivals.by_client.iter().all(|arrived| arrived.load(Ordering::Relaxed) == 0));
    }
}
