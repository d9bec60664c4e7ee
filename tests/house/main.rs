//! Tests of the house itself: its sources, documents, contract with users, and files for operators agree with the code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod contract;
mod dashboards;
mod docs;
mod layering;
mod reference;
mod repository;
mod schema;
mod tasks;
