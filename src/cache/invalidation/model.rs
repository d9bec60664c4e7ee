//! The law of the invalidation clock, tested on random interleavings: a request that begins after a write was released
//! reads that write or something newer. The store, the fetches and the clock are the real ones; requests and the
//! upstream are steps in the order of a schedule.

use std::sync::Arc;

use http::HeaderMap;
use proptest::prelude::*;

use super::live_paths::WatchedPaths;
use crate::cache::Cache;
use crate::cache::collapse::{CollapsedFetch, FetchOutcome, Join, Leader};
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::{FetchEpoch, Mode};
use crate::cache::selecting_fields::SelectingFields;
use crate::cache::store::stored::tests::parts_with;
use crate::cache::store::stored::{Content, StoredHead, StoredHeadParts, StoredResponse};
use crate::memory::buffers::ClientSlot;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

const KEY: &[u8] = b"key";
/// A tag that only the upstream's response tells.
const LATE: &str = "tag of the app";

/// A reading request, between two of its steps.
enum Reader {
    Begins,
    Asks {
        min: u64,
        leader: Option<Leader>,
        watched: WatchedPaths,
        begun: FetchEpoch,
    },
    /// The upstream has read the value; its response is on its way.
    Returns {
        min: u64,
        leader: Option<Leader>,
        watched: WatchedPaths,
        begun: FetchEpoch,
        read: u64,
    },
    /// It waits for another request's fetch.
    Follows {
        min: u64,
        fetch: Arc<CollapsedFetch>,
    },
}

enum Writer {
    Begins,
    Written(u64),
    /// The head of its response is released; the content has not ended.
    Released,
}

struct World {
    cache: Cache,
    now: Instant,
    value: u64,
    /// The newest value that a released write has written.
    released: u64,
    /// Whether writes name the tag that only the upstream's responses tell.
    late: bool,
    /// Whether writes name the path alone, as the invalidation of their target does.
    target: bool,
}

impl World {
    fn invalidation_keys(&self) -> Vec<InvalidationKey> {
        let key_hasher = self.cache.invalidation.key_hasher;
        vec![key_hasher.everything(), key_hasher.path("/a"), key_hasher.tag("tag")]
    }

    fn with_late(&self) -> Vec<InvalidationKey> {
        let mut invalidation_keys = self.invalidation_keys();
        invalidation_keys.push(self.cache.invalidation.key_hasher.tag(LATE));
        invalidation_keys
    }

    fn stamped(&self) -> Vec<InvalidationKey> {
        let key_hasher = self.cache.invalidation.key_hasher;
        vec![match (self.target, self.late) {
            (true, _) => key_hasher.path("/a"),
            (false, true) => key_hasher.tag(LATE),
            (false, false) => key_hasher.tag("tag"),
        }]
    }

    fn lookup(&self) -> Option<u64> {
        let entry = self.cache.store.get(KEY, 1)?;
        let stored = entry.select(SelectingFields::new(&HeaderMap::new(), &Default::default()))?;
        stored.head.age_if_valid(&self.cache.invalidation, self.now)?;
        Some(value(stored))
    }

