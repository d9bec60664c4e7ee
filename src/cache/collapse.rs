//! Fetches in progress: who asks for what is being fetched already waits for that one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::invalidation::{FetchEpoch, Invalidation};
use crate::cache::in_flight_body::InFlightBody;
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::rules::freshness::Freshness;
use crate::cache::rules::reuse::{Age, Reuse, reuse};
use crate::cache::store::stored::StoredResponse;
use crate::fields::cache_control::RequestDirectives;
use crate::memory::buffers::ClientSlot;
use crate::message::error::BoxError;

/// Parts of the table that are locked by themselves.
const SHARDS: usize = 16;

/// What came of a fetch, for those who wait for it.
#[derive(Clone, Debug)]
pub(crate) enum FetchOutcome {
    Stored(StoredResponse),
    Coming(Arc<InFlightBody>),
    /// It is for nobody but the one who began it.
    NotShared,
    /// The app refused what that request said in its own fields, or its client: another one may be told something else.
    Refused,
    /// Something it depends on was invalidated while it was on its way, or nobody brought it to its end: a newer
    /// fetch may be for those who wait.
    Overtaken,
    /// The app answered with an error, for which those who have something stale may use that.
    Unwell(http::StatusCode),
    Failed(Arc<BoxError>),
    /// It waits in a line in which the one who waits for it would be served first.
    Queued,
}

/// The line in which the request of a fetch waits until it can be sent.
pub(crate) trait Line: std::fmt::Debug + Send + Sync {
    /// Whether a request of another client would be served before it: each client has its share of what they wait for,
    /// and who has used it up is not to make others wait.
    fn serves_first(&self, client: ClientSlot) -> bool;
}

#[derive(Debug, Default)]
struct State {
    arrived: Option<FetchOutcome>,
    /// Where it waits, as long as it does.
    line: Option<Box<dyn Line>>,
    waiting: BTreeMap<u64, Waker>,
    next_waiting: u64,
}

impl State {
    fn serves_first(&self, client: impl FnOnce() -> ClientSlot) -> bool {
        self.arrived.is_none() && self.line.as_ref().is_some_and(|line| line.serves_first(client()))
    }
}

#[derive(Debug)]
pub(crate) struct CollapsedFetch {
    pub epoch: FetchEpoch,
    /// What it can be invalidated by, as far as is known before its answer.
    invalidation_keys: Box<[InvalidationKey]>,
    state: Mutex<State>,
}

impl CollapsedFetch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Whether its head is here.
    pub(crate) fn has_arrived(&self) -> bool {
        self.state().arrived.is_some()
    }

    /// Waits for the head. A `client` does not wait while the fetch does in a line in which it would be served first.
    pub(crate) fn arrival(self: &Arc<CollapsedFetch>, client: Option<ClientSlot>) -> Arrival {
        Arrival { fetch: self.clone(), client, place: None }
    }

    /// Says where its request waits to be sent, and that it does so no more. Those who need not wait there are told.
    pub(crate) fn set_line(&self, line: Option<Box<dyn Line>>) {
        let waiting = {
            let mut state = self.state();
            state.line = line;
            if state.line.is_some() { std::mem::take(&mut state.waiting) } else { BTreeMap::new() }
        };
        waiting.into_values().for_each(Waker::wake);
    }

    /// Whether it waits in a line in which a client would be served before it.
    fn serves_first(&self, client: impl FnOnce() -> ClientSlot) -> bool {
        self.state().serves_first(client)
    }
}

/// See [`Fetch::arrival`].
#[derive(Debug)]
pub(crate) struct Arrival {
    fetch: Arc<CollapsedFetch>,
    client: Option<ClientSlot>,
    /// Where it waits, once it does.
    place: Option<u64>,
}

impl Drop for Arrival {
    /// A request that leaves no longer waits.
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.fetch.state().waiting.remove(&place);
        }
    }
}

