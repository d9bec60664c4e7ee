//! Tests with HTTP/2 upstreams, and of the effects of clients on the connections they share.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod behind;
#[path = "../clients/tools.rs"]
#[allow(dead_code, reason = "these tests use its part")]
mod clients;
mod dead;
mod faults;
mod heads;
mod stalled;
mod times;
mod tls_files;
mod tools;
