//! An upgraded connection: relays bytes both ways until one side ends, both are silent for too long, or the process
//! drains.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::stream::Rewound;
use crate::message::body::{BodyError, Duplex, Observer, Tunnel};
use crate::runtime::clock;
use crate::runtime::clock::{Deadline, Instant};
use crate::runtime::lifecycle::{Phase, PhaseWatcher};

const BUFFER: usize = 16 * 1024;

/// Relays bytes between a client and its upstream, and reports the upstream's bytes to `observer`.
pub(crate) async fn between(
    mut client: impl Duplex,
    app: Tunnel,
    idle: Duration,
    phase_watcher: &PhaseWatcher,
    observer: Option<Box<dyn Observer>>,
) {
    let last = Rc::new(Cell::new(clock::now()));
    let sent = Rc::new(Cell::new(0));
    let mut app =
        Watched { inner: Rewound::new(app.read_ahead, app.io), last: last.clone(), read: sent.clone() };
    let mut copy =
        std::pin::pin!(tokio::io::copy_bidirectional_with_sizes(&mut client, &mut app, BUFFER, BUFFER));
    let mut silence = Deadline::default();
    silence.set_after(idle);
    let result = std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = copy.as_mut().poll(cx) {
            return Poll::Ready(result.map(|_| ()).map_err(|_| BodyError::UpstreamGone));
        }
        if phase_watcher.watch(cx) >= Phase::Draining {
            return Poll::Ready(Err(BodyError::Draining));
        }
        while silence.poll_expired(cx).is_ready() {
            let due = last.get() + idle;
            if clock::now() >= due {
                return Poll::Ready(Err(BodyError::UpstreamSilent));
            }
            silence.set(due);
        }
        Poll::Pending
    })
    .await;
    if let Some(mut observer) = observer {
        observer.data(sent.get());
        observer.end(result.as_ref().copied());
    }
}

/// A stream that notes the time of the last byte in either direction.
struct Watched<T> {
    inner: T,
    last: Rc<Cell<Instant>>,
    read: Rc<Cell<usize>>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() {
            self.last.set(clock::now());
            self.read.set(self.read.get() + buf.filled().len() - before);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if polled.is_ready() {
            self.last.set(clock::now());
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
