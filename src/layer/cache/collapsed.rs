//! Waiting for what another request fetches, and for the content that is part of a key.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use tower::Service;

use super::lookup::{Going, Start, in_place_of_error};
use super::{Answer, CacheError, CacheLayer, selecting};
use crate::cache::collapse;
use crate::cache::collapse::{Arrived, Fetch, Offer, Share};
use crate::cache::counters::Event;
use crate::cache::hit_for_miss;
use crate::cache::in_flight_body::Fill;
use crate::cache::rules::reuse::Age;
use crate::cache::store::stored::{Head, Stored};
use crate::fields::cache_status::Member;
use crate::layer::cache::classify::{Asked, Passed};
use crate::layer::cache::exchange::Errand;
use crate::layer::cache::stored_response;
use crate::layer::record::ByCache;
use crate::layer::{Routed, request_body};
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock;
use crate::upstream::ForwardError;

/// A request waits for so many fetches, one after the other, before it goes by itself.
const MOST_WAITS: usize = 3;
/// And leaves so many that wait in a line in which it would be served first; then it waits for one as it is.
const MOST_LINES: usize = 8;
/// How long after its head the end of a response without a length is waited for. A request that waits sends its client
/// nothing meanwhile: if the content is too long to be stored, it has to go to the app by itself.
const MAX_WAIT_FOR_END: Duration = Duration::from_secs(5);
/// The longest content that is part of a key; bytes.
pub(super) const MOST_CONTENT: usize = 64 * 1024;

