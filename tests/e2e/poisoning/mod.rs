//! Tests of cache poisoning on the real binary: what an app reads in a request although the cache key lacks it.

mod explained;
mod fields;
mod paths;
mod patterns;
mod queries;

use crate::harness::Answer;
use crate::harness::origin::status_of;

/// Returns whether a response was served from the cache.
fn is_hit(answer: &Answer) -> bool {
    status_of(answer).contains("; hit")
}

/// Returns whether the request bypassed the cache.
fn is_bypass(answer: &Answer) -> bool {
    status_of(answer).contains("fwd=bypass")
}
