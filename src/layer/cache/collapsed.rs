//! Waiting for what another request fetches, and for the content that is part of a key.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tower::Service;

use super::classify::{RequestClass, selecting};
use super::error::{CacheError, CacheResult};
use super::exchange::Purpose;
use super::miss::Miss;
use super::service::{CacheLayer, Start};
use super::stale_if_error::in_place_of_error;
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
use crate::layer::record::ByCache;
use crate::layer::request_body;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock;
use crate::upstream::ForwardError;

/// A request waits for so many fetches, one after the other, before it goes by itself.
const MAX_WAITS: usize = 3;
/// And leaves so many that wait in a line in which it would be served first; then it waits for one as it is.
const MAX_LINES: usize = 8;
/// How long after its head the end of a response without a length is waited for. A request that waits sends its client
/// nothing meanwhile: if the content is too long to be stored, it has to go to the app by itself.
const MAX_WAIT_FOR_END: Duration = Duration::from_secs(5);
/// The longest content that is part of a key; bytes.
pub(super) const MAX_CONTENT: usize = 64 * 1024;

enum Usable {
    Whole(StoredResponse),
    Coming(Arc<InFlightBody>),
}

/// How long a request waited for what it takes.
#[derive(Clone, Copy)]
struct Waited {
    /// Whether it waited for the head.
    head: bool,
    /// How long it waited for the content after that.
    content: Duration,
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Waits for a fetch, and for the next one where that one turned out to be for somebody else.
    pub(super) async fn follow(
        mut self,
        mut routed: Box<Routed>,
        mut miss: Miss,
        fetch: Arc<CollapsedFetch>,
    ) -> CacheResult {
        let mut fetch = fetch;
        let (mut waits, mut lines) = (0, 0);
        while waits < MAX_WAITS {
            routed.record.cached().count(Event::Collapsed);
            let late = fetch.has_arrived();
            let client = (lines < MAX_LINES).then(|| routed.record.client_slot());
            let arrived = fetch.arrival(client).await;
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
                // What it failed of would fail all of them, one after the other.
                return Err(CacheError::Shared(error).into());
            }
            if next == Share::PassBy {
                return self.pass_by(routed, miss).await;
            }
            if late || next == Share::GoAlone {
                // What has come already and does not do will not do the next time.
                break;
            }
            // It may be fetched by now by another one of those who could not use it.
            match self.start(routed, miss, clock::now()) {
                Start::Sent(future) => return future.await,
                Start::Follow(waiting) => (routed, miss, fetch) = *waiting,
            }
        }
        // What was stored meanwhile may be asked about.
        let now = clock::now();
        miss.candidate = self.candidate(&routed, &miss.read, now).or(miss.candidate);
        self.send_beside(routed, miss, now).await
    }

    /// A response whose content is coming. With a length it is given as it comes, as there is room for all of it; else
    /// once its end is here (see [`Fill`]).
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
            // Nobody is to wait for the next one in vain.
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
            // Overtaken, or not stored.
            None => match self.may_share(routed, miss, &fill.head, waited) {
                Share::JoinNext => Err(Share::JoinNext),
                _ => Err(Share::PassBy),
            },
        }
    }

    /// Sends it on by itself. Nothing of its response is held: all who waited for a fetch that is too long would hold
    /// as much of it again.
    async fn pass_by(mut self, routed: Box<Routed>, miss: Miss) -> CacheResult {
        let Miss { read, why, .. } = miss;
        if read.uncounted {
            let miss = Miss { read, why, candidate: None };
            return self.send_as_it_came(routed, miss, clock::now()).await;
        }
        let traits = read.passes(routed.route.cache.route_settings.scope);
        routed.record.set_cache_outcome(ByCache::Miss);
        self.send(routed, Purpose::Known(why, read.into_memory_key(), traits)).await
    }

    /// Whether this request may take what another one got.
    fn may_share(&self, routed: &Routed, miss: &Miss, head: &StoredHead, waited: Waited) -> Share {
        let read = &miss.read;
        let fetched_in = if waited.head { head.fetched_in } else { Duration::ZERO };
        let offer = Offer {
            is_valid: !self.cache.invalidation.is_stamped_since(&head.invalidation_keys, head.fetch_epoch),
            fits: head.variant.fits(selecting(routed, read)),
            may_use: read.may_use(head.audience, routed.route.cache.route_settings.scope),
            freshness: &head.freshness,
            age: head.age(clock::now()),
            fetched_in: fetched_in + waited.content,
            waited: waited.head || !waited.content.is_zero(),
        };
        collapse::share(offer, &read.directives)
    }

    /// A response of what another request got, where this one may take it.
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
        record.set_cache_outcome(ByCache::Collapsed);
        Ok(response)
    }

    /// Goes on when the content that is part of the key is here; one that is too long passes the cache by.
    pub(super) async fn with_content(mut self, mut routed: Box<Routed>) -> CacheResult {
        let body = std::mem::replace(routed.request.body_mut(), Body::empty());
        let reservation = routed.record.reserve_buffer();
        let buffered = request_body::buffer(body, MAX_CONTENT + 1, reservation).await;
        let buffered = buffered.map_err(ForwardError::Body)?;
        let whole = buffered.body.content().filter(|content| content.len() <= MAX_CONTENT);
        // In one piece, as it is read more than once.
        *routed.request.body_mut() = match &whole {
            Some(content) => Body::full(content.joined()),
            None => buffered.body,
        };
        if let Some(memory) = buffered.memory {
            routed.record.hold_buffer(memory);
        }
        if whole.is_none() {
            return self.pass(routed, BypassReason::Content).await;
        }
        match RequestClass::classify(&routed, &self.cache) {
            RequestClass::Write => self.write(routed).await,
            RequestClass::Content => self.pass(routed, BypassReason::Content).await,
            RequestClass::Pass(why) => self.pass(routed, why).await,
            RequestClass::Read(read) => match self.read(&mut routed, read) {
                Ok(future) => future.await,
                Err(miss) => self.go(routed, miss).await,
            },
        }
    }
}
