//! Requests by route, method and status: a small table a route, filled as combinations are seen.

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

/// Routes beyond `max_routes` share this label.
const OTHER: &str = "other";
/// Methods that have a label of their own; any other is `other`, so a client cannot invent labels.
const METHODS: [&str; 11] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE", "CONNECT", OTHER];
/// Statuses 100 to 999, as the wire allows them; the app may invent ones above 599.
const STATUSES: usize = 900;

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1)
}

#[derive(Debug)]
struct Series {
    nanoseconds: AtomicU64,
    buckets: Box<[AtomicU64]>,
}

type ByStatus = Box<[OnceLock<Series>]>;

/// One route's counters.
#[derive(Debug)]
pub struct RouteSeries {
    label: String,
    bounds: Arc<[Duration]>,
    methods: [OnceLock<ByStatus>; METHODS.len()],
}

impl RouteSeries {
    /// Counts one request that took `duration` until the last byte of its answer.
    pub fn record(&self, method: &Method, status: StatusCode, duration: Duration) {
        let by_status = self.methods[method_index(method)]
            .get_or_init(|| (0..STATUSES).map(|_| OnceLock::new()).collect());
        let Some(cell) = by_status.get(usize::from(status.as_u16()) - 100) else { return };
        let series = cell.get_or_init(|| Series {
            nanoseconds: AtomicU64::new(0),
            buckets: (0..=self.bounds.len()).map(|_| AtomicU64::new(0)).collect(),
        });
        let bucket = self.bounds.partition_point(|bound| *bound < duration);
        series.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        series.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

/// All routes' counters.
#[derive(Debug)]
pub struct Routes {
    bounds: Arc<[Duration]>,
    seconds: Vec<f64>,
    max_routes: usize,
    series: Mutex<HashMap<String, Arc<RouteSeries>>>,
    /// Requests whose answer has not ended.
    pub in_flight: AtomicI64,
}

impl Routes {
    pub(super) fn new(buckets: &[f64], max_routes: usize) -> Routes {
        Routes {
            bounds: buckets.iter().map(|seconds| Duration::from_secs_f64(*seconds)).collect(),
            seconds: buckets.to_vec(),
            max_routes,
            series: Mutex::default(),
            in_flight: AtomicI64::new(0),
        }
    }

    /// The counters of a route, made at its first sight; held by whoever counts.
    pub fn series(&self, label: &str) -> Arc<RouteSeries> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let label = if series.len() < self.max_routes || series.contains_key(label) { label } else { OTHER };
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

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let routes = &self.0;
        let series: Vec<Arc<RouteSeries>> = {
            let series = routes.series.lock().unwrap_or_else(PoisonError::into_inner);
            series.values().cloned().collect()
        };
        let mut rows = Vec::new();
        for route in &series {
            for (method, by_status) in METHODS.iter().zip(&route.methods) {
                let Some(by_status) = by_status.get() else { continue };
                for (status, series) in (100u32..).zip(by_status.iter()) {
                    let Some(series) = series.get() else { continue };
                    let counts: Vec<u64> =
                        series.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
                    let sum = series.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
                    let labels = [
                        ("method", (*method).to_owned()),
                        ("route", route.label.clone()),
                        ("status", status.to_string()),
                    ];
                    rows.push((labels, counts, sum));
                }
            }
        }
        let mut requests = encoder.encode_descriptor(
            "http_requests",
            "Requests by method, route template and status",
            None,
            MetricType::Counter,
        )?;
        for (labels, counts, _) in &rows {
            let mut family = requests.encode_family(labels)?;
            family.encode_counter::<[(&str, &str); 0], _, u64>(&counts.iter().sum::<u64>(), None)?;
        }
        let mut durations = encoder.encode_descriptor(
            "http_request_duration_seconds",
            "From the head of a request to the last byte of its answer",
            None,
            MetricType::Histogram,
        )?;
        for (labels, counts, sum) in &rows {
            let bounds = routes.seconds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
            let mut family = durations.encode_family(labels)?;
            family.encode_histogram::<[(&str, &str); 0]>(*sum, counts.iter().sum(), &buckets, None)?;
        }
        let in_flight = ConstGauge::new(routes.in_flight.load(Ordering::Relaxed));
        let help = "Requests whose answer has not ended";
        let gauge = encoder.encode_descriptor("http_requests_in_flight", help, None, MetricType::Gauge)?;
        in_flight.encode(gauge)
    }
}
