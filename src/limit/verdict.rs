//! The question about a request, and the verdict of its limits.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::cells::{Cells, Key};
use super::tier::{Concurrency, Limit, NameId, Tier};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub key: Key,
    pub tier: &'a Tier,
    /// The limits that the route names; `None`: no quota applies on this route.
    pub named: Option<&'a [NameId]>,
    /// Number of requests that this request counts as.
    pub cost: NonZeroU32,
    /// The limit of requests in flight on the route.
    pub concurrency: Option<Concurrency>,
}

impl<'a> Ask<'a> {
    /// The limits that hold for the request, each with its index in the tier.
    pub(super) fn limits(&self) -> impl Iterator<Item = (usize, &'a Limit)> + use<'a> {
        let tier = self.tier;
        self.named.into_iter().flat_map(move |named| tier.limits_on(named))
    }

    pub(super) fn has_quota(&self) -> bool {
        self.limits().next().is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Quota(usize),
    /// The route's limit of requests in flight.
    Concurrency,
}

/// The state of a key under one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub which: Which,
    /// Number of requests that may be sent now.
    pub remaining: u32,
    /// Time until the request conforms if it does not, else until the whole burst is available again. `None` for
    /// requests in flight, whose end is unknown.
    pub wait: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    /// The limits that were exceeded; none if the request conforms.
    pub violated: SmallVec<[Which; 2]>,
    /// The limit that is closest to exhaustion, or exceeded for longest. `None` if no limit applies.
    pub closest: Option<Standing>,
    /// Held while the request is in flight.
    pub permit: Option<Permit>,
    /// Whether the request is refused because Redis is away and limits are to be closed then.
    pub unavailable: bool,
}

impl Verdict {
    pub(crate) fn conforms(&self) -> bool {
        self.violated.is_empty() && !self.unavailable
    }
}

/// A request in flight; dropping this ends it.
#[derive(Debug)]
pub(crate) struct Permit {
    pub(super) cells: Arc<Cells>,
    pub(super) hash: u128,
    pub(super) rule: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The cell exists: requests in flight keep it from being forgotten.
        self.cells.find(self.hash, |cell| {
            let left = cell.value(self.rule).saturating_sub(1);
            // The entry exists, so no other entry of the cell is evicted.
            cell.set(self.rule, left, 0);
        });
    }
}
