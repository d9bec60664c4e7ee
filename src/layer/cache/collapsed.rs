//! Waits for the fetch of another request, and for request content that is part of the cache key.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tower::Service;

use super::classify::{RequestClass, selecting};
use super::error::{CacheError, CacheResult};
use super::exchange::Purpose;
use super::miss::Miss;
use super::service::{CacheLayer, Start};
use super::stale_if_error::{in_place_of_error, in_place_of_waiting};
use super::stored_response;
use crate::cache::collapse;
use crate::cache::collapse::{CollapsedFetch, FetchOutcome, Offer, Share};
use crate::cache::counters::Event;
use crate::cache::hit_for_miss;
use crate::cache::in_flight_body::InFlightBody;
use crate::cache::rules::eligibility::BypassReason;
use crate::cache::rules::reuse::Age;
use crate::cache::store::stored::{StoredHead, StoredResponse};
use crate::fields::cache_status::Member;
use crate::layer::record::CacheHandling;
use crate::layer::request_body;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock;
use crate::upstream::ForwardError;

/// Maximum number of fetches that a request waits for, one after the other, before it goes by itself.
const MAX_WAITS: usize = 3;
/// Maximum number of queued fetches that a request leaves because it would be served first; after that it waits.
const MAX_LINES: usize = 8;
/// Maximum time between the head and the end of a response of unknown length. A waiting request sends its client
/// nothing meanwhile, because it must go to the upstream by itself if the content is too long to be stored.
const MAX_WAIT_FOR_END: Duration = Duration::from_secs(5);
/// Maximum length of content that is part of a cache key, in bytes.
pub(super) const MAX_CONTENT: usize = 64 * 1024;

enum Usable {
    Whole(StoredResponse),
    Coming(Arc<InFlightBody>),
}

/// How long a request waited for the response it takes.
#[derive(Clone, Copy)]
struct Waited {
    /// Whether it waited for the head.
    head: bool,
    /// How long it waited for the content after the head.
    content: Duration,
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Waits for a fetch, and for the next one if the response is not for this request.
    pub(super) async fn follow(
        mut self,
        mut routed: Box<Routed>,
        mut miss: Miss,
        fetch: Arc<CollapsedFetch>,
    ) -> CacheResult {
        let mut fetch = fetch;
        let (mut waits, mut lines) = (0, 0);
        while waits < MAX_WAITS {
            routed.record.cache_counters().count(Event::Collapsed);
            let late = fetch.has_arrived();
            let client = (lines < MAX_LINES).then(|| routed.record.info.client_slot());
            let arrived = match self.arrival_in_time(&routed, &miss, fetch.arrival(client)).await {
                Ok(arrived) => arrived,
                Err(stale) => return Ok(*stale),
            };
            waits += 1;
            let mut next = Share::GoAlone;
            let (error, status) = match arrived {
                FetchOutcome::Queued => {
                    (waits, lines, next) = (waits - 1, lines + 1, Share::JoinNext);
                    (None, None)
                }
                FetchOutcome::Failed(error) => (Some(error), None),
                FetchOutcome::Unwell(status) => (None, Some(status)),
                FetchOutcome::NotShared => (None, None),
                FetchOutcome::Refused => {
                    miss.read.follows_refused = true;
                    next = Share::JoinNext;
                    (None, None)
                }
                FetchOutcome::Overtaken => {
                    next = Share::JoinNext;
                    (None, None)
                }
                FetchOutcome::Stored(stored) => {
                    let waited = Waited { head: !late, content: Duration::ZERO };
                    match self.shared(&routed, &miss, &Usable::Whole(stored), waited) {
                        Ok(response) => return Ok(response),
                        Err(share) => next = share,
                    }
                    (None, None)
                }
                FetchOutcome::Coming(fill) => {
                    match self.coming(&routed, &miss, fill, late).await {
                        Ok(response) => return Ok(response),
                        Err(share) => next = share,
                    }
                    (None, None)
                }
            };
            if error.is_some() || status.is_some() {
                let candidate = miss.candidate.as_ref();
                let instead = in_place_of_error(&self.cache, &routed.record, &miss.read, candidate, status);
                if let Some(response) = instead {
                    return Ok(response);
                }
            }
            if let Some(error) = error {
                // The cause would fail every waiting request, one after the other.
                return Err(CacheError::Shared(error).into());
            }
            if next == Share::PassBy {
                return self.pass_by(routed, miss).await;
            }
            if late || next == Share::GoAlone {
                // A response that has arrived and does not serve this request will not serve it the next time either.
                break;
            }
            // Another request that could not use the response may be fetching by now.
            match self.start(routed, miss, clock::now()) {
                Start::Sent(future) => return future.await,
                Start::Follow(waiting) => (routed, miss, fetch) = *waiting,
            }
        }
        // A response stored meanwhile may be revalidated.
        let now = clock::now();
        miss.candidate = self.candidate(&routed, &miss.read, now).or(miss.candidate);
        self.send_beside(routed, miss, now).await
    }

