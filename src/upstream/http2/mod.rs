//! HTTP/2 towards an upstream: one connection, shared by the requests of one worker.
//!
//! The library keeps frames and windows. What it does not keep is here: whether the connection is alive (`liveness`),
//! how long the upstream may take (`exchange`), and whose fault a failure is (`upload`, `response`).

mod exchange;
mod inbox;
mod liveness;
mod response;
mod upload;

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

use super::error::ForwardError;
use crate::connection::stream::Stream;
use crate::http1::head::HeadLimits;
use crate::http2::SEND_BUFFER;
use crate::http2::settings::PeerSettings;
use crate::http2::trailers::{Sender, Watched};
use crate::memory::buffers::BufferMemory;
use crate::runtime::clock;
use crate::runtime::clock::{Deadline, Instant};
use exchange::classify;
use liveness::{Liveness, Step};

pub(super) use exchange::Passing;

/// Streams put on one connection before another is made; what servers commonly allow.
const STREAMS: usize = 100;
/// What the upstream may send of one response before its client has taken it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same while memory is scarce: one frame.
const SCARCE_WINDOW: u32 = 16 * 1024;
/// What is read of a connection before what came is taken from it: until then it is not counted; bytes.
const TURN: usize = 128 * 1024;
/// Of all responses of a connection. It has room for every stream's window, so that clients that read nothing stop
/// nobody else's response.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// A field section that is longer than this may be the reason why an upstream that announces no limit ends its
/// connection; bytes as RFC 9113 6.5.2 counts them. It is what gRPC servers and others take at least.
pub(super) const LARGE_HEAD: usize = 8 * 1024;
/// How long a large field section waits for the SETTINGS of an upstream, which are the first that it sends (RFC 9113
/// 3.4).
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests that Pillion gives up on one connection, mostly as their clients left, before it takes no more of them.
/// Servers end a connection of a peer that resets too many streams (CVE-2023-44487), with all that others have on it.
const MAX_GIVEN_UP: u32 = 100;
/// Streams of a connection that can be given up, with those that are on it when it takes no more. The library remembers
/// each, and ignores what was on its way; it would end the connection over what it does not remember.
const MAX_RESET: usize = MAX_GIVEN_UP as usize + STREAMS;
/// How long it remembers them.
const REMEMBERED: Duration = Duration::from_secs(10);

pub(super) struct Http2Connection {
    sender: RefCell<SendRequest<Bytes>>,
    shared: Rc<Shared>,
    keep_alive: Duration,
}

/// What a connection, the task that drives it and its streams know of each other.
struct Shared {
    streams: Cell<usize>,
    /// Streams that were left before they had ended.
    given_up: Cell<u32>,
    /// When a stream last ended.
    idle_since: Cell<Instant>,
    /// Since when at least one stream is open.
    waiting: Cell<Option<Instant>>,
    /// Whether something was read since the driver last looked.
    read: Cell<bool>,
    /// When the driver last saw that something was read.
    heard: Cell<Instant>,
    /// No new streams go there.
    retired: Cell<bool>,
    /// It was found dead, and Pillion ended it.
    dead: Cell<bool>,
    settings: Cell<PeerSettings>,
    /// Told when that is known, and when the connection ends.
    greeted: Notify,
    /// Where what waits for clients is counted.
    memory: Option<Arc<BufferMemory>>,
    /// The window that each stream begins with.
    window: Cell<u32>,
    /// Bytes read since others had their turn.
    turn: Cell<usize>,
}

impl Shared {
    /// The window that each stream is to begin with now.
    fn fitting_window(&self) -> u32 {
        let before = self.window.get() == SCARCE_WINDOW;
        let scarce = self.memory.as_ref().is_some_and(|memory| memory.is_scarce(before));
        if scarce { SCARCE_WINDOW } else { STREAM_WINDOW }
    }
}

impl Http2Connection {
    /// Shakes hands on a fresh stream to `peer`. What waits for clients is counted in `memory`.
    pub(super) async fn new(
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
    pub(super) fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.shared.retired.get()
            && matches!(self.sender.borrow_mut().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    pub(super) fn has_room(&self) -> bool {
        // What the upstream does not take at once waits in line here, behind streams that may last (RFC 9113 5.1.2).
        let max = STREAMS.min(self.sender.borrow().current_max_send_streams());
        self.shared.streams.get() < max && self.is_open()
    }

    /// Whether a request with a field section of so many bytes may share it with others: the upstream announces what it
    /// takes, and more is not sent, or it is known to take as much.
    pub(super) fn may_share(&self, max_known: usize, size: impl FnOnce() -> usize) -> bool {
        self.shared.settings.get().max_header_list_size.is_some() || size() <= LARGE_HEAD.max(max_known)
    }

    /// Whether Pillion ended it, as the upstream was silent.
    pub(super) fn is_dead(&self) -> bool {
        self.shared.dead.get()
    }

    /// RFC 9113 6.5.2: a field section that is larger than the upstream announces to take is not sent. A large one waits
    /// until that is known.
    async fn admit(&self, size: impl Fn() -> usize) -> Result<(), ForwardError> {
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
    pub(super) fn is_kept(&self, now: Instant) -> bool {
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

struct Open {
    shared: Rc<Shared>,
    /// Whether leaving it resets it: it was sent, and has not ended.
    lasts: bool,
    now: fn() -> Instant,
}

impl Open {
    fn new(connection: &Http2Connection, now: fn() -> Instant) -> Open {
        let shared = connection.shared.clone();
        let streams = shared.streams.get();
        if streams == 0 {
            shared.waiting.set(Some(now()));
        }
        shared.streams.set(streams + 1);
        Open { shared, lasts: false, now }
    }

    fn set_lasting(&mut self, lasts: bool) {
        self.lasts = lasts;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = self.shared.streams.get() - 1;
        self.shared.streams.set(streams);
        self.shared.idle_since.set((self.now)());
        if streams == 0 {
            self.shared.waiting.set(None);
        }
        if self.lasts {
            let given_up = self.shared.given_up.get().saturating_add(1);
            self.shared.given_up.set(given_up);
            if given_up >= MAX_GIVEN_UP {
                self.shared.retired.set(true);
            }
        }
    }
}
