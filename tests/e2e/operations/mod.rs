//! Tests of behaviour that an operator configures or observes: lifetimes, readiness, response fields, live decisions, and the admin
//! listener.

mod admin_access;
mod allow;
mod decisions;
mod fields;
mod lifetimes;
mod loops;
mod maintenance;
mod readiness;
mod tail;
mod top;
