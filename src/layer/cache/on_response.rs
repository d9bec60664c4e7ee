//! Decides about a response of the upstream: stores it, or remembers that it is not stored.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;

use super::exchange::{CacheExchange, Fetching};
use super::miss::Candidate;
use super::pump::Pump;
use super::stored_response::OWN;
use super::unattended::{max_unattended, outlive};
use super::{classify, invalidation_keys, stored_response};
use crate::cache::collapse;
use crate::cache::collapse::FetchOutcome;
use crate::cache::counters::Event;
use crate::cache::hit_for_miss;
use crate::cache::in_flight_body::InFlightBody;
use crate::cache::invalidation::tags::{CACHE_GROUPS, TooManyTags, add_response_tags};
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::freshness;
use crate::cache::rules::freshness::Times;
use crate::cache::rules::reuse::{Reuse, reuse};
use crate::cache::rules::storability::{NotStorable, RequestTraits, Storable, evaluate, is_of_request_alone};
use crate::cache::selecting_fields::SelectingFields;
use crate::cache::store::stored::{Content, StoredHead, StoredHeadParts, StoredResponse, compact, weight};
use crate::cache::variant::Variant;
use crate::fields::cache_control::{RequestDirectives, ResponseDirectives};
use crate::fields::cache_status::{Member, X_CACHE};
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::memory::memory_budget::Reservation;
use crate::message::body::Body;
use crate::rendering::words::words;
use crate::runtime::clock;

/// The `Cache-Status` detail of a response that was not expected to be storable, because earlier ones were not.
pub(super) const KNOWN: &str = "known";

/// The reason why a response is not stored.
pub(super) enum NotStored {
    Refused(NotStorable),
    Unkept(Unkept),
}

words! {
    /// Reasons why a response is not stored although the rules of RFC 9111 allow it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Unkept {
        /// An invalidation of one of its keys overtook it on its way.
        Overtaken => "overtaken",
        /// It has more tags than the maximum.
        TooManyTags => "tags",
        /// It was not expected to be stored, so the request fields it varies with were not kept; the next one is
        /// stored.
        Unexpected => "unexpected",
        /// It is larger than `cache.max_object_size`, or there is no room for it.
        TooLarge => "too-large",
        /// Its request has a field that selects fragments, and its Vary does not name that field.
        Fragment => "fragment",
        Endless => "endless",
    }
}

impl NotStored {
    fn as_str(&self) -> &'static str {
        match self {
            NotStored::Refused(refusal) => refusal.as_str(),
            NotStored::Unkept(unkept) => unkept.as_str(),
        }
    }
}

