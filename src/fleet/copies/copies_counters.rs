//! The counters of the responses that a process reads from Redis and writes to it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::rendering::words::words;

words! {
    /// What came of looking for a response.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Read {
        Hit => "hit",
        Miss => "miss",
        /// Redis did not respond in time.
        Late => "late",
        /// It was invalidated since, or is too old to know.
        Outdated => "outdated",
        /// Its position is not known any more.
        Unknown => "unknown",
        /// It cannot be opened or read.
        Unreadable => "unreadable",
        Failed => "failed",
    }
}

words! {
    /// What came of writing a response.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Write {
        Written => "written",
        Removed => "removed",
        /// A newer one is there.
        Older => "older",
        /// Its time is over, or it cannot be said since when it is valid.
        Skipped => "skipped",
        Failed => "failed",
    }
}

/// The counters; see the head of the file.
#[derive(Debug, Default)]
pub(crate) struct CopiesCounters {
    reads: [AtomicU64; Read::ALL.len()],
    writes: [AtomicU64; Write::ALL.len()],
}

impl CopiesCounters {
    pub(super) fn count_read(&self, read: Read) {
        if let Some(count) = self.reads.get(read as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a response that was found and cannot be used.
    pub(crate) fn count_outdated(&self) {
        self.count_read(Read::Outdated);
    }

    pub(super) fn count_write(&self, write: Write) {
        if let Some(count) = self.writes.get(write as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how often a response was looked for, by result.
    pub(super) fn reads(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Read::ALL.iter().zip(&self.reads).map(|(read, count)| (read.as_str(), count.load(Ordering::Relaxed)))
    }

    /// Returns how often a response was to be written, by result.
    pub(super) fn writes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let writes = Write::ALL.iter().zip(&self.writes);
        writes.map(|(write, count)| (write.as_str(), count.load(Ordering::Relaxed)))
    }
}
