//! Requests that go on without the client that began them.

use std::sync::Arc;

use crate::held::{Held, Place};

/// Maximum number of reads that go on at once without a client; bounds the work that clients which open and leave can
/// cause.
const MOST_READS: usize = 32;

/// See the head of the file.
#[derive(Debug)]
pub struct Unattended {
    reads: Arc<Held>,
    /// Writes are bounded by the connections to their app, of which each keeps its own.
    writes: Arc<Held>,
}

impl Default for Unattended {
    fn default() -> Unattended {
        Unattended { reads: Arc::new(Held::at_most(MOST_READS)), writes: Arc::new(Held::at_most(usize::MAX)) }
    }
}

impl Unattended {
    /// A place for a read of an app of which `most` may go on; `None`: too many do.
    pub fn read(&self, most: usize) -> Option<Place> {
        let place = self.reads.take(1)?;
        (self.reads.get() <= most).then_some(place)
    }

    /// A place for a write.
    pub fn write(&self) -> Place {
        self.writes.take_over(1)
    }

    /// Number of both, now.
    pub fn get(&self) -> usize {
        self.reads.get() + self.writes.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_5_reads_are_bounded_and_writes_are_not() {
        let unattended = Unattended::default();
        let writes: Vec<Place> = (0..100).map(|_| unattended.write()).collect();
        let few: Vec<Option<Place>> = (0..10).map(|_| unattended.read(4)).collect();
        assert_eq!(few.iter().flatten().count(), 4);
        let more: Vec<Option<Place>> = (0..100).map(|_| unattended.read(1000)).collect();
        assert_eq!(more.iter().flatten().count(), MOST_READS - 4);
        assert_eq!(unattended.get(), 100 + MOST_READS);
        drop((writes, few, more));
        assert_eq!(unattended.get(), 0);
    }
}
