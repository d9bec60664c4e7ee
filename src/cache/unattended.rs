//! Requests that go on without the client that began them.

use std::sync::Arc;

use crate::buffers::{BufferMemory, ClientSlot, Reservation, share_of};

/// Maximum number of reads that go on at once without a client; bounds the work that clients which open and leave can
/// cause.
const MOST_READS: usize = 32;

/// See the head of the file. What is counted is requests, each in the share of the client that began it.
#[derive(Debug)]
pub struct Unattended {
    reads: Arc<BufferMemory>,
    /// Writes are bounded by the connections to their app, of which each keeps its own.
    writes: Arc<BufferMemory>,
}

impl Default for Unattended {
    fn default() -> Unattended {
        let of = |most| Arc::new(BufferMemory::new(most));
        Unattended { reads: of(MOST_READS), writes: of(usize::MAX) }
    }
}

impl Unattended {
    /// A place for a read that `client` began, of an app of which `most` may go on; `None`: too many do, or too many of
    /// this client.
    pub fn read(&self, client: ClientSlot, most: usize) -> Option<Reservation> {
        let place = self.reads.try_reserve(client, 1)?;
        (self.reads.bytes() <= most && self.reads.held_by(client) <= share_of(most)).then_some(place)
    }

    /// A place for a write.
    pub fn write(&self) -> Reservation {
        let mut place = Reservation::new(self.writes.clone(), ClientSlot::default());
        place.resize(1);
        place
    }

    /// Number of both, now.
    pub fn get(&self) -> usize {
        self.reads.bytes() + self.writes.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_5_reads_are_bounded_also_for_one_client_and_writes_are_not() {
        let unattended = Unattended::default();
        let client = |last| ClientSlot::new(std::net::IpAddr::from([192, 0, 2, last]), 64);
        let (one, other) = (client(1), (2..).map(client).find(|slot| *slot != client(1)).unwrap_or_default());
        let writes: Vec<Reservation> = (0..100).map(|_| unattended.write()).collect();
        let read = |client, count, most| -> Vec<Reservation> {
            (0..count).filter_map(|_| unattended.read(client, most)).collect()
        };
        let reads = [read(one, 10, 4), read(other, 10, 4), read(one, 100, 1000), read(other, 100, 1000)];
        // Of few places an eighth is one; of all 32 it is four.
        assert_eq!(reads.each_ref().map(Vec::len), [3, 1, 25, 3]);
        assert_eq!(unattended.get(), 100 + MOST_READS);
        drop((writes, reads));
        assert_eq!(unattended.get(), 0);
    }
}
