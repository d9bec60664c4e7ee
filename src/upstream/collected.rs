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
    ("upstream_connects", "Connections made to the app", |c| c.connects.get() as f64),
    ("upstream_connect_failures", "Connections that could not be made", |c| c.connect_failures.get() as f64),
    ("upstream_retries", "Further tries of a request", |c| c.retries.get() as f64),
    ("upstream_retries_refused", "Further tries that the retry budget refused", |c| {
        c.retries_refused.get() as f64
    }),
    ("upstream_waits", "Requests that waited for a connection", |c| c.waits.get() as f64),
    ("upstream_wait_seconds", "Time requests waited for a connection", |c| {
        c.wait_nanoseconds.get() as f64 / 1e9
    }),
    ("upstream_queue_refused", "Requests refused by the waiting line", |c| c.queue_refused.get() as f64),
];

const GAUGES: [(&str, &str, GaugeOf); 4] = [
    ("upstream_connections_in_use", "Connections in use", |a| {
        (a.limits.connections - a.permits.free().min(a.limits.connections)) as i64
    }),
    ("upstream_connections_idle", "Idle connections kept", |a| a.idle.load(Ordering::Relaxed) as i64),
    ("upstream_requests_in_flight", "Requests in flight", |a| a.in_flight.load(Ordering::Relaxed) as i64),
    ("upstream_waiting", "Requests waiting for a connection", |a| a.waiting.load(Ordering::Relaxed) as i64),
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
        let help = "Requests that got no answer, by cause";
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
        let help = "Whether the address takes part and does not fail";
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
        let help = "Requests the app is given at once, as its latency says";
        let mut limit =
            encoder.encode_descriptor("upstream_concurrency_limit", help, None, MetricType::Gauge)?;
        for (upstream, gate) in gates.clone() {
            let value = i64::try_from(gate.limit()).unwrap_or(i64::MAX);
            limit.encode_family(&labels(upstream))?.encode_gauge(&value)?;
        }
        let help = "Requests turned away because the app has as much to do as it can bear";
        let mut shed = encoder.encode_descriptor("upstream_shed", help, None, MetricType::Counter)?;
        for (upstream, gate) in gates {
            let value = gate.shed.get();
            shed.encode_family(&labels(upstream))?.encode_counter::<Labels<0>, u64, u64>(&value, None)?;
        }
        Ok(())
    }
}
