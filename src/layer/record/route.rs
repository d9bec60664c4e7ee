//! The outcome of the route layer: the route of the request, and all that is looked up by it.

use std::cell::Cell;
use std::sync::Arc;

use crate::cache::counters::RouteCounters;
use crate::log::Secrets;
use crate::metrics::RouteSeries;
use crate::performance;
use crate::policy::RoutePolicy;
use crate::rendering::json_text::EscapedText;
use crate::state::live_policy::{REFUSED, Snapshot};

/// The label under which a request is counted.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// The message was refused before it was a request.
    #[default]
    Refused,
    /// The route with this order, or no route.
    Route(Option<u32>),
}

/// The outcome of routing for one request. Orders are those of the routes in the request's [`Snapshot`].
#[derive(Debug, Default)]
pub(crate) struct RouteOutcome {
    place: Cell<Place>,
    /// The first route that matched, whose template fits the target as received. It may have rewritten the path.
    matched: Cell<Option<u32>>,
    /// The route that rewrote the path, before the final match.
    rewritten_by: Cell<Option<u32>>,
    /// Whether routes edit the fields of the response.
    edits_response: Cell<bool>,
}

impl RouteOutcome {
    /// Records the route at `order`, or that none matches. The last call counts.
    pub(crate) fn set_route(&self, order: Option<u32>) {
        self.matched.set(self.matched.get().or(order));
        self.place.set(Place::Route(order));
    }

    /// Records the route that rewrote the path.
    pub(crate) fn set_rewritten_by(&self, order: u32) {
        self.rewritten_by.set(Some(order));
    }

    /// Records that routes edit the fields of the response.
    pub(crate) fn set_edits_response(&self) {
        self.edits_response.set(true);
    }

    pub(super) fn edits_response(&self) -> bool {
        self.edits_response.get()
    }

    /// Takes the routes of another request: its background request is not routed again.
    pub(super) fn take_routes_of(&self, other: &RouteOutcome) {
        self.place.set(other.place.get());
        self.matched.set(other.matched.get());
        self.rewritten_by.set(other.rewritten_by.get());
    }

    /// Returns the order of the final route; `None` also for a refused message.
    fn order(&self) -> Option<u32> {
        match self.place.get() {
            Place::Refused => None,
            Place::Route(order) => order,
        }
    }

    /// Returns the policy of the final route.
    pub(super) fn policy<'s>(&self, snapshot: &'s Snapshot) -> &'s RoutePolicy {
        snapshot.route(self.order())
    }

    /// Returns the policy of the route that rewrote the path.
    pub(super) fn rewriting_policy<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s RoutePolicy> {
        self.rewritten_by.get().map(|order| &**snapshot.route(Some(order)))
    }

    /// Returns the request counters of the final route.
    pub(super) fn series<'s>(&self, snapshot: &'s Snapshot) -> &'s Arc<RouteSeries> {
        match self.place.get() {
            Place::Refused => snapshot.refused(),
            Place::Route(order) => snapshot.series(order),
        }
    }

    /// Returns the cache counters of the final route.
    pub(super) fn cache_counters<'s>(&self, snapshot: &'s Snapshot) -> &'s Arc<RouteCounters> {
        snapshot.cached(self.order())
    }

    /// Returns the response times of the final route; `None` for a refused message.
    pub(super) fn times<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Arc<performance::Route>> {
        match self.place.get() {
            Place::Refused => None,
            Place::Route(order) => snapshot.times(order),
        }
    }

    /// Returns a number that identifies all rules about sharing responses under the final route.
    pub(super) fn sharing_rules(&self, snapshot: &Snapshot) -> u64 {
        snapshot.rules(self.order())
    }

    /// Returns the label of the request in the log.
    pub(super) fn label<'s>(&self, snapshot: &'s Snapshot) -> &'s EscapedText {
        match self.place.get() {
            Place::Refused => &REFUSED,
            Place::Route(order) => &snapshot.route(order).label,
        }
    }

    /// Returns the label of the final route; `None` if no route matches.
    pub(super) fn matched_label<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s EscapedText> {
        self.order().map(|order| &snapshot.route(Some(order)).label)
    }

    /// Returns the parts of the received target that are masked.
    pub(super) fn secrets<'s>(&self, snapshot: &'s Snapshot) -> Secrets<'s> {
        let segments = &snapshot.route(self.matched.get()).secrets;
        Secrets { names: &snapshot.policy.log.mask, segments }
    }
}
