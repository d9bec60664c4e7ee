//! The policy in force and the objects built from it, swapped as one.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::cache::Cache;
use crate::cache::counters::RouteCounters;
use crate::fleet::copies::Copies;
use crate::fleet::own_writes::OwnWrites;
use crate::fleet::process::Fleet;
use crate::limit::Limiter;
use crate::limit::counters::LimitCounters;
use crate::log::recent::Recent;
use crate::log::tail::Tail;
use crate::memory::buffers::BufferMemory;
use crate::metrics::{Heartbeats, Metrics, RouteSeries};
use crate::performance::{self, Performance};
use crate::policy::{Policy, RoutePolicy};
use crate::redis::thread::Links;
use crate::rendering::json_text::EscapedText;
use crate::represent::counters::Counters;
use crate::state::maintenance::Maintenance;
use crate::state::route_digest;
use crate::state::warming::Warming;
use crate::trace::Spans;
use crate::upstream::Upstream;

/// Label of messages refused before they were requests.
pub(crate) static REFUSED: EscapedText = EscapedText::plain("refused");

/// State that outlives every reload, shared by all threads.
#[derive(Clone, Debug)]
pub(crate) struct SharedState {
    pub metrics: Arc<Metrics>,
    /// Counters of content negotiation and compression.
    pub represented: Arc<Counters>,
    /// Memory for bytes that wait for a slow client.
    pub buffers: Arc<BufferMemory>,
    pub cache: Arc<Cache>,
    /// The processes that share Redis with this one, if `[redis]` is configured.
    pub fleet: Option<Arc<Fleet>>,
    pub redis: Option<Links>,
    /// The stored responses of all of them, if they share any.
    pub copies: Option<Arc<Copies>>,
    /// What clients read after their own writes, if the configuration cares.
    pub own_writes: Option<Arc<OwnWrites>>,
    pub limiter: Arc<Limiter>,
    /// What `[[warm]]` knows of clients.
    pub warming: Arc<Warming>,
    pub performance: Arc<Performance>,
    pub maintenance: Arc<Maintenance>,
    /// Time of the last heartbeat of every worker.
    pub heartbeats: Arc<Heartbeats>,
    /// Spans queued for the trace receiver.
    pub spans: Spans,
    /// Readers of live decisions.
    pub tail: Arc<Tail>,
    /// The latest decisions.
    pub recent: Arc<Recent>,
}

/// Everything that a reload replaces, as one generation.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Generation number, counting up from 1.
    pub generation: u64,
    pub policy: Policy,
    pub upstreams: Vec<Arc<Upstream>>,
    series: Vec<Arc<RouteSeries>>,
    cached: Vec<Arc<RouteCounters>>,
    times: Vec<Arc<performance::Route>>,
    rules: Vec<u64>,
    limited: Vec<Arc<LimitCounters>>,
    refused: Arc<RouteSeries>,
}

impl Snapshot {
    /// Creates a snapshot from a policy and the upstreams built for it.
    pub(crate) fn new(
        generation: u64,
        policy: Policy,
        upstreams: Vec<Arc<Upstream>>,
        shared_state: &SharedState,
    ) -> Snapshot {
        let SharedState { metrics, cache, limiter, performance, .. } = shared_state;
        let refused = metrics.routes.series(&REFUSED);
        // The last series counts unmatched requests, and must not be folded away by many routes before it.
        let unmatched = metrics.routes.series(&policy.routes.unmatched().label);
        let mut series: Vec<_> =
            policy.routes.routes.iter().map(|route| metrics.routes.series(&route.label)).collect();
        if let Some(last) = series.last_mut() {
            *last = unmatched;
        }
        // All three are looked up by the label of the series, so that they fold the same routes.
        let cached = series.iter().map(|series| cache.counters.route(series.label())).collect();
        let times = series.iter().map(|series| performance.route(series.label())).collect();
        let rules = policy.routes.routes.iter().map(|route| route_digest::local(&policy, route)).collect();
        let of_limit = |(tier, limit): &(String, String)| limiter.counters.get(tier, limit);
        let limited = policy.limits.series.iter().map(of_limit).collect();
        Snapshot { generation, policy, upstreams, series, cached, times, rules, limited, refused }
    }

    /// Returns a number for all rules that decide how responses of the route at `order` are shared. It is part of the
    /// cache key, so responses stored under other rules are not found anymore.
    pub(crate) fn rules(&self, order: Option<u32>) -> u64 {
        let found = order.and_then(|order| self.rules.get(order as usize)).or(self.rules.last());
        found.copied().unwrap_or_default()
    }

    /// Returns the counters of the limit whose series is at `series`.
    pub(crate) fn limited(&self, series: usize) -> &LimitCounters {
        self.limited.get(series).expect("every limit has its series: the compiler numbers both")
    }

    /// Returns the cache counters of the route at `order`.
    pub(crate) fn cached(&self, order: Option<u32>) -> &Arc<RouteCounters> {
        let found = order.and_then(|order| self.cached.get(order as usize)).or(self.cached.last());
        found.expect("there is a route for requests that match none")
    }

    /// Returns the response times of the route at `order`.
    pub(crate) fn times(&self, order: Option<u32>) -> Option<&Arc<performance::Route>> {
        order.and_then(|order| self.times.get(order as usize)).or(self.times.last())
    }

    /// Returns the request counters of the route at `order`.
    pub(crate) fn series(&self, order: Option<u32>) -> &Arc<RouteSeries> {
        order
            .and_then(|order| self.series.get(order as usize))
            .or(self.series.last())
            .unwrap_or(&self.refused)
    }

    /// Returns the counters of messages refused before they were requests.
    pub(crate) fn refused(&self) -> &Arc<RouteSeries> {
        &self.refused
    }

    /// Returns the policy of the route at `order`, or of unmatched requests.
    pub(crate) fn route(&self, order: Option<u32>) -> &Arc<RoutePolicy> {
        order
            .and_then(|order| self.policy.routes.routes.get(order as usize))
            .unwrap_or_else(|| self.policy.routes.unmatched())
    }
}

/// The snapshot in force. Only `reload` stores into it.
pub(crate) type LivePolicy = Arc<ArcSwap<Snapshot>>;

/// One worker's view of the snapshot in force: a pointer comparison while nothing changes.
pub(crate) type PolicyView = arc_swap::Cache<LivePolicy, Arc<Snapshot>>;
