//! Life and death: configuration that is replaced while clients are served, and processes that are
//! told to leave, start badly, or are watched doing so. Real signals to the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod drain;
mod lines;
mod reload;
mod start;
mod tools;
mod watch;
