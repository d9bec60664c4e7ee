//! A request as it comes off a connection, with what the connection knows about it. The same for
//! HTTP/1 and HTTP/2, so the stack above cannot tell them apart except by asking.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use http::{HeaderValue, Request, StatusCode};

use crate::body::Body;
use crate::clock::Instant;
use crate::fields::forwarded::ForwardedFields;

/// The other end of a connection, shared by all its requests.
#[derive(Debug)]
pub struct Peer {
    /// Where the client is: from the PROXY header where that is believed, else from the socket.
    pub address: SocketAddr,
    /// Whether the connection itself is TLS.
    pub tls: bool,
    /// The forwarding fields of the last request, reused while nothing of them changes.
    pub memo: RefCell<Option<Rc<ForwardedFields>>>,
    /// The partition key of the last client's network, with the generation of the policy that made it.
    pub partition: Cell<Option<(u64, [u8; 16], u128)>>,
}

impl Peer {
    /// A peer at `address`.
    pub fn new(address: SocketAddr, tls: bool) -> Peer {
        // Dual-stack sockets show IPv4 clients as mapped addresses; every list is written without.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Peer { address, tls, memo: RefCell::new(None), partition: Cell::new(None) }
    }
}

/// A message refused before it was a request: counted, logged and answered like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status of the answer.
    pub status: StatusCode,
    /// What was wrong.
    pub detail: &'static str,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail)
    }
}

impl std::error::Error for Refused {}

/// A request and what its connection knows about it.
#[derive(Debug)]
pub struct Inbound {
    /// The request, without connection-level fields; in a box, as it goes through many hands.
    pub request: Box<Request<Body>>,
    /// Who sent it.
    pub peer: Rc<Peer>,
    /// When its head was whole.
    pub received: Instant,
    /// The protocols it asks to upgrade to (RFC 9110 7.8, or RFC 8441 in HTTP/2).
    pub upgrade: Option<HeaderValue>,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// Set where the head was refused; `request` is then a placeholder.
    pub refused: Option<Refused>,
}
