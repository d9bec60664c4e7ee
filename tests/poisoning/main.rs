//! Cache poisoning and its kin: what an app reads in a request and the cache key does not, tried on the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod explained;
mod fields;
mod paths;
mod patterns;
mod queries;

use harness::Answer;
use harness::origin::status_of;

/// Whether a response was served from the cache.
fn is_hit(answer: &Answer) -> bool {
    status_of(answer).contains("; hit")
}

/// Whether the request passed the cache by.
fn is_bypass(answer: &Answer) -> bool {
    status_of(answer).contains("fwd=bypass")
}