impl std::future::Future for Arrival {
    type Output = FetchOutcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FetchOutcome> {
        let this = &mut *self;
        let mut state = this.fetch.state();
        if let Some(arrived) = &state.arrived {
            return Poll::Ready(arrived.clone());
        }
        if this.client.is_some_and(|client| state.serves_first(|| client)) {
            return Poll::Ready(FetchOutcome::Queued);
        }
        let place = *this.place.get_or_insert(state.next_waiting);
        state.next_waiting = state.next_waiting.max(place + 1);
        state.waiting.insert(place, cx.waker().clone());
        Poll::Pending
    }
}

/// The part of whoever began a fetch: to say what came of it. Dropped without a word, it says that nothing is to
/// be had of it.
#[derive(Debug)]
pub(crate) struct Leader {
    table: Arc<InFlightFetches>,
    key: Box<[u8]>,
    pub fetch: Arc<CollapsedFetch>,
}

impl Leader {
    /// Tells those who wait. While the content comes the fetch stays in the table, for others to join.
    pub(crate) fn tell(&self, arrived: FetchOutcome) {
        let leaves = !matches!(arrived, FetchOutcome::Coming(_));
        let waiting = {
            let mut state = self.fetch.state();
            state.arrived = Some(arrived);
            std::mem::take(&mut state.waiting)
        };
        if leaves {
            self.table.remove(&self.key, &self.fetch);
        }
        waiting.into_values().for_each(Waker::wake);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let told = self.fetch.state().arrived.is_some();
        if told {
            self.table.remove(&self.key, &self.fetch);
        } else {
            self.tell(FetchOutcome::Overtaken);
        }
    }
}

/// The decision of a request that joined a fetch about its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    Take,
    /// It is for other requests, or was overtaken: the request joins the next fetch, or begins it.
    JoinNext,
    /// No fetch of another request is going to be for it: it goes to the upstream by itself, at once.
    GoAlone,
    /// The content of the fetch is too long to be stored, or comes too slowly: the request goes to the upstream by
    /// itself, and nothing of its response is stored.
    PassBy,
}

/// The response of a fetch, as far as it concerns one request that joined it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    /// Whether none of its marks was stamped since the fetch began.
    pub is_valid: bool,
    /// Whether the request is one that the response's Vary selects it for (RFC 9111 4.1).
    pub fits: bool,
    /// Whether it is for requests that say who asks as this one does.
    pub may_use: bool,
    /// How long it may be used.
    pub freshness: &'a Freshness,
    /// Its age now (RFC 9111 4.2.3).
    pub age: Duration,
    /// How long its fetch took, as far as the request may have waited for it: part of that age.
    pub fetched_in: Duration,
    /// Whether the request waited for its head or its end; else it came when that was here already.
    pub waited: bool,
}

/// RFC 9111 4 lets a cache use one response for requests that came while it was fetched; a collapsed request takes what
/// it could have taken had the response been stored when it came, and nothing else. So a lifetime of zero is never
/// fresh. Where nothing forbids a stale response, those who waited for the head are not made to pay for their wait:
/// the duration of the fetch does not count as age.
pub(crate) fn share(offer: Offer<'_>, asks: &RequestDirectives) -> Share {
    if !offer.is_valid || !offer.fits {
        return Share::JoinNext;
    }
    if !offer.may_use {
        return Share::GoAlone;
    }
    let is_fresh = |current| {
        let age = Age { current, invalidated: None };
        reuse(offer.freshness, age, asks) == Reuse::Fresh
    };
    let forgives = offer.waited
        && !offer.freshness.must_revalidate
        && !offer.freshness.no_cache
        // Who says how old a response may be means all of its age.
        && *asks == RequestDirectives::default();
    if is_fresh(offer.age) || (forgives && is_fresh(offer.age.saturating_sub(offer.fetched_in))) {
        Share::Take
    } else {
        Share::GoAlone
    }
}

