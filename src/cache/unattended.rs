//! Requests that go on without the client that began them.

use std::sync::Arc;

use crate::memory::buffers::{BufferMemory, ClientSlot, Reservation};

/// Maximum number of reads that go on at once without the client that began them; bounds the work that a client which
/// opens and leaves can cause.
const MOST_READS: usize = 32;

/// Maximum of all clients' reads where one client may have `most`: one that takes its whole share leaves some for others.
const fn of_all(most: usize) -> usize {
    most.saturating_add(most / 7 + 1)
}

/// See the head of the file. What is counted is requests, each in the share of the client that began it.
#[derive(Debug)]
pub(crate) struct Unattended {
    reads: Arc<BufferMemory>,
    /// Writes are bounded by the connections to their app, of which each keeps its own.
    writes: Arc<BufferMemory>,
}

impl Default for Unattended {
    fn default() -> Unattended {
        let of = |most| Arc::new(BufferMemory::new(most));
        Unattended { reads: of(of_all(MOST_READS)), writes: of(usize::MAX) }
    }
}

impl Unattended {
    /// A place for a read that `client` began, of an app of which `most` of one client may go on; `None`: as many of this
    /// client do, or too many of all.
    pub(crate) fn read(&self, client: ClientSlot, most: usize) -> Option<Reservation> {
        let place = self.reads.try_reserve(client, 1)?;
        let most = most.min(MOST_READS);
        (self.reads.bytes() <= of_all(most) && self.reads.held_by(client) <= most).then_some(place)
    }

    /// A place for a write.
    pub(crate) fn write(&self) -> Reservation {
        let mut place = Reservation::new(self.writes.clone(), ClientSlot::default());
        place.resize(1);
        place
    }

    pub(crate) fn get(&self) -> usize {
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
        assert_eq!(reads.each_ref().map(Vec::len), [4, 1, 28, 4]);
        assert_eq!(unattended.get(), 100 + of_all(MOST_READS));
        drop((writes, reads));
        assert_eq!(unattended.get(), 0);
    }
}
