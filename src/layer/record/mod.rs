//! The record of one request on its way through the layers: unchanging facts, a timeline, and an outcome for each layer
//! that only this layer writes. `observe` counts the request when the last byte was sent. Logs and traces follow a
//! moment later.

mod body_observers;
mod cache;
mod completion;
mod error;
mod limit;
mod memory;
mod own_fields;
mod performance;
mod report;
mod represent;
mod request_info;
mod route;
mod sink;
#[cfg(test)]
mod tests;
mod timeline;
mod upstream;

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use crate::cache::Cache;
use crate::cache::counters::RouteCounters;
use crate::fields::cache_status::Member;
use crate::identity::credential::Unverified;
use crate::identity::jwt::Claims;
use crate::memory::buffers::{BufferReservation, ClientSlot, Room};
use crate::policy::RoutePolicy;
use crate::represent::counters::Counters;
use crate::runtime::clock::{self, Instant};
use crate::state::warming::Warming;
use cache::CacheOutcome;
use error::ErrorOutcome;
use limit::LimitOutcome;
use memory::HeldMemory;
use represent::RepresentOutcome;
use route::RouteOutcome;
use timeline::Timeline;
use upstream::UpstreamOutcome;

pub(crate) use body_observers::{RequestBodyObserver, ResponseBodyObserver};
pub(crate) use cache::CacheHandling;
pub(crate) use limit::LimitDecision;
pub(crate) use report::{report_completed, report_until_stopped};
pub(crate) use request_info::{HTTP_2, RequestInfo, request_id};
pub(crate) use sink::Sink;

/// The status recorded for a client that left before the response, as in nginx.
pub(crate) const CLIENT_GONE: u16 = 499;

/// The record of one request and its response. It is one allocation, shared by the layers of one request.
pub(crate) struct RequestRecord {
    pub info: RequestInfo,
    sink: Rc<Sink>,
    pub timeline: Timeline,
    pub route: RouteOutcome,
    pub limit: LimitOutcome,
    pub represent: RepresentOutcome,
    pub cache: CacheOutcome,
    pub upstream: UpstreamOutcome,
    pub error: ErrorOutcome,
    pub memory: HeldMemory,
    /// The status of the response.
    status: Cell<Option<StatusCode>>,
    verified_claims: OnceCell<Result<Option<Claims>, Unverified>>,
}

impl RequestRecord {
    /// Creates the record of a client's request. The request counts as in flight from here on, and is counted, logged
    /// and traced when it ends.
    pub(crate) fn start(info: RequestInfo, sink: Rc<Sink>) -> RequestRecord {
        sink.shared_state.metrics.routes.in_flight.fetch_add(1, Ordering::Relaxed);
        RequestRecord::new(info, sink, Timeline::default())
    }

    /// Creates the record of a request that no client sent. It is neither counted nor logged.
    pub(crate) fn uncounted(info: RequestInfo, sink: Rc<Sink>) -> RequestRecord {
        RequestRecord::new(info, sink, Timeline::uncounted())
    }

    /// Creates the record of a background request that starts `now` for this one. It has the same route and rank, and
    /// is neither counted nor logged.
    pub(crate) fn for_background(&self, now: Instant) -> RequestRecord {
        let background = RequestRecord::uncounted(self.info.for_background(now), self.sink.clone());
        background.route.take_routes_of(&self.route);
        background.limit.set_rank(self.limit.rank());
        background
    }

    fn new(info: RequestInfo, sink: Rc<Sink>, timeline: Timeline) -> RequestRecord {
        RequestRecord {
            info,
            sink,
            timeline,
            route: RouteOutcome::default(),
            limit: LimitOutcome::default(),
            represent: RepresentOutcome::default(),
            cache: CacheOutcome::default(),
            upstream: UpstreamOutcome::default(),
            error: ErrorOutcome::default(),
            memory: HeldMemory::default(),
            status: Cell::new(None),
            verified_claims: OnceCell::new(),
        }
    }

    /// Records the status of the response. Only the first call counts.
    pub(crate) fn response_started(&self, status: StatusCode) {
        self.status.set(self.status.get().or(Some(status)));
    }

    /// Records that the head of the response is sent. `endless` means that its content has no expected end.
    pub(crate) fn head_sent(&self, endless: bool) {
        self.timeline.head_sent(clock::now().saturating_duration_since(self.info.started), endless);
    }

    /// Records that the upstream is asked from `now` on.
    pub(crate) fn upstream_started(&self, now: Instant) {
        self.upstream.progress.reset();
        self.timeline.upstream_started(now);
    }

    /// Records that the upstream responded or failed.
    pub(crate) fn upstream_ended(&self) {
        let responded = self.upstream.progress.responded.get();
        self.timeline.upstream_ended(responded.unwrap_or_else(clock::now));
    }

