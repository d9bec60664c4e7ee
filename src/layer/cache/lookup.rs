//! What is stored for a request, and what becomes of it.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Response, header};
use tower::Service;

use super::{Answer, CacheError, CacheFuture, CacheLayer, selecting, settings, uncounted};
use crate::cache::Cache;
use crate::cache::collapse::{Fetch, Joined, Leader};
use crate::cache::counters::Event;
use crate::cache::hit_for_miss;
use crate::cache::invalidation::Begun;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::cache::rules::reuse;
use crate::cache::rules::reuse::{Age, Asked as Ask, Failed, Reuse};
use crate::cache::rules::storability::{Audience, Personal};
use crate::cache::settings::Scope;
use crate::cache::store::stored::Stored;
use crate::cache::tripwire::{Pair, Sample, Seen};
use crate::fields::cache_status::{Member, Used};
use crate::fields::entity_tag::EntityTag;
use crate::layer::Routed;
use crate::layer::cache::classify;
use crate::layer::cache::classify::{Forwarded, Read};
use crate::layer::cache::exchange::{Errand, Fetching, Known, unattended};
use crate::layer::cache::stored_response;
use crate::layer::record::{ByCache, Record};
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// The conditions a fetch that may be stored goes without; what they ask is answered from what it brings.
pub(super) static CONDITIONS: [http::HeaderName; 5] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// What is stored for a request and cannot be used without asking.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub stored: Stored,
    /// An invalidation has left nothing of it: it may only be asked about, by a strong tag.
    pub gone: bool,
}

/// A request that goes to the app.
pub(super) struct Going {
    pub read: Box<Read>,
    pub why: Forwarded,
    /// What is stored for it.
    pub candidate: Option<Candidate>,
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Answers from what is stored, or says how the request goes on.
    pub(super) fn read(
        &mut self,
        routed: &mut Box<Routed>,
        read: Box<Read>,
    ) -> Result<CacheFuture<S::Future>, Going> {
        let record = routed.record.clone();
        let (settings, terms) = (settings(&record), &routed.route.cache.terms);
        let now = record.started;
        let Some(entry) = self.cache.store.get(&read.key, self.cache.second(now)) else {
            self.tell_of_cookies(routed, &read);
            return Err(self.missing(&record, read, Forwarded::UriMiss));
        };
        let Some(stored) = entry.select(selecting(routed, &read)) else {
            return Err(self.missing(&record, read, Forwarded::VaryMiss));
        };
        if !read.may_use(stored.head.audience, terms.scope) {
            return Err(self.missing(&record, read, Forwarded::Miss));
        }
        let Some(age) = stored.head.age_if_valid(&self.cache.invalidation, now) else {
            let candidate = Some(Candidate { stored: stored.clone(), gone: true });
            return Err(Going { candidate, ..self.missing(&record, read, Forwarded::Stale) });
        };
        let verdict = reuse::reuse(&stored.head.freshness, age, &read.directives);
        let counters = record.cached();
        let (event, detail) = match verdict {
            Reuse::Ask(why) => {
                let candidate = Some(Candidate { stored: stored.clone(), gone: false });
                let (why, event) = match why {
                    Ask::Stale => (Forwarded::Stale, Event::Expired),
                    Ask::Request => (Forwarded::Request, Event::Requested),
                };
                counters.count(event);
                return Err(Going { read, why, candidate });
            }
            Reuse::Fresh => (None, None),
            Reuse::MaxStale => (Some(Event::MaxStale), Some("max-stale")),
            Reuse::WhileRevalidate => (Some(Event::WhileRevalidate), Some("swr")),
        };
        counters.count(if event.is_some() { Event::HitStale } else { Event::Hit });
        if let Some(event) = event {
            counters.count(event);
        }
        self.cache.counters.hit_at(age.current);
        record.told_by_cache(if event.is_some() { ByCache::Stale } else { ByCache::Hit });
        let used = if event.is_some() { Used::Stale } else { Used::AsSaid };
        let member = Member { hit: true, detail, used, ..Member::default() };
        let form = routed.form.filter(|_| !read.head && !settings.debug_header);
        let response = stored_response::hit(&record, stored, age, read.head, member, form);
        if verdict == Reuse::WhileRevalidate {
            self.refresh(routed, &read, stored.clone());
        }
        if terms.scope != Scope::User
            && let Some(pair) = self.pair(routed, &read, self.cache.second(now))
        {
            self.compare(routed, pair);
        }
        classify::recycle(read.key);
        Ok(CacheFuture::answer(Ok(response)))
    }

