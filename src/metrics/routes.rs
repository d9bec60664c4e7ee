//! Metrics of requests by route, method and status: a small table for each route, filled as combinations occur.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::durations::{Bounds, Counted, Durations, Traced};
use super::exemplars::Marked;
use super::labels::Labels;
use crate::runtime::clock;

/// The label that all routes beyond `max_routes` share; it counts as one of the labels.
const OTHER: &str = "other";
/// Methods with a label of their own. Any other method is `other`, so that clients cannot create labels.
const METHODS: [&str; 11] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE", "CONNECT", OTHER];
/// Number of possible statuses, 100 to 999. The protocol allows apps to use statuses above 599.
const STATUSES: usize = 900;

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// The durations and sizes of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// Time from the head of the request to the last byte of the response.
    pub whole: Duration,
    /// Time from the head of the request to the head of the response.
    pub first_byte: Duration,
    /// Time until the head of the upstream's response, if the upstream was asked.
    pub upstream: Option<Duration>,
    /// Time until the head of the response, minus the time of the upstream: Pillion's own share.
    pub own: Duration,
    /// Bytes of content sent to clients.
    pub bytes: u64,
    /// Bytes of request content received.
    pub received: u64,
    /// The trace of the request, if it is recorded.
    pub traced: Option<Traced>,
}

#[derive(Debug)]
struct Series {
    whole: Durations,
    first_byte: Durations,
    upstream: OnceLock<Durations>,
    own: Durations,
    bytes: AtomicU64,
    received: AtomicU64,
}

/// The series by status. Most statuses never occur, and such a status takes only a pointer.
type ByStatus = Box<[OnceLock<Box<Series>>]>;

#[derive(Debug)]
pub(crate) struct RouteSeries {
    label: String,
    bounds: Arc<All>,
    methods: [OnceLock<ByStatus>; METHODS.len()],
}

impl RouteSeries {
    /// Returns the label of the route, or the one it shares with others.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn record(&self, method: &Method, status: StatusCode, spent: &Spent) {
        let by_status = self.methods[method_index(method)]
            .get_or_init(|| (0..STATUSES).map(|_| OnceLock::new()).collect());
        let Some(cell) = by_status.get(usize::from(status.as_u16()) - 100) else { return };
        let All { whole, own } = &*self.bounds;
        let series = cell.get_or_init(|| {
            Box::new(Series {
                whole: Durations::new(whole),
                first_byte: Durations::new(whole),
                upstream: OnceLock::new(),
                own: Durations::new(own),
                bytes: AtomicU64::new(0),
                received: AtomicU64::new(0),
            })
        });
        series.whole.add(whole, spent.whole, spent.traced);
        series.first_byte.add(whole, spent.first_byte, spent.traced);
        series.own.add(own, spent.own, spent.traced);
        if let Some(upstream) = spent.upstream {
            series.upstream.get_or_init(|| Durations::new(whole)).add(whole, upstream, spent.traced);
        }
        series.bytes.fetch_add(spent.bytes, Ordering::Relaxed);
        // Most requests have no content.
        if spent.received > 0 {
            series.received.fetch_add(spent.received, Ordering::Relaxed);
        }
    }
}

/// The bounds of all histograms in this file.
#[derive(Debug)]
struct All {
    /// The configured bounds, for whole requests and for the upstream's share.
    whole: Arc<Bounds>,
    /// The bounds for Pillion's own share, which is much shorter.
    own: Arc<Bounds>,
}

/// Bounds for Pillion's own share, in seconds.
const OWN: [f64; 12] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1];

/// The names of the histograms, without the registry's prefix.
const WHOLE: &str = "http_request_duration_seconds";
const FIRST_BYTE: &str = "http_first_byte_duration_seconds";
const UPSTREAM: &str = "http_upstream_duration_seconds";
const OWN_PART: &str = "http_own_duration_seconds";

#[derive(Debug)]
pub(crate) struct Routes {
    bounds: Arc<All>,
    max_routes: usize,
    series: Mutex<HashMap<String, Arc<RouteSeries>>>,
    /// Number of requests whose response has not ended.
    pub in_flight: AtomicI64,
}

impl Routes {
    pub(super) fn new(buckets: &[f64], max_routes: usize) -> Routes {
        let now = clock::wall();
        Routes {
            bounds: Arc::new(All { whole: Bounds::new(buckets, now), own: Bounds::new(&OWN, now) }),
            max_routes,
            series: Mutex::default(),
            in_flight: AtomicI64::new(0),
        }
    }

    pub(crate) fn total(&self) -> u64 {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let methods = series.values().flat_map(|route| route.methods.iter().filter_map(OnceLock::get));
        let all = methods.flat_map(|by_status| by_status.iter().filter_map(OnceLock::get));
        all.map(|series| series.whole.count()).sum()
    }

