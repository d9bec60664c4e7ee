//! Finds the stored response for a request, and decides how the request goes on.

use std::borrow::Cow;
use std::sync::Arc;

use http::{Response, header};
use tower::Service;

use super::classify::{Lookup, requested, selecting, unserved};
use super::error::CacheError;
use super::exchange::{Fetching, Known, Purpose};
use super::future::CacheFuture;
use super::miss::Miss;
use super::service::{CacheLayer, Start};
use super::unattended::{outlive, unattended};
use super::{classify, invalidation_keys, stored_response, uncounted};
use crate::cache::collapse::{Join, Leader};
use crate::cache::counters::Event;
use crate::cache::hit_for_miss::RequesterClass;
use crate::cache::invalidation::FetchEpoch;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::cache::rules::conditions;
use crate::cache::rules::conditions::{CONDITIONS, is_conditional};
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::forwarding::Course;
use crate::cache::rules::reuse::demands_upstream;
use crate::cache::rules::storability::Personal;
use crate::cache::selection;
use crate::cache::selection::{Candidate, Selection, Use, select};
use crate::cache::settings::{Refresh, Scope};
use crate::cache::store::stored::StoredResponse;
use crate::cache::tripwire::{Observed, Pair, Sample};
use crate::fields::cache_status::{Member, Used};
use crate::layer::record::CacheHandling;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// The `Cache-Status` detail of a response that another process stored.
pub(super) const RECEIVED: &str = "fleet";

/// What a request has of its fetch before it is sent.
pub(super) struct Led {
    /// Through which it tells others of the outcome, if others may wait for it.
    pub leader: Option<Leader>,
    pub known: Option<Known>,
    pub watched: WatchedPaths,
    pub begun: FetchEpoch,
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Responds from the cache, or says why the request goes to the upstream.
    pub(super) fn read(
        &mut self,
        routed: &mut Box<Routed>,
        read: Box<Lookup>,
    ) -> Result<CacheFuture<S::Future>, Miss> {
        let record = routed.record.clone();
        let (settings, route_settings) = (record.info.cache_settings(), &routed.route.cache.route_settings);
        let now = record.info.started;
        let Some(entry) = self.cache.store.get(&read.key, self.cache.second(now)) else {
            self.tell_of_cookies(routed, &read);
            return Err(self.missing(routed, read, FwdReason::UriMiss));
        };
        let counters = record.cache_counters();
        let selected = select(&entry, requested(routed, &read), &self.cache.invalidation, now);
        let (stored, age, permission) = match selected {
            Selection::Served(stored, age, permission) => (stored, age, permission),
            Selection::Nothing(why) => return Err(self.missing(routed, read, why)),
            Selection::Revalidated(why, candidate) => {
                counters.count(match why {
                    _ if candidate.gone => Event::Miss,
                    FwdReason::Request => Event::Requested,
                    _ => Event::Expired,
                });
                return Err(Miss { read, why, candidate: Some(candidate), pending: false });
            }
        };
        let (event, detail) = match permission {
            Use::Fresh => (None, read.received.then_some(RECEIVED)),
            Use::MaxStale => (Some(Event::MaxStale), Some("max-stale")),
            Use::WhileRevalidate => (Some(Event::WhileRevalidate), Some("swr")),
        };
        counters.count(if event.is_some() { Event::HitStale } else { Event::Hit });
        if let Some(event) = event {
            counters.count(event);
        }
        self.cache.counters.hit_at(age.current);
        record.cache.set_handling(if event.is_some() { CacheHandling::Stale } else { CacheHandling::Hit });
        let used = if event.is_some() { Used::Stale } else { Used::AsSaid };
        let member = Member { hit: true, detail, used, ..Member::default() };
        let form = routed.form.filter(|_| !read.head && !settings.debug_header);
        let response = stored_response::hit(&record, stored, age, read.head, member, form);
        if let Some(outgoing) = self.cache.outgoing() {
            outgoing.asked(&read.key, stored);
        }
        if permission == Use::WhileRevalidate {
            self.refresh(routed, &read, stored.clone());
        } else if route_settings.refresh == Refresh::Ahead
            && permission == Use::Fresh
            && selection::is_due_ahead(&stored.head, age, fastrand::f64)
            && self.refresh(routed, &read, stored.clone())
        {
            counters.count(Event::Ahead);
        }
        if route_settings.scope != Scope::User
            && let Some(pair) = self.pair(routed, &read, self.cache.second(now))
        {
            self.compare(routed, pair);
        }
        classify::recycle(read.key);
        Ok(CacheFuture::ready(Ok(response)))
    }

