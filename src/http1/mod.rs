//! HTTP/1.1 on the wire, both sides (RFC 9112): heads, framing, connections.
//!
//! Pillion implements this itself because it decides everything that Pillion promises about framing, time and memory:
//! which messages are refused and how the refusal reaches the client, which timeouts apply, and the cost of an idle
//! connection. `httparse` parses the heads; HTTP/2 is left to hyper.
//!
//! Not here: which response to send, where to forward, which fields to write. The server side calls a
//! [`tower::Service`]; the client side is driven by `upstream`.

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