    /// Says which cookie keeps a user's copies apart where none is asked for twice.
    fn tell_of_cookies(&self, routed: &Routed, read: &Read) {
        let Some(user) = read.principal.as_ref().and_then(|principal| principal.credentials.first()) else {
            return;
        };
        let identity = &routed.record.snapshot.policy.identity;
        let headers = routed.request.headers();
        let mut cookies = identity.further_cookies(headers).peekable();
        if cookies.peek().is_none() {
            return;
        }
        let counters = routed.record.cached();
        let counts = (counters.get(Event::Stored), counters.get(Event::Hit));
        let path = routed.request.uri().path();
        if let Some(cookie) = counters.apart.miss(counts, *user, path, cookies) {
            let route = routed.route.label.as_str();
            tracing::warn!(
                route,
                cookie,
                "stored responses of this route are never used twice: this cookie keeps each user's apart; if it does not change the response, add it to cache.ignore_cookies"
            );
        }
    }

    /// Two users' requests for the same, now and then, of which this is the second.
    fn pair(&self, routed: &Routed, read: &Read, second: u32) -> Option<Pair> {
        let (request, policy) = (&routed.request, &routed.record.snapshot.policy);
        let told = || policy.server.trusts(routed.peer.address.ip()).then_some(routed.record.client);
        let seen = Seen {
            key: &read.key,
            target: request.uri(),
            headers: request.headers(),
            client: told(),
            says_who: read.asker.personal != Personal::No,
            auto: routed.route.cache.terms.scope == Scope::Auto,
        };
        let sample = || Sample {
            target: request.uri().clone(),
            headers: request.headers().clone(),
            peer: routed.peer.address,
            tls: routed.peer.tls,
            client: told(),
        };
        let is_credential = |name: &http::HeaderName| policy.identity.may_tell(name);
        routed.record.cached().tripwire.hit(seen, second, is_credential, sample)
    }

    fn missing(&self, record: &Rc<Record>, read: Box<Read>, why: Forwarded) -> Going {
        record.cached().count(Event::Miss);
        Going { read, why, candidate: None }
    }

    /// Sends a request for what may be stored on its way: alone, before others, or behind one that has gone.
    pub(super) fn go(&mut self, routed: Box<Routed>, going: Going) -> CacheFuture<S::Future> {
        // Not a moment has passed since it came.
        let now = routed.record.started;
        match self.start(routed, going, now) {
            Start::Sent(future) => future,
            Start::Follow(waiting) => {
                let (routed, going, fetch) = *waiting;
                CacheFuture::Working(Box::pin(self.clone().follow(routed, going, fetch)))
            }
        }
    }

    /// See [`CacheLayer::go`].
    pub(super) fn start(&mut self, routed: Box<Routed>, going: Going, now: Instant) -> Start<S::Future> {
        let record = routed.record.clone();
        if going.read.directives.only_if_cached {
            return Start::Sent(CacheFuture::answer(Err(CacheError::OnlyIfCached.into())));
        }
        let Going { mut read, why, candidate } = going;
        let scope = routed.route.cache.terms.scope;
        if why != Forwarded::UriMiss {
            // One variant's responses say nothing of another's.
            read.variant_key = match self.collapse_key(&routed, &read, now) {
                Cow::Owned(key) => Some(key.into_boxed_slice()),
                Cow::Borrowed(_) => None,
            };
        }
        // Most requests of most apps: what came under this key was not stored, and will not be.
        let asker = read.passes(scope);
        if read.uncounted {
            return self.start_as_it_came(routed, Going { read, why, candidate }, now);
        }
        if candidate.is_none() && self.cache.passes.knows(read.memory_key(), asker, self.cache.second(now)) {
            record.told_by_cache(ByCache::Miss);
            let key = read.into_memory_key();
            return Start::Sent(self.send(routed, Errand::Known(why, key, asker)));
        }
        // A part of something is asked of the app as it is, unless what is stored can be asked about: then the part
        // is cut of that. What has no content to be stored goes as it is too.
        let about = |candidate: &Candidate| has_validator(&candidate.stored, candidate.gone);
        let range =
            routed.request.headers().contains_key(header::RANGE) && !candidate.as_ref().is_some_and(about);
        // Who says who they are waits for others only where what is stored is for all.
        // A response without Vary may not be the fragment that is asked for.
        let alone = range
            || read.head
            || (!read.fragments.is_empty() && candidate.is_none())
            || read.asker.no_store
            || !(read.may_use(Audience::Anonymous, scope) || candidate.is_some());
        if alone {
            let why = if range { Forwarded::Partial } else { why };
            return Start::Sent(self.send_alone(routed, Going { read, why, candidate }, now));
        }
        // What came under this key was not for those who waited for it.
        if self.cache.passes.knows(read.memory_key(), hit_for_miss::Asker::Waiting, self.cache.second(now)) {
            return Start::Sent(self.send_beside(routed, Going { read, why, candidate }, now));
        }
        let (marks, tags) = classify::marks(&routed, &self.cache, read.principal.as_ref());
        let watched = self.cache.invalidation.watch(&marks);
        let begun = self.cache.invalidation.begin(&watched, now);
        let key = match &read.variant_key {
            Some(key) => Cow::Borrowed(&**key),
            None => self.collapse_key(&routed, &read, now),
        };
        let (fetches, invalidation) = (&self.cache.fetches, &self.cache.invalidation);
        let joined = fetches.join(&key, &marks, begun, invalidation, || record.client_slot());
        drop(key);
        // Who wants the app to be asked is not content with what was asked before.
        let wants_app =
            read.directives.no_cache || read.directives.max_age.is_some_and(|most| most.is_zero());
        let leader = match joined {
            Joined::Leads(leader) => leader,
            Joined::Follows(_) if wants_app => {
                return Start::Sent(self.send_alone(routed, Going { read, why, candidate }, now));
            }
            Joined::Follows(fetch) => {
                return Start::Follow(Box::new((routed, Going { read, why, candidate }, fetch)));
            }
        };
        let known = Some((marks, tags));
        let began = (watched, begun);
        Start::Sent(self.fetch(routed, Going { read, why, candidate }, (Some(leader), known, began), now))
    }

