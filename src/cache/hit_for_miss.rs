//! The memory of keys whose answers are not stored, so that requests for them do not wait for one another in vain
//! (hit-for-miss). One table of a fixed size; a key that another one pushed out waits once more.
//!
//! A key of which some responses are stored and others are not, as where only new clients get a cookie, is remembered as
//! that: each response is looked at, so that requests of one client do not keep the responses to others out of the cache.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cache::rules::storability::Personal;

/// log2 of the number of places: 512 KiB.
const PLACES: u32 = 16;
/// How long a key is remembered after the last answer that was not stored; seconds.
pub(crate) const REMEMBERED: u32 = 120;

/// A place has the upper half of a hash, two flags, and the second at which it ends.
const UNTIL: u64 = MIXED - 1;
/// Some responses under this key may be stored.
const MIXED: u64 = 1 << 30;
/// A response under this key turned out to be too long while it came.
const TOO_LONG: u64 = 1 << 31;

/// The second at which a place ends that was written at `second`.
fn until(second: u32) -> u64 {
    u64::from(second.saturating_add(REMEMBERED)).min(UNTIL)
}

/// Whose answers. What somebody in particular is told is not stored for reasons that say nothing of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequesterClass {
    Any = 0,
    /// Those with Authorization alone, where one copy would serve all.
    Authorized = 1,
    /// Those who say in another way who they are, where one copy would serve all.
    Personal = 2,
    /// Those who would wait for another request's fetch: what it brings is not for them, stored or not.
    Waiting = 3,
}

impl RequesterClass {
    pub(crate) const ALL: [RequesterClass; 4] =
        [RequesterClass::Any, RequesterClass::Authorized, RequesterClass::Personal, RequesterClass::Waiting];

    /// How the requests it stands for say who asks.
    pub(crate) fn personal(self) -> Personal {
        match self {
            RequesterClass::Any | RequesterClass::Waiting => Personal::No,
            RequesterClass::Authorized => Personal::Authorization,
            RequesterClass::Personal => Personal::Otherwise,
        }
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct HitForMiss {
    places: Box<[AtomicU64]>,
    seed: u64,
}

impl HitForMiss {
    pub(crate) fn new(seed: u64) -> HitForMiss {
        HitForMiss { places: (0..1usize << PLACES).map(|_| AtomicU64::new(0)).collect(), seed }
    }

    fn place(&self, key: &[u8], traits: RequesterClass) -> (usize, u64) {
        let hash = xxh3_64_with_seed(key, self.seed ^ traits as u64);
        (usize::try_from(hash & ((1 << PLACES) - 1)).unwrap_or(0), hash & !u64::from(u32::MAX))
    }

    /// The place of a key, unless it has ended by `second`.
    fn at(&self, (at, print): (usize, u64), second: u32) -> Option<u64> {
        let place = self.places.get(at)?.load(Ordering::Relaxed);
        (place & !u64::from(u32::MAX) == print && place & UNTIL > u64::from(second)).then_some(place)
    }

    fn put(&self, (at, print): (usize, u64), value: u64) {
        if let Some(place) = self.places.get(at) {
            place.store(print | value, Ordering::Relaxed);
        }
    }

    /// An answer under this key was not stored. `second` counts from any moment on.
    pub(crate) fn remember(&self, key: &[u8], traits: RequesterClass, second: u32) {
        let place = self.place(key, traits);
        let is_mixed = self.at(place, second).is_some_and(|known| known & MIXED != 0);
        if !is_mixed {
            self.put(place, until(second));
        }
    }

    /// An answer under this key, whose length was not known, was too long to be stored.
    pub(crate) fn remember_too_long(&self, key: &[u8], traits: RequesterClass, second: u32) {
        self.put(self.place(key, traits), TOO_LONG | until(second));
    }

    /// An answer under this key could have been stored, unless it is too long, which is not known where it `has_length`
    /// not.
    pub(crate) fn remember_mixed(&self, key: &[u8], traits: RequesterClass, second: u32, has_length: bool) {
        let place = self.place(key, traits);
        let is_too_long = self.at(place, second).is_some_and(|known| known & TOO_LONG != 0);
        if has_length || !is_too_long {
            self.put(place, MIXED | until(second));
        }
    }

    /// An answer under this key was stored. That others were not is remembered until it ends.
    pub(crate) fn forget(&self, key: &[u8], traits: RequesterClass) {
        let place = self.place(key, traits);
        if self.at(place, 0).is_some_and(|known| known & MIXED == 0) {
            self.put(place, 0);
        }
    }

    /// Whether answers under this key are not stored, as far as is known.
    pub(crate) fn knows(&self, key: &[u8], traits: RequesterClass, second: u32) -> bool {
        self.at(self.place(key, traits), second).is_some_and(|known| known & MIXED == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_for_a_while() {
        let passes = HitForMiss::new(1);
        let any = RequesterClass::Any;
        assert!(!passes.knows(b"a", any, 5));
        passes.remember(b"a", any, 5);
        assert!(passes.knows(b"a", any, 5) && passes.knows(b"a", any, 4 + REMEMBERED));
        assert!(!passes.knows(b"a", any, 5 + REMEMBERED) && !passes.knows(b"b", any, 5));
        assert!(!passes.knows(b"a", RequesterClass::Personal, 5));
        passes.forget(b"a", any);
        assert!(!passes.knows(b"a", any, 5));
    }
    /// One client's requests bring what is not stored, those of others what is: theirs are looked at.
    #[test]
    fn n3_8_what_one_client_gets_keeps_nobody_elses_response_out() {
        let passes = HitForMiss::new(1);
        let any = RequesterClass::Any;
        passes.remember(b"a", any, 5);
        passes.remember_mixed(b"a", any, 6, false);
        assert!(!passes.knows(b"a", any, 6));
        passes.remember(b"a", any, 7);
        assert!(!passes.knows(b"a", any, 7), "as often as it asks");
        passes.forget(b"a", any);
        passes.remember(b"a", any, 8);
        assert!(!passes.knows(b"a", any, 8), "also after one was stored");
        passes.remember(b"a", any, 6 + REMEMBERED);
        assert!(passes.knows(b"a", any, 6 + REMEMBERED), "but not for good");
    }

    #[test]
    fn n3_8_what_is_too_long_is_not_begun_again_for_want_of_a_length() {
        let passes = HitForMiss::new(1);
        let any = RequesterClass::Any;
        passes.remember_too_long(b"a", any, 5);
        passes.remember_mixed(b"a", any, 6, false);
        assert!(passes.knows(b"a", any, 6));
        passes.remember_mixed(b"a", any, 6, true);
        assert!(!passes.knows(b"a", any, 6), "this one is short enough");
        passes.remember_too_long(b"a", any, 7);
        assert!(passes.knows(b"a", any, 7));
    }
}
