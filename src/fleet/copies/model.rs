//! The law of shared responses, over random schedules: whatever a process takes from Redis was fetched after every
//! invalidation that this process knows of, own ones that nobody else knows yet included.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::cache::invalidation::FetchEpoch;
use crate::cache::invalidation::Mode;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::cache::invalidation::outbox::{Batch, Outbox};
use crate::cache::outgoing::{Outgoing, Settings};
use crate::fleet::positions::Positions;
use crate::fleet::stream_id::StreamId;
use crate::runtime::clock::{self, Instant};

const PROCESSES: usize = 3;
const STEPS: usize = 2000;

/// A response: the version of the app's data that it shows.
#[derive(Clone, Copy)]
struct Copy {
    position: StreamId,
    version: u64,
}

struct Process {
    cache: Arc<Cache>,
    outbox: Arc<Outbox>,
    positions: Positions,
    /// Entries of the log that it has read.
    read: usize,
    /// What was published and not stored yet, with what it covers.
    publishing: VecDeque<(Batch, u64)>,
    /// Fetches on their way: since when, and what the app responds.
    fetching: Option<(WatchedPaths, FetchEpoch, u64)>,
    /// The newest version that it knows to be invalidated below.
    known: u64,
}

impl Process {
    fn new(now: Instant, seed: u64) -> Process {
        let cache = Arc::new(Cache::new(seed, 1 << 20, now));
        let outbox = Arc::new(Outbox::new(Duration::from_millis(50)));
        cache.share_invalidations(outbox.clone());
        cache.share_responses(Arc::new(Outgoing::new(Settings { users: false, max_object_size: 1 })));
        Process {
            cache,
            outbox,
            positions: Positions::default(),
            read: 0,
            publishing: VecDeque::new(),
            fetching: None,
            known: 0,
        }
    }
}

struct Entry {
    sender: usize,
    batch: Batch,
    covers: u64,
    /// The version of the app when the last of its writes had taken effect.
    version: u64,
}

fn run(seed: u64) -> (usize, usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let now = clock::now();
    let path = |cache: &Cache| [cache.invalidation.key_hasher.path("/a")];
    let mut processes: Vec<Process> = (0..PROCESSES).map(|at| Process::new(now, seed ^ at as u64)).collect();
    let mut log: Vec<Entry> = Vec::new();
    let mut copy: Option<Copy> = None;
    let (mut version, mut used, mut refused) = (0, 0, 0);
    for _ in 0..STEPS {
        let at = random.usize(..PROCESSES);
        let process = &mut processes[at];
        match random.u8(..12) {
            // A write: it takes effect at the app, and its process invalidates.
            0 if random.u8(..3) == 0 => {
                version += 1;
                let mut targets = process.cache.targets();
                targets.path("/a");
                let mode = if random.bool() { Mode::Hard } else { Mode::Soft };
                process.cache.invalidate(&targets, mode, now);
                process.known = version;
            }
            1 | 2 if process.publishing.is_empty() => {
                let (batch, covers) = process.outbox.take();
                process.publishing.push_back((batch, covers));
            }
            // The entry is stored: a beat, if nothing was there to be published.
            1..=3 => {
                if let Some((batch, covers)) = process.publishing.pop_front() {
                    log.push(Entry { sender: at, batch, covers, version: process.known });
                }
            }
            4..=6 => {
                let end = log.len().min(process.read + random.usize(..6));
                for entry in &log[process.read.min(end)..end] {
                    for invalidated in &entry.batch.invalidated {
                        process.cache.apply(invalidated, invalidated.mode(), false, now);
                        process.known = process.known.max(entry.version);
                    }
                    if entry.sender == at {
                        process.outbox.returned(entry.covers);
                    }
                    process.read += 1;
                    let position = StreamId { milliseconds: process.read as u64, sequence: 0 };
                    process.positions.advance(position, process.cache.invalidation.number());
                }
            }
            7 if process.fetching.is_none() => {
                let watched = process.cache.invalidation.watch(&path(&process.cache));
                let begun = process.cache.invalidation.begin(&watched, now);
                process.fetching = Some((watched, begun, version));
            }
            // Its fetch ends, and is written to Redis unless one of a later position is there.
            8 | 9 => {
                if let Some((_watched, begun, version)) = process.fetching.take()
                    && let Some(position) = process.positions.position_of(begun.number)
                    && copy.is_none_or(|copy| copy.position <= position)
                {
                    copy = Some(Copy { position, version });
                }
            }
            _ => {
                let Some(Copy { position, version }) = copy else { continue };
                let Some(mut number) = process.positions.number_at(position) else { continue };
                number = process.outbox.unreturned_since().map_or(number, |since| number.min(since));
                if process.cache.invalidation.is_current(&path(&process.cache), number) {
                    used += 1;
                    assert!(version >= process.known, "seed {seed}: {version} after {}", process.known);
                } else {
                    refused += 1;
                }
            }
        }
    }
    (used, refused)
}

#[test]
fn what_is_taken_from_redis_is_newer_than_every_invalidation_that_is_known() {
    let (mut used, mut refused) = (0, 0);
    for seed in 0..150 {
        let (more_used, more_refused) = run(seed);
        used += more_used;
        refused += more_refused;
    }
    assert!(used > 10_000 && refused > 10_000, "{used} used, {refused} refused");
}
