//! The state of every key: one cell each, in shards. Their number is bounded. The cells of keys that have their whole
//! burst are forgotten first, which changes nothing for those keys.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::gcra::Nanoseconds;
use super::shared::standing::Shared;
use super::tier::IN_FLIGHT;
use crate::rendering::words::words;

/// Number of shards; with this many, workers seldom wait for the same one.
const SHARDS: usize = 64;

/// Number of entries that a cell stores inline.
const USUAL_ENTRIES: usize = 4;

/// Maximum number of entries of a cell. A key that changes its tier keeps what it owes in each, and its requests in
/// flight on each route. Only the configuration creates rules, so this many never matter.
const MAX_ENTRIES: usize = 4096;

/// Maximum number of cells of a shard examined to find one that may be forgotten.
const MAX_LOOKS: usize = 256;

/// Time until a cell with requests in flight is examined again, in nanoseconds.
const LOOK_AGAIN: Nanoseconds = 1_000_000_000;

words! {
    /// The kind of identity a key is made of.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Kind {
        /// An API key that is listed: the key file bounds their number, so each has a cell whatever other callers do.
        Listed => "api_key",
        ApiKey => "api_key",
        Principal => "principal",
        /// An address, or its network.
        Ip => "ip",
        /// All callers of a tier that found no cell.
        Overflow => "overflow",
    }
}

/// The partition key of a caller: a keyed hash, never the identity it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub hash: u128,
    pub kind: Kind,
}

/// The state of a key under one rule: a TAT, or the number of requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub rule: u64,
    pub value: u64,
}

impl Entry {
    fn says_nothing(&self, now: Nanoseconds) -> bool {
        if self.rule & IN_FLIGHT == 0 { self.value <= now } else { self.value == 0 }
    }
}

/// The state of one key.
#[derive(Debug)]
pub(crate) struct Cell {
    /// The hash in two halves: as one value it would align the cell to 16 bytes.
    key: [u64; 2],
    entries: SmallVec<[Entry; USUAL_ENTRIES]>,
    /// Its leases, where limits are shared.
    shared: Option<Box<Shared>>,
    /// Number of requests that conformed; saturates.
    pub allowed: u32,
    pub limited: u32,
    kind: Kind,
}

impl Cell {
    fn new(key: Key) -> Cell {
        Cell {
            key: halves(key.hash),
            entries: SmallVec::new(),
            shared: None,
            allowed: 0,
            limited: 0,
            kind: key.kind,
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key { hash: self.hash(), kind: self.kind }
    }

    fn hash(&self) -> u128 {
        let [high, low] = self.key;
        u128::from(high) << 64 | u128::from(low)
    }

    /// The part of shared limits.
    pub(super) fn shared(&mut self) -> &mut Shared {
        self.shared.get_or_insert_default()
    }

    /// The same, if there is one.
    pub(super) fn known(&self) -> Option<&Shared> {
        self.shared.as_deref()
    }

    /// Forgets all that the key used, but not its requests in flight.
    pub(super) fn reset(&mut self) {
        self.entries.retain(|entry| entry.rule & IN_FLIGHT != 0);
        if let Some(shared) = &mut self.shared {
            shared.reset();
        }
        (self.allowed, self.limited) = (0, 0);
    }

    /// Returns the value of a rule; 0 if there is none.
    pub(crate) fn value(&self, rule: u64) -> u64 {
        self.entries.iter().find(|entry| entry.rule == rule).map_or(0, |entry| entry.value)
    }

    pub(crate) fn set(&mut self, rule: u64, value: u64, now: Nanoseconds) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.rule == rule) {
            entry.value = value;
            return;
        }
        if self.entries.len() >= USUAL_ENTRIES {
            self.entries.retain(|entry| !entry.says_nothing(now));
        }
        if self.entries.len() >= MAX_ENTRIES {
            let quotas = self.entries.iter().enumerate().filter(|(_, entry)| entry.rule & IN_FLIGHT == 0);
            if let Some((min, _)) = quotas.min_by_key(|(_, entry)| entry.value) {
                self.entries.swap_remove(min);
            }
        }
        self.entries.push(Entry { rule, value });
    }

    /// Returns the time at which the cell is equivalent to a new one.
    fn full_at(&self) -> Nanoseconds {
        let full_at = |entry: &Entry| match (entry.rule & IN_FLIGHT, entry.value) {
            (0, tat) => tat,
            (_, 0) => 0,
            _ => Nanoseconds::MAX,
        };
        let shared = self.shared.as_ref().map_or(0, |shared| shared.over_at());
        self.entries.iter().map(full_at).max().unwrap_or(0).max(shared)
    }
}

