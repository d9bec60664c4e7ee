//! What is counted of limits, and how it looks to a scrape.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

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

pub(super) type Series = BTreeMap<(String, String), Arc<LimitCounters>>;

/// Of all limits, for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) series: Mutex<Series>,
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
