//! Waiting for what another request fetches, and for the content that is part of a key.

use std::sync::Arc;

use http::Response;
use tower::Service;

use super::answer;
use super::asked::{Asked, Passed};
use super::lookup::{Going, Start, in_place_of_error};
use super::{Answer, CacheError, CacheLayer, selecting};
use crate::body::Body;
use crate::cache::counters::Event;
use crate::cache::fetch::{self, Arrived, Fetch, Offer, Share};
use crate::cache::fill::Fill;
use crate::cache::reuse::Age;
use crate::cache::stored::{Head, Stored};
use crate::clock;
use crate::error::BoxError;
use crate::fields::cache_status::Member;
use crate::layer::{Routed, request_body};
use crate::upstream::ForwardError;

/// A request waits for so many fetches, one after the other, before it goes by itself.
const MOST_WAITS: usize = 3;
/// And leaves so many that wait in a line in which it would be served first; then it waits for one as it is.
const MOST_LINES: usize = 8;
/// The longest content that is part of a key; bytes.
pub const MOST_CONTENT: usize = 64 * 1024;

enum Usable {
    Whole(Stored),
    Coming(Arc<Fill>),
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
                Arrived::Overtaken => {
                    next = Share::JoinNext;
                    (None, None)
                }
                Arrived::Stored(stored) => {
                    match self.shared(&routed, &going, Usable::Whole(stored), !late) {
                        Ok(response) => return Ok(response),
                        Err(share) => next = share,
                    }
                    (None, None)
                }
                Arrived::Coming(fill) => {
                    match self.shared(&routed, &going, Usable::Coming(fill), !late) {
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

    /// A response of what another request got, where this one may take it.
    fn shared(
        &self,
        routed: &Routed,
        going: &Going,
        usable: Usable,
        waited: bool,
    ) -> Result<Response<Body>, Share> {
        let head: &Head = match &usable {
            Usable::Whole(stored) => &stored.head,
            Usable::Coming(fill) => &fill.head,
        };
        let (record, read) = (&routed.record, &going.read);
        let age = Age { current: head.age(clock::now()), invalidated: None };
        let offer = Offer {
            is_valid: !self.cache.invalidation.is_stamped_since(&head.marks, head.begun),
            fits: head.variant.fits(selecting(routed, read)),
            may_use: read.may_use(head.audience, routed.route.cache.terms.scope),
            freshness: &head.freshness,
            age: age.current,
            fetched_in: head.fetched_in,
            waited,
        };
        match fetch::share(offer, &read.directives) {
            Share::Take => {}
            refused => return Err(refused),
        }
        let member = Member { forwarded: Some(going.why.as_str()), collapsed: true, ..Member::default() };
        let response = match &usable {
            Usable::Whole(stored) => answer::of(record, stored, age, read.head, member),
            Usable::Coming(fill) => {
                let reader = fill.reader().ok_or(Share::GoAlone)?;
                answer::coming(record, head, age, reader, member)
            }
        };
        record.told_by_cache("collapsed");
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
