//! HTTP/2 towards an upstream: one connection, shared by the requests of one worker.
//!
//! The library handles frames and windows. These modules add the rest: whether the connection is alive (`liveness`),
//! the timeouts of the upstream (`exchange`), and the fault behind a failure (`upload`, `response`).

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
