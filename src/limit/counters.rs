//! What is counted of limits, and how it looks to a scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Limiter;
use crate::metrics::Cell;
use crate::rendering::words::words;

/// Reloads may bring ever new names; beyond so many they are counted together.
const MAX_SERIES: usize = 1000;

/// The tier and limit of what is counted together.
const OTHER: &str = "other";

words! {
    /// What the limits say of a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Verdict {
        Allowed => "allowed",
        /// It does not, and is refused.
        Limited => "limited",
        /// It does not, and passes: the tier is in shadow mode.
        WouldLimit => "would-limit",
    }
}

/// Of one limit of one tier.
#[derive(Debug, Default)]
pub(crate) struct LimitCounters {
    pub allowed: Cell,
    pub limited: Cell,
    /// Requests that would have been, in shadow mode.
    pub would_limit: Cell,
}

type Series = BTreeMap<(String, String), Arc<LimitCounters>>;

/// Of all limits, for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    series: Mutex<Series>,
    /// Requests with an API key that is not listed, where such keys are refused.
    pub rejected: Cell,
}

impl Counters {
    pub(crate) fn get(&self, tier: &str, limit: &str) -> Arc<LimitCounters> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let known = (tier.to_owned(), limit.to_owned());
        if series.len() >= MAX_SERIES && !series.contains_key(&known) {
            return series.entry((OTHER.to_owned(), OTHER.to_owned())).or_default().clone();
        }
        series.entry(known).or_default().clone()
    }
}

impl Counters {
    /// Allowed, limited and would-limit of each tier.
    pub(crate) fn by_tier(&self) -> BTreeMap<String, [u64; 3]> {
        let mut tiers: BTreeMap<String, [u64; 3]> = BTreeMap::new();
        for ((tier, _), counted) in self.series.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let sums = tiers.entry(tier.clone()).or_default();
            let counts = [&counted.allowed, &counted.limited, &counted.would_limit];
            sums.iter_mut().zip(counts).for_each(|(sum, cell)| *sum += cell.get());
        }
        tiers
    }
}

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
            let help = "Decisions of limits, by tier, limit and what was decided";
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
        let help = "Keys of which something is kept";
        gauge.encode(encoder.encode_descriptor("limit_keys", help, None, MetricType::Gauge)?)?;
        let totals = [
            (
                "limit_keys_forgotten",
                "Keys forgotten to make place; they had their whole burst",
                &limiter.cells.forgotten,
            ),
            (
                "limit_overflowed",
                "Requests counted in their tier's overflow cell: no key could be forgotten",
                &limiter.cells.overflowed,
            ),
            (
                "limit_rejected_keys",
                "Requests refused because their API key is not listed",
                &counters.rejected,
            ),
        ];
        for (name, help, cell) in totals {
            let counter = ConstCounter::new(cell.get());
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        Ok(())
    }
}