    /// Warns about the cookie that splits a user's stored responses, if none of them is ever used again.
    fn tell_of_cookies(&self, routed: &Routed, read: &Lookup) {
        let Some(user) = read.principal.as_ref().and_then(|principal| principal.credentials.first()) else {
            return;
        };
        let identity = &routed.record.info.snapshot.policy.identity;
        let headers = routed.request.headers();
        let mut cookies = identity.further_cookies(headers).peekable();
        if cookies.peek().is_none() {
            return;
        }
        let counters = routed.record.cache_counters();
        let counts = (counters.get(Event::Stored), counters.get(Event::Hit));
        let path = routed.request.uri().path();
        if let Some(cookie) = counters.apart.miss(counts, *user, path, cookies) {
            let route = routed.route.label.as_str();
            tracing::warn!(
                route,
                cookie,
                "stored responses of this route are never used twice: this cookie keeps those of \
                each user apart; if it does not change the response, add it to cache.ignore_cookies"
            );
        }
    }

    /// Returns two users' requests for the same target when a comparison is due; this request is the second.
    fn pair(&self, routed: &Routed, read: &Lookup, second: u32) -> Option<Pair> {
        let (request, policy) = (&routed.request, &routed.record.info.snapshot.policy);
        let told = || policy.server.trusts(routed.peer.address.ip()).then_some(routed.record.info.client);
        let seen = Observed {
            key: &read.key,
            target: request.uri(),
            headers: request.headers(),
            client: told(),
            says_who: read.traits.personal != Personal::No,
            auto: routed.route.cache.route_settings.scope == Scope::Auto,
        };
        let sample = || Sample {
            target: request.uri().clone(),
            headers: request.headers().clone(),
            peer: routed.peer.address,
            tls: routed.peer.tls,
            client: told(),
        };
        let is_credential = |name: &http::HeaderName| policy.identity.may_tell(name);
        routed.record.cache_counters().tripwire.hit(seen, second, is_credential, sample)
    }

    fn missing(&self, routed: &Routed, read: Box<Lookup>, why: FwdReason) -> Miss {
        if !routed.record.info.snapshot.policy.warm.is_empty() {
            routed.record.warming().note(|| classify::vantage(routed));
        }
        let pending = self.may_ask_fleet(routed, &read);
        if !pending {
            routed.record.cache_counters().count(Event::Miss);
        }
        Miss { read, why, candidate: None, pending }
    }

    /// Sends a request whose response may be stored: alone, as the leader of a fetch, or after another one's fetch.
    pub(super) fn go(&mut self, routed: Box<Routed>, miss: Miss) -> CacheFuture<S::Future> {
        // No time has passed since the request arrived.
        let now = routed.record.info.started;
        match self.start(routed, miss, now) {
            Start::Sent(future) => future,
            Start::Follow(waiting) => {
                let (routed, miss, fetch) = *waiting;
                CacheFuture::Working(Box::pin(self.clone().follow(routed, miss, fetch)))
            }
        }
    }

    /// Sends the request, or returns the fetch that it waits for; see [`CacheLayer::go`].
    pub(super) fn start(&mut self, routed: Box<Routed>, mut miss: Miss, now: Instant) -> Start<S::Future> {
        let record = routed.record.clone();
        if miss.read.directives.only_if_cached {
            miss.count(&record);
            return Start::Sent(CacheFuture::ready(Err(CacheError::OnlyIfCached.into())));
        }
        let Miss { mut read, why, candidate, pending } = miss;
        if why != FwdReason::UriMiss {
            // The responses of one variant say nothing about those of another.
            read.variant_key = match self.collapse_key(&routed, &read, now) {
                Cow::Owned(key) => Some(key.into_boxed_slice()),
                Cow::Borrowed(_) => None,
            };
        }
        if read.uncounted {
            let mut miss = Miss { read, why, candidate, pending };
            miss.count(&record);
            return self.start_as_it_came(routed, miss, now);
        }
        let course =
            unserved(&routed, &read, candidate.as_ref()).course(|class| self.knows(&read, class, now));
        let why = match course {
            Course::Known => {
                if pending {
                    record.cache_counters().count(Event::Miss);
                }
                record.cache.set_handling(CacheHandling::Miss);
                let class = read.requester_class(routed.route.cache.route_settings.scope);
                let purpose = Purpose::Known(why, read.into_memory_key(), class);
                return Start::Sent(self.send(routed, purpose));
            }
            Course::Partial => FwdReason::Partial,
            Course::Alone | Course::Beside | Course::Together => why,
        };
        let mut miss = Miss { read, why, candidate, pending };
        if course != Course::Together {
            miss.count(&record);
        }
        match course {
            Course::Known | Course::Partial | Course::Alone => {
                Start::Sent(self.send_alone(routed, miss, now))
            }
            Course::Beside => Start::Sent(self.send_beside(routed, miss, now)),
            Course::Together => self.send_together(routed, miss, now),
        }
    }

