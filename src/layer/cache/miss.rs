//! A request that no stored response serves, and the stored response that it may revalidate.

use super::classify::Lookup;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::selection::Candidate;

/// A request that goes to the upstream.
pub(super) struct Miss {
    pub read: Box<Lookup>,
    pub why: FwdReason,
    /// The stored response for it.
    pub candidate: Option<Candidate>,
}
