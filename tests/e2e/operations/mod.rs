//! Tests of behaviour that an operator configures or observes: lifetimes, readiness, response fields, and the admin
//! listener.

mod admin_access;
mod allow;
mod fields;
mod lifetimes;
mod loops;
mod maintenance;
mod readiness;
