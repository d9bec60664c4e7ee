//! HTTP/2 towards an upstream: one connection, shared by the requests of one worker.
//!
//! The library keeps frames and windows. What it does not keep is here: whether the connection is alive (`liveness`),
//! how long the upstream may take (`exchange`), and whose fault a failure is (`upload`, `response`).

mod connection;
mod errors;
mod exchange;
mod inbox;
mod liveness;
mod response;
mod shared;
mod upload;

pub(super) use connection::Http2Connection;
pub(super) use exchange::Passing;
pub(super) use shared::LARGE_HEAD;
