//! An app's answer on its way to the client, holding what has to be given back at its end: the
//! permit, and over HTTP/1 the connection.

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

/// One request's share of an address.
#[derive(Debug)]
pub(super) struct Lease {
    pub address: Arc<Address>,
    /// Held while the connection is in use, or while the stream lives.
    share: Share,
}

/// What a request takes of an address.
#[derive(Debug)]
pub(super) struct Share {
    /// One of `max_streams`, else of `max_connections`.
    stream: bool,
    permit: Permit,
}

impl Share {
    /// One of `max_connections`.
    pub(super) fn connection(permit: Permit) -> Share {
        Share { stream: false, permit }
    }

    /// One of `max_streams`.
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

    /// Exchanges the connection's permit for a stream's, where it has none yet; false when there are too many streams.
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

/// Where a connection goes when it is free again.
#[derive(Clone)]
pub(super) struct PoolReturn {
    pub pool: Rc<Pool>,
    /// How long it is kept.
    pub keep_alive: Duration,
    /// The client connection, where it belongs to that alone.
    pub pinned: Option<Rc<Peer>>,
    /// Whose share of those that wait it takes then.
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

/// Over HTTP/1.
pub(super) struct LeasedHttp1 {
    pub body: ClientBody,
    /// Dropped when the body has ended.
    pub lease: Option<Lease>,
    /// Where the connection goes then.
    pub home: PoolReturn,
}

impl LeasedHttp1 {
    fn settle(&mut self) -> Option<Lease> {
        let lease = self.lease.take()?;
        if let Some(connection) = self.body.take_connection() {
            self.home.receive(&lease.address, connection, clock::now());
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

/// The last frame of a response. Where there is no room for what its client does not take, it keeps the place until it was
/// written: so there are never more such responses than places.
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

/// Over HTTP/2, or an upgraded connection: only the lease is given back.
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