    /// Returns whether hit-for-miss knows the key of a request for a class of requests.
    pub(super) fn knows(&self, read: &Lookup, class: RequesterClass, now: Instant) -> bool {
        self.cache.hit_for_miss.knows(read.memory_key(), class, self.cache.second(now))
    }

    /// Joins the fetch of the request's key, or begins it.
    fn send_together(&mut self, routed: Box<Routed>, miss: Miss, now: Instant) -> Start<S::Future> {
        let Miss { read, why, candidate, pending } = miss;
        let record = routed.record.clone();
        let (invalidation_keys, tags) =
            invalidation_keys::for_request(&routed, &self.cache, read.principal.as_ref());
        let watched = self.cache.invalidation.watch(&invalidation_keys);
        let begun = self.cache.invalidation.begin(&watched, now);
        let key = match &read.variant_key {
            Some(key) => Cow::Borrowed(&**key),
            None => self.collapse_key(&routed, &read, now),
        };
        let (fetches, invalidation) = (&self.cache.fetches, &self.cache.invalidation);
        let joined =
            fetches.join(&key, &invalidation_keys, begun, invalidation, || record.info.client_slot());
        drop(key);
        let mut miss = Miss { read, why, candidate, pending };
        let leader = match joined {
            Join::Leads(leader) => leader,
            Join::Follows(_) if demands_upstream(&miss.read.directives) => {
                miss.count(&record);
                return Start::Sent(self.send_alone(routed, miss, now));
            }
            Join::Follows(fetch) => {
                miss.count(&record);
                return Start::Follow(Box::new((routed, miss, fetch)));
            }
        };
        let led = Led { leader: Some(leader), known: Some((invalidation_keys, tags)), watched, begun };
        if miss.pending && !demands_upstream(&miss.read.directives) {
            return Start::Sent(CacheFuture::Working(Box::pin(self.clone().ask_fleet(routed, miss, led))));
        }
        miss.count(&record);
        Start::Sent(self.fetch(routed, miss, led, now))
    }

    /// Sends the request beside others for the same key, with the conditions of the stored response. No request waits
    /// for it; its response is stored if possible.
    pub(super) fn send_beside(
        &mut self,
        routed: Box<Routed>,
        miss: Miss,
        now: Instant,
    ) -> CacheFuture<S::Future> {
        if miss.read.uncounted {
            return self.send_as_it_came(routed, miss, now);
        }
        let watched = invalidation_keys::watch(&routed, &self.cache);
        let begun = self.cache.invalidation.begin(&watched, now);
        self.fetch(routed, miss, Led { leader: None, known: None, watched, begun }, now)
    }

    pub(super) fn fetch(
        &mut self,
        mut routed: Box<Routed>,
        miss: Miss,
        Led { leader, known, watched, begun }: Led,
        now: Instant,
    ) -> CacheFuture<S::Future> {
        let Miss { read, why, candidate, .. } = miss;
        routed.record.cache.set_handling(if candidate.is_some() {
            CacheHandling::Expired
        } else {
            CacheHandling::Miss
        });
        let asks = self.conditions(&mut routed, candidate.as_ref());
        let headers = Some(routed.request.headers().clone());
        let fetching = Fetching {
            read,
            candidate,
            asks,
            leader,
            known,
            _watched: watched,
            begun,
            requested: now,
            headers,
            fill: None,
        };
        self.send(routed, Purpose::Fetch(why, Box::new(fetching)))
    }