    fn step_reader(&mut self, reader: Reader) -> Reader {
        match reader {
            Reader::Begins => {
                let min = self.released;
                if let Some(found) = self.lookup() {
                    assert!(found >= min, "stored {found}, and {min} was released before");
                    return Reader::Begins;
                }
                let watched = self.cache.invalidation.watch(&self.invalidation_keys());
                let begun = self.cache.invalidation.begin(&watched, self.now);
                let (fetches, invalidation) = (&self.cache.fetches, &self.cache.invalidation);
                let joined =
                    fetches.join(KEY, &self.invalidation_keys(), begun, invalidation, ClientSlot::default);
                match joined {
                    Join::Leads(leader) => Reader::Asks { min, leader: Some(leader), watched, begun },
                    Join::Follows(fetch) => Reader::Follows { min, fetch },
                }
            }
            Reader::Asks { min, leader, watched, begun } => {
                Reader::Returns { min, leader, watched, begun, read: self.value }
            }
            Reader::Returns { min, leader, watched, begun, read } => {
                assert!(read >= min);
                let invalidation_keys = self.with_late();
                if self.cache.invalidation.is_stamped_since(&invalidation_keys, begun) {
                    if let Some(leader) = leader {
                        leader.tell(FetchOutcome::NotShared);
                    }
                    return Reader::Begins;
                }
                let stored = stored(&self.cache, invalidation_keys, (watched, begun), read, self.now);
                self.cache.store.insert(KEY, stored.clone());
                if let Some(leader) = leader {
                    leader.tell(FetchOutcome::Stored(stored));
                }
                Reader::Begins
            }
            Reader::Follows { min, fetch } => {
                let mut arrival = Box::pin(fetch.arrival(None));
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                match std::future::Future::poll(arrival.as_mut(), &mut cx) {
                    std::task::Poll::Pending => Reader::Follows { min, fetch },
                    std::task::Poll::Ready(FetchOutcome::Stored(stored))
                        if !self
                            .cache
                            .invalidation
                            .is_stamped_since(&stored.head.invalidation_keys, stored.head.fetch_epoch) =>
                    {
                        let found = value(&stored);
                        assert!(found >= min, "shared {found}, and {min} was released before");
                        Reader::Begins
                    }
                    std::task::Poll::Ready(_) => {
                        let watched = self.cache.invalidation.watch(&self.invalidation_keys());
                        let begun = self.cache.invalidation.begin(&watched, self.now);
                        Reader::Asks { min, leader: None, watched, begun }
                    }
                }
            }
        }
    }

    fn step_writer(&mut self, writer: Writer) -> Writer {
        match writer {
            Writer::Begins => {
                self.value += 1;
                Writer::Written(self.value)
            }
            Writer::Written(value) => {
                self.cache.invalidation.stamp(&self.stamped(), Mode::Hard, self.now);
                self.released = self.released.max(value);
                Writer::Released
            }
            Writer::Released => {
                self.cache.invalidation.stamp(&self.stamped(), Mode::Hard, self.now);
                Writer::Begins
            }
        }
    }
}

fn value(stored: &StoredResponse) -> u64 {
    let bytes: [u8; 8] = stored.content.pieces().joined()[..].try_into().unwrap();
    u64::from_be_bytes(bytes)
}

fn stored(
    cache: &Cache,
    invalidation_keys: Vec<InvalidationKey>,
    (watched, begun): (WatchedPaths, FetchEpoch),
    read: u64,
    now: Instant,
) -> StoredResponse {
    let parts = parts_with(&invalidation_keys, begun, now);
    let head = StoredHead::new(StoredHeadParts { _watched: watched, ..parts });
    let place = cache.store.budget.take_over(8);
    let content = Content::new(ChunkedBytes::copy(&read.to_be_bytes()), None, place);
    StoredResponse { head: Arc::new(head), content: Arc::new(content) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn who_reads_after_a_write_reads_what_it_wrote(
        late: bool,
        target: bool,
        schedule in proptest::collection::vec(0usize..7, 0..120),
    ) {
        let now = clock::now();
        let mut world = World { cache: Cache::new(1, 1 << 20, now), now, value: 0, released: 0, late, target };
        let mut readers: Vec<Option<Reader>> = (0..5).map(|_| Some(Reader::Begins)).collect();
        let mut writers: Vec<Option<Writer>> = (0..2).map(|_| Some(Writer::Begins)).collect();
        for who in schedule {
            if let Some(place) = readers.get_mut(who) {
                *place = place.take().map(|reader| world.step_reader(reader));
            } else if let Some(place) = writers.get_mut(who - 5) {
                *place = place.take().map(|writer| world.step_writer(writer));
            }
        }
        readers.clear();
        prop_assert_eq!(world.cache.fetches.len(), 0, "every fetch leaves the table");
    }
}
