//! What a client gets in place of what the app said, end to end: curl decodes for itself, nginx is the app
//! that knows of tags and ranges, and a script is the one that records what it was asked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod codings;
mod conditions;
mod made;
mod ranges;
mod streams;
mod time;
mod tools;
mod weight;
