//! The client's side of the process: listeners, workers, and what happens to a connection before it
//! is HTTP (PROXY header, TLS). Not here: HTTP/1 itself (`http1`), what requests mean (`layer`).

mod connection;
mod handoff;
mod http2;
pub(crate) mod listener;
pub(crate) mod proxy_protocol;
pub(crate) mod worker;
pub(crate) mod workers;
