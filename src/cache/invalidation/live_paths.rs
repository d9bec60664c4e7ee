//! Tracks which paths have stored responses or fetches in progress, in a counting Bloom filter of hashes.
//!
//! An invalidation of any other path changes nothing and need not be remembered, so a flood of writes to paths that no
//! client reads cannot fill the table of stamps. A path is counted before its fetch takes its number and for as long as
//! a stored response of it exists, so a count of zero means that every later fetch of the path is sent after the
//! invalidation. Each path has several counters, all of which are above zero while it is live. A path whose counters
//! are all in use by others is stamped without need.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use crate::cache::invalidation::key::InvalidationKey;

/// Counters that are allocated together, when the first of them is needed: 4 KiB.
const PAGE: usize = 2048;
/// Bytes of `max_size` for each counter: the counters take a 48th of it. A stored response takes at least 1,200 bytes,
/// so in a full cache with one path for each response, less than 1 % of all other paths are mistaken for live ones.
const BYTES_OF_CACHE: usize = 96;
/// Maximum number of counters: 64 MiB, for a cache of 3 GiB.
const MAX_COUNTERS: usize = 1 << 25;
const HASHES: u32 = 4;
/// Maximum number of paths of one response: its normal form, and the form in which a lenient upstream may read it.
const MAX_PATHS: usize = 2;

type Page = Box<[AtomicU16]>;

/// The paths that fetches and stored responses watch; see the head of the file.
#[derive(Debug)]
pub(crate) struct LivePaths {
    pages: Box<[OnceLock<Page>]>,
}

/// Returns the indexes of a key's counters among `count`. The same bits choose the bucket in the table of stamps, so
/// they are mixed first.
fn indexes(invalidation_key: u64, count: usize) -> impl Iterator<Item = usize> {
    let mixed = invalidation_key ^ (invalidation_key >> 33);
    let mixed = mixed.wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = mixed ^ (mixed >> 33);
    let (start, step) = (mixed as u32, (mixed >> 32) as u32 | 1);
    (0..HASHES).map(move |number| {
        let hash = start.wrapping_add(step.wrapping_mul(number));
        ((u64::from(hash) * count as u64) >> 32) as usize
    })
}

impl LivePaths {
    /// Creates a filter for a cache of `max_size` bytes.
    pub(crate) fn new(max_size: usize) -> Arc<LivePaths> {
        let counters = (max_size / BYTES_OF_CACHE).clamp(PAGE, MAX_COUNTERS);
        Arc::new(LivePaths { pages: (0..counters.div_ceil(PAGE)).map(|_| OnceLock::new()).collect() })
    }

    fn len(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Changes each counter of a key. A counter that reached its maximum stays there, so its paths count as live.
    fn change(&self, invalidation_key: u64, change: impl Fn(u16) -> u16) {
        for index in indexes(invalidation_key, self.len()) {
            let Some(page) = self.pages.get(index / PAGE) else { continue };
            let page = page.get_or_init(|| (0..PAGE).map(|_| AtomicU16::new(0)).collect());
            let Some(counter) = page.get(index % PAGE) else { continue };
            let changed = |count| (count != u16::MAX).then(|| change(count));
            // An error means that the counter stays.
            let _ = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed);
        }
    }

    /// Returns whether a stored response or a fetch in progress may have this key.
    pub(crate) fn has(&self, invalidation_key: InvalidationKey) -> bool {
        indexes(invalidation_key.get(), self.len()).all(|index| {
            let page = self.pages.get(index / PAGE).and_then(OnceLock::get);
            page.and_then(|page| page.get(index % PAGE)).is_some_and(|count| count.load(Ordering::SeqCst) > 0)
        })
    }
}

/// The paths of one stored response or one fetch in progress, counted until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct WatchedPaths(Option<Watched>);

#[derive(Debug)]
struct Watched {
    table: Arc<LivePaths>,
    /// Keys of the paths, which are never zero.
    paths: [Option<NonZeroU64>; MAX_PATHS],
}

