//! Requests that go on without the client that began them.

use std::sync::Arc;

use crate::memory::buffers::{BufferMemory, BufferReservation, ClientSlot};

/// Maximum number of reads that go on at once without the client that began them; bounds the work that a client which
/// opens and leaves can cause.
const MAX_READS: usize = 32;

/// Maximum of all clients' reads where one client may have `max`: one that takes its whole share leaves some for others.
const fn of_all(max: usize) -> usize {
    max.saturating_add(max / 7 + 1)
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
        let of = |max| Arc::new(BufferMemory::new(max));
        Unattended { reads: of(of_all(MAX_READS)), writes: of(usize::MAX) }
    }
}

impl Unattended {
    /// A place for a read that `client` began, of an app of which `max` of one client may go on; `None`: as many of this
    /// client do, or too many of all.
    pub(crate) fn read(&self, client: ClientSlot, max: usize) -> Option<BufferReservation> {
        let place = self.reads.try_reserve(client, 1)?;
        let max = max.min(MAX_READS);
        (self.reads.bytes() <= of_all(max) && self.reads.held_by(client) <= max).then_some(place)
    }

    /// A place for a write.
    pub(crate) fn write(&self) -> BufferReservation {
        let mut place = BufferReservation::new(self.writes.clone(), ClientSlot::default());
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
        let writes: Vec<BufferReservation> = (0..100).map(|_| unattended.write()).collect();
        let read = |client, count, max| -> Vec<BufferReservation> {
            (0..count).filter_map(|_| unattended.read(client, max)).collect()
        };
        let reads = [read(one, 10, 4), read(other, 10, 4), read(one, 100, 1000), read(other, 100, 1000)];
        assert_eq!(reads.each_ref().map(Vec::len), [4, 1, 28, 4]);
        assert_eq!(unattended.get(), 100 + of_all(MAX_READS));
        drop((writes, reads));
        assert_eq!(unattended.get(), 0);
    }
}
