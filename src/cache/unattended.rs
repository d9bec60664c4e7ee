//! Bounds the upstream requests that continue after their client disconnected.

use std::sync::Arc;

use crate::memory::buffers::{BufferMemory, BufferReservation, ClientSlot};

/// Maximum number of reads that may continue at once after their client disconnected; bounds the work that an
/// open-and-leave client can cause.
const MAX_READS: usize = 32;

/// Returns the maximum for all clients if one client may have `max`: a client at its limit leaves some for others.
const fn of_all(max: usize) -> usize {
    max.saturating_add(max / 7 + 1)
}

/// The requests that continue without their client, each counted in the share of the client that began it.
#[derive(Debug)]
pub(crate) struct Unattended {
    reads: Arc<BufferMemory>,
    /// Writes have no limit here: each keeps its upstream connection, so the connection limit bounds them.
    writes: Arc<BufferMemory>,
}

impl Default for Unattended {
    fn default() -> Unattended {
        let of = |max| Arc::new(BufferMemory::new(max));
        Unattended { reads: of(of_all(MAX_READS)), writes: of(usize::MAX) }
    }
}

impl Unattended {
    /// Reserves a place for a read of `client`, to an upstream that allows `max` such reads of one client. Returns
    /// `None` if this client or all clients together have reached their limit.
    pub(crate) fn read(&self, client: ClientSlot, max: usize) -> Option<BufferReservation> {
        let place = self.reads.try_reserve(client, 1)?;
        let max = max.min(MAX_READS);
        (self.reads.bytes() <= of_all(max) && self.reads.held_by(client) <= max).then_some(place)
    }

    /// Counts a write, which is never refused.
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
