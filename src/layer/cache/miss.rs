//! A request that no stored response answers, and the stored response that the upstream may be asked about.

use super::classify::Lookup;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::store::stored::StoredResponse;

/// What is stored for a request and cannot be used without asking.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub stored: StoredResponse,
    /// An invalidation has left nothing of it: it may only be asked about, by a strong tag.
    pub gone: bool,
}

/// A request that goes to the app.
pub(super) struct Miss {
    pub read: Box<Lookup>,
    pub why: FwdReason,
    /// What is stored for it.
    pub candidate: Option<Candidate>,
}
