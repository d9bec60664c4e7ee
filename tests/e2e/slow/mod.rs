//! Tests of slow clients: their memory is bounded, and they hold an upstream slot only while the upstream works for
//! them.

mod buffers;
mod connections;
mod fairness;
mod followers;
mod gunicorn;
mod http2_held;
mod memory;
mod rate;
mod requests;
mod requests_held;
mod responses;
mod seats;
mod tools;
mod unread;
