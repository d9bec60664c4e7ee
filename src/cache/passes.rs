//! The memory of keys whose answers are not stored, so that requests for them do not wait for one another in vain
//! (hit-for-miss). One table of a fixed size; a key that another one pushed out waits once more.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::storability::Personal;

/// log2 of the number of places: 512 KiB.
const PLACES: u32 = 16;
/// How long a key is remembered after the last answer that was not stored; seconds.
pub const REMEMBERED: u32 = 120;

/// Whose answers. What somebody in particular is told is not stored for reasons that say nothing of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Anybody.
    Any = 0,
    /// Those with Authorization alone, where one copy would serve all.
    Authorized = 1,
    /// Those who say in another way who they are, where one copy would serve all.
    Personal = 2,
    /// Those who would wait for another request's fetch: what it brings is not for them, stored or not.
    Waiting = 3,
}

impl Asker {
    /// All of them.
    pub const ALL: [Asker; 4] = [Asker::Any, Asker::Authorized, Asker::Personal, Asker::Waiting];

    /// How the requests it stands for say who asks.
    pub fn personal(self) -> Personal {
        match self {
            Asker::Any | Asker::Waiting => Personal::No,
            Asker::Authorized => Personal::Authorization,
            Asker::Personal => Personal::Otherwise,
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub struct Passes {
    places: Box<[AtomicU64]>,
    seed: u64,
}

impl Passes {
    /// Empty.
    pub fn new(seed: u64) -> Passes {
        Passes { places: (0..1usize << PLACES).map(|_| AtomicU64::new(0)).collect(), seed }
    }

    fn place(&self, key: &[u8], asker: Asker) -> (usize, u64) {
        let hash = xxh3_64_with_seed(key, self.seed ^ asker as u64);
        (usize::try_from(hash & ((1 << PLACES) - 1)).unwrap_or(0), hash & !u64::from(u32::MAX))
    }

    /// An answer under this key was not stored. `second` counts from any moment on.
    pub fn remember(&self, key: &[u8], asker: Asker, second: u32) {
        let (at, print) = self.place(key, asker);
        if let Some(place) = self.places.get(at) {
            place.store(print | u64::from(second.saturating_add(REMEMBERED)), Ordering::Relaxed);
        }
    }

    /// An answer under this key was stored.
    pub fn forget(&self, key: &[u8], asker: Asker) {
        let (at, print) = self.place(key, asker);
        if let Some(place) = self.places.get(at)
            && place.load(Ordering::Relaxed) & !u64::from(u32::MAX) == print
        {
            place.store(0, Ordering::Relaxed);
        }
    }

    /// Whether answers under this key are not stored, as far as is known.
    pub fn knows(&self, key: &[u8], asker: Asker, second: u32) -> bool {
        let (at, print) = self.place(key, asker);
        let place = self.places.get(at).map_or(0, |place| place.load(Ordering::Relaxed));
        place & !u64::from(u32::MAX) == print && place & u64::from(u32::MAX) > u64::from(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_for_a_while() {
        let passes = Passes::new(1);
        let any = Asker::Any;
        assert!(!passes.knows(b"a", any, 5));
        passes.remember(b"a", any, 5);
        assert!(passes.knows(b"a", any, 5) && passes.knows(b"a", any, 4 + REMEMBERED));
        assert!(!passes.knows(b"a", any, 5 + REMEMBERED) && !passes.knows(b"b", any, 5));
        assert!(!passes.knows(b"a", Asker::Personal, 5));
        passes.forget(b"a", any);
        assert!(!passes.knows(b"a", any, 5));
    }
}
