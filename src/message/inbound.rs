//! A request as it comes off a connection, with what the connection knows about it. The same for
//! HTTP/1 and HTTP/2, so the stack above cannot tell them apart except by asking.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderValue, Request, StatusCode};

use crate::fields::forwarded::ForwardedFields;
use crate::memory::buffers::{BufferMemory, BufferReservation};
use crate::message::body::Body;
use crate::runtime::clock::Instant;

/// The other end of a connection, shared by all its requests.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where the client is: from the PROXY header where that is believed, else from the socket.
    pub address: SocketAddr,
    /// Whether the connection itself is TLS.
    pub tls: bool,
    /// Whether it comes from a trusted proxy, which may open connections before it needs them.
    pub trusted: bool,
    /// The forwarding fields of the last request, reused while nothing of them changes.
    pub memo: RefCell<Option<Rc<ForwardedFields>>>,
    /// The memory of what waits for this client to read; `None` where that is not counted.
    pub buffers: Option<Arc<BufferMemory>>,
    /// The partition key of the last client's network, with the generation of the policy that made it.
    pub partition: Cell<Option<(u64, [u8; 16], u128)>>,
    /// The way of interim responses to it.
    pub interim: Interim,
    /// What is its own alone.
    pub pinned: Pinned,
}

impl Peer {
    /// A peer at `address`.
    pub(crate) fn new(address: SocketAddr, tls: bool) -> Peer {
        // Dual-stack sockets show IPv4 clients as mapped addresses; every list is written without.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Peer {
            address,
            tls,
            trusted: false,
            memo: RefCell::new(None),
            buffers: None,
            partition: Cell::new(None),
            interim: Interim::default(),
            pinned: Pinned::default(),
        }
    }
}

/// Connections to upstreams that belong to one client connection, as requests on it authenticated them (NTLM,
/// Negotiate). They end with it.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    /// Whether such a request came. From then on no request of this client connection shares anything with others.
    pub active: Cell<bool>,
    /// The connections, which only the room that makes them knows.
    pub connections: RefCell<Vec<Box<dyn Any>>>,
}

/// Bytes of interim responses that may wait for their connection; further ones are dropped.
const MAX_INTERIM: usize = 64 * 1024;

/// Interim responses (RFC 9110 15.2) on their way from an upstream to the client of one HTTP/1.1 connection.
///
/// Each request of the connection has a number of its own, so what still works for an earlier one cannot write
/// between the responses of a later one. Connections of HTTP/1.0 (RFC 9110 15.2: never sent there) and HTTP/2 (the
/// library writes none) have no number.
#[derive(Debug, Default)]
pub(crate) struct Interim {
    exchange: Cell<u32>,
    open: Cell<bool>,
    heads: RefCell<BytesMut>,
}

impl Interim {
    /// A request begins; `open`: its client understands interim responses.
    pub(crate) fn begin(&self, open: bool) {
        self.exchange.set(self.exchange.get().wrapping_add(1));
        self.open.set(open);
        self.heads.borrow_mut().clear();
    }

    /// The number of the request in progress, where interim responses may be written for it.
    pub(crate) fn current(&self) -> Option<u32> {
        self.open.get().then_some(self.exchange.get())
    }

    /// Lets `write` add one response for the request with this number.
    pub(crate) fn add(&self, exchange: u32, write: impl FnOnce(&mut BytesMut)) {
        let mut heads = self.heads.borrow_mut();
        if self.current() == Some(exchange) && heads.len() < MAX_INTERIM {
            write(&mut heads);
        }
    }

    /// What is to be written now. The final response follows, so nothing comes after `last`.
    pub(crate) fn take(&self, last: bool) -> Option<BytesMut> {
        if last {
            self.open.set(false);
        }
        let mut heads = self.heads.borrow_mut();
        (!heads.is_empty()).then(|| std::mem::take(&mut *heads))
    }
}

/// A message refused before it was a request: counted, logged and answered like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The status of the answer.
    pub status: StatusCode,
    pub detail: &'static str,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail)
    }
}

impl std::error::Error for Refused {}

/// Memory that the map of a head takes for each field, beside the field's bytes.
pub(crate) const FIELD_OVERHEAD: usize = 112;
/// A request that takes no more than this is ordinary, and not counted by itself; bytes.
pub(crate) const ORDINARY: usize = 8 * 1024;

/// The bytes of a request to count in the buffer memory: `content` bytes of head and body in `fields` fields. Zero for an
/// ordinary request, unless its connection has `crowded` others in flight.
pub(crate) fn counted_bytes(content: usize, fields: usize, crowded: bool) -> usize {
    let bytes = content + fields * FIELD_OVERHEAD;
    if crowded || bytes > ORDINARY { bytes } else { 0 }
}

/// A request and what its connection knows about it.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// The request, without connection-level fields; in a box, as it goes through many hands.
    pub request: Box<Request<Body>>,
    pub peer: Rc<Peer>,
    /// When its head was whole.
    pub received: Instant,
    /// The protocols it asks to upgrade to (RFC 9110 7.8, or RFC 8441 in HTTP/2).
    pub upgrade: Option<HeaderValue>,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// Set where the head was refused; `request` is then a placeholder.
    pub refused: Option<Refused>,
    /// Bytes that it holds of the buffer memory until it was sent or answered; see [`counted_bytes`].
    pub counted: usize,
    /// Bytes of [`Inbound::counted`] that it holds until its response has ended.
    pub kept: usize,
    /// The same bytes as [`Inbound::counted`], where its connection has reserved them for as long as it is not known whose request this is.
    pub reserved: Option<BufferReservation>,
}