    /// Waits for the arrival of a fetch; returns a stale response if one may be served and it does not come in time.
    async fn arrival_in_time(
        &self,
        routed: &Routed,
        miss: &Miss,
        arrival: impl Future<Output = FetchOutcome>,
    ) -> Result<FetchOutcome, Box<Response<Body>>> {
        let after = routed.route.cache.route_settings.serve_stale_after;
        let (Some(after), Some(candidate)) = (after, miss.candidate.as_ref()) else {
            return Ok(arrival.await);
        };
        let waited = clock::now().saturating_duration_since(routed.record.info.started);
        let mut arrival = std::pin::pin!(arrival);
        if let Ok(arrived) = tokio::time::timeout(after.saturating_sub(waited), arrival.as_mut()).await {
            return Ok(arrived);
        }
        match in_place_of_waiting(&self.cache, &routed.record, &miss.read, Some(candidate)) {
            Some(stale) => Err(Box::new(stale)),
            None => Ok(arrival.await),
        }
    }

    /// Returns a response whose content is arriving. Content of known length is passed on as it arrives, because there
    /// is memory for all of it; other content only after its end (see [`InFlightBody`]).
    async fn coming(
        &self,
        routed: &Routed,
        miss: &Miss,
        fill: Arc<InFlightBody>,
        late: bool,
    ) -> Result<Response<Body>, Share> {
        let waited = Waited { head: !late, content: Duration::ZERO };
        let has_length = fill.expected.is_some();
        let usable = Usable::Coming(fill.clone());
        if has_length {
            return self.shared(routed, miss, &usable, waited);
        }
        match self.may_share(routed, miss, &fill.head, waited) {
            Share::Take => {}
            refused => return Err(refused),
        }
        let since = clock::now();
        let left = MAX_WAIT_FOR_END.saturating_sub(since.saturating_duration_since(fill.head.received));
        let whole = fill.whole().ok_or(Share::PassBy)?;
        let Ok(content) = tokio::time::timeout(left, whole).await else {
            // Later requests must not wait for the next fetch in vain.
            let second = self.cache.second(clock::now());
            self.cache.hit_for_miss.remember(
                miss.read.memory_key(),
                hit_for_miss::RequesterClass::Waiting,
                second,
            );
            return Err(Share::PassBy);
        };
        let waited = Waited { content: clock::now().saturating_duration_since(since), ..waited };
        match content {
            Some(content) => {
                let stored = StoredResponse { head: fill.head.clone(), content };
                self.shared(routed, miss, &Usable::Whole(stored), waited)
            }
            // The response was overtaken or not stored.
            None => match self.may_share(routed, miss, &fill.head, waited) {
                Share::JoinNext => Err(Share::JoinNext),
                _ => Err(Share::PassBy),
            },
        }
    }

