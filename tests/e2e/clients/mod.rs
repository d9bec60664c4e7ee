//! Tests with real clients: curl, nghttp, h2load, openssl, tonic, tungstenite and the h2 crate, over every protocol of
//! the listeners and to apps over every protocol of the upstreams.

mod apps;
mod fields;
mod frames;
mod grpc;
mod http1;
mod http2;
mod proxy_protocol;
mod spoken;
mod tls;
pub(crate) mod tools;
mod websocket;
