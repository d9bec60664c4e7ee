//! Hit-for-miss: remembers the keys whose responses are not stored, so that requests for them do not wait for each
//! other in vain. The table has a fixed size; a key that another key displaced waits once more.
//!
//! A key can have both storable and other responses, for example if only new clients get a cookie. Such a key is marked
//! as mixed and each of its responses is judged, so the requests of one client cannot keep those of others uncached.

use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cache::rules::storability::Personal;
use crate::cache::settings::Scope;

/// log2 of the number of slots: 512 KiB.
const PLACES: u32 = 16;
/// How long a key is remembered after its last response that was not stored, in seconds.
pub(crate) const REMEMBERED: u32 = 120;

/// Mask of the second at which a slot expires. A slot also has the upper half of a hash and two flags.
const UNTIL: u64 = MIXED - 1;
/// Flag: some responses under this key are storable.
const MIXED: u64 = 1 << 30;
/// Flag: a response under this key exceeded the maximum size while it arrived.
const TOO_LONG: u64 = 1 << 31;

/// Returns the second at which a slot written at `second` expires.
fn until(second: u32) -> u64 {
    u64::from(second.saturating_add(REMEMBERED)).min(UNTIL)
}

/// The class of requests that a remembered key is about: a response to a personal request can be refused for reasons
/// that do not hold for other requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequesterClass {
    Any = 0,
    /// Requests with Authorization alone, on routes where one copy serves all.
    Authorized = 1,
    /// Requests with other credentials, on routes where one copy serves all.
    Personal = 2,
    /// Requests that would wait for another request's fetch: its response is not for them, stored or not.
    Waiting = 3,
}

impl RequesterClass {
    pub(crate) const ALL: [RequesterClass; 4] =
        [RequesterClass::Any, RequesterClass::Authorized, RequesterClass::Personal, RequesterClass::Waiting];

    /// Returns the class of a request with such credentials on a route with `scope`.
    pub(crate) fn new(personal: Personal, scope: Scope) -> RequesterClass {
        match personal {
            Personal::Authorization if scope == Scope::Auto => RequesterClass::Authorized,
            Personal::Otherwise if scope == Scope::Auto => RequesterClass::Personal,
            _ => RequesterClass::Any,
        }
    }

    /// Returns the kind of credentials that requests of this class carry.
    pub(crate) fn personal(self) -> Personal {
        match self {
            RequesterClass::Any | RequesterClass::Waiting => Personal::No,
            RequesterClass::Authorized => Personal::Authorization,
            RequesterClass::Personal => Personal::Otherwise,
        }
    }
}

/// The table of remembered keys; see the head of the file.
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

    /// Returns the slot of a key unless it has expired by `second`.
    fn at(&self, (at, print): (usize, u64), second: u32) -> Option<u64> {
        let place = self.places.get(at)?.load(Ordering::Relaxed);
        (place & !u64::from(u32::MAX) == print && place & UNTIL > u64::from(second)).then_some(place)
    }

    fn put(&self, (at, print): (usize, u64), value: u64) {
        if let Some(place) = self.places.get(at) {
            place.store(print | value, Ordering::Relaxed);
        }
    }

    /// Remembers that a response under this key was not stored. `second` counts from any fixed moment.
    pub(crate) fn remember(&self, key: &[u8], traits: RequesterClass, second: u32) {
        let place = self.place(key, traits);
        let is_mixed = self.at(place, second).is_some_and(|known| known & MIXED != 0);
        if !is_mixed {
            self.put(place, until(second));
        }
    }

    /// Remembers that a response of unknown length under this key was too long to be stored.
    pub(crate) fn remember_too_long(&self, key: &[u8], traits: RequesterClass, second: u32) {
        self.put(self.place(key, traits), TOO_LONG | until(second));
    }

    /// Remembers that a response under this key was storable. If the key is known as too long, this counts only if the
    /// response `has_length`: otherwise its length is not known to be within the limit.
    pub(crate) fn remember_mixed(&self, key: &[u8], traits: RequesterClass, second: u32, has_length: bool) {
        let place = self.place(key, traits);
        let is_too_long = self.at(place, second).is_some_and(|known| known & TOO_LONG != 0);
        if has_length || !is_too_long {
            self.put(place, MIXED | until(second));
        }
    }

    /// Forgets a key whose response was stored. A mixed key stays remembered until it expires.
    pub(crate) fn forget(&self, key: &[u8], traits: RequesterClass) {
        let place = self.place(key, traits);
        if self.at(place, 0).is_some_and(|known| known & MIXED == 0) {
            self.put(place, 0);
        }
    }

    /// Forgets a key whose response is being stored, for all classes of requests. Later requests still do not wait for
    /// the next fetch if the response has no length, because it may take too long.
    pub(crate) fn forget_stored(&self, key: &[u8], has_length: bool) {
        let is_over = |class: &&RequesterClass| **class != RequesterClass::Waiting || has_length;
        RequesterClass::ALL.iter().filter(is_over).for_each(|class| self.forget(key, *class));
    }

    /// Returns whether responses under this key are known not to be stored.
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
    /// One client's responses are not stored, those of others are: each response is judged.
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
    fn a_stored_response_ends_the_memory_of_its_key() {
        let passes = HitForMiss::new(1);
        for (has_length, waits) in [(false, false), (true, true)] {
            RequesterClass::ALL.iter().for_each(|class| passes.remember(b"a", *class, 5));
            passes.forget_stored(b"a", has_length);
            for class in RequesterClass::ALL {
                let wanted = class == RequesterClass::Waiting && !waits;
                assert_eq!(passes.knows(b"a", class, 5), wanted, "{class:?} with a length: {has_length}");
            }
        }
    }

    #[test]
    fn requests_with_credentials_are_of_their_own_class_where_one_copy_serves_all() {
        use RequesterClass::{Any, Authorized, Personal as Own};
        for (personal, scope, wanted) in [
            (Personal::No, Scope::Auto, Any),
            (Personal::Authorization, Scope::Auto, Authorized),
            (Personal::Otherwise, Scope::Auto, Own),
            (Personal::Otherwise, Scope::Shared, Any),
            (Personal::Otherwise, Scope::User, Any),
        ] {
            let found = RequesterClass::new(personal, scope);
            assert_eq!(found, wanted, "{personal:?} {scope:?}");
        }
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
