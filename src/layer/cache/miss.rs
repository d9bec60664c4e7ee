//! A request that no stored response serves, and the stored response that it may revalidate.

use super::classify::Lookup;
use crate::cache::counters::Event;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::selection::Candidate;
use crate::layer::record::RequestRecord;

/// A request that goes to the upstream.
pub(super) struct Miss {
    pub read: Box<Lookup>,
    pub why: FwdReason,
    /// The stored response for it.
    pub candidate: Option<Candidate>,
    /// Whether it counts as a miss once no other process has the response either.
    pub pending: bool,
}

impl Miss {
    /// Counts it, unless it was counted.
    pub(super) fn count(&mut self, record: &RequestRecord) {
        if std::mem::take(&mut self.pending) {
            record.cache_counters().count(Event::Miss);
        }
    }
}
