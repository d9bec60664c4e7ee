//! Real clients: curl, nghttp, h2load, openssl, tonic, tungstenite and the h2 crate, over every protocol
//! the front speaks, to apps over every protocol the back speaks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod apps;
mod fields;
mod frames;
mod grpc;
mod http1;
mod http2;
mod proxy_protocol;
mod spoken;
mod tls;
mod tools;
mod websocket;
