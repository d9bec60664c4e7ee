//! Decides about a response of the upstream: stores it, or remembers that it is not stored.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use http_body::Body as _;

use super::exchange::{CacheExchange, Fetching};
use super::pump::Pump;
use super::unattended::{max_unattended, outlive};
use super::{classify, invalidation_keys, stored_response};
use crate::cache::circulation::Circulation;
use crate::cache::collapse;
use crate::cache::collapse::FetchOutcome;
use crate::cache::counters::Event;
use crate::cache::hit_for_miss::RequesterClass;
use crate::cache::in_flight_body::InFlightBody;
use crate::cache::invalidation::tags::{CACHE_GROUPS, TooManyTags, add_response_tags};
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::freshness;
use crate::cache::rules::freshness::Times;
use crate::cache::rules::not_stored::{
    Arrived, Consequences, ForWaiting, Memory, NotStored, Unkept, UnstoredFetch, reconsider, screen,
};
use crate::cache::rules::storability::{NotStorable, RequestTraits, Storable, evaluate};
use crate::cache::rules::stored_fields;
use crate::cache::rules::stored_fields::StoredFields;
use crate::cache::selecting_fields::SelectingFields;
use crate::cache::selection;
use crate::cache::selection::Candidate;
use crate::cache::store::stored::{Content, StoredHead, StoredHeadParts, StoredResponse, weight};
use crate::cache::variant::Variant;
use crate::fields::cache_control::{RequestDirectives, ResponseDirectives};
use crate::fields::cache_status::Member;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::memory::memory_budget::Reservation;
use crate::message::body::Body;
use crate::runtime::clock;

