//! The table of stamps: the number at which each invalidation key was last invalidated. It has a fixed size, and all
//! workers read and write it without a lock. When it must forget, responses are fetched without need, never used
//! wrongly.
//!
//! A key belongs to a bucket of one cache line: a floor and seven cells, each with a fingerprint of 24 bits and a
//! number of 40. When no cell is free the oldest makes way, and its number becomes the floor: every key of that bucket
//! then counts as stamped with at least that number.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::invalidation::key::InvalidationKey;

/// log2 of the number of buckets: 8 MiB when all are in use. The upper half is for paths: only writes to very many
/// paths can crowd buckets, and they leave those of all other keys alone.
const BUCKETS: u32 = 17;
/// Buckets that are allocated together, when the first of them is written.
const PAGE: usize = 64;
const NUMBER_BITS: u32 = 40;
pub(crate) const MAX: u64 = (1 << NUMBER_BITS) - 1;

/// One cache line of stamps: the floor and the cells.
#[repr(align(64))]
#[derive(Debug, Default)]
struct Bucket {
    floor: AtomicU64,
    cells: [AtomicU64; 7],
}

type Page = Box<[Bucket]>;

/// The table of stamps; see the head of the file.
#[derive(Debug)]
pub(crate) struct Stamps {
    pages: Box<[OnceLock<Page>]>,
}

impl Default for Stamps {
    fn default() -> Stamps {
        let pages = (1usize << BUCKETS) / PAGE;
        Stamps { pages: (0..pages).map(|_| OnceLock::new()).collect() }
    }
}

fn number(cell: u64) -> u64 {
    cell & MAX
}

/// Returns the bucket, and the fingerprint in its place within a cell; never zero, because zero is a free cell.
fn place(invalidation_key: InvalidationKey) -> (usize, u64) {
    let bits = invalidation_key.get();
    let bucket = usize::try_from(bits & ((1 << BUCKETS) - 1)).unwrap_or(0);
    (bucket, ((bits >> NUMBER_BITS) | 1) << NUMBER_BITS)
}

impl Stamps {
    /// Stamps a key: its number is at least `at` from here on.
    pub(crate) fn stamp(&self, invalidation_key: InvalidationKey, at: u64) {
        let at = at.min(MAX);
        let (index, fingerprint) = place(invalidation_key);
        let Some(page) = self.pages.get(index / PAGE) else { return };
        let page = page.get_or_init(|| (0..PAGE).map(|_| Bucket::default()).collect());
        let Some(bucket) = page.get(index % PAGE) else { return };
        while !bucket.try_stamp(fingerprint, at) {
            std::hint::spin_loop();
        }
    }

    /// Returns the number a key was last stamped with, or a larger one; zero if never.
    pub(crate) fn get(&self, invalidation_key: InvalidationKey) -> u64 {
        let (index, fingerprint) = place(invalidation_key);
        let page = self.pages.get(index / PAGE).and_then(OnceLock::get);
        let Some(bucket) = page.and_then(|page| page.get(index % PAGE)) else { return 0 };
        bucket.get(fingerprint)
    }
}

