//! A request as it comes off a connection, with what the connection knows about it. HTTP/1 and HTTP/2 use the same
//! type, so the stack above tells them apart only by the request's version.

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
    /// Address of the client: from the PROXY header if it is trusted, otherwise from the socket.
    pub address: SocketAddr,
    /// Whether the connection itself is TLS.
    pub tls: bool,
    /// Whether the connection comes from a trusted proxy, which may open connections before it needs them.
    pub trusted: bool,
    /// The forwarding fields of the last request, reused while their inputs do not change.
    pub memo: RefCell<Option<Rc<ForwardedFields>>>,
    /// Memory for bytes that wait for this client to read; `None` if they are not counted.
    pub buffers: Option<Arc<BufferMemory>>,
    /// Partition key of the last client's network, with the generation of the policy that computed it.
    pub partition: Cell<Option<(u64, [u8; 16], u128)>>,
    /// Interim responses on their way to the client.
    pub interim: Interim,
    /// Upstream connections that belong to this client connection alone.
    pub pinned: Pinned,
}

impl Peer {
    /// Creates a peer at `address`, which is neither trusted nor counted.
    pub(crate) fn new(address: SocketAddr, tls: bool) -> Peer {
        // Dual-stack sockets show IPv4 clients as mapped addresses; configured lists use plain IPv4.
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

/// Upstream connections that belong to one client connection, because requests on it authenticated them (NTLM,
/// Negotiate). They close with the client connection.
#[derive(Debug, Default)]
pub(crate) struct Pinned {
    /// Whether a request with such authentication was seen. From then on no request of this client connection shares
    /// anything with others.
    pub active: Cell<bool>,
    /// The connections; only the module `upstream`, which opens them, knows their type.
    pub connections: RefCell<Vec<Box<dyn Any>>>,
}

/// Maximum bytes of interim responses that may wait for their connection; further ones are dropped.
const MAX_INTERIM: usize = 64 * 1024;

/// Interim responses (RFC 9110 15.2) on their way from an upstream to the client of one HTTP/1.1 connection.
///
/// Each request of the connection has its own number, so work left over from an earlier request cannot write between
/// the responses of a later one. HTTP/1.0 connections (RFC 9110 15.2: never sent there) and HTTP/2 connections (the
/// library writes none) have no number.
#[derive(Debug, Default)]
pub(crate) struct Interim {
    exchange: Cell<u32>,
    open: Cell<bool>,
    heads: RefCell<BytesMut>,
}

impl Interim {
    /// Starts a request. `open` says whether its client understands interim responses.
    pub(crate) fn begin(&self, open: bool) {
        self.exchange.set(self.exchange.get().wrapping_add(1));
        self.open.set(open);
        self.heads.borrow_mut().clear();
    }

    /// Returns the number of the request in progress, if interim responses may be written for it.
    pub(crate) fn current(&self) -> Option<u32> {
        self.open.get().then_some(self.exchange.get())
    }

    /// Runs `write` to add one interim response, if the request with this number is still in progress.
    pub(crate) fn add(&self, exchange: u32, write: impl FnOnce(&mut BytesMut)) {
        let mut heads = self.heads.borrow_mut();
        if self.current() == Some(exchange) && heads.len() < MAX_INTERIM {
            write(&mut heads);
        }
    }

    /// Takes the interim responses to write now. With `last` the final response follows, so no further ones are
    /// accepted.
    pub(crate) fn take(&self, last: bool) -> Option<BytesMut> {
        if last {
            self.open.set(false);
        }
        let mut heads = self.heads.borrow_mut();
        (!heads.is_empty()).then(|| std::mem::take(&mut *heads))
    }
}

/// The refusal of a message before it was a request. It is counted, logged and gets a response like any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Status code of the response.
    pub status: StatusCode,
    pub detail: &'static str,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail)
    }
}

impl std::error::Error for Refused {}

/// Memory in bytes that a header map takes for each field, beside the field's own bytes.
pub(crate) const FIELD_OVERHEAD: usize = 112;
/// Maximum size in bytes of an ordinary request, which is not counted individually.
pub(crate) const ORDINARY: usize = 8 * 1024;

/// Returns the bytes to count in the buffer memory for a request with `content` bytes of head and body in `fields`
/// fields. Returns zero for an ordinary request, unless its connection has many others in flight (`crowded`).
pub(crate) fn counted_bytes(content: usize, fields: usize, crowded: bool) -> usize {
    let bytes = content + fields * FIELD_OVERHEAD;
    if crowded || bytes > ORDINARY { bytes } else { 0 }
}

/// A request and what its connection knows about it.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// The request, without connection-level fields. It is boxed because it is moved often.
    pub request: Box<Request<Body>>,
    pub peer: Rc<Peer>,
    /// Time at which the head was complete.
    pub received: Instant,
    /// The protocols that the client asks to upgrade to (RFC 9110 7.8, or RFC 8441 in HTTP/2).
    pub upgrade: Option<HeaderValue>,
    /// Whether the client accepts trailers.
    pub takes_trailers: bool,
    /// The refusal, if the head was refused; `request` is then a placeholder.
    pub refused: Option<Refused>,
    /// Bytes of buffer memory that the request holds until it was sent upstream or got a response; see
    /// [`counted_bytes`].
    pub counted: usize,
    /// Bytes of [`Inbound::counted`] that are held until the response has ended.
    pub kept: usize,
    /// Reservation of [`Inbound::counted`] bytes, made by the connection until it is known whose request this is.
    pub reserved: Option<BufferReservation>,
}
