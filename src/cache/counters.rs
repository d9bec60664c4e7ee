//! What is counted of the cache, and how it looks to a scrape.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::apart::Apart;
use super::tripwire::Tripwire;
use crate::metrics::Cell;

/// What happens to a request, an answer or something stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Answered from what is stored and fresh.
    Hit,
    /// Answered from what is stored and stale, which was allowed.
    HitStale,
    /// Nothing was stored that fits.
    Miss,
    /// What was stored had to be asked about.
    Expired,
    /// The request wanted the app to be asked.
    Requested,
    /// The cache was passed by.
    Bypass,
    /// The request waited for another one's fetch.
    Collapsed,
    Stored,
    /// An answer was not to be stored.
    Refused,
    /// An answer did not fit.
    TooLarge,
    /// The app said that what is stored holds on.
    Unchanged,
    /// The app sent something else.
    Changed,
    /// It could not be asked.
    Failed,
    /// Used stale while the app was asked.
    WhileRevalidate,
    /// Used stale because the request takes that.
    MaxStale,
    /// Used stale in place of an error.
    IfError,
}

impl Event {
    pub(super) const ALL: [Event; 16] = [
        Event::Hit,
        Event::HitStale,
        Event::Miss,
        Event::Expired,
        Event::Requested,
        Event::Bypass,
        Event::Collapsed,
        Event::Stored,
        Event::Refused,
        Event::TooLarge,
        Event::Unchanged,
        Event::Changed,
        Event::Failed,
        Event::WhileRevalidate,
        Event::MaxStale,
        Event::IfError,
    ];

    pub(super) fn labels(self) -> (&'static str, &'static str) {
        match self {
            Event::Hit => ("lookup", "hit"),
            Event::HitStale => ("lookup", "stale"),
            Event::Miss => ("lookup", "miss"),
            Event::Expired => ("lookup", "expired"),
            Event::Requested => ("lookup", "request"),
            Event::Bypass => ("lookup", "bypass"),
            Event::Collapsed => ("lookup", "collapsed"),
            Event::Stored => ("store", "stored"),
            Event::Refused => ("store", "refused"),
            Event::TooLarge => ("store", "too-large"),
            Event::Unchanged => ("validate", "unchanged"),
            Event::Changed => ("validate", "changed"),
            Event::Failed => ("validate", "failed"),
            Event::WhileRevalidate => ("serve-stale", "while-revalidate"),
            Event::MaxStale => ("serve-stale", "max-stale"),
            Event::IfError => ("serve-stale", "if-error"),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    events: [Cell; Event::ALL.len()],
    /// Whether its users are given each other's answers.
    pub tripwire: Tripwire,
    /// Which cookie keeps a user's copies apart.
    pub apart: Apart,
}

impl RouteCounters {
    pub(crate) fn count(&self, event: Event) {
        self.events[event as usize].add(1);
    }

    pub(crate) fn get(&self, event: Event) -> u64 {
        self.events[event as usize].get()
    }
}

/// How many lookups were answered from what is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HitRatio {
    /// Responses from what is stored, fresh or stale, without asking the app.
    pub hits: u64,
    /// Requests for which something stored was looked for.
    pub lookups: u64,
    /// Requests that passed the cache by.
    pub bypassed: u64,
}

impl HitRatio {
    fn new(route: &RouteCounters) -> HitRatio {
        let hits = route.get(Event::Hit) + route.get(Event::HitStale);
        let others = [Event::Miss, Event::Expired, Event::Requested].map(|event| route.get(event));
        HitRatio { hits, lookups: hits + others.iter().sum::<u64>(), bypassed: route.get(Event::Bypass) }
    }

    pub(crate) fn and(self, other: HitRatio) -> HitRatio {
        HitRatio {
            hits: self.hits + other.hits,
            lookups: self.lookups + other.lookups,
            bypassed: self.bypassed + other.bypassed,
        }
    }

    /// From 0 to 1; `None` where nothing was looked for.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (self.lookups > 0).then(|| self.hits as f64 / self.lookups as f64)
    }
}

/// Upper bounds of the ages of hits.
pub(super) const AGES: [Duration; 8] = {
    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    [
        seconds(1),
        seconds(5),
        seconds(15),
        seconds(60),
        seconds(300),
        seconds(900),
        seconds(3600),
        seconds(86_400),
    ]
};

/// Labels beyond this many share one.
const MAX_LABELS: usize = 1000;
const OTHER: &str = "other";

/// The label of a write's target, which it invalidates whatever the rules say (RFC 9111 4.4).
pub(crate) const TARGET: &str = "target";

/// For the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) routes: Mutex<HashMap<String, Arc<RouteCounters>>>,
    pub(super) invalidations: Mutex<HashMap<String, Arc<Cell>>>,
    /// Invalidations of targets, of which nearly every write is one: beside the others, behind no lock.
    pub(super) targets: Cell,
    pub(super) ages: [Cell; AGES.len() + 1],
    pub(super) age_seconds: Cell,
    /// Routes whose caching was stopped because users were given each other's answers.
    pub tripped: Cell,
    /// Comparisons made to find such routes.
    pub compared: Cell,
    pub background: Cell,
}

impl Counters {
    /// Those of a route, made at its first sight.
    pub(crate) fn route(&self, label: &str) -> Arc<RouteCounters> {
        named(&self.routes, label)
    }

    /// Counts an invalidation by its rule or by what caused it.
    pub(crate) fn count_invalidation(&self, rule: &str) {
        match rule {
            TARGET => self.targets.add(1),
            _ => named(&self.invalidations, rule).add(1),
        }
    }

    /// Counts the age of a hit.
    pub(crate) fn hit_at(&self, age: Duration) {
        self.ages[AGES.partition_point(|bound| *bound < age)].add(1);
        self.age_seconds.add(age.as_secs());
    }

    /// Hits and lookups by route, in the order of their labels.
    pub(crate) fn hits_by_route(&self) -> Vec<(String, HitRatio)> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> =
            routes.iter().map(|(label, route)| (label.clone(), HitRatio::new(route))).collect();
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found
    }

    /// How often, over all routes, each by its name.
    pub(crate) fn totals(&self) -> Vec<(String, u64)> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |event: Event| {
            let (operation, result) = event.labels();
            (format!("{operation} {result}"), routes.values().map(|route| route.get(event)).sum())
        };
        Event::ALL.into_iter().map(named).collect()
    }
}

fn named<T: Default>(map: &Mutex<HashMap<String, Arc<T>>>, label: &str) -> Arc<T> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = map.get(label) {
        return known.clone();
    }
    let label = if map.len() < MAX_LABELS { label } else { OTHER };
    map.entry(label.to_owned()).or_default().clone()
}
