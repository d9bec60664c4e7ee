//! The cache in a fleet: looks for a response that another process stored before the upstream is asked, and serves a
//! client nothing from before its own write.

use std::sync::Arc;
use std::time::SystemTime;

use http::Response;
use tower::Service;

use super::classify::{Lookup, selecting};
use super::error::CacheResult;
use super::invalidation_keys;
use super::lookup::Led;
use super::miss::Miss;
use super::service::CacheLayer;
use crate::cache::circulation::Circulation;
use crate::cache::collapse::FetchOutcome;
use crate::cache::invalidation::FetchEpoch;
use crate::cache::invalidation::tags::add_response_tags;
use crate::cache::rules::eligibility::BypassReason;
use crate::cache::rules::freshen::joined;
use crate::cache::store::stored::{Content, StoredHead, StoredHeadParts, StoredResponse, weight};
use crate::fleet::copies::lock::{self, Holder, Locked};
use crate::fleet::copies::value::Received;
use crate::fleet::copies::{Copies, Found};
use crate::fleet::own_writes::Token;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::redis::link::Link;
use crate::runtime::clock;

/// Time before its arrival from which on soft invalidations count for a response: their time is that of the request
/// that caused them, which may be a little older than the moment at which they take effect.
const SOFT_GRACE: u64 = 1000;

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Returns whether another process may have the response to a request.
    pub(super) fn may_ask_fleet(&self, routed: &Routed, read: &Lookup) -> bool {
        let Some((copies, link)) = &self.others.copies else { return false };
        let route_settings = &routed.route.cache.route_settings;
        let sends_users = self.cache.outgoing().is_some_and(|outgoing| outgoing.sends_users());
        route_settings.redis
            && !read.received
            && (read.principal.is_none() || sends_users)
            && copies.may_ask(link, routed.record.info.started)
    }

    /// Serves the response of another process, or asks the upstream. The request leads the fetch of its key, so each
    /// process asks once, and those that follow wait as for the upstream.
    pub(super) async fn ask_fleet(
        mut self,
        mut routed: Box<Routed>,
        mut miss: Miss,
        mut led: Led,
    ) -> CacheResult {
        let Some(copies) = self.others.copies.clone() else {
            return self.fetch_after(routed, miss, led).await;
        };
        let mut stored = self.look(&copies, &routed, &miss.read, &led).await;
        let usual = routed.record.cache_counters().usual_fetch();
        if stored.is_none() && usual >= lock::WORTHWHILE {
            match copies.0.lock(&miss.read.key, usual).await {
                Locked::Here(lock) => {
                    if let Some(leader) = &mut led.leader {
                        leader.hold(Box::new(lock));
                    }
                }
                Locked::Elsewhere(holder) => {
                    stored = self.look_again(&copies, &routed, &miss.read, &led, &holder).await;
                }
                Locked::Unknown => {}
            }
        }
        let Some(stored) = stored else { return self.fetch_after(routed, miss, led).await };
        if let Some(leader) = led.leader.take() {
            leader.tell(FetchOutcome::Stored(stored));
        }
        miss.read.received = true;
        match self.read(&mut routed, miss.read) {
            Ok(future) => future.await,
            // It serves other requests than this one, or is stale: then it is revalidated.
            Err(miss) => self.go(routed, miss).await,
        }
    }

    /// Looks for the response of another process, and stores it here.
    async fn look(
        &self,
        from: &(Arc<Copies>, Arc<Link>),
        routed: &Routed,
        read: &Lookup,
        led: &Led,
    ) -> Option<StoredResponse> {
        let (copies, link) = from;
        let selecting = selecting(routed, read);
        let found = copies.find(link, &read.key, |names, out| selecting.append(names, out)).await?;
        let stored = self.receive(routed, read, led, found);
        if stored.is_none() {
            copies.counters.count_outdated();
        }
        stored
    }

    /// Looks until the response is there that another process is fetching, or that process does not any more.
    async fn look_again(
        &self,
        from: &(Arc<Copies>, Arc<Link>),
        routed: &Routed,
        read: &Lookup,
        led: &Led,
        holder: &Holder,
    ) -> Option<StoredResponse> {
        let mut pause = lock::FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            // In this order: what was stored before the lock was given up is found.
            let is_held = from.0.is_held(holder).await;
            let stored = self.look(from, routed, read, led).await;
            if stored.is_some() || !is_held {
                return stored;
            }
            pause = (pause * 2).min(lock::MAX_PAUSE);
        }
    }

    /// Goes on with a read once this process knows of its client's own writes; else past the cache. A response may be as
    /// old as its freshness allows, and never stale.
    pub(super) async fn after_own_write(
        mut self,
        mut routed: Box<Routed>,
        mut read: Box<Lookup>,
        token: Token,
    ) -> CacheResult {
        let knows = match &self.others.own_writes {
            Some(own_writes) => own_writes.knows(&token) || own_writes.wait(&token).await,
            None => false,
        };
        if !knows {
            return self.pass(routed, BypassReason::Unread).await;
        }
        read.directives.min_fresh.get_or_insert_default();
        match self.read(&mut routed, read) {
            Ok(future) => future.await,
            Err(miss) => self.go(routed, miss).await,
        }
    }

    /// Returns the token that the client of a request got for its own write.
    pub(super) fn token(&self, routed: &Routed) -> Option<Token> {
        let own_writes = self.others.own_writes.as_ref()?;
        let wall = || routed.record.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        own_writes.token(routed.request.headers(), wall)
    }

    async fn fetch_after(&mut self, routed: Box<Routed>, mut miss: Miss, mut led: Led) -> CacheResult {
        miss.count(&routed.record);
        let now = clock::now();
        // What was invalidated while Redis was asked does not concern a fetch that begins now.
        led.begun = self.cache.invalidation.begin(&led.watched, now);
        self.fetch(routed, miss, led, now).await
    }

    /// Stores a response of another process; `None` if it was invalidated.
    fn receive(&self, routed: &Routed, read: &Lookup, led: &Led, found: Found) -> Option<StoredResponse> {
        let Found { received, age, number } = found;
        let Received {
            status, phrase, fields, own, variant, freshness, audience, fetched_in, content, ..
        } = *received;
        let route = &routed.route;
        let principal = read.principal.as_ref();
        let (mut invalidation_keys, mut tags) = led.known.clone()?;
        let known = invalidation_keys.len();
        let (key_hasher, settings) =
            (self.cache.invalidation.key_hasher, routed.record.info.cache_settings());
        let said = joined(fields.clone(), &own);
        let request = routed.request.headers();
        add_response_tags(key_hasher, settings.groups, &said, request, &mut invalidation_keys, &mut tags)
            .ok()?;
        invalidation_keys::add_user_keys(&mut invalidation_keys, known, route, &self.cache, principal);
        // Its paths are watched since before it was asked for, so what is stamped from then on is seen when it is used.
        // The table of all invalidations tells of those before.
        let watched = self.cache.invalidation.watch(&invalidation_keys);
        let begun = self.cache.invalidation.begin(&watched, clock::now());
        if !self.cache.invalidation.is_current(&invalidation_keys, number) {
            return None;
        }
        let size = weight(content.len()) + weight(read.key.len());
        let mut place = self.cache.store.budget.take_over(size);
        let head = StoredHead::new(StoredHeadParts {
            status,
            fields,
            own,
            variant,
            freshness,
            audience,
            initial_age: age,
            fetched_in,
            received: clock::now(),
            fetch_epoch: FetchEpoch { at: begun.at.saturating_sub(SOFT_GRACE).max(1), ..begun },
            _watched: watched,
            invalidation_keys: invalidation_keys.into_boxed_slice(),
            tags: tags.into_boxed_slice(),
            circulation: Circulation::Received,
        })
        .with_phrase(phrase.as_ref());
        place.grow_over(head.size());
        let content = Arc::new(Content::new(content, None, place));
        let stored = StoredResponse { head: Arc::new(head), content };
        self.cache.make_room();
        self.cache.keep(&read.key, &stored).then_some(stored)
    }
}
