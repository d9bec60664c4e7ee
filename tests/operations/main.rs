//! Behavior that an operator decides or reads: lifetimes, readiness, response fields, the admin listener.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod admin_access;
mod fields;
mod lifetimes;
mod loops;
mod readiness;