type Slot = u32;

/// Time in the heap, in steps of 67 ms: half the size, and a cell is forgotten at most one step later.
type Coarse = u32;

/// Returns the first step at which `at` has passed.
fn coarse(at: Nanoseconds) -> Coarse {
    Coarse::try_from((at >> 26) + 1).unwrap_or(Coarse::MAX)
}

fn halves(hash: u128) -> [u64; 2] {
    [(hash >> 64) as u64, hash as u64]
}

#[derive(Default)]
struct Shard {
    index: HashTable<Slot>,
    cells: Slab,
    free: Vec<Slot>,
    /// Every cell once, ordered by a time before which it was not full when last examined.
    by_fullness: BinaryHeap<Reverse<(Coarse, Slot)>>,
}

/// Cells in chunks of one size. They never move, because allocators cannot reuse the space they would leave.
#[derive(Default)]
struct Slab(Vec<Vec<Cell>>);

/// Number of cells of one chunk, 3.5 KiB.
const CHUNK: usize = 32;

impl Slab {
    fn get(&self, slot: Slot) -> Option<&Cell> {
        self.0.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Cell> {
        self.0.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)
    }

    fn push(&mut self, cell: Cell) -> Slot {
        if self.0.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.0.push(Vec::with_capacity(CHUNK));
        }
        let chunks = self.0.len();
        let at = self.0.last_mut().map_or(0, |chunk| {
            chunk.push(cell);
            chunk.len() - 1
        });
        ((chunks - 1) * CHUNK + at) as Slot
    }
}

/// Returns the hash for the table; the key is a keyed hash already.
fn short([_, low]: [u64; 2]) -> u64 {
    low
}

impl Shard {
    fn find(&mut self, hash: u128) -> Option<&mut Cell> {
        let Shard { index, cells, .. } = self;
        let key = halves(hash);
        let is_it = |slot: &Slot| cells.get(*slot).is_some_and(|cell| cell.key == key);
        let slot = *index.find(short(key), is_it)?;
        cells.get_mut(slot)
    }

    /// Inserts a new cell after calling `with` on it.
    fn insert<R>(&mut self, key: Key, now: Nanoseconds, with: impl FnOnce(&mut Cell) -> R) -> R {
        let mut cell = Cell::new(key);
        let result = with(&mut cell);
        let Shard { index, cells, free, by_fullness } = self;
        let slot = match free.pop() {
            Some(slot) => {
                if let Some(place) = cells.get_mut(slot) {
                    *place = cell;
                }
                slot
            }
            None => cells.push(cell),
        };
        let hash_of = |slot: &Slot| cells.get(*slot).map_or(0, |cell| short(cell.key));
        index.insert_unique(short(halves(key.hash)), slot, hash_of);
        by_fullness.push(Reverse((coarse(now), slot)));
        result
    }

    /// Forgets a cell that is full; returns false if none was found.
    fn forget_full(&mut self, now: Nanoseconds) -> bool {
        for _ in 0..MAX_LOOKS {
            let Some(Reverse((at, slot))) = self.by_fullness.peek().copied() else { return false };
            if at > coarse(now) {
                return false;
            }
            self.by_fullness.pop();
            let Some(cell) = self.cells.get(slot) else { continue };
            let full_at = cell.full_at();
            if full_at > now {
                let busy = full_at == Nanoseconds::MAX;
                let again = if busy { now.saturating_add(LOOK_AGAIN) } else { full_at };
                // A later step than the current one, or this cell would use up all examinations.
                self.by_fullness.push(Reverse((coarse(again).max(coarse(now).saturating_add(1)), slot)));
                continue;
            }
            let key = cell.key;
            if let Ok(entry) = self.index.find_entry(short(key), |known| *known == slot) {
                entry.remove();
            }
            self.free.push(slot);
            return true;
        }
        false
    }
}

