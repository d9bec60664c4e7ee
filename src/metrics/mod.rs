//! The metrics of the process and their text formats. Counting costs a few relaxed additions on cells that the caller
//! already holds; names, labels and encoding are handled during the scrape.

pub(crate) mod buffers;
mod durations;
mod exemplars;
mod heartbeat;
mod labels;
mod process;
mod routes;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_protobuf;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub(crate) use durations::Traced;
pub(crate) use heartbeat::Heartbeats;
pub(crate) use labels::{RefusedLabels, ResultLabels};
pub(crate) use process::{WORKER, read_process, read_workers};
pub(crate) use routes::{RouteSeries, Routes, Spent};

use labels::{DigestLabels, DroppedLabels};

/// Prefix of the names of Pillion's metrics.
const PREFIX: &str = "pillion";

/// The format of the exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposition {
    Text,
    /// The text format OpenMetrics 1.0.
    OpenMetrics,
    /// Protobuf messages, with native histograms.
    Protobuf,
}

impl Exposition {
    /// Chooses the format for an `Accept` field. Among formats with the highest weight, the first in the field wins.
    pub(crate) fn asked_for(accept: &str) -> Exposition {
        let known = [
            ("application/vnd.google.protobuf", Exposition::Protobuf),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            ("text/plain", Exposition::Text),
        ];
        let mut best = (0.0f32, Exposition::Text);
        for member in accept.split(',') {
            let mut parts = member.split(';').map(str::trim);
            let media = parts.next().unwrap_or("");
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            if let Some((_, exposition)) = known.iter().find(|(name, _)| media.eq_ignore_ascii_case(name))
                && weight > best.0
            {
                best = (weight, *exposition);
            }
        }
        best.1
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Exposition::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// Creates all results with zero, so that a rate has a start.
fn results<const N: usize>(all: [&'static str; N]) -> Family<ResultLabels, Counter> {
    let family = Family::<ResultLabels, Counter>::default();
    for result in all {
        let _ = family.get_or_create(&ResultLabels { result });
    }
    family
}

/// All metrics, for the life of the process.
pub(crate) struct Metrics {
    registry: Registry,
    /// Metrics with the names that are common to all processes, without Pillion's prefix.
    process: Registry,
    pub routes: Arc<Routes>,
    reloads: Family<ResultLabels, Counter>,
    /// Changes of health by the outcome of their delivery to `health.webhook`.
    webhook: Family<ResultLabels, Counter>,
    /// The generation of the current policy.
    pub generation: Gauge,
    /// One series, whose label is the digest of the effective settings.
    config: Family<DigestLabels, Gauge>,
    /// Whether maintenance is on.
    pub maintenance: Gauge,
    pub connections: Gauge,
    /// Refused client connections, by reason.
    pub refused: Family<RefusedLabels, Counter>,
    /// Dropped request fields, by reason.
    dropped_fields: Family<DroppedLabels, Counter>,
    /// Requests that ended with a panic.
    pub panics: Counter,
    /// Requests whose spans were dropped.
    pub spans_dropped: Counter,
    version: String,
}

impl Metrics {
    /// Creates all metrics with zero. `buckets` are the bounds of the latency histograms, in seconds. `log_dropped`
    /// counts log lines that did not fit or could not be written.
    pub(crate) fn new(buckets: &[f64], max_routes: usize, version: &str, log_dropped: Counter) -> Metrics {
        let mut registry = Registry::with_prefix(PREFIX);
        let routes = Arc::new(Routes::new(buckets, max_routes));
        registry.register_collector(Box::new(routes::Collected(routes.clone())));
        let reloads = results(["applied", "refused"]);
        registry.register("config_reloads", "Reloads of the configuration, by result", reloads.clone());
        let webhook = results(["told", "failed", "dropped"]);
        let help = "Changes of a health check's state, by result of the webhook: told, failed at every \
            try, or dropped from a full queue";
        registry.register("health_webhook", help, webhook.clone());
        let generation = Gauge::default();
        registry.register("config_generation", "Generation of the current configuration", generation.clone());
        let config = Family::<DigestLabels, Gauge>::default();
        let help = "Digest of the effective settings, without the values of secrets; always 1";
        registry.register("config_info", help, config.clone());
        let maintenance = Gauge::default();
        registry.register("maintenance", "Whether maintenance is on (1) or off (0)", maintenance.clone());
        let connections = Gauge::default();
        registry.register("client_connections", "Open client connections", connections.clone());
        let refused = Family::<RefusedLabels, Counter>::default();
        let help = "Client connections rejected, by reason: bad PROXY header, failed TLS, too slow, \
            broken HTTP/2, beyond the share of one client";
        registry.register("client_connections_refused", help, refused.clone());
        // Reasons start at zero, so that a rate has a start.
        for reason in ["proxy", "tls", "timeout", "http2", "share"] {
            let _ = refused.get_or_create(&RefusedLabels { reason });
        }
        registry.register(
            "log_dropped",
            "Log lines dropped because the output did not accept them",
            log_dropped,
        );
        let dropped_fields = Family::<DroppedLabels, Counter>::default();
        for reason in ["underscore", "proxy"] {
            let _ = dropped_fields.get_or_create(&DroppedLabels { reason });
        }
        let help = "Request fields dropped because apps may read them as other fields, by reason";
        registry.register("request_fields_dropped", help, dropped_fields.clone());
        let panics = Counter::default();
        registry.register("panics", "Requests ended by a panic", panics.clone());
        let spans_dropped = Counter::default();
        let help = "Requests whose spans were dropped because the receiver did not accept them";
        registry.register("spans_dropped", help, spans_dropped.clone());
        let info = Info::new(vec![("version", version.to_owned())]);
        registry.register("build", "Version of the running build; always 1", info);
        registry.register_collector(Box::new(process::Workers));
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Collected));
        Metrics {
            registry,
            process,
            routes,
            reloads,
            webhook,
            generation,
            config,
            maintenance,
            connections,
            refused,
            dropped_fields,
            panics,
            spans_dropped,
            version: version.to_owned(),
        }
    }

    pub(crate) fn dropped_field(&self, reason: &'static str) {
        self.dropped_fields.get_or_create(&DroppedLabels { reason }).inc();
    }

    /// Adds a collector for values that another room counts.
    pub(crate) fn collect(&mut self, collector: Box<dyn Collector>) {
        self.registry.register_collector(collector);
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Sets the digest of the settings in force. The scrape runs on the same thread, so it never sees two digests or none.
    pub(crate) fn set_config(&self, digest: &str) {
        self.config.clear();
        self.config.get_or_create(&DigestLabels { digest: digest.to_owned() }).set(1);
    }

    pub(crate) fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a change of health that `health.webhook` was `told`, that `failed` in every attempt, or that was
    /// `dropped`.
    pub(crate) fn webhook(&self, result: &'static str) {
        self.webhook.get_or_create(&ResultLabels { result }).inc();
    }

    /// Renders all metrics in a format.
    pub(crate) fn render(&self, exposition: Exposition) -> Vec<u8> {
        let registries = [&self.registry, &self.process];
        if exposition == Exposition::Protobuf {
            return registries.map(|registry| self.messages(registry)).concat();
        }
        let texts = registries.map(|registry| {
            let mut text = String::with_capacity(16 * 1024);
            // Writing to a string cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, registry);
            text
        });
        let text = text::render(&texts, exposition == Exposition::OpenMetrics);
        let exemplars =
            if exposition == Exposition::OpenMetrics { self.routes.exemplars() } else { Vec::new() };
        if exemplars.is_empty() {
            return text.into_bytes();
        }
        exemplars::into_text(&text, PREFIX, &exemplars).into_bytes()
    }

    /// Encodes a registry as protobuf messages, each preceded by its length.
    fn messages(&self, registry: &Registry) -> Vec<u8> {
        // A registry that fails to encode is left out.
        let mut families = prometheus_protobuf::encode(registry).unwrap_or_default();
        exemplars::into_messages(&mut families, PREFIX, &self.routes.exemplars());
        families.iter().flat_map(prost::Message::encode_length_delimited_to_vec).collect()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Number of stripes: up to this many threads add without sharing a cache line.
const STRIPES: usize = 4;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe(AtomicU64);

/// A counter that several workers add to, each on a cache line of its own. On a shared line, contention between two
/// workers costs more than counting itself.
#[derive(Debug, Default)]
pub(crate) struct Cell([Stripe; STRIPES]);

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES
    };
}

impl Cell {
    pub(crate) fn add(&self, amount: u64) {
        let stripe = STRIPE.with(|stripe| *stripe);
        self.0[stripe].0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scrapers_ask_for() {
        let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, exposition) in [
            ("", Exposition::Text),
            ("*/*", Exposition::Text),
            (prometheus, Exposition::Protobuf),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.6", Exposition::Text),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0", Exposition::Text),
        ] {
            assert_eq!(Exposition::asked_for(accept), exposition, "{accept}");
        }
    }
}
