//! Tests of limits on the real binary: identification of callers, fields in responses, reloads, and the operator's
//! view.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod callers;
mod concurrency;
mod quotas;
mod told;
mod tools;