pub(crate) struct Cells {
    shards: Vec<Mutex<Shard>>,
    held: AtomicUsize,
    max: AtomicUsize,
    /// The shard where the next search for a full cell begins.
    hand: AtomicUsize,
    pub forgotten: crate::metrics::Cell,
    /// Requests that found no cell of their own.
    pub overflowed: crate::metrics::Cell,
}

impl Cells {
    /// Creates at most `max` cells, beside one for each tier that callers without a cell share.
    pub(crate) fn new(max: usize) -> Cells {
        Cells {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            held: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            hand: AtomicUsize::new(0),
            forgotten: Default::default(),
            overflowed: Default::default(),
        }
    }

    /// Sets the maximum number of cells. Cells beyond it stay until they may be forgotten.
    pub(crate) fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn shard(&self, hash: u128) -> MutexGuard<'_, Shard> {
        // The upper half of the hash, because the table of the shard uses the lower half.
        let at = (hash >> 64) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_place(&self, kind: Kind) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let taken = self.held.fetch_add(1, Ordering::Relaxed) < max || kind == Kind::Listed;
        if !taken {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn forget_in(&self, shard: &mut Shard, now: Nanoseconds) -> bool {
        let forgotten = shard.forget_full(now);
        if forgotten {
            self.held.fetch_sub(1, Ordering::Relaxed);
            self.forgotten.add(1);
        }
        forgotten
    }

    /// Calls `with` on the cell of `key`, or on that of `overflow` if there is no place for another.
    pub(crate) fn with<R>(
        &self,
        key: Key,
        overflow: u128,
        now: Nanoseconds,
        with: impl FnOnce(&mut Cell) -> R,
    ) -> R {
        let mut shard = self.shard(key.hash);
        if let Some(cell) = shard.find(key.hash) {
            return with(cell);
        }
        if self.take_place(key.kind) {
            return shard.insert(key, now, with);
        }
        // Two cells, so that the number falls to a maximum that was lowered.
        let _ = self.forget_in(&mut shard, now) && self.forget_in(&mut shard, now);
        if self.take_place(key.kind) {
            return shard.insert(key, now, with);
        }
        drop(shard);
        // If this shard has no full cell, another shard may have one; one look at each costs little.
        for _ in 0..SHARDS {
            let hand = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut other = self.shards[hand].lock().unwrap_or_else(PoisonError::into_inner);
            let forgotten = self.forget_in(&mut other, now);
            if forgotten && self.held() < self.max.load(Ordering::Relaxed) {
                break;
            }
        }
        let mut shard = self.shard(key.hash);
        // Another worker may have inserted the cell meanwhile.
        if let Some(cell) = shard.find(key.hash) {
            return with(cell);
        }
        if self.take_place(key.kind) {
            return shard.insert(key, now, with);
        }
        drop(shard);
        self.overflowed.add(1);
        let mut shard = self.shard(overflow);
        if let Some(cell) = shard.find(overflow) {
            return with(cell);
        }
        self.held.fetch_add(1, Ordering::Relaxed);
        shard.insert(Key { hash: overflow, kind: Kind::Overflow }, now, with)
    }

    /// Calls `with` on the cell of a key, if there is one.
    pub(crate) fn find<R>(&self, hash: u128, with: impl FnOnce(&mut Cell) -> R) -> Option<R> {
        self.shard(hash).find(hash).map(with)
    }

    /// Calls `with` on every cell, one shard at a time.
    pub(crate) fn each(&self, mut with: impl FnMut(&Cell)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in &shard.index {
                shard.cells.get(*slot).into_iter().for_each(&mut with);
            }
        }
    }
}

