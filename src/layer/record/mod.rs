//! What is noted about one request on its way through the stack: every layer writes what it knows,
//! `observe` counts it when the last byte has gone. Logs and traces are told of it a moment later.

mod cache_outcome;
mod ending;
mod limited;
mod own_fields;
mod request_info;
mod sink;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};

use super::limit::announcement::Announcement;
use crate::cache::Cache;
use crate::cache::counters::RouteCounters;
use crate::cache::settings::CacheSettings;
use crate::fields::cache_status::Member;
use crate::identity::credential::Unverified;
use crate::identity::jwt::Claims;
use crate::identity::principal::Principal;
use crate::limit::Permit;
use crate::memory::buffers::{BufferReservation, ClientSlot, Room};
use crate::message::error::Fault;
use crate::policy::RoutePolicy;
use crate::represent::counters::Counters;
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::state::live_policy::Snapshot;
use crate::trace::Trace;
use crate::upstream::Outcome;

pub(crate) use cache_outcome::ByCache;
pub(crate) use ending::{Ending, Receiving, tell_as_they_end, tell_of_ended};
pub(crate) use limited::Limited;
pub(crate) use request_info::{RequestInfo, request_id};
pub(crate) use sink::Sink;

/// The status noted for a client that left before its answer (nginx's word for it).
pub(crate) const CLIENT_GONE: u16 = 499;

/// A protocol whose heads are no lines, as logs write it.
pub(crate) const HTTP_2: &str = "HTTP/2";

/// See the head of the file.
pub(crate) struct RequestRecord {
    /// When the head of the request was whole.
    pub started: Instant,
    /// `X-Request-Id`.
    pub id: HeaderValue,
    /// Whether it is not what a trusted proxy said.
    id_is_ours: bool,
    pub method: Method,
    /// The target as it came; for the log.
    pub target: Option<PathAndQuery>,
    pub client: std::net::IpAddr,
    /// Whether its connection is TLS.
    pub tls: bool,
    /// The protocol, as logs write it.
    pub protocol: &'static str,
    /// Whether it is a gRPC call, which is refused in its own way.
    pub grpc: bool,
    /// Where it stands in a trace.
    pub trace: Option<Trace>,
    /// What came along with that, where it is told.
    pub trace_state: Option<Box<str>>,
    /// The one policy it is served by, answer included.
    pub snapshot: Arc<Snapshot>,
    sink: Rc<Sink>,
    route: Cell<Place>,
    /// The first route that took it, whose template is of the target as it came; it may have rewritten that for the next.
    matched: Cell<Option<u32>>,
    /// The route that rewrote its path, before the one it matched then.
    rewritten_by: Cell<Option<u32>>,
    /// How the app does with it.
    pub upstream: Outcome,
    /// From where it was given to its app to the head of the app's answer.
    upstream_time: Cell<Option<Duration>>,
    /// When it was given to its app.
    forwarded: Cell<Option<Instant>>,
    pub upstream_status: Cell<Option<StatusCode>>,
    /// The coding of the answer, and how much of it there was before.
    coded: RefCell<Option<Coded>>,
    verified_claims: OnceCell<Result<Option<Claims>, Unverified>>,
    /// Where its caller stands, which its answer says.
    announcement: RefCell<Option<Announcement>>,
    /// How long its caller is served when not all can be.
    rank: Cell<usize>,
    /// Held while it is in flight: also when its client has left and it goes on without.
    permit: RefCell<Option<Permit>>,
    by_cache: Cell<Option<ByCache>>,
    /// What its answer is to say of that, where it is not among its fields.
    cache_status: Cell<Option<Member<'static>>>,
    /// Whether its answer's fields are edited on the way.
    edited: Cell<bool>,
    /// Why its answer was not stored, where that was asked.
    not_stored: Cell<Option<&'static str>>,
    /// Whose answers it may be given, where they are kept apart: a keyed hash.
    principal: Cell<Option<u128>>,
    /// Who its caller is and what the limits said.
    limited: RefCell<Option<Limited>>,
    error: RefCell<Option<(Fault, String)>>,
    /// The memory of its content, where that is part of a cache key.
    buffered: RefCell<Option<BufferReservation>>,
    status: Cell<Option<StatusCode>>,
    /// Until the head of the answer.
    until_head: Cell<Option<Duration>>,
    /// Whether the answer has no expected end.
    endless: Cell<bool>,
    bytes: Cell<u64>,
    /// Bytes of content that came.
    received: Cell<u64>,
    done: Cell<bool>,
}