impl WatchedPaths {
    /// Counts the paths among `invalidation_keys`.
    pub(crate) fn new(table: &Arc<LivePaths>, invalidation_keys: &[InvalidationKey]) -> WatchedPaths {
        let mut watched = [None; MAX_PATHS];
        let paths = invalidation_keys.iter().filter(|invalidation_key| invalidation_key.is_path());
        watched
            .iter_mut()
            .zip(paths)
            .for_each(|(path, invalidation_key)| *path = NonZeroU64::new(invalidation_key.get()));
        WatchedPaths(Some(Watched::new(table.clone(), watched)))
    }
}

impl Clone for WatchedPaths {
    fn clone(&self) -> WatchedPaths {
        WatchedPaths(self.0.as_ref().map(|Watched { table, paths }| Watched::new(table.clone(), *paths)))
    }
}

impl Watched {
    fn new(table: Arc<LivePaths>, paths: [Option<NonZeroU64>; MAX_PATHS]) -> Watched {
        paths.iter().flatten().for_each(|path| table.change(path.get(), |count| count.saturating_add(1)));
        Watched { table, paths }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for path in self.paths.iter().flatten() {
            self.table.change(path.get(), |count| count.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::key::KeyHasher;

    #[test]
    fn n3_8_a_path_is_live_while_something_of_it_is_stored_or_fetched() {
        let (key_hasher, table) = (KeyHasher::new(1), LivePaths::new(64 << 20));
        let (path, loose) = (key_hasher.path("/a"), key_hasher.path("/b"));
        let invalidation_keys =
            [key_hasher.everything(), path, key_hasher.route("GET /**"), loose, key_hasher.tag("t")];
        assert!(!table.has(path) && !table.has(loose));
        let one = WatchedPaths::new(&table, &invalidation_keys);
        let other = one.clone();
        drop(one);
        assert!(table.has(path) && table.has(loose), "both readings of it");
        assert!(
            !table.has(key_hasher.path("/c"))
                && !table.has(invalidation_keys[0])
                && !table.has(invalidation_keys[4])
        );
        drop(other);
        assert!(!table.has(path) && !table.has(loose));
    }

    /// Before the counters had this size, 30 % were.
    #[test]
    fn n3_8_a_full_cache_takes_one_foreign_path_in_a_hundred_for_live_at_most() {
        let key_hasher = KeyHasher::new(1);
        for (max_size, bound) in [(1 << 20, 0.01), (64 << 20, 0.01)] {
            let table = LivePaths::new(max_size);
            let head = crate::cache::store::stored::tests::head_with(
                &[
                    key_hasher.everything(),
                    key_hasher.path("/"),
                    key_hasher.route("GET /**"),
                    key_hasher.prefix("/"),
                ],
                crate::cache::invalidation::FetchEpoch { number: 1, at: 1, order: 1 },
                crate::runtime::clock::now(),
            );
            // The smallest response with a freshness lifetime.
            let fits = max_size / head.size();
            let stored: Vec<_> = (0..fits)
                .map(|number| WatchedPaths::new(&table, &[key_hasher.path(&format!("/stored/{number}"))]))
                .collect();
            let foreign = 200_000;
            let taken = (0..foreign)
                .filter(|number| table.has(key_hasher.path(&format!("/foreign/{number}"))))
                .count();
            let share = taken as f64 / f64::from(foreign);
            assert!(share <= bound, "{share} of all foreign paths beside {fits} stored in {max_size}");
            drop(stored);
            let counts = table.pages.iter().filter_map(OnceLock::get).flat_map(|page| page.iter());
            assert!(counts.into_iter().all(|count| count.load(Ordering::SeqCst) == 0), "nothing is left");
        }
    }

    #[test]
    fn n3_8_a_counter_at_its_maximum_stays_there() {
        let (key_hasher, table) = (KeyHasher::new(1), LivePaths::new(0));
        let path = key_hasher.path("/a");
        let all: Vec<_> = (0..=u32::from(u16::MAX)).map(|_| WatchedPaths::new(&table, &[path])).collect();
        drop(all);
        assert!(table.has(path), "nobody knows how many there are");
    }

    #[test]
    fn n3_8_the_counters_take_a_48th_of_the_cache_and_64_mib_at_most() {
        for (max_size, bytes) in
            [(0, 4 << 10), (3 << 20, 64 << 10), (192 << 20, 4 << 20), (usize::MAX, 64 << 20)]
        {
            assert_eq!(LivePaths::new(max_size).len() * size_of::<AtomicU16>(), bytes, "{max_size}");
        }
    }
}
