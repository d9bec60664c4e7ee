//! The memory store: keys to stored responses, the least recently used given up first, weighed in bytes.
//!
//! Shards are read by many at once: a hit clones a pointer and goes. What was used is moved to the front at most
//! once a second, so that hits seldom need a shard for themselves.

pub(crate) mod stored;

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderName;
use lru::LruCache;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::selecting_fields::SelectingFields;
use super::variant;
use crate::cache::store::stored::StoredResponse;
use crate::memory::memory_budget::MemoryBudget;
use crate::metrics::Cell;

/// Parts of the store that are locked by themselves.
const SHARDS: usize = 64;
/// Variants of one key; the oldest makes way for another one.
const MAX_VARIANTS: usize = 32;

/// All that is stored under one key, the newest variant first.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    variants: Vec<StoredResponse>,
    /// All fields that any of them varies with.
    names: Vec<HeaderName>,
    promoted: AtomicU32,
}

impl Entry {
    fn new(variants: Vec<StoredResponse>) -> Entry {
        let names = variant::merged_names(variants.iter().map(|stored| &stored.head.variant));
        Entry { variants, names, promoted: AtomicU32::new(0) }
    }

    /// The newest variant that fits a request; whether any is there at all can be asked too.
    pub(crate) fn select(&self, request: SelectingFields<'_>) -> Option<&StoredResponse> {
        let variants = self.variants.iter().map(|stored| (&stored.head.variant, stored));
        variant::select(variants, &self.names, request)
    }

    /// All fields that any of them varies with.
    pub(crate) fn names(&self) -> &[HeaderName] {
        &self.names
    }

    pub(crate) fn variants(&self) -> &[StoredResponse] {
        &self.variants
    }
}

/// Hashes keys with a secret, so that nobody outside can make many of them meet.
#[derive(Clone, Copy, Debug)]
struct Seeded(u64);

impl Hasher for Seeded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }
}

impl BuildHasher for Seeded {
    type Hasher = Seeded;

    fn build_hasher(&self) -> Seeded {
        *self
    }
}

/// As [`super::key`] writes them.
pub(crate) type Key = Box<[u8]>;
type Shard = RwLock<LruCache<Key, Arc<Entry>, Seeded>>;

/// See the head of the file.
pub(crate) struct Store {
    shards: Box<[Shard]>,
    seed: u64,
    /// Whose turn it is to give something up.
    turn: AtomicUsize,
    /// What all of it takes, with what is on its way in and what is on its way out.
    pub budget: Arc<MemoryBudget>,
    /// Keys given up for want of space.
    pub evictions: Cell,
}

impl Store {
    /// At most `max` bytes.
    pub(crate) fn new(seed: u64, max: usize) -> Store {
        let shard = || RwLock::new(LruCache::unbounded_with_hasher(Seeded(!seed)));
        Store {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            seed,
            turn: AtomicUsize::new(0),
            budget: Arc::new(MemoryBudget::at_most(max)),
            evictions: Cell::default(),
        }
    }

    fn shard(&self, key: &[u8]) -> usize {
        usize::try_from(xxh3_64_with_seed(key, self.seed) >> 32).unwrap_or(0) % SHARDS
    }

    /// What is stored under a key. `second` is any count of seconds.
    pub(crate) fn get(&self, key: &[u8], second: u32) -> Option<Arc<Entry>> {
        let shard = self.shards.get(self.shard(key))?;
        let entry = {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.peek(key).cloned()
        }?;
        if entry.promoted.load(Ordering::Relaxed) != second
            && entry.promoted.swap(second, Ordering::Relaxed) != second
            // Whoever does not get it at once leaves it for the next second.
            && let Ok(mut shard) = shard.try_write()
        {
            shard.promote(key);
        }
        Some(entry)
    }

