//! The rules of RFC 9111 as pure decisions: what may be stored, for how long it is fresh, and whether it may be used.

pub(crate) mod conditions;
pub(crate) mod eligibility;
pub(crate) mod forwarding;
pub(crate) mod freshen;
pub(crate) mod freshness;
pub(crate) mod not_stored;
pub(crate) mod reuse;
pub(crate) mod storability;
pub(crate) mod stored_fields;
