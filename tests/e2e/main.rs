//! Black-box tests: the real binary with real sockets, real clients and real upstreams, one module for each subject.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod cache;
mod clients;
mod config;
mod convert;
mod demo;
mod deploy;
mod examples;
mod explain;
mod first_hour;
mod fleet;
mod framing;
mod health;
mod http2_apps;
mod lifecycle;
mod limits;
mod metrics;
mod operations;
mod packages;
mod performance;
mod poisoning;
mod privacy;
mod rates;
mod real;
mod represent;
mod sequences;
mod sessions;
mod slow;
mod streaming;
mod tasks;
mod traces;
mod upstream;