enum Usable {
    Whole(Stored),
    Coming(Arc<Fill>),
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
        mut going: Going,
        fetch: Arc<Fetch>,
    ) -> Answer {
        let mut fetch = fetch;
        let (mut waits, mut lines) = (0, 0);
        while waits < MOST_WAITS {
            routed.record.cached().count(Event::Collapsed);
            let late = fetch.has_arrived();
            let client = (lines < MOST_LINES).then(|| routed.record.client_slot());
            let arrived = fetch.arrival(client).await;
            waits += 1;
            let mut next = Share::GoAlone;
            let (error, status) = match arrived {
                Arrived::Queued => {
                    (waits, lines, next) = (waits - 1, lines + 1, Share::JoinNext);
                    (None, None)
                }
                Arrived::Failed(error) => (Some(error), None),
                Arrived::Unwell(status) => (None, Some(status)),
                Arrived::NotShared => (None, None),
                Arrived::Refused => {
                    going.read.follows_refused = true;
                    next = Share::JoinNext;
                    (None, None)
                }
                Arrived::Overtaken => {
                    next = Share::JoinNext;
                    (None, None)
                }
                Arrived::Stored(stored) => {
                    let waited = Waited { head: !late, content: Duration::ZERO };
                    match self.shared(&routed, &going, &Usable::Whole(stored), waited) {
                        Ok(response) => return Ok(response),
                        Err(share) => next = share,
                    }
                    (None, None)
                }
                Arrived::Coming(fill) => {
                    match self.coming(&routed, &going, fill, late).await {
                        Ok(response) => return Ok(response),
                        Err(share) => next = share,
                    }
                    (None, None)
                }
            };
            if error.is_some() || status.is_some() {
                let candidate = going.candidate.as_ref();
                let instead = in_place_of_error(&self.cache, &routed.record, &going.read, candidate, status);
                if let Some(response) = instead {
                    return Ok(response);
                }
            }
            if let Some(error) = error {
                // What it failed of would fail all of them, one after the other.
                return Err(CacheError::Shared(error).into());
            }
            if next == Share::PassBy {
                return self.pass_by(routed, going).await;
            }
            if late || next == Share::GoAlone {
                // What has come already and does not do will not do the next time.
                break;
            }
            // It may be fetched by now by another one of those who could not use it.
            match self.start(routed, going, clock::now()) {
                Start::Sent(future) => return future.await,
                Start::Follow(waiting) => (routed, going, fetch) = *waiting,
            }
        }
        // What was stored meanwhile may be asked about.
        let now = clock::now();
        going.candidate = self.candidate(&routed, &going.read, now).or(going.candidate);
        self.send_beside(routed, going, now).await
    }

    /// A response whose content is coming. With a length it is given as it comes, as there is room for all of it; else
    /// once its end is here (see [`Fill`]).
    async fn coming(
        &self,
        routed: &Routed,
        going: &Going,
        fill: Arc<Fill>,
        late: bool,
    ) -> Result<Response<Body>, Share> {
        let waited = Waited { head: !late, content: Duration::ZERO };
        let has_length = fill.expected.is_some();
        let usable = Usable::Coming(fill.clone());
        if has_length {
            return self.shared(routed, going, &usable, waited);
        }
        match self.may_share(routed, going, &fill.head, waited) {
            Share::Take => {}
            refused => return Err(refused),
        }
        let since = clock::now();
        let left = MAX_WAIT_FOR_END.saturating_sub(since.saturating_duration_since(fill.head.received));
        let whole = fill.whole().ok_or(Share::PassBy)?;
        let Ok(content) = tokio::time::timeout(left, whole).await else {
            // Nobody is to wait for the next one in vain.
            let second = self.cache.second(clock::now());
            self.cache.passes.remember(going.read.memory_key(), hit_for_miss::Asker::Waiting, second);
            return Err(Share::PassBy);
        };
        let waited = Waited { content: clock::now().saturating_duration_since(since), ..waited };
        match content {
            Some(content) => {
                let stored = Stored { head: fill.head.clone(), content };
                self.shared(routed, going, &Usable::Whole(stored), waited)
            }
            // Overtaken, or not stored.
            None => match self.may_share(routed, going, &fill.head, waited) {
                Share::JoinNext => Err(Share::JoinNext),
                _ => Err(Share::PassBy),
            },
        }
    }

    /// Sends it on by itself. Nothing of its response is held: all who waited for a fetch that is too long would hold
    /// as much of it again.
    async fn pass_by(mut self, routed: Box<Routed>, going: Going) -> Answer {
        let Going { read, why, .. } = going;
        if read.uncounted {
            let going = Going { read, why, candidate: None };
            return self.send_as_it_came(routed, going, clock::now()).await;
        }
        let asker = read.passes(routed.route.cache.terms.scope);
        routed.record.told_by_cache(ByCache::Miss);
        self.send(routed, Errand::Known(why, read.into_memory_key(), asker)).await
    }

    /// Whether this request may take what another one got.
    fn may_share(&self, routed: &Routed, going: &Going, head: &Head, waited: Waited) -> Share {
        let read = &going.read;
        let fetched_in = if waited.head { head.fetched_in } else { Duration::ZERO };
        let offer = Offer {
            is_valid: !self.cache.invalidation.is_stamped_since(&head.marks, head.begun),
            fits: head.variant.fits(selecting(routed, read)),
            may_use: read.may_use(head.audience, routed.route.cache.terms.scope),
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
        going: &Going,
        usable: &Usable,
        waited: Waited,
    ) -> Result<Response<Body>, Share> {
        let head: &Head = match usable {
            Usable::Whole(stored) => &stored.head,
            Usable::Coming(fill) => &fill.head,
        };
        let (record, read) = (&routed.record, &going.read);
        let age = Age { current: head.age(clock::now()), invalidated: None };
        match self.may_share(routed, going, head, waited) {
            Share::Take => {}
            refused => return Err(refused),
        }
        let member = Member { forwarded: Some(going.why.as_str()), collapsed: true, ..Member::default() };
        let response = match usable {
            Usable::Whole(stored) => stored_response::of(record, stored, age, read.head, member),
            Usable::Coming(fill) => {
                let reader = fill.reader().ok_or(Share::PassBy)?;
                stored_response::coming(record, head, age, reader, member)
            }
        };
        record.told_by_cache(ByCache::Collapsed);
        Ok(response)
    }

    /// Goes on when the content that is part of the key is here; one that is too long passes the cache by.
    pub(super) async fn with_content(mut self, mut routed: Box<Routed>) -> Answer {
        let body = std::mem::replace(routed.request.body_mut(), Body::empty());
        let reservation = routed.record.reserve_buffer();
        let buffered = request_body::buffer(body, MOST_CONTENT + 1, reservation).await;
        let buffered = buffered.map_err(ForwardError::Body)?;
        let whole = buffered.body.content().filter(|content| content.len() <= MOST_CONTENT);
        // In one piece, as it is read more than once.
        *routed.request.body_mut() = match &whole {
            Some(content) => Body::full(content.joined()),
            None => buffered.body,
        };
        if let Some(memory) = buffered.memory {
            routed.record.hold_buffer(memory);
        }
        if whole.is_none() {
            return self.pass(routed, Passed::Content).await;
        }
        match Asked::of(&routed, &self.cache) {
            Asked::Write => self.write(routed).await,
            Asked::Content => self.pass(routed, Passed::Content).await,
            Asked::Pass(why) => self.pass(routed, why).await,
            Asked::Read(read) => match self.read(&mut routed, read) {
                Ok(future) => future.await,
                Err(going) => self.go(routed, going).await,
            },
        }
    }
}
