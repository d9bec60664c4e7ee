//! The memory store: maps cache keys to stored responses and evicts the least recently used, by size in bytes.
//!
//! Many workers read a shard at once: a hit only clones a pointer. An entry moves to the front at most once a second,
//! so hits seldom need a shard exclusively.

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

/// Number of parts of the store, each with its own lock.
const SHARDS: usize = 64;
/// Maximum number of variants of one key; a further one displaces the oldest.
const MAX_VARIANTS: usize = 32;

/// All responses stored under one key, the newest variant first.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    variants: Vec<StoredResponse>,
    /// All fields that any of the variants varies with.
    names: Vec<HeaderName>,
    promoted: AtomicU32,
}

impl Entry {
    fn new(variants: Vec<StoredResponse>) -> Entry {
        let names = variant::merged_names(variants.iter().map(|stored| &stored.head.variant));
        Entry { variants, names, promoted: AtomicU32::new(0) }
    }

    /// Returns the newest variant that fits a request.
    pub(crate) fn select(&self, request: SelectingFields<'_>) -> Option<&StoredResponse> {
        let variants = self.variants.iter().map(|stored| (&stored.head.variant, stored));
        variant::select(variants, &self.names, request)
    }

    /// Returns all fields that any of the variants varies with.
    pub(crate) fn names(&self) -> &[HeaderName] {
        &self.names
    }

    pub(crate) fn variants(&self) -> &[StoredResponse] {
        &self.variants
    }
}

/// Hashes keys with a secret, so that no client can construct many that collide.
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

/// A cache key as [`super::key`] writes it.
pub(crate) type Key = Box<[u8]>;
type Shard = RwLock<LruCache<Key, Arc<Entry>, Seeded>>;

/// The store of all responses; see the head of the file.
pub(crate) struct Store {
    shards: Box<[Shard]>,
    seed: u64,
    /// Counts evictions, to choose the next shard to evict from.
    turn: AtomicUsize,
    /// The memory of all stored responses, including those that arrive or are still being sent.
    pub budget: Arc<MemoryBudget>,
    /// Keys evicted for want of space.
    pub evictions: Cell,
}

impl Store {
    /// Creates an empty store of at most `max` bytes.
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

    /// Returns the entry of a key. `second` counts from any fixed moment.
    pub(crate) fn get(&self, key: &[u8], second: u32) -> Option<Arc<Entry>> {
        let shard = self.shards.get(self.shard(key))?;
        let entry = {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.peek(key).cloned()
        }?;
        if entry.promoted.load(Ordering::Relaxed) != second
            && entry.promoted.swap(second, Ordering::Relaxed) != second
            // If another worker holds the lock, the entry is promoted in a later second.
            && let Ok(mut shard) = shard.try_write()
        {
            shard.promote(key);
        }
        Some(entry)
    }

    /// Stores a response in place of the one of the same variant, unless the fetch of that began later. Returns false
    /// if it was not stored.
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
                // Everything else is evicted already.
                self.remove(key);
                false
            }
        }
    }

    /// Evicts the least recently used entries, except for one key, until the store is within its limit. The memory of a
    /// response that is still being sent returns only once it is sent, so evictions stop when their sizes cover the
    /// excess.
    pub(crate) fn make_room(&self, but: Option<&[u8]>) {
        let mut wanted = self.budget.excess();
        // One entry of each shard in turn: together they are about the least recently used of all.
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

    /// Removes one variant, if it is still stored.
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

    /// Removes the keys that `fits` selects; returns how many responses were stored under them.
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

    /// Removes the keys of which `keep` accepts no variant.
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

    /// Returns at most `max` entries whose key `wanted` accepts.
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
