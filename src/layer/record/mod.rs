//! The record of one request on its way through the layers. Every layer writes what it knows, and `observe` counts the
//! request when the last byte was sent. Logs and traces follow a moment later.

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

/// The status recorded for a client that left before the response, as in nginx.
pub(crate) const CLIENT_GONE: u16 = 499;

/// The protocol whose heads are not lines, as logs write it.
pub(crate) const HTTP_2: &str = "HTTP/2";

/// The record of one request and its response.
pub(crate) struct RequestRecord {
    /// The time when the head of the request was complete.
    pub started: Instant,
    /// The request id, sent as `X-Request-Id`.
    pub id: HeaderValue,
    /// Whether Pillion made the id, instead of a trusted proxy.
    id_is_ours: bool,
    pub method: Method,
    /// The target as received, for the log.
    pub target: Option<PathAndQuery>,
    pub client: std::net::IpAddr,
    /// Whether the client's connection uses TLS.
    pub tls: bool,
    /// The protocol, as logs write it.
    pub protocol: &'static str,
    /// Whether the request is a gRPC call, whose errors have another form.
    pub grpc: bool,
    /// The position of the request in a trace.
    pub trace: Option<Trace>,
    /// The `tracestate` of the request, if it is reported.
    pub trace_state: Option<Box<str>>,
    /// The policy that applies to the request up to the end of its response.
    pub snapshot: Arc<Snapshot>,
    sink: Rc<Sink>,
    route: Cell<Place>,
    /// The first route that matched, whose template fits the target as received. It may have rewritten the path.
    matched: Cell<Option<u32>>,
    /// The route that rewrote the path, before the final match.
    rewritten_by: Cell<Option<u32>>,
    /// The progress of the request at the upstream.
    pub upstream: Outcome,
    /// Time from passing the request to the upstream to the head of the response.
    upstream_time: Cell<Option<Duration>>,
    /// The time when the request was passed to the upstream.
    forwarded: Cell<Option<Instant>>,
    pub upstream_status: Cell<Option<StatusCode>>,
    /// The coding of the response, and the counter of bytes before it.
    coded: RefCell<Option<Coded>>,
    verified_claims: OnceCell<Result<Option<Claims>, Unverified>>,
    /// The state of the caller's limits, for fields of the response.
    announcement: RefCell<Option<Announcement>>,
    /// The rank of the caller's tier: when not every request can be served, higher ranks are served longer.
    rank: Cell<usize>,
    /// The concurrency permit, held until the end even if the client left and the request continues.
    permit: RefCell<Option<Permit>>,
    by_cache: Cell<Option<ByCache>>,
    /// The member of `Cache-Status`, if it is not among the response's fields.
    cache_status: Cell<Option<Member<'static>>>,
    /// Whether routes edit the fields of the response.
    edited: Cell<bool>,
    /// The reason why the response was not stored.
    not_stored: Cell<Option<&'static str>>,
    /// The keyed hash of the principal whose stored responses the request may use, if they are separate.
    principal: Cell<Option<u128>>,
    /// The caller's key and the decision of the limits.
    limited: RefCell<Option<Limited>>,
    error: RefCell<Option<(Fault, String)>>,
    /// The memory of the content, if it is part of the cache key.
    buffered: RefCell<Option<BufferReservation>>,
    status: Cell<Option<StatusCode>>,
    /// Time until the head of the response.
    until_head: Cell<Option<Duration>>,
    /// Whether the response has no expected end.
    endless: Cell<bool>,
    bytes: Cell<u64>,
    /// Bytes of request content received.
    received: Cell<u64>,
    done: Cell<bool>,
}

