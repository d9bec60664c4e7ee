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
//! `cli` `internals` > `app` > `reload` > `server` `admin` `config` > `layer` > `trace` > `upstream` > `log` > `policy` > `cache` `identity`
//! `limit` `performance` `represent` >
//! `metrics` > `http1` `http2` > `inbound` `tunnel` > `fields` > `body` `stream` `lifecycle` `pace` `seats` >
//! `buffers` `clock` `error` `held` `pieces` `prepared` `quoted` `recurring` `scratch` `supervisor` > `words`
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

mod admin;
mod app;
mod body;
mod buffers;
mod cache;
mod cli;
mod clock;
mod config;
mod error;
mod fields;
mod held;
mod http1;
mod http2;
mod identity;
mod inbound;
#[doc(hidden)]
pub mod internals;
mod layer;
mod lifecycle;
mod limit;
mod log;
mod metrics;
mod pace;
mod performance;
mod pieces;
mod policy;
mod prepared;
mod quoted;
mod recurring;
mod reload;
mod represent;
mod scratch;
mod seats;
mod server;
mod stream;
mod supervisor;
mod trace;
mod tunnel;
mod upstream;
mod words;

pub use cli::main;