    /// Sends it on beside others that ask for the same, with the conditions of what is stored. Nobody waits for it;
    /// what comes is stored if it may be.
    pub(super) fn send_beside(
        &mut self,
        routed: Box<Routed>,
        going: Going,
        now: Instant,
    ) -> CacheFuture<S::Future> {
        if going.read.uncounted {
            return self.send_as_it_came(routed, going, now);
        }
        let watched = classify::watch(&routed, &self.cache);
        let begun = self.cache.invalidation.begin(&watched, now);
        self.fetch(routed, going, (None, None, (watched, begun)), now)
    }

    fn fetch(
        &mut self,
        mut routed: Box<Routed>,
        going: Going,
        (leader, known, (watched, begun)): (Option<Leader>, Option<Known>, (WatchedPaths, Begun)),
        now: Instant,
    ) -> CacheFuture<S::Future> {
        let Going { read, why, candidate } = going;
        routed.record.told_by_cache(if candidate.is_some() { ByCache::Expired } else { ByCache::Miss });
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
        self.send(routed, Errand::Fetch(why, Box::new(fetching)))
    }

    /// The key under which requests wait for one another: the cache key, with what the request says in the fields that
    /// stored responses of that key vary with, so that nobody waits for another variant.
    pub(super) fn collapse_key<'a>(&self, routed: &Routed, read: &'a Read, now: Instant) -> Cow<'a, [u8]> {
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

    /// The stored response that this request may ask the upstream about.
    pub(super) fn candidate(&self, routed: &Routed, read: &Read, now: Instant) -> Option<Candidate> {
        let entry = self.cache.store.get(&read.key, self.cache.second(now))?;
        let stored = entry.select(selecting(routed, read))?;
        if !read.may_use(stored.head.audience, routed.route.cache.terms.scope) {
            return None;
        }
        let gone = stored.head.age_if_valid(&self.cache.invalidation, now).is_none();
        Some(Candidate { stored: stored.clone(), gone })
    }

    /// Sends it on as it is, for itself alone; what comes is stored all the same if it may be.
    pub(super) fn send_alone(
        &mut self,
        routed: Box<Routed>,
        going: Going,
        now: Instant,
    ) -> CacheFuture<S::Future> {
        if going.read.uncounted {
            return self.send_as_it_came(routed, going, now);
        }
        let Going { mut read, why, candidate } = going;
        routed.record.told_by_cache(if candidate.is_some() { ByCache::Expired } else { ByCache::Miss });
        let own = |name: &http::HeaderName| *name == header::RANGE || CONDITIONS.contains(name);
        read.asker.conditional = routed.request.headers().keys().any(own);
        let watched = classify::watch(&routed, &self.cache);
        let begun = self.cache.invalidation.begin(&watched, now);
        // An answer to HEAD is never stored, but may say that what is stored holds on.
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
        self.send(routed, Errand::Fetch(why, Box::new(fetching)))
    }

    /// Puts our conditions in the place of the client's (RFC 9111 4.3.1); false where there are none to put.
    pub(super) fn conditions(&self, routed: &mut Routed, candidate: Option<&Candidate>) -> bool {
        let headers = routed.request.headers_mut();
        CONDITIONS.iter().for_each(|name| drop(headers.remove(name)));
        headers.remove(header::RANGE);
        candidate.is_some_and(|candidate| validators(&candidate.stored, candidate.gone, headers))
    }

    /// Asks the app about something that is used meanwhile; one at a time (RFC 5861 3).
    fn refresh(&mut self, routed: &Routed, read: &Read, stored: Stored) {
        let now = clock::now();
        let (marks, tags) = classify::marks(routed, &self.cache, read.principal.as_ref());
        let watched = self.cache.invalidation.watch(&marks);
        let begun = self.cache.invalidation.begin(&watched, now);
        let key = self.collapse_key(routed, read, now);
        let (fetches, invalidation) = (&self.cache.fetches, &self.cache.invalidation);
        let led = fetches.lead(&key, &marks, begun, invalidation, || routed.record.client_slot());
        let Some(leader) = led else { return };
        // Since this one looked another may have asked, on another worker, and have been answered.
        let entry = self.cache.store.get(&read.key, self.cache.second(now));
        let found = entry.as_ref().and_then(|entry| entry.select(selecting(routed, read)));
        if found.is_none_or(|found| !Arc::ptr_eq(&found.head, &stored.head)) {
            return;
        }
        let Some(mut routed) = routed.again(now) else { return };
        // It has no client from its beginning. What is stale stays so until there is a place.
        let Some(place) = unattended(&self.cache, &routed.record) else { return };
        self.cache.counters.background.add(1);
        let candidate = Candidate { stored, gone: false };
        // What may be stored is asked for whole, whatever this client asks.
        if read.head {
            *routed.request.method_mut() = http::Method::GET;
        }
        if read.uncounted && !uncounted::take_out(&mut routed) {
            return;
        }
        let asks = self.conditions(&mut routed, Some(&candidate));
        let headers = routed.request.headers().clone();
        let read = Box::new(Read {
            key: read.key.clone(),
            variant_key: read.variant_key.clone(),
            directives: Default::default(),
            asker: read.asker,
            principal: read.principal.clone(),
            head: false,
            uncounted: false,
            follows_refused: false,
            fragments: read.fragments.clone(),
        });
        let fetching = Fetching {
            read,
            candidate: Some(candidate),
            asks,
            leader: Some(leader),
            known: Some((marks, tags)),
            _watched: watched,
            begun,
            requested: now,
            headers: Some(headers),
            fill: None,
        };
        let future = self.send(routed, Errand::Fetch(Forwarded::Stale, Box::new(fetching)));
        super::outlive(async move {
            drop(future.await);
            drop(place);
        });
    }
}

