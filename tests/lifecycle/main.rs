//! Tests of the process's life: reload while clients are served, shutdown, failed starts, and supervision, with real
//! signals to the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod drain;
mod lines;
mod reload;
mod start;
mod tools;
mod watch;
