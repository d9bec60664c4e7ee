//! Performance of routes: percentiles, rates and ratios over the last minute, five minutes and hour; single slow or
//! failed requests; and one warning when a route gets bad, and one when it recovers. Counting costs a few relaxed
//! additions. All memory is bounded: routes by `max_routes`, time spans and single requests by number, and single
//! requests also by rate.

pub(crate) mod collected;
pub(crate) mod histogram;
pub(crate) mod judge;
pub(crate) mod window;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use judge::{Judge, Verdict};
use window::{RouteTimes, Sample, Window};

/// Number of single requests kept of each kind.
const KEPT: usize = 256;
/// Maximum single requests recorded in one step. If everything fails, the others are only counted.
const NOTED_A_STEP: u32 = 100;
const WARNINGS: usize = 50;

/// The label that all routes beyond `max_routes` share.
const OTHER: &str = "other";

/// A single request that was slow or failed.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub at: SystemTime,
    pub id: String,
    pub method: String,
    /// The request target, with secrets masked.
    pub target: String,
    pub route: String,
    pub status: u16,
    pub duration: Duration,
    /// Time until the head of the upstream's response.
    pub upstream_time: Option<Duration>,
    pub upstream: Option<String>,
    pub cache: Option<&'static str>,
    pub error: Option<(&'static str, String)>,
}

/// A warning to operators, or its recovery.
#[derive(Clone, Debug)]
pub(crate) struct Warning {
    pub at: SystemTime,
    pub text: String,
    pub recovered: bool,
}

/// The measurements of one route, and the judgment on it.
#[derive(Default)]
pub(crate) struct Route {
    pub times: RouteTimes,
    judge: Mutex<Judge>,
}

/// Performance data of all routes, the latest single requests and the latest warnings.
pub(crate) struct Performance {
    max_routes: usize,
    routes: Mutex<HashMap<String, Arc<Route>>>,
    slow: Mutex<VecDeque<Noted>>,
    failed: Mutex<VecDeque<Noted>>,
    warnings: Mutex<VecDeque<Warning>>,
    noted: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn push<T>(into: &Mutex<VecDeque<T>>, value: T, max: usize) {
    let mut into = lock(into);
    if into.len() == max {
        into.pop_front();
    }
    into.push_back(value);
}

impl Performance {
    /// Creates data for at most `max_routes` routes.
    pub(crate) fn new(max_routes: usize) -> Performance {
        Performance {
            max_routes,
            routes: Mutex::default(),
            slow: Mutex::default(),
            failed: Mutex::default(),
            warnings: Mutex::default(),
            noted: AtomicU32::new(0),
        }
    }

    /// Returns the data of a route, and creates it on first use. Callers keep it, so that counting needs no lookup.
    pub(crate) fn route(&self, label: &str) -> Arc<Route> {
        let mut routes = lock(&self.routes);
        let label = if routes.len() < self.max_routes || routes.contains_key(label) { label } else { OTHER };
        routes.entry(label.to_owned()).or_default().clone()
    }

    /// Returns whether one more single request may be recorded in this step.
    pub(crate) fn may_note(&self) -> bool {
        self.noted.load(Ordering::Relaxed) < NOTED_A_STEP
            && self.noted.fetch_add(1, Ordering::Relaxed) < NOTED_A_STEP
    }

    pub(crate) fn note(&self, noted: Noted, sample: &Sample) {
        if sample.failed {
            push(&self.failed, noted.clone(), KEPT);
        }
        if sample.slow {
            push(&self.slow, noted, KEPT);
        }
    }

    /// Ends a step: moves the windows on and judges every route. Returns the changes as warnings.
    pub(crate) fn step(&self, now: SystemTime) -> Vec<Warning> {
        self.noted.store(0, Ordering::Relaxed);
        let routes: Vec<(String, Arc<Route>)> = self.routes();
        let mut told = Vec::new();
        for (label, route) in routes {
            route.times.step();
            let figures = route.times.over(Window::Minute).0;
            for (recovered, text) in lock(&route.judge).judge(&figures) {
                told.push(Warning { at: now, text: format!("{label}: {text}"), recovered });
            }
        }
        told.iter().for_each(|warning| self.warn(warning.clone()));
        told
    }

    /// Records a warning for the admin listener.
    pub(crate) fn warn(&self, warning: Warning) {
        push(&self.warnings, warning, WARNINGS);
    }

    pub(crate) fn routes(&self) -> Vec<(String, Arc<Route>)> {
        lock(&self.routes).iter().map(|(label, route)| (label.clone(), route.clone())).collect()
    }

    /// Returns the latest slow requests, newest last.
    pub(crate) fn slow(&self) -> Vec<Noted> {
        lock(&self.slow).iter().cloned().collect()
    }

    /// Returns the latest failed requests, newest last.
    pub(crate) fn failed(&self) -> Vec<Noted> {
        lock(&self.failed).iter().cloned().collect()
    }

    /// Returns the latest warnings, newest last.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        lock(&self.warnings).iter().cloned().collect()
    }
}

impl Route {
    /// Returns the current judgment on the route.
    pub(crate) fn verdict(&self) -> Verdict {
        lock(&self.judge).verdict()
    }
}

impl std::fmt::Debug for Performance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Performance")
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Route")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(failed: bool) -> Sample {
        Sample { duration: Duration::from_millis(1), bytes: 0, failed, slow: false, cache: None }
    }

    #[test]
    fn a_route_that_gets_bad_is_told_once_and_its_recovery_too() {
        let performance = Performance::new(10);
        let route = performance.route("/a");
        let mut told = Vec::new();
        for step in 0..60 {
            (0..10).for_each(|request| route.times.add(&sample(step < 20 && request < 3)));
            told.extend(performance.step(SystemTime::UNIX_EPOCH));
        }
        let texts: Vec<(bool, &str)> = told.iter().map(|told| (told.recovered, told.text.as_str())).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(!texts[0].0 && texts[0].1.starts_with("/a: 30% of requests failed"), "{texts:?}");
        assert!(texts[1].0, "{texts:?}");
        assert_eq!(performance.warnings().len(), 2);
    }

    #[test]
    fn routes_and_notes_are_bounded() {
        let performance = Performance::new(3);
        for route in 0..100 {
            performance.route(&route.to_string());
        }
        assert_eq!(performance.routes().len(), 4, "three, and the rest together");
        assert_eq!((0..1000).filter(|_| performance.may_note()).count(), NOTED_A_STEP as usize);
        performance.step(SystemTime::UNIX_EPOCH);
        assert!(performance.may_note());
    }
}
