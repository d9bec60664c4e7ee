//! Limits on the real binary: who is limited as whom, what answers say, what reloads keep, what operators see.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod callers;
mod concurrency;
mod quotas;
mod told;
mod tools;