impl std::fmt::Debug for Cells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cells").field("held", &self.held()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanoseconds = 1_000_000_000;

    fn key(number: u128) -> Key {
        // Spread over the shards as a hash would be.
        Key { hash: number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), kind: Kind::Ip }
    }

    #[test]
    fn a_cell_is_as_small_as_promised() {
        assert!(size_of::<Cell>() <= 128, "{}", size_of::<Cell>());
    }

    #[test]
    fn limited_keys_are_never_forgotten_and_full_ones_are() {
        let cells = Cells::new(1000);
        for number in 0..500 {
            // Owes until 1000 s.
            cells.with(key(number), 0, 0, |cell| cell.set(1, 1000 * S, 0));
        }
        for number in 500..1000 {
            cells.with(key(number), 0, 0, |cell| cell.set(1, 10 * S, 0));
        }
        assert_eq!(cells.held(), 1000);
        // At 5 s no cell may be forgotten.
        cells.with(key(2000), 7, 5 * S, |cell| assert_eq!(cell.key().kind, Kind::Overflow));
        assert_eq!((cells.held(), cells.overflowed.get()), (1001, 1));
        // At 500 s half of the cells are full, and a flood of keys takes their places.
        for number in 3000..1_003_000 {
            cells.with(key(number), 7, 500 * S, |cell| cell.set(1, 501 * S, 500 * S));
        }
        assert!(cells.held() <= 1001, "{}", cells.held());
        for number in 0..500 {
            assert_eq!(cells.find(key(number).hash, |cell| cell.value(1)), Some(1000 * S), "{number}");
        }
        assert!(cells.forgotten.get() >= 500);
    }

    #[test]
    fn a_flood_of_keys_that_owe_nothing_goes_through_a_bounded_table() {
        let cells = Cells::new(100);
        for number in 0..100_000 {
            let now = number as Nanoseconds * 10;
            cells.with(key(number), 7, now, |cell| {
                assert_eq!(cell.key().kind, Kind::Ip, "{number}");
                cell.set(1, now + 5, now);
            });
        }
        assert_eq!((cells.held(), cells.overflowed.get()), (100, 0));
        let mut counted = 0;
        cells.each(|_| counted += 1);
        assert_eq!(counted, 100);
    }

    #[test]
    fn requests_in_flight_keep_a_cell() {
        let cells = Cells::new(1);
        cells.with(key(1), 7, 0, |cell| cell.set(IN_FLIGHT | 1, 1, 0));
        cells.with(key(2), 7, 10_000, |cell| assert_eq!(cell.key().kind, Kind::Overflow));
        cells.find(key(1).hash, |cell| cell.set(IN_FLIGHT | 1, 0, 0));
        cells.with(key(2), 7, 10_000 + 2 * LOOK_AGAIN, |cell| assert_eq!(cell.key().kind, Kind::Ip));
    }

    #[test]
    fn a_listed_key_has_its_cell_whatever_others_do() {
        let cells = Cells::new(10);
        (0..100).for_each(|number| cells.with(key(number), 7, 0, |cell| cell.set(1, 1000, 0)));
        let listed = Key { kind: Kind::Listed, ..key(1000) };
        cells.with(listed, 7, 0, |cell| assert_eq!(cell.key(), listed));
        assert!(cells.overflowed.get() > 0);
    }

    #[test]
    fn a_lowered_bound_is_reached() {
        let cells = Cells::new(500);
        (0..500).for_each(|number| cells.with(key(number), 7, 0, |_| {}));
        cells.set_max(10);
        (1000..3000).for_each(|number| cells.with(key(number), 7, 1, |_| {}));
        assert!(cells.held() <= 100, "{}", cells.held());
    }

    #[test]
    fn what_a_key_owes_elsewhere_is_remembered_within_bounds() {
        let mut cell = Cell::new(key(1));
        let rules = MAX_ENTRIES as u64 + 100;
        for rule in 0..rules {
            cell.set(rule, 10_000 + rule, 0);
        }
        assert_eq!(cell.entries.len(), MAX_ENTRIES);
        assert_eq!(cell.value(rules - 1), 10_000 + rules - 1);
        cell.set(rules, 50_000, 20_000);
        assert_eq!(cell.entries.len(), 1, "the rest says nothing any more");
    }
}
