//! Metrics of the upstreams, gathered at each scrape.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::address::Address;
use super::counters::Counters;
use super::error::KINDS;
use super::state::Upstream;
use crate::upstream::admission::Gate;

/// A collector that reads the upstreams of the policy in force.
pub(crate) struct Collected(pub Box<dyn Fn() -> Vec<Arc<Upstream>> + Send + Sync>);

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

type Labels<const N: usize> = [(&'static str, String); N];
type CounterOf = fn(&Counters) -> f64;
type GaugeOf = fn(&Address) -> i64;

const COUNTERS: [(&str, &str, CounterOf); 7] = [
    ("upstream_connects", "Connections made to the upstream", |c| c.connects.get() as f64),
    ("upstream_connect_failures", "Connections to the upstream that failed", |c| {
        c.connect_failures.get() as f64
    }),
    ("upstream_retries", "Retries of requests", |c| c.retries.get() as f64),
    ("upstream_retries_refused", "Retries that the retry budget rejected", |c| {
        c.retries_refused.get() as f64
    }),
    ("upstream_waits", "Requests that waited for a connection", |c| c.waits.get() as f64),
    ("upstream_wait_seconds", "Time that requests waited for a connection, in seconds", |c| {
        c.wait_nanoseconds.get() as f64 / 1e9
    }),
    (
        "upstream_queue_refused",
        "Requests rejected by the queue: it was full, or no place became free in time",
        |c| c.queue_refused.get() as f64,
    ),
];

const GAUGES: [(&str, &str, GaugeOf); 4] = [
    ("upstream_connections_in_use", "Connections to an upstream address in use", |a| {
        (a.limits.connections - a.permits.free().min(a.limits.connections)) as i64
    }),
    ("upstream_connections_idle", "Idle connections to an upstream address", |a| {
        a.idle.load(Ordering::Relaxed) as i64
    }),
    ("upstream_requests_in_flight", "Requests in flight to an upstream address", |a| {
        a.in_flight.load(Ordering::Relaxed) as i64
    }),
    ("upstream_waiting", "Requests waiting for a connection to an upstream address", |a| {
        a.waiting.load(Ordering::Relaxed) as i64
    }),
];

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let upstreams = (self.0)();
        for (name, help, value) in COUNTERS {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for upstream in &upstreams {
                let labels: Labels<1> = [("upstream", upstream.policy.name.clone())];
                let value = value(upstream.counters());
                descriptor.encode_family(&labels)?.encode_counter::<Labels<0>, f64, f64>(&value, None)?;
            }
        }
        let help = "Requests that got no response from the upstream, by kind of failure";
        let mut descriptor =
            encoder.encode_descriptor("upstream_failures", help, None, MetricType::Counter)?;
        for upstream in &upstreams {
            for (kind, cell) in KINDS.iter().zip(&upstream.counters().failures) {
                let labels: Labels<2> =
                    [("upstream", upstream.policy.name.clone()), ("kind", (*kind).to_owned())];
                descriptor
                    .encode_family(&labels)?
                    .encode_counter::<Labels<0>, u64, u64>(&cell.get(), None)?;
            }
        }
        let gates = || upstreams.iter().filter_map(|upstream| Some((upstream, upstream.gate()?)));
        if gates().next().is_some() {
            self.encode_gates(&mut encoder, gates())?;
        }
        for (name, help, value) in GAUGES {
            let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for upstream in &upstreams {
                for (_, address) in upstream.addresses() {
                    let labels: Labels<2> =
                        [("upstream", upstream.policy.name.clone()), ("address", address.name.to_string())];
                    descriptor.encode_family(&labels)?.encode_gauge(&value(&address))?;
                }
            }
        }
        let help = "1 if the upstream address is healthy, 0 if it is failing";
        let mut healthy = encoder.encode_descriptor("upstream_healthy", help, None, MetricType::Gauge)?;
        for upstream in &upstreams {
            for (_, address) in upstream.addresses() {
                let labels: Labels<2> =
                    [("upstream", upstream.policy.name.clone()), ("address", address.name.to_string())];
                let well = address.is_well(upstream.policy.health.unhealthy_after);
                healthy.encode_family(&labels)?.encode_gauge(&i64::from(well))?;
            }
        }
        Ok(())
    }
}

impl Collected {
    fn encode_gates<'a>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        gates: impl Iterator<Item = (&'a Arc<Upstream>, &'a Arc<Gate>)> + Clone,
    ) -> Result<(), fmt::Error> {
        let labels = |upstream: &Upstream| -> Labels<1> { [("upstream", upstream.policy.name.clone())] };
        let help = "Adaptive concurrency limit: requests the upstream may have in flight at once";
        let mut limit =
            encoder.encode_descriptor("upstream_concurrency_limit", help, None, MetricType::Gauge)?;
        for (upstream, gate) in gates.clone() {
            let value = i64::try_from(gate.limit()).unwrap_or(i64::MAX);
            limit.encode_family(&labels(upstream))?.encode_gauge(&value)?;
        }
        let help = "Requests shed by adaptive concurrency because the upstream is overloaded";
        let mut shed = encoder.encode_descriptor("upstream_shed", help, None, MetricType::Counter)?;
        for (upstream, gate) in gates {
            let value = gate.shed.get();
            shed.encode_family(&labels(upstream))?.encode_counter::<Labels<0>, u64, u64>(&value, None)?;
        }
        Ok(())
    }
}