    /// Returns the key under which requests wait for one another: the cache key, plus the request's values of the
    /// fields that stored responses of that key vary with, so that no request waits for another variant.
    pub(super) fn collapse_key<'a>(&self, routed: &Routed, read: &'a Lookup, now: Instant) -> Cow<'a, [u8]> {
        let entry = self.cache.store.get(&read.key, self.cache.second(now));
        match entry.as_ref().map(|entry| entry.names()) {
            None | Some([]) => Cow::Borrowed(&read.key),
            Some(names) => {
                let mut key = read.key.clone();
                selecting(routed, read).append(names, &mut key);
                Cow::Owned(key)
            }
        }
    }

    /// Returns the stored response that this request may revalidate.
    pub(super) fn candidate(&self, routed: &Routed, read: &Lookup, now: Instant) -> Option<Candidate> {
        let entry = self.cache.store.get(&read.key, self.cache.second(now))?;
        selection::candidate(&entry, requested(routed, read), &self.cache.invalidation, now)
    }

    /// Sends the request unchanged and for itself alone; its response is stored if possible.
    pub(super) fn send_alone(
        &mut self,
        routed: Box<Routed>,
        miss: Miss,
        now: Instant,
    ) -> CacheFuture<S::Future> {
        if miss.read.uncounted {
            return self.send_as_it_came(routed, miss, now);
        }
        let Miss { mut read, why, candidate, .. } = miss;
        routed.record.cache.set_handling(if candidate.is_some() {
            CacheHandling::Expired
        } else {
            CacheHandling::Miss
        });
        read.traits.conditional = is_conditional(routed.request.headers());
        let watched = invalidation_keys::watch(&routed, &self.cache);
        let begun = self.cache.invalidation.begin(&watched, now);
        // A response to HEAD is never stored, but can freshen a stored response.
        let headers = (!read.head || candidate.is_some()).then(|| routed.request.headers().clone());
        let fetching = Fetching {
            read,
            candidate,
            asks: false,
            leader: None,
            known: None,
            _watched: watched,
            begun,
            requested: now,
            headers,
            fill: None,
        };
        self.send(routed, Purpose::Fetch(why, Box::new(fetching)))
    }

    /// Replaces the client's conditions by those of the stored response (RFC 9111 4.3.1); returns false if it has none.
    pub(super) fn conditions(&self, routed: &mut Routed, candidate: Option<&Candidate>) -> bool {
        let headers = routed.request.headers_mut();
        CONDITIONS.iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(header::RANGE);
        candidate.is_some_and(|candidate| {
            conditions::write(&candidate.stored.head.fields, candidate.gone, headers)
        })
    }

    /// Revalidates a response in the background while it is used, one revalidation at a time (RFC 5861 3). Returns
    /// whether this call began it.
    fn refresh(&mut self, routed: &Routed, read: &Lookup, stored: StoredResponse) -> bool {
        let now = clock::now();
        let (invalidation_keys, tags) =
            invalidation_keys::for_request(routed, &self.cache, read.principal.as_ref());
        let watched = self.cache.invalidation.watch(&invalidation_keys);
        let begun = self.cache.invalidation.begin(&watched, now);
        let key = self.collapse_key(routed, read, now);
        let (fetches, invalidation) = (&self.cache.fetches, &self.cache.invalidation);
        let led =
            fetches.lead(&key, &invalidation_keys, begun, invalidation, || routed.record.info.client_slot());
        let Some(leader) = led else { return false };
        // Another worker may have revalidated the response since this request looked it up.
        let entry = self.cache.store.get(&read.key, self.cache.second(now));
        let found = entry.as_ref().and_then(|entry| entry.select(selecting(routed, read)));
        if found.is_none_or(|found| !Arc::ptr_eq(&found.head, &stored.head)) {
            return false;
        }
        let Some(mut routed) = routed.again(now) else { return false };
        // A refresh has no client from its start. Without a place the response stays stale until there is one.
        let Some(place) = unattended(&self.cache, &routed.record) else { return false };
        self.cache.counters.background.add(1);
        let candidate = Candidate { stored, gone: false };
        // A response to be stored is requested whole, whatever this client requested.
        if read.head {
            *routed.request.method_mut() = http::Method::GET;
        }
        if read.uncounted && !uncounted::take_out(&mut routed) {
            return false;
        }
        let asks = self.conditions(&mut routed, Some(&candidate));
        let headers = routed.request.headers().clone();
        let read = Box::new(Lookup {
            key: read.key.clone(),
            variant_key: read.variant_key.clone(),
            directives: Default::default(),
            traits: read.traits,
            principal: read.principal.clone(),
            head: false,
            uncounted: false,
            received: false,
            follows_refused: false,
            fragments: read.fragments.clone(),
        });
        let fetching = Fetching {
            read,
            candidate: Some(candidate),
            asks,
            leader: Some(leader),
            known: Some((invalidation_keys, tags)),
            _watched: watched,
            begun,
            requested: now,
            headers: Some(headers),
            fill: None,
        };
        let future = self.send(routed, Purpose::Fetch(FwdReason::Stale, Box::new(fetching)));
        outlive(async move {
            drop(future.await);
            drop(place);
        });
        true
    }
}