/// Whether those who wait for such a response can take it when its head comes. Where they cannot, nobody is to wait
/// for the next one (hit-for-miss).
pub(crate) fn is_shareable(freshness: &Freshness, age: Duration, fetched_in: Duration) -> bool {
    let offer = Offer { is_valid: true, fits: true, may_use: true, freshness, age, fetched_in, waited: true };
    share(offer, &RequestDirectives::default()) == Share::Take
}

/// What a request for a key is to do.
#[derive(Debug)]
pub(crate) enum Join {
    Leads(Leader),
    Follows(Arc<CollapsedFetch>),
}

type Shard = HashMap<Box<[u8]>, Arc<CollapsedFetch>>;

/// See the head of the file. There are never more of them than requests in progress.
#[derive(Debug, Default)]
pub(crate) struct InFlightFetches {
    shards: [Mutex<Shard>; SHARDS],
}

impl InFlightFetches {
    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(xxhash_rust::xxh3::xxh3_64(key) >> 32).unwrap_or(0) % SHARDS;
        let shard = self.shards.get(at).unwrap_or(&self.shards[0]);
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the fetch of a key, unless something it depends on was invalidated since it began, or it waits in a line in
    /// which `client` would be served first: then a newer one takes its place.
    pub(crate) fn join(
        self: &Arc<InFlightFetches>,
        key: &[u8],
        invalidation_keys: &[InvalidationKey],
        begun: FetchEpoch,
        invalidation: &Invalidation,
        client: impl FnOnce() -> ClientSlot,
    ) -> Join {
        let made = |invalidation_keys: &[InvalidationKey]| {
            Arc::new(CollapsedFetch {
                epoch: begun,
                invalidation_keys: invalidation_keys.into(),
                state: Mutex::default(),
            })
        };
        let fetch = match self.shard(key).entry(key.into()) {
            Entry::Occupied(mut entry) => {
                let known = entry.get();
                if !invalidation.is_stamped_since(&known.invalidation_keys, known.epoch)
                    && !known.serves_first(client)
                {
                    return Join::Follows(known.clone());
                }
                let fetch = made(invalidation_keys);
                entry.insert(fetch.clone());
                fetch
            }
            Entry::Vacant(entry) => entry.insert(made(invalidation_keys)).clone(),
        };
        Join::Leads(Leader { table: self.clone(), key: key.into(), fetch })
    }

    /// Begins a fetch unless one is in progress, for what nobody waits for; `client` as in [`Fetches::join`].
    pub(crate) fn lead(
        self: &Arc<InFlightFetches>,
        key: &[u8],
        invalidation_keys: &[InvalidationKey],
        begun: FetchEpoch,
        invalidation: &Invalidation,
        client: impl FnOnce() -> ClientSlot,
    ) -> Option<Leader> {
        match self.join(key, invalidation_keys, begun, invalidation, client) {
            Join::Leads(leader) => Some(leader),
            Join::Follows(_) => None,
        }
    }

    /// The fetch of a key that is in progress and not overtaken, and for which `client` may wait.
    pub(crate) fn find(
        &self,
        key: &[u8],
        invalidation: &Invalidation,
        client: impl FnOnce() -> ClientSlot,
    ) -> Option<Arc<CollapsedFetch>> {
        let fetch = self.shard(key).get(key).cloned()?;
        let is_joined = !invalidation.is_stamped_since(&fetch.invalidation_keys, fetch.epoch)
            && !fetch.serves_first(client);
        is_joined.then_some(fetch)
    }

    fn remove(&self, key: &[u8], fetch: &Arc<CollapsedFetch>) {
        let mut shard = self.shard(key);
        // A newer one may have taken its place.
        if shard.get(key).is_some_and(|known| Arc::ptr_eq(known, fetch)) {
            shard.remove(key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        let of = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(of).sum()
    }
}
