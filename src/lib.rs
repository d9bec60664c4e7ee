//! Pillion: a reverse-proxy sidecar. One binary, one TOML file, any HTTP app.
//!
//! # The map
//!
//! A request arrives on a connection in [`server`] (over [`http1`] or hyper's HTTP/2), passes the layers of [`layer`],
//! and leaves through [`upstream`]. On the way back, [`represent`] gives the response the form that its client asked
//! for. [`config`] compiles the configuration file into a [`policy`], which decides about requests. [`app`] puts
//! everything together, [`reload`] swaps the policy, and [`admin`] serves operators. [`cli`] has the commands; those
//! for manifests read and write [`yaml`].
//!
//! Rooms import only downwards:
//!
//! `cli` `internals` > `app` > `reload` > `server` `admin` `config` > `layer` > `state` > `trace` > `upstream` >
//! `log` > `fleet` > `policy` > `cache` `identity` `limit` `performance` `represent` > `metrics` > `http1` `http2` `redis` >
//! `connection` > `message` > `fields` > `memory` `rendering` `runtime` `yaml`
//!
//! The crate has no public API: the product is the binary. [`internals`] exports parts for the benchmarks and the fuzz
//! targets.
//!
//! # Three absences
//!
//! - No engine (and nothing below `layer`, except for the two HTTP rooms) depends on tower, and none on TOML.
//! - Only [`config`] sees the raw file.
//! - Only [`reload`] swaps the policy.
//!
//! `tests/house/layering` checks all of this.

#![forbid(unsafe_code)]

mod admin;
mod app;
mod cache;
mod cli;
mod config;
mod connection;
mod fields;
mod fleet;
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
mod redis;
mod reload;
mod rendering;
mod represent;
mod runtime;
mod server;
mod state;
mod trace;
mod upstream;
mod yaml;

pub use cli::main;
