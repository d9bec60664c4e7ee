//! Pillion: a reverse-proxy sidecar. One binary, one TOML file, any HTTP app.
//!
//! # The map
//!
//! A request comes off a connection in [`server`] (over [`http1`] or hyper's HTTP/2), goes through the
//! layers of [`layer`], and leaves by [`upstream`]; on its way back [`represent`] gives the answer the form
//! its client asked for. What it may do was decided by [`config`] when it
//! compiled the file into a [`policy`]; [`app`] puts everything together, [`reload`] swaps the policy,
//! [`admin`] shows and steers. [`cli`] holds the commands.
//!
//! Rooms import only downwards:
//!
//! `cli` `internals` > `app` > `reload` > `server` `admin` `config` > `layer` > `state` > `trace` > `upstream` > `log` >
//! `policy` > `cache` `identity` `limit` `performance` `represent` > `metrics` > `http1` `http2` > `connection` >
//! `message` > `fields` > `memory` `rendering` `runtime`
//!
//! The crate is closed: what others may use is the binary. [`internals`] shows parts to the benchmarks and the fuzz targets.
//!
//! # Three absences
//!
//! - No engine (and nothing below `layer`, but for the two HTTP rooms) knows tower, and none knows TOML.
//! - Nothing outside [`config`] sees the raw file.
//! - Nobody but [`reload`] swaps the policy.
//!
//! `tests/layering.rs` holds all of this.

#![forbid(unsafe_code)]

mod admin;
mod app;
mod cache;
mod cli;
mod config;
mod connection;
mod fields;
mod http1;
mod http2;
mod identity;
#[doc(hidden)]
pub mod internals;
mod layer;
mod limit;
mod log;
mod memory;
mod message;
mod metrics;
mod performance;
mod policy;
mod reload;
mod rendering;
mod represent;
mod runtime;
mod server;
mod state;
mod trace;
mod upstream;

pub use cli::main;