    /// Sends the request by itself and stores nothing of its response. Otherwise all requests that waited for a fetch
    /// that turned out too long would each hold as much again.
    async fn pass_by(mut self, routed: Box<Routed>, miss: Miss) -> CacheResult {
        let Miss { read, why, .. } = miss;
        if read.uncounted {
            let miss = Miss { read, why, candidate: None, pending: false };
            return self.send_as_it_came(routed, miss, clock::now()).await;
        }
        let traits = read.requester_class(routed.route.cache.route_settings.scope);
        routed.record.cache.set_handling(CacheHandling::Miss);
        self.send(routed, Purpose::Known(why, read.into_memory_key(), traits)).await
    }

    /// Decides whether this request may take the response of another one's fetch.
    fn may_share(&self, routed: &Routed, miss: &Miss, head: &StoredHead, waited: Waited) -> Share {
        let read = &miss.read;
        let fetched_in = if waited.head { head.fetched_in } else { Duration::ZERO };
        let offer = Offer {
            is_valid: !self.cache.invalidation.is_stamped_since(&head.invalidation_keys, head.fetch_epoch),
            fits: head.variant.fits(selecting(routed, read)),
            may_use: head.audience.admits(read.traits.personal, routed.route.cache.route_settings.scope),
            freshness: &head.freshness,
            age: head.age(clock::now()),
            fetched_in: fetched_in + waited.content,
            waited: waited.head || !waited.content.is_zero(),
        };
        collapse::share(offer, &read.directives)
    }

    /// Builds a response from that of another request, if this one may take it.
    fn shared(
        &self,
        routed: &Routed,
        miss: &Miss,
        usable: &Usable,
        waited: Waited,
    ) -> Result<Response<Body>, Share> {
        let head: &StoredHead = match usable {
            Usable::Whole(stored) => &stored.head,
            Usable::Coming(fill) => &fill.head,
        };
        let (record, read) = (&routed.record, &miss.read);
        let age = Age { current: head.age(clock::now()), invalidated: None };
        match self.may_share(routed, miss, head, waited) {
            Share::Take => {}
            refused => return Err(refused),
        }
        let member = Member { forwarded: Some(miss.why.as_str()), collapsed: true, ..Member::default() };
        let response = match usable {
            Usable::Whole(stored) => stored_response::build(record, stored, age, read.head, member),
            Usable::Coming(fill) => {
                let reader = fill.reader().ok_or(Share::PassBy)?;
                stored_response::coming(record, head, age, reader, member)
            }
        };
        record.cache.set_handling(CacheHandling::Collapsed);
        Ok(response)
    }

    /// Goes on when the content that is part of the key has arrived; content that is too long bypasses the cache.
    pub(super) async fn with_content(mut self, mut routed: Box<Routed>) -> CacheResult {
        let body = std::mem::replace(routed.request.body_mut(), Body::empty());
        let reservation = routed.record.reserve_buffer();
        let buffered = request_body::buffer(body, MAX_CONTENT + 1, reservation).await;
        let buffered = buffered.map_err(ForwardError::Body)?;
        let whole = buffered.body.content().filter(|content| content.len() <= MAX_CONTENT);
        // The content is joined into one piece, because it is read more than once.
        *routed.request.body_mut() = match &whole {
            Some(content) => Body::full(content.joined()),
            None => buffered.body,
        };
        if let Some(memory) = buffered.memory {
            routed.record.memory.hold(memory);
        }
        if whole.is_none() {
            return self.pass(routed, BypassReason::Content).await;
        }
        match RequestClass::classify(&routed, &self.cache) {
            RequestClass::Write => self.write(routed).await,
            RequestClass::Content => self.pass(routed, BypassReason::Content).await,
            RequestClass::Pass(why) => self.pass(routed, why).await,
            RequestClass::Read(read) => match self.token(&routed) {
                Some(token) => self.after_own_write(routed, read, token).await,
                None => match self.read(&mut routed, read) {
                    Ok(future) => future.await,
                    Err(miss) => self.go(routed, miss).await,
                },
            },
        }
    }
}
