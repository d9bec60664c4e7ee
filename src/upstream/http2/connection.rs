//! One HTTP/2 connection, and the task that drives it.

use std::cell::{Cell, RefCell};
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::errors::classify;
use super::liveness::{Liveness, Step};
use super::shared::{LARGE_HEAD, MAX_GIVEN_UP, STREAM_WINDOW, Shared};
use crate::connection::stream::Stream;
use crate::http1::head::HeadLimits;
use crate::http2::SEND_BUFFER;
use crate::http2::trailers::{Sender, Watched};
use crate::memory::buffers::BufferMemory;
use crate::runtime::clock;
use crate::runtime::clock::{Deadline, Instant};
use crate::upstream::error::ForwardError;

/// Maximum streams on one connection before another is opened; servers commonly allow this many.
const STREAMS: usize = 100;
/// Bytes read from a connection before received content is taken from the library; until then it is not counted.
const TURN: usize = 128 * 1024;
/// Window for all responses of a connection. It has room for every stream's window, so that clients that do not read
/// block no other response.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// Maximum wait of a large field section for the SETTINGS of an upstream, which is the first frame that it sends (RFC
/// 9113 3.4).
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum streams of a connection that can be canceled, including those open when it gets no new ones. The library
/// remembers each and ignores its late frames; late frames of a forgotten stream would end the connection.
const MAX_RESET: usize = MAX_GIVEN_UP as usize + STREAMS;
/// Time for which the library remembers canceled streams.
const REMEMBERED: Duration = Duration::from_secs(10);

pub(in crate::upstream) struct Http2Connection {
    pub(super) sender: RefCell<SendRequest<Bytes>>,
    pub(super) shared: Rc<Shared>,
    keep_alive: Duration,
}

impl Http2Connection {
    /// Does the HTTP/2 handshake on a new stream to `peer`. Content that waits for clients is counted in `memory`.
    pub(in crate::upstream) async fn new(
        stream: Stream,
        peer: &str,
        limits: HeadLimits,
        keep_alive: Duration,
        memory: Option<Arc<BufferMemory>>,
        now: Instant,
    ) -> Result<Http2Connection, ForwardError> {
        let shared = Rc::new(Shared {
            streams: Cell::new(0),
            given_up: Cell::new(0),
            idle_since: Cell::new(now),
            waiting: Cell::new(None),
            read: Cell::new(false),
            heard: Cell::new(now),
            retired: Cell::new(false),
            dead: Cell::new(false),
            settings: Cell::default(),
            greeted: Notify::new(),
            memory,
            window: Cell::new(STREAM_WINDOW),
            turn: Cell::new(0),
        });
        shared.window.set(shared.fitting_window());
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(shared.window.get())
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(MAX_RESET)
            .reset_stream_duration(REMEMBERED)
            .max_header_list_size(u32::try_from(limits.size).unwrap_or(u32::MAX))
            .enable_push(false)
            .handshake::<_, Bytes>(Heard {
                stream: Watched::new(stream, Sender::Server),
                shared: shared.clone(),
            })
            .await
            .map_err(|error| classify(&error))?;
        tokio::task::spawn_local(drive(connection, shared.clone(), peer.to_owned()));
        Ok(Http2Connection { sender: RefCell::new(sender), shared, keep_alive })
    }