    /// Calls `with` for each existing series.
    fn each(&self, mut with: impl FnMut(Labels, &Series)) {
        let series: Vec<Arc<RouteSeries>> = {
            let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.values().cloned().collect()
        };
        for route in &series {
            for (method, by_status) in METHODS.iter().zip(&route.methods) {
                let Some(by_status) = by_status.get() else { continue };
                for (status, series) in (100u32..).zip(by_status.iter()) {
                    let Some(series) = series.get() else { continue };
                    let labels = [
                        ("method", (*method).to_owned()),
                        ("route", route.label.clone()),
                        ("status", status.to_string()),
                    ];
                    with(labels, series);
                }
            }
        }
    }

    /// Returns the exemplars of all histograms.
    pub(super) fn exemplars(&self) -> Vec<Marked> {
        let mut marked = Vec::new();
        self.each(|labels, series| {
            let histograms = [
                (WHOLE, Some(&series.whole)),
                (FIRST_BYTE, Some(&series.first_byte)),
                (UPSTREAM, series.upstream.get()),
                (OWN_PART, Some(&series.own)),
            ];
            for (name, histogram) in histograms {
                let exemplars = histogram.map(Durations::exemplars).unwrap_or_default();
                if !exemplars.is_empty() {
                    marked.push(Marked { name, labels: labels.clone(), exemplars });
                }
            }
        });
        marked
    }

    /// Returns the series of a route, and creates it on first use. Callers keep it, so that counting needs no lookup.
    pub(crate) fn series(&self, label: &str) -> Arc<RouteSeries> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        // One label is reserved for `other`.
        let held = series.len() + usize::from(!series.contains_key(OTHER));
        let label = if held < self.max_routes || series.contains_key(label) { label } else { OTHER };
        if let Some(found) = series.get(label) {
            return found.clone();
        }
        let made = Arc::new(RouteSeries {
            label: label.to_owned(),
            bounds: self.bounds.clone(),
            methods: Default::default(),
        });
        series.insert(label.to_owned(), made.clone());
        made
    }
}

#[derive(Debug)]
pub(super) struct Collected(pub(super) Arc<Routes>);

struct Row {
    labels: Labels,
    whole: Counted,
    first_byte: Counted,
    upstream: Option<Counted>,
    own: Counted,
    bytes: u64,
    received: u64,
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let routes = &self.0;
        let All { whole, own } = &*routes.bounds;
        let mut rows: Vec<Row> = Vec::new();
        routes.each(|labels, series| {
            rows.push(Row {
                labels,
                whole: series.whole.counted(whole),
                first_byte: series.first_byte.counted(whole),
                upstream: series.upstream.get().map(|upstream| upstream.counted(whole)),
                own: series.own.counted(own),
                bytes: series.bytes.load(Ordering::Relaxed),
                received: series.received.load(Ordering::Relaxed),
            });
        });
        type CountOf = fn(&Row) -> u64;
        let counters: [(&str, &str, CountOf); 3] = [
            ("http_requests", "Requests by method, route template and status", |row| row.whole.count()),
            ("http_response_content_bytes", "Content of responses as sent, in bytes", |row| row.bytes),
            ("http_request_content_bytes", "Content of requests that was read, in bytes", |row| row.received),
        ];
        for (name, help, count) in counters {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for row in &rows {
                let mut family = descriptor.encode_family(&row.labels)?;
                family.encode_counter::<[(&str, &str); 0], _, u64>(&count(row), None)?;
            }
        }
        type HistogramOf = fn(&Row) -> Option<&Counted>;
        let histograms: [(&str, &str, &Bounds, HistogramOf); 4] = [
            (
                WHOLE,
                "Time from the head of a request to the last byte of its response, in seconds",
                whole,
                |row| Some(&row.whole),
            ),
            (
                FIRST_BYTE,
                "Time from the head of a request to the head of its response, in seconds",
                whole,
                |row| Some(&row.first_byte),
            ),
            (
                UPSTREAM,
                "Time until the head of the upstream's response, or until the client disconnected \
                (499), in seconds; waiting and retries included",
                whole,
                |row| row.upstream.as_ref(),
            ),
            (
                OWN_PART,
                "Time until the head of the response, less the upstream's time, in seconds: \
                Pillion's own time",
                own,
                |row| Some(&row.own),
            ),
        ];
        for (name, help, bounds, histogram) in histograms {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for row in &rows {
                if let Some(counted) = histogram(row) {
                    counted.encode(bounds, descriptor.encode_family(&row.labels)?)?;
                }
            }
        }
        let in_flight = ConstGauge::new(routes.in_flight.load(Ordering::Relaxed));
        let help = "Requests in flight: their response has not ended";
        let gauge = encoder.encode_descriptor("http_requests_in_flight", help, None, MetricType::Gauge)?;
        in_flight.encode(gauge)
    }
}