impl CacheExchange {
    /// Stores a complete response, or passes it on. A 304 to our own conditions is not handled here.
    pub(super) fn store_or_not(
        &self,
        why: FwdReason,
        mut fetching: Fetching,
        response: Response<Body>,
    ) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let head = self.fit(&mut fetching, parts.status, &parts.headers, &body);
        let head = match head {
            Ok(head) => head.with_phrase(parts.extensions.get()),
            Err(unfit) => {
                self.unfit(&mut fetching, &unfit, parts.status, body.size_hint().exact());
                return self.passed(Response::from_parts(parts, body), why, Some(unfit.as_str()));
            }
        };
        let size = head.size() + weight(fetching.read.key.len());
        let max = self.record.cache_settings().max_object_size;
        let (expected, whole) = (body.size_hint().exact(), body.content());
        // Content of known length is read by all requests as it arrives, so all of it must fit.
        let length = expected.filter(|_| whole.is_none()).and_then(|length| usize::try_from(length).ok());
        let reserved = length.map_or(0, InFlightBody::reservation);
        let Some(place) = self.reserve(size, reserved) else {
            self.unfit(&mut fetching, &NotStored::Unkept(Unkept::TooLarge), parts.status, expected);
            return self.passed(Response::from_parts(parts, body), why, Some(Unkept::TooLarge.as_str()));
        };
        let key = std::mem::take(&mut fetching.read.key);
        let asked_by = fetching.read.variant_key.take();
        let forwarded_status = Some(parts.status.as_u16());
        let mut parts = parts;
        stored_response::strip(&mut parts.headers);
        if let Some(whole) = whole {
            let content = self.whole(&whole, place);
            let stored = StoredResponse { head: Arc::new(head), content: content.clone() };
            let is_stored = self.cache.keep(&key, &stored);
            self.record.cached().count(if is_stored { Event::Stored } else { Event::Refused });
            if is_stored {
                self.stored_after_all(&key, asked_by.as_deref(), &stored.head, true);
            }
            if let Some(leader) = fetching.leader.take() {
                leader.tell(FetchOutcome::Stored(stored));
            }
            let member = Member {
                forwarded: Some(why.as_str()),
                forwarded_status,
                stored: is_stored,
                ..Member::default()
            };
            stored_response::say(&self.record, &mut parts.headers, member);
            let body = match fetching.read.head {
                true => Body::empty(),
                false => Body::kept(content.pieces().clone(), content),
            };
            return Response::from_parts(parts, body);
        }
        // A stream ends with its last reader, because it may have no other end.
        let unattended = if body.is_endless() { 0 } else { max_unattended(&self.record) };
        let fill = Arc::new(InFlightBody::new(Arc::new(head), expected, place, reserved));
        let Some(reader) = fill.reader() else { return Response::from_parts(parts, body) };
        let keeper = fill.clone();
        let memory_key =
            match self.stored_after_all(&key, asked_by.as_deref(), &fill.head, expected.is_some()) {
                Cow::Owned(memory_key) => Some(memory_key),
                Cow::Borrowed(_) => None,
            };
        if let Some(leader) = &fetching.leader {
            leader.tell(FetchOutcome::Coming(fill.clone()));
        }
        let (cache, counters) = (self.cache.clone(), self.record.cached().clone());
        let (leader, buffers) = (fetching.leader.take(), self.record.reserve_buffer());
        let pump = Pump::new(cache, counters, (key, memory_key, fill), max, unattended, leader, buffers);
        outlive(pump.run(body));
        let member =
            Member { forwarded: Some(why.as_str()), forwarded_status, stored: true, ..Member::default() };
        stored_response::say(&self.record, &mut parts.headers, member);
        let mut body = Body::streaming(reader);
        body.set_keeper(keeper);
        Response::from_parts(parts, body)
    }

    /// Ends the hit-for-miss memory of a key whose response is stored. Later requests still do not wait if the response
    /// does not serve them, or if it has no length (`has_length`) and may take too long. `asked_by` is the key by which
    /// the memory was looked up for its request. Returns the key by which it is looked up from now on.
    pub(super) fn stored_after_all<'a>(
        &self,
        key: &'a [u8],
        asked_by: Option<&[u8]>,
        head: &StoredHead,
        has_length: bool,
    ) -> Cow<'a, [u8]> {
        let now = clock::now();
        let memory_key = self.memory_key(key, head);
        let further = matches!(memory_key, Cow::Owned(_)).then_some(key);
        let further = further.into_iter().chain(asked_by.filter(|asked_by| *asked_by != &*memory_key));
        let is_over = |traits: &&hit_for_miss::RequesterClass| {
            **traits != hit_for_miss::RequesterClass::Waiting || has_length
        };
        for key in further.chain([&*memory_key]) {
            let askers = hit_for_miss::RequesterClass::ALL.iter().filter(is_over);
            askers.for_each(|traits| self.cache.hit_for_miss.forget(key, *traits));
        }
        if !collapse::is_shareable(&head.freshness, head.age(now), head.fetched_in) {
            self.cache.hit_for_miss.remember(
                &memory_key,
                hit_for_miss::RequesterClass::Waiting,
                self.cache.second(now),
            );
        }
        memory_key
    }

    /// Returns the hit-for-miss key of requests that select this response.
    fn memory_key<'a>(&self, key: &'a [u8], head: &StoredHead) -> Cow<'a, [u8]> {
        let variant = &head.variant;
        if variant.fields().next().is_none() {
            return Cow::Borrowed(key);
        }
        let entry = self.cache.store.get(key, self.cache.second(head.received));
        let mut names: Vec<HeaderName> = variant.names().cloned().collect();
        let others = entry.as_ref().map_or(&[][..], |entry| entry.names());
        names.extend(others.iter().filter(|name| !variant.names().any(|own| own == *name)).cloned());
        let mut key = key.to_vec();
        variant.append(&names, &mut key);
        Cow::Owned(key)
    }

    /// Passes on a response under a key whose recent responses were not stored.
    pub(super) fn known(
        &self,
        why: FwdReason,
        key: Vec<u8>,
        traits: hit_for_miss::RequesterClass,
        response: Response<Body>,
    ) -> Response<Body> {
        self.record.cached().count(Event::Refused);
        let (status, fields) = (response.status(), response.headers());
        let refused = if self.says_lifetime(status, fields) {
            let settings = self.record.cache_settings();
            let says = ResponseDirectives::from_headers(fields, &settings.targeted);
            let route_settings = &self.record.route().cache.route_settings;
            let of = RequestTraits { personal: traits.personal(), ..RequestTraits::default() };
            evaluate(of, (status, fields), &says, (route_settings, settings), clock::wall()).err()
        } else {
            Some(NotStorable::NoLifetime)
        };
        let max = self.record.cache_settings().max_object_size as u64;
        let second = self.cache.second(self.record.started);
        let not_stored = match (refused, response.body().size_hint().exact()) {
            // The response could be stored; the next one is judged.
            (None, length) if length.is_none_or(|length| length <= max) => {
                self.cache.hit_for_miss.remember_mixed(&key, traits, second, length.is_some());
                Unkept::Unexpected.as_str()
            }
            (refused, _) => {
                self.cache.hit_for_miss.remember(&key, traits, second);
                refused.map_or(Unkept::TooLarge.as_str(), NotStorable::as_str)
            }
        };
        self.record.not_stored(not_stored);
        classify::recycle(key);
        self.passed(response, why, Some(KNOWN))
    }

    /// Returns whether anything gives such a response a lifetime; for most responses of most upstreams nothing does.
    fn says_lifetime(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        let settings = self.record.cache_settings();
        let derived = !settings.heuristic_max.is_zero();
        let lifetime = |name: &http::HeaderName| {
            matches!(*name, header::CACHE_CONTROL | header::EXPIRES)
                || (derived && *name == header::LAST_MODIFIED)
                || settings.targeted.contains(name)
        };
        self.record.route().cache.route_settings.ttl(status).is_some() || fields.keys().any(lifetime)
    }

    /// Reserves memory of the cache, evicting other responses for it.
    fn place(&self, bytes: usize) -> Reservation {
        let place = self.cache.store.budget.take_over(bytes);
        self.cache.make_room();
        place
    }

    /// Reserves memory for a response, evicting others for it, and for `ahead` bytes of content still to come. Returns
    /// `None` if there is no room for the latter.
    fn reserve(&self, bytes: usize, ahead: usize) -> Option<Reservation> {
        let held = &self.cache.store.budget;
        // Content that can never fit evicts nothing.
        if ahead > held.max() {
            return None;
        }
        let place = held.take_over(bytes + ahead);
        (self.cache.make_room() || ahead == 0).then_some(place)
    }

    fn whole(&self, whole: &ChunkedBytes, mut place: Reservation) -> Arc<Content> {
        place.join(self.place(weight(whole.len())));
        // Content from the wire is a slice of a larger buffer.
        Arc::new(Content::new(whole.cut(), None, place))
    }

    /// Builds the head under which a response is to be stored.
    pub(super) fn fit(
        &self,
        fetching: &mut Fetching,
        status: StatusCode,
        fields: &HeaderMap,
        body: &Body,
    ) -> Result<StoredHead, NotStored> {
        if body.is_tunnel() {
            return Err(NotStored::Unkept(Unkept::Endless));
        }
        let settings = self.record.cache_settings();
        if !self.says_lifetime(status, fields) {
            return Err(NotStored::Refused(NotStorable::NoLifetime));
        }
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        if length.is_some_and(|length| length > settings.max_object_size) {
            return Err(NotStored::Unkept(Unkept::TooLarge));
        }
        self.head(fetching, status, fields, length)
    }

    pub(super) fn head(
        &self,
        fetching: &mut Fetching,
        status: StatusCode,
        fields: &HeaderMap,
        length: Option<usize>,
    ) -> Result<StoredHead, NotStored> {
        let settings = self.record.cache_settings();
        let says = ResponseDirectives::from_headers(fields, &settings.targeted);
        let times = Times { requested: fetching.requested, received: clock::now(), wall: clock::wall() };
        let route_settings = &self.record.route().cache.route_settings;
        let storable =
            evaluate(fetching.read.traits, (status, fields), &says, (route_settings, settings), times.wall);
        let Storable { freshness, audience, excluded } = storable.map_err(NotStored::Refused)?;
        // An upstream may omit Vary from some responses, so all fields count that other responses of this key vary
        // with.
        let entry = self.cache.store.get(&fetching.read.key, self.cache.second(fetching.requested));
        let names = entry.as_ref().map_or(&[][..], |entry| entry.names());
        // Without any such field, the request's fields do not matter.
        let varies = fields.contains_key(header::VARY) || !names.is_empty();
        let request = match fetching.headers.take() {
            Some(request) => request,
            None if varies || fields.contains_key(&CACHE_GROUPS) => {
                return Err(NotStored::Unkept(Unkept::Unexpected));
            }
            None => HeaderMap::new(),
        };
        let selecting = SelectingFields::new(&request, &settings.ignore_cookies);
        let variant = Variant::from_response(fields, selecting, names);
        let variant = variant.ok_or(NotStored::Refused(NotStorable::Varies))?;
        if !variant.names_all(&fetching.read.fragments) {
            return Err(NotStored::Unkept(Unkept::Fragment));
        }
        let (mut invalidation_keys, mut tags) = self.invalidation_keys(fetching);
        let known = invalidation_keys.len();
        add_response_tags(
            self.cache.invalidation.key_hasher,
            settings.groups,
            fields,
            &request,
            &mut invalidation_keys,
            &mut tags,
        )
        .map_err(|TooManyTags| NotStored::Unkept(Unkept::TooManyTags))?;
        let principal = fetching.read.principal.as_ref();
        invalidation_keys::add_user_keys(
            &mut invalidation_keys,
            known,
            self.record.route(),
            &self.cache,
            principal,
        );
        if self.cache.invalidation.is_stamped_since(&invalidation_keys, fetching.begun) {
            return Err(NotStored::Unkept(Unkept::Overtaken));
        }
        // Computed before Age is removed from the fields.
        let initial_age = freshness::initial_age(fields, times);
        let mut excluded = excluded;
        excluded.extend(OWN.iter().cloned());
        // X-Cache of a cache closer to the upstream is about this request, not about later ones.
        excluded.push(X_CACHE);
        let own: Vec<_> = settings.targeted.iter().filter(|name| OWN.contains(name)).collect();
        let judged_by = fields.iter().filter(|(name, _)| own.contains(name));
        let own_fields: HeaderMap = judged_by.map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut fields = compact(fields, &excluded);
        if !fields.contains_key(header::DATE)
            && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(times.wall))
        {
            // RFC 9110 6.6.1: a recipient of a response without Date records the time.
            fields.insert(header::DATE, date);
        }
        match length {
            Some(length) if !crate::represent::compression_decision::has_no_content(status) => {
                fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            _ => drop(fields.remove(header::CONTENT_LENGTH)),
        }
        Ok(StoredHead::new(StoredHeadParts {
            status,
            initial_age,
            own: compact(&own_fields, &[]),
            fields,
            variant,
            freshness,
            audience,
            fetched_in: times.received.saturating_duration_since(times.requested),
            received: times.received,
            fetch_epoch: fetching.begun,
            _watched: self.cache.invalidation.watch(&invalidation_keys),
            invalidation_keys: invalidation_keys.into_boxed_slice(),
            tags: tags.into_boxed_slice(),
        }))
    }

    /// Returns whether a stored response is fresh, so that only the client demanded its revalidation.
    pub(super) fn is_fresh(&self, candidate: &Candidate) -> bool {
        let head = &candidate.stored.head;
        let age = head.age_if_valid(&self.cache.invalidation, clock::now());
        age.is_some_and(|age| reuse(&head.freshness, age, &RequestDirectives::default()) == Reuse::Fresh)
    }

    /// Ends a fetch whose response is not stored: remembers that for later requests, and tells those that wait.
    pub(super) fn unfit(
        &self,
        fetching: &mut Fetching,
        unfit: &NotStored,
        status: StatusCode,
        length: Option<u64>,
    ) {
        let event = match unfit {
            NotStored::Unkept(Unkept::TooLarge) => Event::TooLarge,
            _ => Event::Refused,
        };
        self.record.cached().count(event);
        self.record.not_stored(unfit.as_str());
        let key = fetching.read.memory_key();
        let traits = fetching.read.traits;
        // A response about this request alone says nothing about the next one.
        let whose = fetching.read.passes(self.record.route().cache.route_settings.scope);
        let of_request_alone = traits.conditional || is_of_request_alone(status);
        // The client demanded a revalidation of a response that others still get. A refusal of this client says nothing
        // about them (RFC 9111 4.4, 5.2.1.4); only a response that can replace the stored one does.
        let is_kept = fetching.candidate.as_ref().is_some_and(|candidate| self.is_fresh(candidate));
        let second = self.cache.second(fetching.requested);
        match unfit {
            // The next response may be stored, unless it could be too long again.
            NotStored::Unkept(Unkept::Unexpected) if length.is_some() => {
                self.cache.hit_for_miss.forget(key, whose)
            }
            NotStored::Unkept(Unkept::Unexpected | Unkept::Overtaken | Unkept::Fragment) => {}
            NotStored::Refused(NotStorable::RequestNoStore) => {}
            _ if of_request_alone || is_kept => {}
            _ => self.cache.hit_for_miss.remember(key, whose, second),
        }
        // A response that the upstream replaced is not used any more (RFC 9111 4.3.3), even if the replacement cannot
        // be stored.
        let replaced =
            !matches!(unfit, NotStored::Refused(NotStorable::RequestNoStore | NotStorable::Credentials))
                && !matches!(unfit, NotStored::Unkept(Unkept::Fragment))
                && !of_request_alone
                && !is_kept
                && whose == hit_for_miss::RequesterClass::Any;
        if let (true, Some(candidate)) = (replaced, &fetching.candidate) {
            self.cache.store.forget(&fetching.read.key, &candidate.stored);
        }
        // A refusal of one client says nothing about the requests that wait, until one of them is refused too.
        let is_refused = of_request_alone && status.is_client_error() && !fetching.read.follows_refused;
        let says_nothing =
            is_refused || matches!(unfit, NotStored::Unkept(Unkept::Overtaken | Unkept::Fragment));
        if fetching.leader.is_some() && !is_kept && !says_nothing {
            self.cache.hit_for_miss.remember(key, hit_for_miss::RequesterClass::Waiting, second);
        }
        classify::recycle(std::mem::take(&mut fetching.read.key));
        if let Some(leader) = fetching.leader.take() {
            if matches!(unfit, NotStored::Unkept(Unkept::Overtaken)) {
                leader.tell(FetchOutcome::Overtaken);
                return;
            }
            leader.tell(if is_refused { FetchOutcome::Refused } else { FetchOutcome::NotShared });
        }
    }
}
