//! A response body on its way to the client, with the resources to release at its end: the permit, and over HTTP/1 the
//! connection.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::address::Address;
use super::pinned::{self, Pinned};
use super::pool::Pool;
use crate::http1::client::ClientConnection;
use crate::http1::client::body::ClientBody;
use crate::memory::buffers;
use crate::memory::buffers::ClientSlot;
use crate::message::body::{Body, BodyError, Duplex};
use crate::message::inbound::Peer;
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::upstream::queue::Permit;

/// One request's lease of an address.
#[derive(Debug)]
pub(super) struct Lease {
    pub address: Arc<Address>,
    /// The permit, held while the connection is in use, or while the stream is open.
    share: Share,
}

/// The permit that a request holds at an address.
#[derive(Debug)]
pub(super) struct Share {
    /// Whether the permit counts in `max_streams`, not in `max_connections`.
    stream: bool,
    permit: Permit,
}

impl Share {
    /// Wraps a permit of `max_connections`.
    pub(super) fn connection(permit: Permit) -> Share {
        Share { stream: false, permit }
    }

    /// Wraps a permit of `max_streams`.
    pub(super) fn stream(permit: Permit) -> Share {
        Share { stream: true, permit }
    }
}

impl Lease {
    /// Counts a request at `address`.
    pub(super) fn new(address: Arc<Address>, share: Share) -> Lease {
        address.in_flight.fetch_add(1, Ordering::Relaxed);
        Lease { address, share }
    }

    /// Exchanges a stream's permit for a connection's.
    pub(super) fn become_request(&mut self, permit: Permit) {
        self.share = Share::connection(permit);
    }

    /// Exchanges the connection's permit for a stream's, if it has none yet. Returns `false` at the limit of streams.
    pub(super) fn become_stream(&mut self) -> bool {
        if self.share.stream {
            return true;
        }
        match self.address.streams.try_acquire(self.share.permit.client()) {
            Some(permit) => {
                self.share = Share::stream(permit);
                true
            }
            None => false,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.address.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The destination of a connection when it is free again.
#[derive(Clone)]
pub(super) struct PoolReturn {
    pub pool: Rc<Pool>,
    /// Maximum idle time of the connection.
    pub keep_alive: Duration,
    /// The client connection, if the connection belongs to it alone.
    pub pinned: Option<Rc<Peer>>,
    /// The client in whose share of waiting connections it counts then.
    pub client: ClientSlot,
}

impl PoolReturn {
    pub(super) fn receive(&self, address: &Arc<Address>, connection: Box<ClientConnection>, now: Instant) {
        match &self.pinned {
            Some(peer) => pinned::keep(peer, self.client, address.clone(), Pinned::Http1(connection)),
            None => self.pool.put(address, connection, self.keep_alive, now),
        }
    }
}

/// The body of an HTTP/1 response.
pub(super) struct LeasedHttp1 {
    pub body: ClientBody,
    /// The lease, dropped when the body has ended.
    pub lease: Option<Lease>,
    /// The destination of the connection at that time.
    pub pool_return: PoolReturn,
}

impl LeasedHttp1 {
    fn settle(&mut self) -> Option<Lease> {
        let lease = self.lease.take()?;
        if let Some(connection) = self.body.take_connection() {
            self.pool_return.receive(&lease.address, connection, clock::now());
        }
        Some(lease)
    }
}

impl http_body::Body for LeasedHttp1 {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.body.is_end_stream() {
            let lease = self.settle();
            frame = held_back(frame, lease);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns the last frame of a response. Without room for unread content, the frame keeps the lease until it was
/// written, so there are never more such responses than permits.
fn held_back(
    frame: Option<Result<Frame<Bytes>, BodyError>>,
    lease: Option<Lease>,
) -> Option<Result<Frame<Bytes>, BodyError>> {
    match (frame, lease) {
        (Some(Ok(frame)), Some(lease)) if buffers::is_pressed() && frame.is_data() => {
            Some(Ok(frame.map_data(|data| buffers::hold(data, lease))))
        }
        (frame, _) => frame,
    }
}

/// The body of an HTTP/2 response or an upgraded connection: only the lease is released.
pub(super) struct Leased {
    pub body: Body,
    pub lease: Option<Lease>,
}

impl http_body::Body for Leased {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.body.is_end_stream() {
            frame = held_back(frame, self.lease.take());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An upgraded connection that holds its lease.
pub(super) struct LeasedIo {
    pub io: Box<dyn Duplex>,
    pub _lease: Lease,
}

impl AsyncRead for LeasedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for LeasedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
