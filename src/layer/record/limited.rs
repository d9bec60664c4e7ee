//! The decision of the limits about one request.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::limit::Which;
use crate::limit::cells::Key;
use crate::limit::counters::Verdict;
use crate::limit::tier::Tier;

/// The decision of the limits about a request.
#[derive(Debug)]
pub(crate) struct Limited {
    /// The partition key of the caller.
    pub key: Key,
    pub tier: Arc<Tier>,
    pub violated: SmallVec<[Which; 2]>,
}

impl Limited {
    /// Returns the decision as a word for logs.
    pub(super) fn word(&self) -> &'static str {
        match (self.violated.is_empty(), self.tier.shadow) {
            (true, _) => Verdict::Allowed.as_str(),
            (false, true) => Verdict::WouldLimit.as_str(),
            (false, false) => Verdict::Limited.as_str(),
        }
    }
}
