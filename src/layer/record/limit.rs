//! The outcome of the limit layer: its decision about the caller, and the permit that the request holds.

use std::cell::{Cell, Ref, RefCell};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::layer::limit::announcement::Announcement;
use crate::limit::cells::Key;
use crate::limit::counters::Verdict;
use crate::limit::tier::Tier;
use crate::limit::{Permit, Which};

/// The decision of the limits about a request.
#[derive(Debug)]
pub(crate) struct LimitDecision {
    /// The partition key of the caller.
    pub key: Key,
    pub tier: Arc<Tier>,
    pub violated: SmallVec<[Which; 2]>,
}

impl LimitDecision {
    /// Returns the verdict as a word for logs.
    pub(super) fn verdict(&self) -> &'static str {
        match (self.violated.is_empty(), self.tier.shadow) {
            (true, _) => Verdict::Allowed.as_str(),
            (false, true) => Verdict::WouldLimit.as_str(),
            (false, false) => Verdict::Limited.as_str(),
        }
    }
}

/// The result of asking the limits, in one cell: its parts are set together.
#[derive(Default)]
struct Decided {
    decision: Option<LimitDecision>,
    /// The state of the caller's limits, for fields of the response.
    announcement: Option<Announcement>,
    /// The concurrency permit, held until the end even if the client left and the request continues.
    permit: Option<Permit>,
}

/// The outcome of the limits for one request.
pub(crate) struct LimitOutcome {
    decided: RefCell<Decided>,
    /// The rank of the caller's tier: when not every request can be served, higher ranks are served longer.
    rank: Cell<usize>,
}

impl Default for LimitOutcome {
    /// Creates the outcome of a request that no limit was applied to. It has the highest rank.
    fn default() -> LimitOutcome {
        LimitOutcome { decided: RefCell::default(), rank: Cell::new(usize::MAX) }
    }
}

impl LimitOutcome {
    /// Records the decision, if the log or a trace shows it; the state of the caller's limits; and the permit to hold
    /// until the end.
    pub(crate) fn decided(
        &self,
        decision: Option<LimitDecision>,
        announcement: Option<Announcement>,
        permit: Option<Permit>,
    ) {
        *self.decided.borrow_mut() = Decided { decision, announcement, permit };
    }

    /// Records the rank of the caller's tier.
    pub(crate) fn set_rank(&self, rank: usize) {
        self.rank.set(rank);
    }

    /// Returns the rank of the caller's tier, or the highest one if limits did not run.
    pub(crate) fn rank(&self) -> usize {
        self.rank.get()
    }

    pub(super) fn decision(&self) -> Option<Ref<'_, LimitDecision>> {
        Ref::filter_map(self.decided.borrow(), |decided| decided.decision.as_ref()).ok()
    }

    pub(super) fn announcement(&self) -> Option<Ref<'_, Announcement>> {
        Ref::filter_map(self.decided.borrow(), |decided| decided.announcement.as_ref()).ok()
    }

    pub(super) fn holds_permit(&self) -> bool {
        self.decided.borrow().permit.is_some()
    }
}
