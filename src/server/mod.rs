//! The client side of the process: listeners, workers, and the start of a connection before HTTP (PROXY header, TLS).
//! Not here: HTTP/1 itself (`http1`), the handling of requests (`layer`).

mod connection;
mod handoff;
mod http2;
pub(crate) mod listener;
pub(crate) mod proxy_protocol;
pub(crate) mod worker;
pub(crate) mod workers;
