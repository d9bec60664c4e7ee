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

/// Streams put on one connection before another is made; what servers commonly allow.
const STREAMS: usize = 100;
/// What is read of a connection before what came is taken from it: until then it is not counted; bytes.
const TURN: usize = 128 * 1024;
/// Of all responses of a connection. It has room for every stream's window, so that clients that read nothing stop
/// nobody else's response.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// How long a large field section waits for the SETTINGS of an upstream, which are the first that it sends (RFC 9113
/// 3.4).
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);

/// Streams of a connection that can be given up, with those that are on it when it takes no more. The library remembers
/// each, and ignores what was on its way; it would end the connection over what it does not remember.
const MAX_RESET: usize = MAX_GIVEN_UP as usize + STREAMS;
/// How long it remembers them.
const REMEMBERED: Duration = Duration::from_secs(10);

pub(in crate::upstream) struct Http2Connection {
    pub(super) sender: RefCell<SendRequest<Bytes>>,
    pub(super) shared: Rc<Shared>,
    keep_alive: Duration,
}

impl Http2Connection {
    /// Shakes hands on a fresh stream to `peer`. What waits for clients is counted in `memory`.
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

    /// Whether new streams can be put on it: it is neither gone nor told to go.
    pub(in crate::upstream) fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.shared.retired.get()
            && matches!(self.sender.borrow_mut().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    pub(in crate::upstream) fn has_room(&self) -> bool {
        // What the upstream does not take at once waits in line here, behind streams that may last (RFC 9113 5.1.2).
        let max = STREAMS.min(self.sender.borrow().current_max_send_streams());
        self.shared.streams.get() < max && self.is_open()
    }

    /// Whether a request with a field section of so many bytes may share it with others: the upstream announces what it
    /// takes, and more is not sent, or it is known to take as much.
    pub(in crate::upstream) fn may_share(&self, max_known: usize, size: impl FnOnce() -> usize) -> bool {
        self.shared.settings.get().max_header_list_size.is_some() || size() <= LARGE_HEAD.max(max_known)
    }

    /// Whether Pillion ended it, as the upstream was silent.
    pub(in crate::upstream) fn is_dead(&self) -> bool {
        self.shared.dead.get()
    }

    /// RFC 9113 6.5.2: a field section that is larger than the upstream announces to take is not sent. A large one waits
    /// until that is known.
    pub(super) async fn admit(&self, size: impl Fn() -> usize) -> Result<(), ForwardError> {
        if !self.shared.settings.get().known {
            let greeted = self.shared.greeted.notified();
            if size() > LARGE_HEAD && !self.shared.retired.get() {
                // In a box, as that is seldom.
                let _ = Box::pin(tokio::time::timeout(SETTINGS_TIMEOUT, greeted)).await;
            }
        }
        match self.shared.settings.get().max_header_list_size {
            Some(limit) if size() > limit => Err(ForwardError::HeadTooLarge(limit)),
            _ => Ok(()),
        }
    }

    /// Whether the pool keeps it at `now`.
    pub(in crate::upstream) fn is_kept(&self, now: Instant) -> bool {
        self.is_open()
            && (self.shared.streams.get() > 0
                || now.saturating_duration_since(self.shared.idle_since.get()) < self.keep_alive)
    }
}

/// Drives a connection to its end, and ends it where it is found dead: its streams fail then.
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
            // Refused while the upstream has not acknowledged the last one; then it is tried again with the next frame.
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
                    // The answer to the last one is taken, so that the next can be sent.
                    let _ = ping_pong.poll_pong(cx);
                    if let Err(error) = ping_pong.send_ping(h2::Ping::opaque()) {
                        tracing::debug!(%error, peer, "no PING could be sent");
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

/// Notes when something is read, and lets others have their turn.
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
