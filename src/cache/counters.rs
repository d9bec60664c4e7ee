//! The counters of the cache and how they appear in a scrape.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::apart::Apart;
use super::nameless::Nameless;
use super::tripwire::Tripwire;
use crate::metrics::Cell;

/// An event of a request, a response or a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A fresh stored response was used.
    Hit,
    /// A stale stored response was used, as allowed.
    HitStale,
    /// No stored response fits the request.
    Miss,
    /// The stored response needed revalidation.
    Expired,
    /// The request demanded a response from the upstream.
    Requested,
    /// The request bypassed the cache.
    Bypass,
    /// The request waited for another request's fetch.
    Collapsed,
    Stored,
    /// A response was not storable.
    Refused,
    /// A response was too large to be stored.
    TooLarge,
    /// The upstream confirmed a stored response with 304.
    Unchanged,
    /// The upstream sent another response instead.
    Changed,
    /// The upstream failed during a revalidation.
    Failed,
    /// A stale response was used during its revalidation.
    WhileRevalidate,
    /// A stale response was used because the request accepts it.
    MaxStale,
    /// A stale response was used in place of an error.
    IfError,
    /// A stale response was used because the upstream did not respond in time.
    IfSlow,
    /// A fresh response was fetched anew before its end.
    Ahead,
}

impl Event {
    pub(super) const ALL: [Event; 18] = [
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
        Event::IfSlow,
        Event::Ahead,
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
            Event::IfSlow => ("serve-stale", "if-slow"),
            Event::Ahead => ("refresh", "ahead"),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct RouteCounters {
    events: [Cell; Event::ALL.len()],
    /// Detects whether users receive each other's responses.
    pub tripwire: Tripwire,
    /// Finds the cookies and fields of requests that name no user.
    pub nameless: Nameless,
    /// Finds the cookie that splits a user's stored responses.
    pub apart: Apart,
    /// How long a fetch usually takes, in microseconds; 0 if that is not known.
    fetch: AtomicU64,
}

impl RouteCounters {
    pub(crate) fn count(&self, event: Event) {
        self.events[event as usize].add(1);
    }

    /// Notes how long a fetch took. Each counts for an eighth of what is usual.
    pub(crate) fn note_fetch(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let usual = self.fetch.load(Ordering::Relaxed);
        let now = if usual == 0 { took } else { usual - usual / 8 + took / 8 };
        self.fetch.store(now, Ordering::Relaxed);
    }

    /// Returns how long a fetch usually takes; zero if that is not known.
    pub(crate) fn usual_fetch(&self) -> Duration {
        Duration::from_micros(self.fetch.load(Ordering::Relaxed))
    }

    pub(crate) fn get(&self, event: Event) -> u64 {
        self.events[event as usize].get()
    }
}

/// The number of lookups and how many of them were hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HitRatio {
    /// Responses from the cache, fresh or stale, without a request to the upstream.
    pub hits: u64,
    /// Requests that looked for a stored response.
    pub lookups: u64,
    /// Requests that bypassed the cache.
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

    /// Returns the ratio from 0 to 1; `None` if there was no lookup.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (self.lookups > 0).then(|| self.hits as f64 / self.lookups as f64)
    }
}

/// Upper bounds of the histogram of hit ages.
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

/// Maximum number of labels; further ones share [`OTHER`].
const MAX_LABELS: usize = 1000;
const OTHER: &str = "other";

/// The label of invalidations of a write's own target, which need no rule (RFC 9111 4.4).
pub(crate) const TARGET: &str = "target";

/// The counters of the cache, kept for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) routes: Mutex<HashMap<String, Arc<RouteCounters>>>,
    pub(super) invalidations: Mutex<HashMap<String, Arc<Cell>>>,
    /// Invalidations of targets, counted without a lock because nearly every write makes one.
    pub(super) targets: Cell,
    pub(super) ages: [Cell; AGES.len() + 1],
    pub(super) age_seconds: Cell,
    /// Routes whose caching was stopped because users received each other's responses.
    pub tripped: Cell,
    /// Comparisons made to find such routes.
    pub compared: Cell,
    pub background: Cell,
}

impl Counters {
    /// Returns the counters of a route, created on first use.
    pub(crate) fn route(&self, label: &str) -> Arc<RouteCounters> {
        named(&self.routes, label)
    }

    /// Counts an invalidation by its rule or cause.
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

    /// Returns hits and lookups by route, sorted by label.
    pub(crate) fn hits_by_route(&self) -> Vec<(String, HitRatio)> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> =
            routes.iter().map(|(label, route)| (label.clone(), HitRatio::new(route))).collect();
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found
    }

    /// Returns the totals over all routes, by operation and result.
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