/// The name of a coding, and a count of what goes into it.
type Coded = (&'static str, Rc<Cell<u64>>);

/// Under which label a request is counted.
#[derive(Clone, Copy)]
enum Place {
    Refused,
    Route(Option<u32>),
}

impl RequestRecord {
    /// Begins to observe; the request is in flight from here on.
    pub(crate) fn begin(beginning: RequestInfo, snapshot: Arc<Snapshot>, sink: Rc<Sink>) -> RequestRecord {
        sink.shared_state.metrics.routes.in_flight.fetch_add(1, Ordering::Relaxed);
        let RequestInfo { started, id, id_is_ours, method, target, client, .. } = beginning;
        let RequestInfo { tls, protocol, grpc, trace, trace_state, .. } = beginning;
        RequestRecord {
            started,
            id,
            id_is_ours,
            method,
            target,
            client,
            tls,
            protocol,
            grpc,
            trace,
            trace_state,
            snapshot,
            sink,
            route: Cell::new(Place::Refused),
            matched: Cell::new(None),
            rewritten_by: Cell::new(None),
            upstream: Outcome::default(),
            upstream_time: Cell::new(None),
            forwarded: Cell::new(None),
            upstream_status: Cell::new(None),
            coded: RefCell::new(None),
            verified_claims: OnceCell::new(),
            announcement: RefCell::new(None),
            rank: Cell::new(usize::MAX),
            permit: RefCell::new(None),
            by_cache: Cell::new(None),
            cache_status: Cell::new(None),
            edited: Cell::new(false),
            not_stored: Cell::new(None),
            principal: Cell::new(None),
            limited: RefCell::new(None),
            error: RefCell::new(None),
            buffered: RefCell::new(None),
            status: Cell::new(None),
            until_head: Cell::new(None),
            endless: Cell::new(false),
            bytes: Cell::new(0),
            received: Cell::new(0),
            done: Cell::new(false),
        }
    }

    /// Whether its id is that of a trace that begins with it.
    pub(crate) fn has_id_of_trace(&self) -> bool {
        self.id_is_ours && self.trace.is_some_and(|trace| trace.begun_here().is_some())
    }

    pub(crate) fn routed(&self, order: Option<u32>) {
        self.matched.set(self.matched.get().or(order));
        self.route.set(Place::Route(order));
    }

    /// Notes the route that rewrote its path.
    pub(crate) fn rewritten(&self, order: u32) {
        self.rewritten_by.set(Some(order));
    }

    /// Edits a response that Pillion made itself as its routes edit those of the app.
    pub(crate) fn edit_own(&self, headers: &mut http::HeaderMap) {
        let rewritten_by = self.rewritten_by.get().map(|order| &**self.snapshot.route(Some(order)));
        for route in [Some(self.route()), rewritten_by].into_iter().flatten() {
            route.response.apply_to_own(headers);
        }
    }

    /// Notes the status of the answer; the first one told is what is counted.
    pub(crate) fn response_started(&self, status: StatusCode) {
        self.status.set(self.status.get().or(Some(status)));
    }

    /// The head of the answer goes out; `endless`: its content has no expected end.
    pub(crate) fn begun(&self, endless: bool) {
        self.until_head.set(Some(clock::now().saturating_duration_since(self.started)));
        self.endless.set(endless);
    }

    /// Whether the head of the response has gone out.
    pub(crate) fn has_begun(&self) -> bool {
        self.until_head.get().is_some()
    }

    /// Whose share of the places and of the buffer memory it takes.
    pub(crate) fn client_slot(&self) -> ClientSlot {
        ClientSlot::new(self.client, self.snapshot.policy.limits.ipv6_prefix)
    }

    /// A share of the memory of what is buffered for its client.
    pub(crate) fn reserve_buffer(&self) -> BufferReservation {
        BufferReservation::new(self.sink.shared_state.buffers.clone(), self.client_slot())
    }

    /// Memory of a request of which `bytes` are here; `reserved` where its connection has reserved them. `kept` of them,
    /// and what the record keeps of it, its target, are held until the request has ended. `None`: there is no room for it.
    pub(crate) fn reserve_request(
        &self,
        bytes: usize,
        kept: usize,
        reserved: Option<BufferReservation>,
    ) -> Option<BufferReservation> {
        let client = self.client_slot();
        // Behind a trusted proxy it is another client's from here on.
        let mut reserved = match reserved.filter(|reserved| reserved.belongs_to(client)) {
            Some(reserved) => reserved,
            None => self.sink.shared_state.buffers.try_reserve_request(client, bytes)?,
        };
        let target = self.target.as_ref().map_or(0, |target| target.as_str().len());
        self.hold_buffer(reserved.split(target + kept));
        Some(reserved)
    }

    /// Holds memory of its content until it has ended.
    pub(crate) fn hold_buffer(&self, memory: BufferReservation) {
        let mut buffered = self.buffered.borrow_mut();
        match &mut *buffered {
            Some(held) => held.join(memory),
            None => *buffered = Some(memory),
        }
    }

    /// The room that its client has in the buffer memory; `client` is its slot.
    pub(crate) fn room(&self, client: ClientSlot) -> Room<'_> {
        Room::new(&self.sink.shared_state.buffers, client)
    }

    /// Notes the coding of the answer; `before` counts what goes into it.
    pub(crate) fn coded(&self, coding: &'static str, before: Rc<Cell<u64>>) {
        *self.coded.borrow_mut() = Some((coding, before));
    }

    /// Notes what went wrong, for the log; the first cause is kept.
    pub(crate) fn failed(&self, fault: Fault, error: String) {
        self.error.borrow_mut().get_or_insert((fault, error));
    }

    /// Notes what the cache did; the last word is kept.
    pub(crate) fn set_cache_outcome(&self, did: ByCache) {
        self.by_cache.set(Some(did));
    }

    /// What the token of a request with these fields says; looked at once.
    pub(crate) fn verified_claims(&self, headers: &http::HeaderMap) -> &Result<Option<Claims>, Unverified> {
        self.verified_claims.get_or_init(|| {
            let identity = &self.snapshot.policy.identity;
            if !identity.proves() {
                return Ok(None);
            }
            identity.verified_claims(headers, clock::unix_seconds(clock::wall()) as u64)
        })
    }

    /// Notes whose answers it may be given.
    pub(crate) fn asked_by(&self, principal: Option<&Principal>) {
        let hash = principal.and_then(|principal| principal.partition.first_chunk());
        self.principal.set(hash.map(|hash| u128::from_be_bytes(*hash)));
    }

    /// Notes that an app is asked from now on; what came before is Pillion's own.
    pub(crate) fn upstream_started(&self, now: Instant) {
        self.upstream.forget();
        self.upstream_time.set(None);
        self.forwarded.set(Some(now));
    }

    /// Notes that the app has answered, or that there is no answer to be had.
    pub(crate) fn upstream_ended(&self) {
        let ended = self.upstream.responded.get().unwrap_or_else(clock::now);
        self.upstream_took_until(ended);
    }

    fn upstream_took_until(&self, ended: Instant) {
        let since = self.forwarded.get();
        self.upstream_time.set(since.map(|since| ended.saturating_duration_since(since)));
    }

    /// Notes why its answer was not stored.
    pub(crate) fn not_stored(&self, why: &'static str) {
        self.not_stored.set(Some(why));
    }

    /// The fields of its answer are edited by its route.
    pub(crate) fn set_edited(&self) {
        self.edited.set(true);
    }

    /// Notes what its answer is to say of the cache; false where that has to be among its fields.
    pub(crate) fn says_of_cache(&self, member: Member<'static>) -> bool {
        let apart = self.takes_lines() && !self.edited.get();
        if apart {
            self.cache_status.set(Some(member));
        }
        apart
    }

    /// Whether its answer goes out as lines.
    pub(crate) fn takes_lines(&self) -> bool {
        self.protocol != HTTP_2
    }

    /// Notes what the limits said, for the log.
    pub(crate) fn note_limits(&self, limited: Limited) {
        *self.limited.borrow_mut() = Some(limited);
    }

    /// Notes where its caller stands with their limits, and what is held for as long as it is in flight.
    pub(crate) fn limited(&self, announcement: Option<Announcement>, permit: Option<Permit>) {
        *self.announcement.borrow_mut() = announcement;
        *self.permit.borrow_mut() = permit;
    }

    /// Notes the rank of its caller's tier.
    pub(crate) fn set_rank(&self, rank: usize) {
        self.rank.set(rank);
    }

    /// The rank of its caller's tier; the highest there is where nobody asked.
    pub(crate) fn rank(&self) -> usize {
        self.rank.get()
    }

    /// Where the cache counts for the route.
    pub(crate) fn cached(&self) -> &Arc<RouteCounters> {
        match self.route.get() {
            Place::Refused => self.snapshot.cached(None),
            Place::Route(order) => self.snapshot.cached(order),
        }
    }

    pub(crate) fn route(&self) -> &RoutePolicy {
        match self.route.get() {
            Place::Refused => self.snapshot.route(None),
            Place::Route(order) => self.snapshot.route(order),
        }
    }

    /// Everything that decides who shares answers under the route, as a number.
    pub(crate) fn rules(&self) -> u64 {
        match self.route.get() {
            Place::Refused => self.snapshot.rules(None),
            Place::Route(order) => self.snapshot.rules(order),
        }
    }

    /// The record of a request made in the wake of this one, which is neither counted nor logged.
    pub(crate) fn for_background(&self, now: clock::Instant) -> RequestRecord {
        RequestRecord {
            started: now,
            id: self.id.clone(),
            id_is_ours: self.id_is_ours,
            method: self.method.clone(),
            target: self.target.clone(),
            client: self.client,
            tls: self.tls,
            protocol: self.protocol,
            grpc: false,
            // What came is passed on: nobody is told of a span in the wake of others.
            trace: None,
            trace_state: None,
            snapshot: self.snapshot.clone(),
            sink: self.sink.clone(),
            route: Cell::new(self.route.get()),
            matched: Cell::new(self.matched.get()),
            rewritten_by: Cell::new(self.rewritten_by.get()),
            upstream: Outcome::default(),
            upstream_time: Cell::new(None),
            forwarded: Cell::new(None),
            upstream_status: Cell::new(None),
            coded: RefCell::new(None),
            verified_claims: OnceCell::new(),
            announcement: RefCell::new(None),
            rank: Cell::new(self.rank.get()),
            permit: RefCell::new(None),
            by_cache: Cell::new(None),
            cache_status: Cell::new(None),
            edited: Cell::new(false),
            not_stored: Cell::new(None),
            principal: Cell::new(None),
            limited: RefCell::new(None),
            error: RefCell::new(None),
            buffered: RefCell::new(None),
            status: Cell::new(None),
            until_head: Cell::new(None),
            endless: Cell::new(false),
            bytes: Cell::new(0),
            received: Cell::new(0),
            done: Cell::new(true),
        }
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.sink.shared_state.cache
    }

    /// What all parts of this layer read of a request's policy.
    pub(crate) fn cache_settings(&self) -> &CacheSettings {
        &self.snapshot.policy.cache
    }

    pub(crate) fn represented(&self) -> &Arc<Counters> {
        &self.sink.shared_state.represented
    }

    /// Whether its failure may be told as an event, and of how many others that was not done.
    pub(crate) fn may_tell_failure(&self) -> Option<u64> {
        self.sink.failures.may(clock::now())
    }

    /// Counts a field of the request that was dropped.
    pub(crate) fn dropped_field(&self, reason: &'static str) {
        self.sink.shared_state.metrics.dropped_field(reason);
    }

    pub(crate) fn panicked(&self) {
        self.sink.shared_state.metrics.panics.inc();
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.client_left();
    }
}

impl std::fmt::Debug for RequestRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("id", &self.id).field("target", &self.target).finish_non_exhaustive()
    }
}