    /// Stores a response in place of the one of the same variant, unless that one's fetch began later. False: it
    /// was not stored.
    pub(crate) fn insert(&self, key: &[u8], stored: StoredResponse) -> bool {
        let index = self.shard(key);
        let Some(shard) = self.shards.get(index) else { return false };
        {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.peek(key).map_or(&[][..], |entry| entry.variants());
            let all = before.iter().chain([&stored]).map(|stored| &stored.head.variant);
            let names = variant::merged_names(all);
            let same = |other: &&StoredResponse| other.head.variant.is_as(&stored.head.variant, &names);
            if before
                .iter()
                .find(same)
                .is_some_and(|other| other.head.fetch_epoch.is_after(&stored.head.fetch_epoch))
            {
                return false;
            }
            let others = before.iter().filter(|other| !same(other)).take(MAX_VARIANTS - 1).cloned();
            let variants: Vec<StoredResponse> = [stored.clone()].into_iter().chain(others).collect();
            shard.put(key.into(), Arc::new(Entry::new(variants)));
        }
        self.budget.excess() == 0 || {
            self.make_room(Some(key));
            self.budget.excess() == 0 || {
                // Nothing else was left to give up.
                self.remove(key);
                false
            }
        }
    }

    /// Gives up what was used least recently until no more is held than may be, but for one key. What is still on
    /// its way to clients is given up too, but its memory comes back only when they have it: no more is given up for
    /// its sake than it takes.
    pub(crate) fn make_room(&self, but: Option<&[u8]>) {
        let mut wanted = self.budget.excess();
        // One of each shard in turn: together they are about what was used least recently.
        let mut empty = 0;
        while wanted > 0 && self.budget.excess() > 0 && empty < SHARDS {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let Some(shard) = self.shards.get(turn) else { return };
            let popped = {
                let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
                match shard.peek_lru() {
                    Some((key, _)) if but == Some(key) => None,
                    _ => shard.pop_lru(),
                }
            };
            let Some((_, entry)) = popped else {
                empty += 1;
                continue;
            };
            empty = 0;
            let size: usize = entry.variants.iter().map(|stored| stored.content.size()).sum();
            wanted = wanted.saturating_sub(size);
            self.evictions.add(1);
        }
    }

    /// Takes one variant out, if it is still there.
    pub(crate) fn forget(&self, key: &[u8], stored: &StoredResponse) {
        let Some(shard) = self.shards.get(self.shard(key)) else { return };
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = shard.peek(key) else { return };
        let others: Vec<StoredResponse> =
            entry.variants.iter().filter(|other| !Arc::ptr_eq(&other.head, &stored.head)).cloned().collect();
        if others.is_empty() {
            shard.pop(key);
        } else if others.len() < entry.variants.len() {
            shard.put(key.into(), Arc::new(Entry::new(others)));
        }
    }

    pub(crate) fn remove(&self, key: &[u8]) {
        if let Some(shard) = self.shards.get(self.shard(key)) {
            shard.write().unwrap_or_else(PoisonError::into_inner).pop(key);
        }
    }

    /// Takes out the keys that `fits` names; how many responses were stored under them.
    pub(crate) fn purge(&self, fits: impl Fn(&[u8]) -> bool) -> usize {
        let mut count = 0;
        for shard in &self.shards {
            let found: Vec<Key> = {
                let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
                shard.iter().filter(|(key, _)| fits(key)).map(|(key, _)| key.clone()).collect()
            };
            if found.is_empty() {
                continue;
            }
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            for key in &found {
                count += shard.pop(key).map_or(0, |entry| entry.variants().len());
            }
        }
        count
    }

    /// Takes out all variants of which `keep` says no.
    pub(crate) fn retain(&self, keep: impl Fn(&StoredResponse) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let gone: Vec<Key> = shard
                .iter()
                .filter(|(_, entry)| !entry.variants.iter().any(&keep))
                .map(|(key, _)| key.clone())
                .collect();
            gone.iter().for_each(|key| drop(shard.pop(key)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        let of = |shard: &Shard| shard.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(of).sum()
    }

    /// Every entry whose key `wanted` takes, at most `max` of them.
    pub(crate) fn find(&self, max: usize, wanted: impl Fn(&[u8]) -> bool) -> Vec<(Key, Arc<Entry>)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            for (key, entry) in shard.iter() {
                if found.len() >= max {
                    return found;
                }
                if wanted(key) {
                    found.push((key.clone(), entry.clone()));
                }
            }
        }
        found
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("keys", &self.len()).field("held", &self.budget).finish_non_exhaustive()
    }
}
