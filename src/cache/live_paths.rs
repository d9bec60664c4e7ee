//! How many stored responses and fetches in progress there are for each path, by hash.
//!
//! An invalidation of a path that has none of either changes nothing, so it need not be remembered: a flood of writes
//! to paths that nobody reads cannot fill the table of stamps. A path is counted before its fetch takes its number
//! and for as long as a stored response of it exists, so a count of zero means that every later fetch of the path is
//! sent after the invalidation. Paths that share a counter are only stamped more often than they need be.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::marks::Mark;
use super::stored::BOOKKEEPING;

/// Counters that are made together, when the first of them is needed: 4 KiB.
const PAGE: usize = 1024;
/// Maximum number of counters: 4 MiB.
const MAX_COUNTERS: usize = 1 << 20;
/// Bits of a mark that choose neither its bucket nor its fingerprint in the table of stamps begin here.
const SHIFT: u32 = 17;
/// Maximum number of paths of one response: as it is written, and as an app may read it loosely.
const MAX_PATHS: usize = 2;

type Page = Box<[AtomicU32]>;

/// See the head of the file.
#[derive(Debug)]
pub struct LivePaths {
    pages: Box<[OnceLock<Page>]>,
}

impl LivePaths {
    /// With a counter for each response that a cache of `max_size` bytes can hold, up to a maximum.
    pub fn new(max_size: usize) -> Arc<LivePaths> {
        let counters = (max_size / BOOKKEEPING).clamp(PAGE, MAX_COUNTERS).next_power_of_two();
        Arc::new(LivePaths { pages: (0..counters / PAGE).map(|_| OnceLock::new()).collect() })
    }

    /// The index of a mark's counter.
    fn index(&self, mark: Mark) -> u32 {
        let bits = (mark.get() >> SHIFT) as u32;
        bits & u32::try_from(self.pages.len() * PAGE - 1).unwrap_or_default()
    }

    fn counter(&self, index: u32) -> Option<&AtomicU32> {
        let page = self.pages.get(index as usize / PAGE)?;
        page.get_or_init(|| (0..PAGE).map(|_| AtomicU32::new(0)).collect()).get(index as usize % PAGE)
    }

    /// Whether a stored response or a fetch in progress may have this mark.
    pub fn has(&self, mark: Mark) -> bool {
        let index = self.index(mark) as usize;
        let page = self.pages.get(index / PAGE).and_then(OnceLock::get);
        page.and_then(|page| page.get(index % PAGE)).is_some_and(|count| count.load(Ordering::SeqCst) > 0)
    }
}

/// The paths of one stored response or of one fetch in progress; they are counted until it is dropped.
#[derive(Debug, Default)]
pub struct WatchedPaths(Option<Watched>);

#[derive(Debug)]
struct Watched {
    table: Arc<LivePaths>,
    indexes: [Option<u32>; MAX_PATHS],
}

impl WatchedPaths {
    /// Counts those of `marks` that are paths.
    pub fn new(table: &Arc<LivePaths>, marks: &[Mark]) -> WatchedPaths {
        let mut indexes = [None; MAX_PATHS];
        let paths = marks.iter().filter(|mark| mark.is_path());
        indexes.iter_mut().zip(paths).for_each(|(index, mark)| *index = Some(table.index(*mark)));
        let watched = Watched { table: table.clone(), indexes };
        watched.each(|count| count.fetch_add(1, Ordering::SeqCst));
        WatchedPaths(Some(watched))
    }
}

impl Clone for WatchedPaths {
    fn clone(&self) -> WatchedPaths {
        WatchedPaths(self.0.as_ref().map(|Watched { table, indexes }| {
            let watched = Watched { table: table.clone(), indexes: *indexes };
            watched.each(|count| count.fetch_add(1, Ordering::SeqCst));
            watched
        }))
    }
}

impl Watched {
    fn each(&self, change: impl Fn(&AtomicU32) -> u32) {
        for count in self.indexes.iter().flatten().filter_map(|index| self.table.counter(*index)) {
            change(count);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.each(|count| count.fetch_sub(1, Ordering::SeqCst));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::marks::Marker;

    #[test]
    fn n3_8_a_path_is_live_while_something_of_it_is_stored_or_fetched() {
        let (marker, table) = (Marker::new(1), LivePaths::new(64 << 20));
        let (path, loose) = (marker.path("/a"), marker.path("/b"));
        let marks = [marker.everything(), path, marker.route("GET /**"), loose, marker.tag("t")];
        assert!(!table.has(path) && !table.has(loose));
        let one = WatchedPaths::new(&table, &marks);
        let other = one.clone();
        drop(one);
        assert!(table.has(path) && table.has(loose), "both readings of it");
        assert!(!table.has(marker.path("/c")) && !table.has(marks[0]) && !table.has(marks[4]));
        drop(other);
        assert!(!table.has(path) && !table.has(loose));
    }

    #[test]
    fn n3_8_there_is_a_counter_for_each_response_that_fits() {
        for (max_size, counters) in
            [(0, 1 << 10), (3 << 20, 1 << 12), (256 << 20, 1 << 18), (usize::MAX, 1 << 20)]
        {
            assert_eq!(LivePaths::new(max_size).pages.len() * PAGE, counters, "{max_size}");
        }
    }
}
