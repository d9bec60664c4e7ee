//! Connections: the kinds of streams that carry HTTP, tunnels over them, and the table of all client connections.

pub(crate) mod seats;
pub(crate) mod stream;
pub(crate) mod tunnel;
