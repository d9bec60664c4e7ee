//! The metrics of the limits.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Limiter;
use super::counters::{Series, Verdict};
use super::shared::SharedLimits;

pub(crate) struct Collected(pub Arc<Limiter>);

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Collected(limiter) = self;
        let counters = &limiter.counters;
        let series: Series = counters.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !series.is_empty() {
            let help = "Decisions of rate limits and concurrency limits, by tier, limit and decision";
            let mut family = encoder.encode_descriptor("limit_decisions", help, None, MetricType::Counter)?;
            for ((tier, limit), counted) in &series {
                let decisions = [
                    (Verdict::Allowed, counted.allowed.get()),
                    (Verdict::Limited, counted.limited.get()),
                    (Verdict::WouldLimit, counted.would_limit.get()),
                ];
                for (decision, count) in decisions {
                    let labels = [("tier", tier.as_str()), ("limit", limit), ("decision", decision.as_str())];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let held = i64::try_from(limiter.cells.held()).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(held);
        let help = "Rate limit keys with stored state";
        gauge.encode(encoder.encode_descriptor("limit_keys", help, None, MetricType::Gauge)?)?;
        let totals = [
            (
                "limit_keys_forgotten",
                "Rate limit keys removed to make room; their whole burst was available",
                &limiter.cells.forgotten,
            ),
            (
                "limit_overflowed",
                "Requests counted in the overflow cell of their tier because no rate limit key \
                could be removed",
                &limiter.cells.overflowed,
            ),
            (
                "limit_rejected_keys",
                "Requests rejected because their API key is not listed",
                &counters.rejected,
            ),
        ];
        for (name, help, cell) in totals {
            let counter = ConstCounter::new(cell.get());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        limiter.shared.as_ref().map_or(Ok(()), |shared| encode_shared(shared, &mut encoder))
    }
}

fn encode_shared(shared: &SharedLimits, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let counters = &shared.counters;
    let help = "Questions to Redis about shared limits, by result";
    let mut family = encoder.encode_descriptor("limit_shared_questions", help, None, MetricType::Counter)?;
    for (result, count) in [("succeeded", &counters.succeeded), ("failed", &counters.failed)] {
        let counter = ConstCounter::new(count.load(Ordering::Relaxed));
        counter.encode(family.encode_family(&[("result", result)])?)?;
    }
    let help = "Requests whose shared limits were decided without Redis, by redis.on_error";
    let counter = ConstCounter::new(counters.alone.load(Ordering::Relaxed));
    counter.encode(encoder.encode_descriptor("limit_shared_alone", help, None, MetricType::Counter)?)?;
    let help = "Whether limits are counted with the other processes of the fleet: 1 is yes";
    let gauge = ConstGauge::new(i64::from(!shared.is_away()));
    gauge.encode(encoder.encode_descriptor("limit_shared", help, None, MetricType::Gauge)?)
}