/// The `Cache-Status` detail of a response that was not expected to be storable, because earlier ones were not.
pub(super) const KNOWN: &str = "known";

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
            Err(not_stored) => {
                self.not_stored(&mut fetching, not_stored, parts.status, body.size_hint().exact());
                return self.passed(Response::from_parts(parts, body), why, Some(not_stored.as_str()));
            }
        };
        self.record.cache_counters().note_fetch(head.fetched_in);
        let size = head.size() + weight(fetching.read.key.len());
        let max = self.record.info.cache_settings().max_object_size;
        let (expected, whole) = (body.size_hint().exact(), body.content());
        // Content of known length is read by all requests as it arrives, so all of it must fit.
        let length = expected.filter(|_| whole.is_none()).and_then(|length| usize::try_from(length).ok());
        let reserved = length.map_or(0, InFlightBody::reservation);
        let Some(place) = self.reserve(size, reserved) else {
            self.not_stored(&mut fetching, NotStored::Unkept(Unkept::TooLarge), parts.status, expected);
            return self.passed(Response::from_parts(parts, body), why, Some(Unkept::TooLarge.as_str()));
        };
        let key = std::mem::take(&mut fetching.read.key);
        let asked_by = fetching.read.variant_key.take();
        let forwarded_status = Some(parts.status.as_u16());
        let mut parts = parts;
        stored_fields::strip(&mut parts.headers);
        if let Some(whole) = whole {
            let content = self.whole(&whole, place);
            let stored = StoredResponse { head: Arc::new(head), content: content.clone() };
            let is_stored = self.cache.keep(&key, &stored);
            self.record.cache_counters().count(if is_stored { Event::Stored } else { Event::Refused });
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
        let (cache, counters) = (self.cache.clone(), self.record.cache_counters().clone());
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
        for key in further.chain([&*memory_key]) {
            self.cache.hit_for_miss.forget_stored(key, has_length);
        }
        if !collapse::is_shareable(&head.freshness, head.age(now), head.fetched_in) {
            self.cache.hit_for_miss.remember(&memory_key, RequesterClass::Waiting, self.cache.second(now));
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
        class: RequesterClass,
        response: Response<Body>,
    ) -> Response<Body> {
        self.record.cache_counters().count(Event::Refused);
        let (status, fields) = (response.status(), response.headers());
        let settings = self.record.info.cache_settings();
        let refused = if self.may_have_lifetime(status, fields) {
            let says = ResponseDirectives::from_headers(fields, &settings.targeted);
            let route_settings = &self.record.route_policy().cache.route_settings;
            let of = RequestTraits { personal: class.personal(), ..RequestTraits::default() };
            evaluate(of, (status, fields), &says, (route_settings, settings), self.record.wall()).err()
        } else {
            Some(NotStorable::NoLifetime)
        };
        let length = response.body().size_hint().exact();
        let second = self.cache.second(self.record.info.started);
        let not_stored = match reconsider(refused, length, settings.max_object_size) {
            // The next response is judged.
            Ok(()) => {
                self.cache.hit_for_miss.remember_mixed(&key, class, second, length.is_some());
                Unkept::Unexpected.as_str()
            }
            Err(why) => {
                self.cache.hit_for_miss.remember(&key, class, second);
                why.as_str()
            }
        };
        self.record.cache.set_not_stored(not_stored);
        classify::recycle(key);
        self.passed(response, why, Some(KNOWN))
    }

    fn may_have_lifetime(&self, status: StatusCode, fields: &HeaderMap) -> bool {
        let route_settings = &self.record.route_policy().cache.route_settings;
        freshness::may_have_lifetime(status, fields, route_settings, self.record.info.cache_settings())
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
        let length = body.size_hint().exact();
        let arrived = Arrived {
            is_tunnel: body.is_tunnel(),
            may_have_lifetime: self.may_have_lifetime(status, fields),
            length,
        };
        screen(arrived, self.record.info.cache_settings().max_object_size)?;
        self.head(fetching, status, fields, length.and_then(|length| usize::try_from(length).ok()))
    }

    pub(super) fn head(
        &self,
        fetching: &mut Fetching,
        status: StatusCode,
        fields: &HeaderMap,
        length: Option<usize>,
    ) -> Result<StoredHead, NotStored> {
        let settings = self.record.info.cache_settings();
        let says = ResponseDirectives::from_headers(fields, &settings.targeted);
        let times = Times { requested: fetching.requested, received: clock::now(), wall: self.record.wall() };
        let route_settings = &self.record.route_policy().cache.route_settings;
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
            self.record.route_policy(),
            &self.cache,
            principal,
        );
        if self.cache.invalidation.is_stamped_since(&invalidation_keys, fetching.begun) {
            return Err(NotStored::Unkept(Unkept::Overtaken));
        }
        // Computed before Age is removed from the fields.
        let initial_age = freshness::initial_age(fields, times);
        let has_no_content = crate::represent::compression_decision::has_no_content(status);
        let length = length.filter(|_| !has_no_content);
        let StoredFields { fields, own } =
            stored_fields::select(fields, excluded, &settings.targeted, length, times.wall);
        Ok(StoredHead::new(StoredHeadParts {
            status,
            initial_age,
            own,
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
            circulation: self.circulation(fetching),
        }))
    }

    /// Returns whether other processes may have the response.
    fn circulation(&self, fetching: &Fetching) -> Circulation {
        let route_settings = &self.record.route_policy().cache.route_settings;
        match self.cache.outgoing() {
            Some(outgoing)
                if route_settings.redis && (fetching.read.principal.is_none() || outgoing.sends_users()) =>
            {
                Circulation::Shared
            }
            _ => Circulation::Own,
        }
    }

    /// Returns whether a stored response is fresh, so that only the client demanded its revalidation.
    pub(super) fn is_fresh(&self, candidate: &Candidate) -> bool {
        let directives = RequestDirectives::default();
        selection::is_fresh(&candidate.stored, &directives, &self.cache.invalidation, clock::now())
    }

    /// Ends a fetch whose response is not stored: remembers that for later requests, and tells those that wait.
    pub(super) fn not_stored(
        &self,
        fetching: &mut Fetching,
        why: NotStored,
        status: StatusCode,
        length: Option<u64>,
    ) {
        let event = match why {
            NotStored::Unkept(Unkept::TooLarge) => Event::TooLarge,
            NotStored::Unkept(_) | NotStored::Refused(_) => Event::Refused,
        };
        self.record.cache_counters().count(event);
        self.record.cache.set_not_stored(why.as_str());
        let class = fetching.read.requester_class(self.record.route_policy().cache.route_settings.scope);
        let Consequences { memory, drops_stored, nobody_waits, for_waiting } = UnstoredFetch {
            why,
            status,
            has_length: length.is_some(),
            conditional: fetching.read.traits.conditional,
            is_anybodys: class == RequesterClass::Any,
            has_fresh: fetching.candidate.as_ref().is_some_and(|candidate| self.is_fresh(candidate)),
            follows_refused: fetching.read.follows_refused,
        }
        .consequences();
        let key = fetching.read.memory_key();
        let second = self.cache.second(fetching.requested);
        match memory {
            Memory::Unchanged => {}
            Memory::Remember => self.cache.hit_for_miss.remember(key, class, second),
            Memory::Forget => self.cache.hit_for_miss.forget(key, class),
        }
        if let (true, Some(candidate)) = (drops_stored, &fetching.candidate) {
            self.cache.forget(&fetching.read.key, &candidate.stored);
        }
        let leader = fetching.leader.take();
        if leader.is_some() && nobody_waits {
            self.cache.hit_for_miss.remember(key, RequesterClass::Waiting, second);
        }
        classify::recycle(std::mem::take(&mut fetching.read.key));
        if let Some(leader) = leader {
            leader.tell(match for_waiting {
                ForWaiting::Overtaken => FetchOutcome::Overtaken,
                ForWaiting::Refused => FetchOutcome::Refused,
                ForWaiting::NotShared => FetchOutcome::NotShared,
            });
        }
    }
}
