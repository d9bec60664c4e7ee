//! The state that all workers share, and the policy in force.

pub(crate) mod live_policy;
pub(crate) mod maintenance;
pub(crate) mod route_digest;
pub(crate) mod warming;