/// The name of a coding, and a counter of the bytes before it.
type Coded = (&'static str, Rc<Cell<u64>>);

/// The label under which a request is counted.
#[derive(Clone, Copy)]
enum Place {
    Refused,
    Route(Option<u32>),
}

impl RequestRecord {
    /// Creates a record. The request counts as in flight from here on.
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

    /// Returns whether the id equals the id of a trace that starts here.
    pub(crate) fn has_id_of_trace(&self) -> bool {
        self.id_is_ours && self.trace.is_some_and(|trace| trace.begun_here().is_some())
    }

    pub(crate) fn routed(&self, order: Option<u32>) {
        self.matched.set(self.matched.get().or(order));
        self.route.set(Place::Route(order));
    }

    /// Records the route that rewrote the path.
    pub(crate) fn rewritten(&self, order: u32) {
        self.rewritten_by.set(Some(order));
    }

    /// Edits a response that Pillion made itself, as the request's routes edit upstream responses.
    pub(crate) fn edit_own(&self, headers: &mut http::HeaderMap) {
        let rewritten_by = self.rewritten_by.get().map(|order| &**self.snapshot.route(Some(order)));
        for route in [Some(self.route()), rewritten_by].into_iter().flatten() {
            route.response.apply_to_own(headers);
        }
    }

    /// Records the status of the response. Only the first call counts.
    pub(crate) fn response_started(&self, status: StatusCode) {
        self.status.set(self.status.get().or(Some(status)));
    }

    /// Records that the head of the response is sent. `endless` means that its content has no expected end.
    pub(crate) fn begun(&self, endless: bool) {
        self.until_head.set(Some(clock::now().saturating_duration_since(self.started)));
        self.endless.set(endless);
    }

    /// Returns whether the head of the response was sent.
    pub(crate) fn has_begun(&self) -> bool {
        self.until_head.get().is_some()
    }

    /// Returns the slot of the client, for its share of upstream slots and buffer memory.
    pub(crate) fn client_slot(&self) -> ClientSlot {
        ClientSlot::new(self.client, self.snapshot.policy.limits.ipv6_prefix)
    }

    /// Returns an empty reservation of buffer memory for the client.
    pub(crate) fn reserve_buffer(&self) -> BufferReservation {
        BufferReservation::new(self.sink.shared_state.buffers.clone(), self.client_slot())
    }

    /// Reserves memory for a request of which `bytes` have arrived; `reserved` is what its connection reserved already.
    /// `kept` of them and the target stay reserved until the request ends. Returns `None` if there is no room.
    pub(crate) fn reserve_request(
        &self,
        bytes: usize,
        kept: usize,
        reserved: Option<BufferReservation>,
    ) -> Option<BufferReservation> {
        let client = self.client_slot();
        // Behind a trusted proxy the memory is accounted to another client from here on.
        let mut reserved = match reserved.filter(|reserved| reserved.belongs_to(client)) {
            Some(reserved) => reserved,
            None => self.sink.shared_state.buffers.try_reserve_request(client, bytes)?,
        };
        let target = self.target.as_ref().map_or(0, |target| target.as_str().len());
        self.hold_buffer(reserved.split(target + kept));
        Some(reserved)
    }

    /// Keeps a memory reservation until the request ends.
    pub(crate) fn hold_buffer(&self, memory: BufferReservation) {
        let mut buffered = self.buffered.borrow_mut();
        match &mut *buffered {
            Some(held) => held.join(memory),
            None => *buffered = Some(memory),
        }
    }

    /// Returns the room that `client` has in the buffer memory.
    pub(crate) fn room(&self, client: ClientSlot) -> Room<'_> {
        Room::new(&self.sink.shared_state.buffers, client)
    }

    /// Records the coding of the response, and the counter of bytes before it.
    pub(crate) fn coded(&self, coding: &'static str, before: Rc<Cell<u64>>) {
        *self.coded.borrow_mut() = Some((coding, before));
    }

    /// Records an error for the log. Only the first error counts.
    pub(crate) fn failed(&self, fault: Fault, error: String) {
        self.error.borrow_mut().get_or_insert((fault, error));
    }

    /// Records the outcome of the cache. The last call counts.
    pub(crate) fn set_cache_outcome(&self, did: ByCache) {
        self.by_cache.set(Some(did));
    }

    /// Returns the verified claims of the request's token, computed on the first call.
    pub(crate) fn verified_claims(&self, headers: &http::HeaderMap) -> &Result<Option<Claims>, Unverified> {
        self.verified_claims.get_or_init(|| {
            let identity = &self.snapshot.policy.identity;
            if !identity.proves() {
                return Ok(None);
            }
            identity.verified_claims(headers, clock::unix_seconds(clock::wall()) as u64)
        })
    }

    /// Records the principal whose stored responses the request may use.
    pub(crate) fn asked_by(&self, principal: Option<&Principal>) {
        let hash = principal.and_then(|principal| principal.partition.first_chunk());
        self.principal.set(hash.map(|hash| u128::from_be_bytes(*hash)));
    }

    /// Records that the upstream is asked from now on. Earlier time is Pillion's own.
    pub(crate) fn upstream_started(&self, now: Instant) {
        self.upstream.forget();
        self.upstream_time.set(None);
        self.forwarded.set(Some(now));
    }

    /// Records that the upstream responded or failed.
    pub(crate) fn upstream_ended(&self) {
        let ended = self.upstream.responded.get().unwrap_or_else(clock::now);
        self.upstream_took_until(ended);
    }

    fn upstream_took_until(&self, ended: Instant) {
        let since = self.forwarded.get();
        self.upstream_time.set(since.map(|since| ended.saturating_duration_since(since)));
    }

    /// Records why the response was not stored.
    pub(crate) fn not_stored(&self, why: &'static str) {
        self.not_stored.set(Some(why));
    }

    /// Records that the route edits the fields of the response.
    pub(crate) fn set_edited(&self) {
        self.edited.set(true);
    }

    /// Records the `Cache-Status` member. Returns false if it has to be among the response's fields.
    pub(crate) fn says_of_cache(&self, member: Member<'static>) -> bool {
        let apart = self.takes_lines() && !self.edited.get();
        if apart {
            self.cache_status.set(Some(member));
        }
        apart
    }

    /// Returns whether the response is sent as HTTP/1 lines.
    pub(crate) fn takes_lines(&self) -> bool {
        self.protocol != HTTP_2
    }

    /// Records the decision of the limits, for the log.
    pub(crate) fn note_limits(&self, limited: Limited) {
        *self.limited.borrow_mut() = Some(limited);
    }

    /// Records the state of the caller's limits, and the permit to hold until the end.
    pub(crate) fn limited(&self, announcement: Option<Announcement>, permit: Option<Permit>) {
        *self.announcement.borrow_mut() = announcement;
        *self.permit.borrow_mut() = permit;
    }

    /// Records the rank of the caller's tier.
    pub(crate) fn set_rank(&self, rank: usize) {
        self.rank.set(rank);
    }

    /// Returns the rank of the caller's tier, or the highest one if limits did not run.
    pub(crate) fn rank(&self) -> usize {
        self.rank.get()
    }

    /// Returns the cache counters of the route.
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

    /// Returns a number that identifies all rules about sharing responses under the route.
    pub(crate) fn rules(&self) -> u64 {
        match self.route.get() {
            Place::Refused => self.snapshot.rules(None),
            Place::Route(order) => self.snapshot.rules(order),
        }
    }

    /// Creates the record of a background request, which is neither counted nor logged.
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
            // The trace fields are forwarded unchanged: background requests have no spans.
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

    /// Returns the cache settings of a request's policy.
    pub(crate) fn cache_settings(&self) -> &CacheSettings {
        &self.snapshot.policy.cache
    }

    pub(crate) fn represented(&self) -> &Arc<Counters> {
        &self.sink.shared_state.represented
    }

    /// Returns whether a failure may be logged as an event, with the number of events left out before.
    pub(crate) fn may_tell_failure(&self) -> Option<u64> {
        self.sink.failures.may(clock::now())
    }

    /// Counts a dropped field of the request.
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
        f.debug_struct("RequestRecord")
            .field("id", &self.id)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
