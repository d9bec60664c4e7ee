//! The counters of the limits and how they appear in a scrape.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::Cell;
use crate::rendering::words::words;

/// Maximum number of series; reloads can bring ever new names, and further ones share one series.
const MAX_SERIES: usize = 1000;

/// The tier and limit label of the shared series.
const OTHER: &str = "other";

words! {
    /// The decision of the limits about a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Verdict {
        Allowed => "allowed",
        /// The request exceeds a limit and is refused.
        Limited => "limited",
        /// The request exceeds a limit and passes, because the tier is in shadow mode.
        WouldLimit => "would-limit",
    }
}

/// The counters of one limit of one tier.
#[derive(Debug, Default)]
pub(crate) struct LimitCounters {
    pub allowed: Cell,
    pub limited: Cell,
    /// Requests that would have been refused without shadow mode.
    pub would_limit: Cell,
}

pub(super) type Series = BTreeMap<(String, String), Arc<LimitCounters>>;

/// The counters of all limits, kept for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(super) series: Mutex<Series>,
    /// Requests refused because their API key is not listed.
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
    /// Returns the allowed, limited and would-limit counts of each tier.
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
