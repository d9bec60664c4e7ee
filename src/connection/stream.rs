//! The streams that carry HTTP as one type: TCP, TLS as server or as client, and Unix sockets.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection that can detect its peer's close without being read.
pub trait PeerLeft {
    /// Returns whether the peer sends nothing more. Bytes sent before may still be unread.
    fn peer_left(&self) -> bool;
}

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Waits until a read would return something. No buffer is needed for that, so a silent connection holds none. TLS
    /// cannot tell and is always ready.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(tcp) => tcp.poll_read_ready(cx),
            Stream::Unix(_) | Stream::ServerTls(_) | Stream::ClientTls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Sends the TCP acknowledgment of received bytes at once. An upstream that writes head and body separately with
    /// Nagle's algorithm sends the body once the head is acknowledged, and the kernel likes to delay that by 40 ms.
    pub(crate) fn acknowledge(&self) {
        let tcp = match self {
            Stream::Tcp(tcp) => tcp,
            Stream::ClientTls(tls) => tls.get_ref().0,
            Stream::ServerTls(_) | Stream::Unix(_) => return,
        };
        // If the option fails, the acknowledgment is merely delayed.
        let _ = SockRef::from(tcp).set_tcp_quickack(true);
    }

    /// Makes the close visible as a reset, for messages that end with the close: the peer must not take a truncated
    /// message for a complete one.
    pub(crate) fn reset_on_close(&self) {
        let tcp = match self {
            Stream::Tcp(tcp) => tcp,
            Stream::ServerTls(tls) => tls.get_ref().0,
            Stream::ClientTls(tls) => tls.get_ref().0,
            Stream::Unix(_) => return,
        };
        // A socket that rejects the option is closed in the ordinary way.
        let _ = tcp.set_zero_linger();
    }
}

impl PeerLeft for Stream {
    fn peer_left(&self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        // One poll is enough: the runtime has registered the readiness already.
        let ready = match self {
            Stream::Tcp(tcp) => pin!(tcp.ready(Interest::READABLE)).poll(cx),
            Stream::ServerTls(tls) => pin!(tls.get_ref().0.ready(Interest::READABLE)).poll(cx),
            Stream::ClientTls(tls) => pin!(tls.get_ref().0.ready(Interest::READABLE)).poll(cx),
            Stream::Unix(unix) => pin!(unix.ready(Interest::READABLE)).poll(cx),
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}

macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::ServerTls($inner) => $call,
            Stream::ClientTls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}

/// A stream with surplus bytes, read too far, put back in front of it.
#[derive(Debug)]
pub(crate) struct Rewound<T> {
    before: Bytes,
    inner: T,
}

impl<T> Rewound<T> {
    /// Creates a stream that yields `before` first, then the bytes of `inner`.
    pub(crate) fn new(before: Bytes, inner: T) -> Self {
        Rewound { before, inner }
    }
}

impl<T: PeerLeft> PeerLeft for Rewound<T> {
    fn peer_left(&self) -> bool {
        self.inner.peer_left()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewound<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let take = self.before.len().min(buf.remaining());
        buf.put_slice(&self.before[..take]);
        self.before.advance(take);
        if self.before.is_empty() {
            // An empty slice would keep the whole buffer alive.
            self.before = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewound<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