/// How a request was sent on its way.
pub(super) enum Start<F>
where
    F: Future<Output = Answer> + Unpin + 'static,
{
    Sent(CacheFuture<F>),
    /// It waits for another one.
    Follow(Box<(Box<Routed>, Going, Arc<Fetch>)>),
}

/// Writes the validators of something stored as conditions. What an invalidation has taken away may still be
/// what the app has, but only its own strong tag says so.
fn validators(stored: &Stored, gone: bool, headers: &mut HeaderMap) -> bool {
    let fields = &stored.head.fields;
    let tag = EntityTag::of(fields);
    if let Some(tag) = tag
        && !(gone && tag.weak)
    {
        headers.insert(header::IF_NONE_MATCH, tag.to_value());
        if let (false, Some(modified)) = (gone, fields.get(header::LAST_MODIFIED)) {
            headers.insert(header::IF_MODIFIED_SINCE, modified.clone());
        }
        return true;
    }
    match fields.get(header::LAST_MODIFIED) {
        Some(modified) if !gone => {
            headers.insert(header::IF_MODIFIED_SINCE, modified.clone());
            true
        }
        _ => false,
    }
}

fn has_validator(stored: &Stored, gone: bool) -> bool {
    validators(stored, gone, &mut HeaderMap::new())
}

/// Something stale in place of an error, where that is allowed.
pub(super) fn in_place_of_error(
    cache: &Cache,
    record: &Rc<Record>,
    read: &Read,
    candidate: Option<&Candidate>,
    status: Option<http::StatusCode>,
) -> Option<Response<Body>> {
    let candidate = candidate.filter(|candidate| !candidate.gone)?;
    let head = &candidate.stored.head;
    let failed = status.map_or(Failed::Unreachable, Failed::Status);
    // Asked again: it may have been invalidated meanwhile.
    let age: Age = head.age_if_valid(&cache.invalidation, clock::now())?;
    if !reuse::may_replace_error(&head.freshness, age, &read.directives, failed) {
        return None;
    }
    record.cached().count(Event::IfError);
    record.told_by_cache(ByCache::StaleIfError);
    let member = Member {
        forwarded: Some(Forwarded::Stale.as_str()),
        forwarded_status: status.map(|status| status.as_u16()),
        detail: Some(ByCache::StaleIfError.as_str()),
        used: Used::Stale,
        ..Member::default()
    };
    Some(stored_response::of(record, &candidate.stored, age, read.head, member))
}