    /// Returns the verified claims of the request's token, computed on the first call.
    pub(crate) fn verified_claims(&self, headers: &HeaderMap) -> &Result<Option<Claims>, Unverified> {
        self.verified_claims.get_or_init(|| {
            let identity = &self.info.snapshot.policy.identity;
            if !identity.proves() {
                return Ok(None);
            }
            identity.verified_claims(headers, clock::unix_seconds(self.wall()) as u64)
        })
    }

    /// Sets the claims of the request's token, which then is not verified.
    pub(crate) fn assume_claims(&self, claims: Claims) {
        // Claims that are verified already stay.
        let _ = self.verified_claims.set(Ok(Some(claims)));
    }

    /// Returns the time by the wall clock at which the request is decided about.
    pub(crate) fn wall(&self) -> SystemTime {
        self.sink.wall.unwrap_or_else(clock::wall)
    }

    /// Returns what `[[warm]]` knows of clients.
    pub(crate) fn warming(&self) -> &Warming {
        &self.sink.shared_state.warming
    }

    /// Returns the policy of the request's route.
    pub(crate) fn route_policy(&self) -> &RoutePolicy {
        self.route.policy(&self.info.snapshot)
    }

    /// Returns the cache counters of the request's route.
    pub(crate) fn cache_counters(&self) -> &Arc<RouteCounters> {
        self.route.cache_counters(&self.info.snapshot)
    }

    /// Returns a number that identifies all rules about sharing responses under the request's route.
    pub(crate) fn sharing_rules(&self) -> u64 {
        self.route.sharing_rules(&self.info.snapshot)
    }

    /// Edits a response that Pillion made itself, as the request's routes edit upstream responses.
    pub(crate) fn edit_own_response(&self, headers: &mut HeaderMap) {
        let rewriting = self.route.rewriting_policy(&self.info.snapshot);
        for route in [Some(self.route_policy()), rewriting].into_iter().flatten() {
            route.response.apply_to_own(headers);
        }
    }

    /// Records the `Cache-Status` member. Returns false if it has to be among the response's fields, because a route
    /// edits them or they are not sent as lines.
    pub(crate) fn set_cache_status(&self, member: Member<'static>) -> bool {
        let beside = self.info.takes_lines() && !self.route.edits_response();
        if beside {
            self.cache.set_status_member(member);
        }
        beside
    }

    /// Returns an empty reservation of buffer memory for the client.
    pub(crate) fn reserve_buffer(&self) -> BufferReservation {
        BufferReservation::new(self.sink.shared_state.buffers.clone(), self.info.client_slot())
    }

    /// Reserves memory for a request of which `bytes` have arrived; `reserved` is what its connection reserved already.
    /// `kept` of them and the target stay reserved until the request ends. Returns `None` if there is no room.
    pub(crate) fn reserve_request(
        &self,
        bytes: usize,
        kept: usize,
        reserved: Option<BufferReservation>,
    ) -> Option<BufferReservation> {
        let client = self.info.client_slot();
        // Behind a trusted proxy the memory is accounted to another client from here on.
        let mut reserved = match reserved.filter(|reserved| reserved.belongs_to(client)) {
            Some(reserved) => reserved,
            None => self.sink.shared_state.buffers.try_reserve_request(client, bytes)?,
        };
        self.memory.hold(reserved.split(self.info.target_text().len() + kept));
        Some(reserved)
    }

    /// Returns the room that `client` has in the buffer memory.
    pub(crate) fn room(&self, client: ClientSlot) -> Room<'_> {
        Room::new(&self.sink.shared_state.buffers, client)
    }

    /// Returns whether maintenance is on.
    #[inline(always)]
    pub(crate) fn is_maintenance(&self) -> bool {
        self.sink.shared_state.maintenance.is_on()
    }

    /// Returns whether somebody reads live decisions.
    #[inline(always)]
    pub(crate) fn is_tailed(&self) -> bool {
        self.sink.shared_state.tail.is_open()
    }

    /// Returns the cache that all workers share.
    pub(crate) fn shared_cache(&self) -> &Arc<Cache> {
        &self.sink.shared_state.cache
    }

    /// Returns the counters of content negotiation and compression.
    pub(crate) fn represent_counters(&self) -> &Arc<Counters> {
        &self.sink.shared_state.represented
    }

    /// Returns whether a failure may be logged as an event, with the number of events left out before.
    pub(crate) fn may_log_failure(&self) -> Option<u64> {
        self.sink.failures.may(clock::now())
    }

    /// Counts a dropped field of the request.
    pub(crate) fn count_dropped_field(&self, reason: &'static str) {
        self.sink.shared_state.metrics.dropped_field(reason);
    }

    /// Counts a panic in the request's own code.
    pub(crate) fn count_panic(&self) {
        self.sink.shared_state.metrics.panics.inc();
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.client_left();
    }
}

impl fmt::Debug for RequestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestRecord")
            .field("id", &self.info.id)
            .field("target", &self.info.target)
            .finish_non_exhaustive()
    }
}
