//! Fetches in progress: who asks for what is being fetched already waits for that one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::fill::Fill;
use super::invalidation::{Begun, Invalidation};
use super::marks::Mark;
use super::stored::Stored;
use crate::error::BoxError;

/// Parts of the table that are locked by themselves.
const SHARDS: usize = 16;

/// What came of a fetch, for those who wait for it.
#[derive(Clone, Debug)]
pub enum Arrived {
    /// It is here.
    Stored(Stored),
    /// It is coming.
    Coming(Arc<Fill>),
    /// It is for nobody but the one who began it.
    NotShared,
    /// The app answered with an error, for which those who have something stale may use that.
    Unwell(http::StatusCode),
    /// There is none.
    Failed(Arc<BoxError>),
}

#[derive(Debug, Default)]
struct State {
    arrived: Option<Arrived>,
    waiting: Vec<Waker>,
}

/// One fetch.
#[derive(Debug)]
pub struct Fetch {
    /// When it began.
    pub begun: Begun,
    /// What it can be invalidated by, as far as is known before its answer.
    marks: Box<[Mark]>,
    state: Mutex<State>,
}

impl Fetch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for it.
    pub fn is_waited_for(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Whether its head is here.
    pub fn has_arrived(&self) -> bool {
        self.state().arrived.is_some()
    }

    /// Waits for the head.
    pub fn arrival(self: &Arc<Fetch>) -> Arrival {
        Arrival(self.clone())
    }
}

/// See [`Fetch::arrival`].
#[derive(Debug)]
pub struct Arrival(Arc<Fetch>);

impl std::future::Future for Arrival {
    type Output = Arrived;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arrived> {
        let mut state = self.0.state();
        match &state.arrived {
            Some(arrived) => Poll::Ready(arrived.clone()),
            None => {
                if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// The part of whoever began a fetch: to say what came of it. Dropped without a word, it says that nothing is to
/// be had of it.
#[derive(Debug)]
pub struct Leader {
    table: Arc<Fetches>,
    key: Box<[u8]>,
    /// The fetch.
    pub fetch: Arc<Fetch>,
}

impl Leader {
    /// Tells those who wait. While the content comes the fetch stays in the table, for others to join.
    pub fn tell(&self, arrived: Arrived) {
        let leaves = !matches!(arrived, Arrived::Coming(_));
        let waiting = {
            let mut state = self.fetch.state();
            state.arrived = Some(arrived);
            std::mem::take(&mut state.waiting)
        };
        if leaves {
            self.table.remove(&self.key, &self.fetch);
        }
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let told = self.fetch.state().arrived.is_some();
        if told {
            self.table.remove(&self.key, &self.fetch);
        } else {
            self.tell(Arrived::NotShared);
        }
    }
}

/// What a request for a key is to do.
#[derive(Debug)]
pub enum Joined {
    /// Fetch it.
    Leads(Leader),
    /// Wait for this one.
    Follows(Arc<Fetch>),
}

/// Keys to their fetches.
type Shard = HashMap<Box<[u8]>, Arc<Fetch>>;

/// See the head of the file. There are never more of them than requests in progress.
#[derive(Debug, Default)]
pub struct Fetches {
    shards: [Mutex<Shard>; SHARDS],
}

impl Fetches {
    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(xxhash_rust::xxh3::xxh3_64(key) >> 32).unwrap_or(0) % SHARDS;
        let shard = self.shards.get(at).unwrap_or(&self.shards[0]);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch of a key, unless something it depends on was invalidated since it began: then a newer one
    /// takes its place.
    pub fn join(
        self: &Arc<Fetches>,
        key: &[u8],
        marks: &[Mark],
        begun: Begun,
        invalidation: &Invalidation,
    ) -> Joined {
        let made = |marks: &[Mark]| Arc::new(Fetch { begun, marks: marks.into(), state: Mutex::default() });
        let fetch = match self.shard(key).entry(key.into()) {
            Entry::Occupied(mut entry) => {
                let known = entry.get();
                if !invalidation.is_stamped_since(&known.marks, known.begun) {
                    return Joined::Follows(known.clone());
                }
                let fetch = made(marks);
                entry.insert(fetch.clone());
                fetch
            }
            Entry::Vacant(entry) => entry.insert(made(marks)).clone(),
        };
        Joined::Leads(Leader { table: self.clone(), key: key.into(), fetch })
    }

    /// Begins a fetch unless one is in progress: for what nobody waits for.
    pub fn lead(
        self: &Arc<Fetches>,
        key: &[u8],
        marks: &[Mark],
        begun: Begun,
        invalidation: &Invalidation,
    ) -> Option<Leader> {
        match self.join(key, marks, begun, invalidation) {
            Joined::Leads(leader) => Some(leader),
            Joined::Follows(_) => None,
        }
    }

    fn remove(&self, key: &[u8], fetch: &Arc<Fetch>) {
        let mut shard = self.shard(key);
        // A newer one may have taken its place.
        if shard.get(key).is_some_and(|known| Arc::ptr_eq(known, fetch)) {
            shard.remove(key);
        }
    }

    /// Fetches in progress.
    pub fn len(&self) -> usize {
        let of = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(of).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