impl Bucket {
    /// Stamps a fingerprint; returns false if another thread changed the bucket meanwhile, and the caller must try
    /// again.
    fn try_stamp(&self, fingerprint: u64, at: u64) -> bool {
        let wanted = fingerprint | at;
        let mut oldest: Option<(&AtomicU64, u64)> = None;
        for cell in &self.cells {
            let now = cell.load(Ordering::SeqCst);
            let is_it = now != 0 && now & !MAX == fingerprint;
            if is_it && now >= wanted {
                return true;
            }
            if is_it || now == 0 {
                return cell.compare_exchange(now, wanted, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            }
            if oldest.is_none_or(|(_, oldest)| number(now) < number(oldest)) {
                oldest = Some((cell, now));
            }
        }
        let Some((cell, now)) = oldest else { return true };
        if number(now) >= at {
            // The stamp is older than all cells: the floor takes it.
            self.floor.fetch_max(at, Ordering::SeqCst);
            return true;
        }
        // The floor is raised first: a reader that finds the cell replaced also finds the floor raised.
        self.floor.fetch_max(number(now), Ordering::SeqCst);
        cell.compare_exchange(now, wanted, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn get(&self, fingerprint: u64) -> u64 {
        let mut found = 0;
        for cell in &self.cells {
            let now = cell.load(Ordering::SeqCst);
            if now & !MAX == fingerprint {
                found = found.max(number(now));
            }
        }
        // The floor is read last, because it is raised first.
        found.max(self.floor.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::key::KeyHasher;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_crowded_bucket_forgets_towards_a_fetch() {
        let bucket = Bucket::default();
        let print = |of: u64| ((of << 1) | 1) << NUMBER_BITS;
        for at in 1..=20u64 {
            while !bucket.try_stamp(print(at), at) {}
        }
        for of in 1..=20 {
            assert!(bucket.get(print(of)) >= of, "{of}");
        }
        assert_eq!(bucket.get(print(20)), 20);
        assert_eq!(bucket.get(print(99)), 13, "what was never stamped is as old as what was forgotten");
    }

    proptest! {
        /// No number is ever lower than it was stamped, however many keys share a bucket.
        #[test]
        fn no_stamp_is_lost(stamps in proptest::collection::vec((0u64..40, 1u64..1000), 0..200)) {
            let bucket = Bucket::default();
            let mut last: HashMap<u64, u64> = HashMap::new();
            for (of, at) in stamps {
                let print = ((of << 1) | 1) << NUMBER_BITS;
                while !bucket.try_stamp(print, at) {}
                let known = last.entry(print).or_default();
                *known = (*known).max(at);
            }
            for (print, at) in last {
                prop_assert!(bucket.get(print) >= at);
            }
        }
    }

    /// Readers beside writers: a number stamped before a read began is part of that read.
    #[test]
    fn readers_beside_writers() {
        let key_hasher = KeyHasher::new(3);
        let stamps = Arc::new(Stamps::default());
        // All keys are in one bucket, and there are more of them than cells.
        let first = place(key_hasher.tag("0")).0;
        assert!(first < 1 << (BUCKETS - 1) && place(key_hasher.path("0")).0 >= 1 << (BUCKETS - 1));
        let invalidation_keys: Vec<InvalidationKey> = (0..2_000_000u32)
            .map(|n| key_hasher.tag(&n.to_string()))
            .filter(|invalidation_key| place(*invalidation_key).0 == first)
            .take(12)
            .collect();
        assert!(invalidation_keys.len() > 7, "{}", invalidation_keys.len());
        let done = Arc::new(AtomicBool::new(false));
        let told: Arc<Vec<AtomicU64>> =
            Arc::new(invalidation_keys.iter().map(|_| AtomicU64::new(0)).collect());
        let next = Arc::new(AtomicU64::new(1));
        let writers: Vec<_> = (0..2)
            .map(|_| {
                let (stamps, told, next, invalidation_keys) =
                    (stamps.clone(), told.clone(), next.clone(), invalidation_keys.clone());
                std::thread::spawn(move || {
                    for _ in 0..20_000 {
                        let at = next.fetch_add(1, Ordering::SeqCst);
                        let which = fastrand::usize(..invalidation_keys.len());
                        stamps.stamp(invalidation_keys[which], at);
                        told[which].fetch_max(at, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let reader = {
            let (done, stamps, told, invalidation_keys) =
                (done.clone(), stamps.clone(), told.clone(), invalidation_keys.clone());
            std::thread::spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let which = fastrand::usize(..invalidation_keys.len());
                    let min = told[which].load(Ordering::SeqCst);
                    assert!(stamps.get(invalidation_keys[which]) >= min);
                }
            })
        };
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap();
    }
}