    /// Returns whether the connection accepts new streams: it is neither closed nor retired.
    pub(in crate::upstream) fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.shared.retired.get()
            && matches!(self.sender.borrow_mut().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    pub(in crate::upstream) fn has_room(&self) -> bool {
        // Streams beyond the upstream's limit would wait in the library behind streams that may last (RFC 9113 5.1.2).
        let max = STREAMS.min(self.sender.borrow().current_max_send_streams());
        self.shared.streams.get() < max && self.is_open()
    }

    /// Returns whether a request with a field section of `size` bytes may share the connection with others: the
    /// upstream announces a limit, which is enforced here, or it is known to accept that much.
    pub(in crate::upstream) fn may_share(&self, max_known: usize, size: impl FnOnce() -> usize) -> bool {
        self.shared.settings.get().max_header_list_size.is_some() || size() <= LARGE_HEAD.max(max_known)
    }

    /// Returns whether Pillion ended the connection because the upstream was silent.
    pub(in crate::upstream) fn is_dead(&self) -> bool {
        self.shared.dead.get()
    }

    /// Refuses a field section that is larger than the upstream's announced limit (RFC 9113 6.5.2). A large one waits
    /// until the limit is known.
    pub(super) async fn admit(&self, size: impl Fn() -> usize) -> Result<(), ForwardError> {
        if !self.shared.settings.get().known {
            let greeted = self.shared.greeted.notified();
            if size() > LARGE_HEAD && !self.shared.retired.get() {
                // Boxed because it is rare.
                let _ = Box::pin(tokio::time::timeout(SETTINGS_TIMEOUT, greeted)).await;
            }
        }
        match self.shared.settings.get().max_header_list_size {
            Some(limit) if size() > limit => Err(ForwardError::HeadTooLarge(limit)),
            _ => Ok(()),
        }
    }

    /// Returns whether the pool keeps the connection at `now`.
    pub(in crate::upstream) fn is_kept(&self, now: Instant) -> bool {
        self.is_open()
            && (self.shared.streams.get() > 0
                || now.saturating_duration_since(self.shared.idle_since.get()) < self.keep_alive)
    }
}

/// Drives a connection to its end. If the connection is found dead, it is ended, and its streams fail.
async fn drive(connection: Connection<Heard, Bytes>, shared: Rc<Shared>, peer: String) {
    let mut connection = pin!(connection);
    let mut ping_pong = connection.ping_pong();
    let mut liveness = Liveness::new(clock::now());
    let mut deadline = Deadline::default();
    let dead = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, peer, "HTTP/2 connection to the upstream ended");
                }
                return Poll::Ready(false);
            }
            // The call fails while the upstream has not acknowledged the last change; the next frame triggers another
            // try.
            let window = shared.fitting_window();
            if window != shared.window.get() && connection.set_initial_window_size(window).is_ok() {
                shared.window.set(window);
                continue;
            }
            let now = clock::now();
            if shared.read.take() {
                shared.heard.set(now);
                liveness.heard(now);
            }
            match liveness.step(shared.waiting.get(), now) {
                Step::Ping => {
                    let Some(ping_pong) = &mut ping_pong else { continue };
                    // The previous PONG is taken, so that the next PING can be sent.
                    let _ = ping_pong.poll_pong(cx);
                    if let Err(error) = ping_pong.send_ping(h2::Ping::opaque()) {
                        tracing::debug!(%error, peer, "a PING could not be sent");
                    }
                }
                Step::Dead => return Poll::Ready(true),
                Step::Wait(None) => {
                    deadline.clear();
                    return Poll::Pending;
                }
                Step::Wait(Some(due)) => {
                    deadline.set(due);
                    if deadline.poll_expired(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    })
    .await;
    shared.retired.set(true);
    shared.dead.set(dead);
    shared.greeted.notify_waiters();
    if dead {
        tracing::warn!(
            peer,
            streams = shared.streams.get(),
            "HTTP/2 connection closed: the upstream answered no PING within 5 s"
        );
    }
}

/// A stream that records when bytes are read, and yields to other tasks.
struct Heard {
    stream: Watched<Stream>,
    shared: Rc<Shared>,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.shared.turn.get() >= TURN {
            self.shared.turn.set(0);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        self.shared.turn.set(self.shared.turn.get() + read);
        if read > 0 {
            self.shared.read.set(true);
            let settings = self.stream.peer_settings();
            if settings.known && !self.shared.settings.replace(settings).known {
                self.shared.greeted.notify_waiters();
            }
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
