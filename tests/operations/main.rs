//! Tests of behaviour that an operator configures or observes: lifetimes, readiness, response fields, and the admin
//! listener.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod admin_access;
mod fields;
mod lifetimes;
mod loops;
mod readiness;
