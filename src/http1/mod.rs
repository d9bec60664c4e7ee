//! HTTP/1.1 on the wire, both sides (RFC 9112): heads, framing, connections.
//!
//! Pillion owns this room because everything it promises about framing, time and memory is decided
//! here: what is refused and how the refusal is read, who may be silent for how long, what an idle
//! connection costs. `httparse` reads the heads; HTTP/2 is hyper's.
//!
//! Not here: what to answer, where to forward, which fields to write. The server side calls a
//! [`tower::Service`], the client side is driven by `upstream`.

pub(crate) mod buffered;
pub(crate) mod chunked;
pub(crate) mod client;
mod decode;
pub(crate) mod encode;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod head_error;
pub(crate) mod server;

#[cfg(test)]
mod tests;
