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
//! `cli` `contract` > `app` > `reload` > `server` `admin` `config` > `layer` > `trace` > `upstream` > `log` > `policy` > `cache` `identity`
//! `limit` `performance` `represent` >
//! `metrics` > `http1` `http2` > `inbound` `tunnel` > `fields` > `body` `stream` `lifecycle` `pace` `seats` >
//! `buffers` `clock` `error` `held` `pieces` `prepared` `quoted` `recurring` `scratch` `supervisor` > `words`
//!
//! # Three absences
//!
//! - No engine (and nothing below `layer`, but for the two HTTP rooms) knows tower, and none knows TOML.
//! - Nothing outside [`config`] sees the raw file.
//! - Nobody but [`reload`] swaps the policy.
//!
//! `tests/layering.rs` holds all of this.

pub mod admin;
pub mod app;
pub mod body;
pub mod buffers;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod config;
#[doc(hidden)]
pub mod contract;
pub mod error;
pub mod fields;
pub mod held;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod inbound;
pub mod layer;
pub mod lifecycle;
pub mod limit;
pub mod log;
pub mod metrics;
pub mod pace;
pub mod performance;
pub mod pieces;
pub mod policy;
pub mod prepared;
pub mod quoted;
pub mod recurring;
pub mod reload;
pub mod represent;
pub mod scratch;
pub mod seats;
pub mod server;
pub mod stream;
pub mod supervisor;
pub mod trace;
pub mod tunnel;
pub mod upstream;
mod words;
