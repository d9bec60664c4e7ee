//! Request collapsing: a request whose cache key is being fetched already waits for that fetch (RFC 9111 4).

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

/// Number of parts of the table, each with its own lock.
const SHARDS: usize = 16;

/// The outcome of a fetch, for the requests that wait for it.
#[derive(Clone, Debug)]
pub(crate) enum FetchOutcome {
    Stored(StoredResponse),
    Coming(Arc<InFlightBody>),
    /// The response is only for the request that began the fetch.
    NotShared,
    /// The upstream refused the fields or the client of that request; another request may get another response.
    Refused,
    /// The fetch was invalidated while in progress, or its request ended without an outcome: a newer fetch may serve
    /// the requests that wait.
    Overtaken,
    /// The upstream responded with an error; requests that have a stale response may use that.
    Unwell(http::StatusCode),
    Failed(Arc<BoxError>),
    /// The fetch is queued for the upstream, and the waiting request would be served before it.
    Queued,
}

/// The queue in which the request of a fetch waits until it can be sent.
pub(crate) trait Line: std::fmt::Debug + Send + Sync {
    /// Returns whether a request of another client would be served before it. Each client has its share of the queue,
    /// and a client that used up its share must not delay others.
    fn serves_first(&self, client: ClientSlot) -> bool;
}

#[derive(Debug, Default)]
struct State {
    arrived: Option<FetchOutcome>,
    /// The queue position, while the fetch is queued.
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
    /// The keys that can invalidate the fetch, as far as they are known before its response.
    invalidation_keys: Box<[InvalidationKey]>,
    state: Mutex<State>,
}

impl CollapsedFetch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a request waits for the fetch.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Returns whether the response head has arrived.
    pub(crate) fn has_arrived(&self) -> bool {
        self.state().arrived.is_some()
    }

    /// Waits for the response head. A `client` does not wait while the fetch is in a queue that serves that client
    /// first.
    pub(crate) fn arrival(self: &Arc<CollapsedFetch>, client: Option<ClientSlot>) -> Arrival {
        Arrival { fetch: self.clone(), client, place: None }
    }

    /// Sets or clears the queue in which the fetch waits. Wakes requests that need not wait behind it.
    pub(crate) fn set_line(&self, line: Option<Box<dyn Line>>) {
        let waiting = {
            let mut state = self.state();
            state.line = line;
            if state.line.is_some() { std::mem::take(&mut state.waiting) } else { BTreeMap::new() }
        };
        waiting.into_values().for_each(Waker::wake);
    }

    /// Returns whether the fetch is in a queue that would serve a client before it.
    fn serves_first(&self, client: impl FnOnce() -> ClientSlot) -> bool {
        self.state().serves_first(client)
    }
}

/// Waits for the head of a fetch; see [`CollapsedFetch::arrival`].
#[derive(Debug)]
pub(crate) struct Arrival {
    fetch: Arc<CollapsedFetch>,
    client: Option<ClientSlot>,
    /// Its place among the waiting requests, once it waits.
    place: Option<u64>,
}

impl Drop for Arrival {
    /// Removes a canceled request from those that wait.
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

/// The handle of the request that began a fetch, which reports the outcome. Dropped without a report, it tells the
/// waiting requests that the fetch was overtaken.
#[derive(Debug)]
pub(crate) struct Leader {
    table: Arc<InFlightFetches>,
    key: Box<[u8]>,
    pub fetch: Arc<CollapsedFetch>,
    /// Is dropped with the handle, when the response is stored or is not going to be.
    held: Option<Box<dyn Held>>,
}

/// Something that lasts as long as a fetch.
pub(crate) trait Held: std::fmt::Debug + Send {}

impl Leader {
    /// Keeps something for as long as the fetch lasts.
    pub(crate) fn hold(&mut self, held: Box<dyn Held>) {
        self.held = Some(held);
    }

    /// Reports the outcome. While the content arrives the fetch stays in the table, so that other requests can join it.
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
    /// The response is for other requests, or was overtaken: the request joins or begins the next fetch.
    JoinNext,
    /// No fetch of another request will serve it: the request goes to the upstream by itself, at once.
    GoAlone,
    /// The content of the fetch is too long to be stored, or arrives too slowly: the request goes to the upstream by
    /// itself, and its response is not stored.
    PassBy,
}

/// The response of a fetch, in relation to one request that joined it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    /// Whether none of its invalidation keys was stamped since the fetch began.
    pub is_valid: bool,
    /// Whether the response's Vary selects it for the request (RFC 9111 4.1).
    pub fits: bool,
    /// Whether the response's audience includes the request.
    pub may_use: bool,
    /// The freshness of the response.
    pub freshness: &'a Freshness,
    /// Its current age (RFC 9111 4.2.3).
    pub age: Duration,
    /// The part of that age that the fetch took, and that the request may have waited for.
    pub fetched_in: Duration,
    /// Whether the request waited for the head or the end; false if that had arrived before the request.
    pub waited: bool,
}

/// Decides whether a collapsed request takes the response of the fetch (RFC 9111 4). It takes only a response it could
/// have taken had that been stored on arrival, so a lifetime of zero is never fresh. If nothing forbids stale
/// responses, the duration of the fetch does not count as age for requests that waited for the head: their wait is no
/// fault of theirs.
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
        // A request that limits the age of its response means the whole age.
        && *asks == RequestDirectives::default();
    if is_fresh(offer.age) || (forgives && is_fresh(offer.age.saturating_sub(offer.fetched_in))) {
        Share::Take
    } else {
        Share::GoAlone
    }
}

/// Returns whether waiting requests can take such a response when its head arrives. If not, no request waits for the
/// next one (hit-for-miss).
pub(crate) fn is_shareable(freshness: &Freshness, age: Duration, fetched_in: Duration) -> bool {
    let offer = Offer { is_valid: true, fits: true, may_use: true, freshness, age, fetched_in, waited: true };
    share(offer, &RequestDirectives::default()) == Share::Take
}

/// The part of a request in the fetch of its key: to lead it or to follow it.
#[derive(Debug)]
pub(crate) enum Join {
    Leads(Leader),
    Follows(Arc<CollapsedFetch>),
}

type Shard = HashMap<Box<[u8]>, Arc<CollapsedFetch>>;

/// The table of fetches in progress by cache key; never larger than the number of requests in progress.
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

    /// Joins the fetch of a key. Begins a new fetch in its place if an invalidation overtook it, or if it is in a queue
    /// that would serve `client` first.
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
        Join::Leads(Leader { table: self.clone(), key: key.into(), fetch, held: None })
    }

    /// Begins a fetch that no client waits for, unless one is in progress; `client` as in [`InFlightFetches::join`].
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

    /// Returns the fetch of a key that is in progress and not overtaken, if `client` may wait for it.
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
        // A newer fetch may have replaced it.
        if shard.get(key).is_some_and(|known| Arc::ptr_eq(known, fetch)) {
            shard.remove(key);
        }
    }

    pub(crate) fn len(&self) -> usize {
        let of = |shard: &Mutex<Shard>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(of).sum()
    }
}
