//! The decision of the limits about one request.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::limit::Which;
use crate::limit::cells::Key;
use crate::limit::counters::Verdict;
use crate::limit::tier::Tier;

/// What the limits said of a request.
#[derive(Debug)]
pub(crate) struct Limited {
    /// Whose it is: the partition key.
    pub key: Key,
    pub tier: Arc<Tier>,
    pub violated: SmallVec<[Which; 2]>,
}

impl Limited {
    /// The decision, in a word.
    pub(super) fn word(&self) -> &'static str {
        match (self.violated.is_empty(), self.tier.shadow) {
            (true, _) => Verdict::Allowed.as_str(),
            (false, true) => Verdict::WouldLimit.as_str(),
            (false, false) => Verdict::Limited.as_str(),
        }
    }
}
