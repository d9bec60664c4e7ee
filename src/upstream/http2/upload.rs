//! A request body on its way over HTTP/2, at the pace of the upstream and of the client.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as _;

use super::shared::{LARGE_HEAD, Shared};
use crate::http2::{SEND_BUFFER, section_size};
use crate::memory::buffers;
use crate::memory::buffers::{BufferReservation, Room};
use crate::message::body::{Body, BodyError};
use crate::runtime::clock::Instant;

/// Bytes that an upload without room may send once its earlier bytes were written: it continues, if slowly.
const WITHOUT_ROOM: usize = 1024;

/// The body of one request.
pub(super) struct Upload {
    body: Body,
    stream: SendStream<Bytes>,
    /// The rest of a frame that did not fit.
    rest: Bytes,
    stage: Stage,
    shared: Rc<Shared>,
    given: Option<Given>,
    now: fn() -> Instant,
}

/// Bytes handed to the library and not written yet: the library keeps them while the upstream's socket accepts nothing.
struct Given {
    /// An empty reservation that counts each piece handed to the library.
    memory: BufferReservation,
    unwritten: Arc<Unwritten>,
}

#[derive(Default)]
struct Unwritten {
    bytes: AtomicUsize,
    /// The upload's task, while it waits until everything is written.
    waiting: Mutex<Option<Waker>>,
}

/// A count of bytes that lasts until they are written.
struct Counted {
    bytes: usize,
    unwritten: Arc<Unwritten>,
    _memory: BufferReservation,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let left = self.unwritten.bytes.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        let waiting = (left == 0)
            .then(|| self.unwritten.waiting.lock().unwrap_or_else(PoisonError::into_inner).take())
            .flatten();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl Given {
    /// Returns the number of bytes that may be handed to the library now.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.memory.has_room() {
            return Poll::Ready(usize::MAX);
        }
        if self.unwritten.bytes.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(WITHOUT_ROOM);
        }
        *self.unwritten.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        Poll::Pending
    }

    fn count(&mut self, piece: Bytes) -> Bytes {
        let bytes = piece.len();
        self.memory.resize(bytes);
        self.unwritten.bytes.fetch_add(bytes, Ordering::Relaxed);
        let memory = self.memory.split(bytes);
        buffers::hold(piece, Counted { bytes, unwritten: self.unwritten.clone(), _memory: memory })
    }
}

/// The progress of an upload, as its timeouts see it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// The upstream last got some of the body at this time, and accepts no more at present.
    Given(Instant),
    /// The client's next bytes are awaited, so its own timeouts run.
    Awaited,
}

/// The reason why an upload stopped early.
#[derive(Debug)]
pub(super) enum Stopped {
    Client(BodyError),
    /// The upstream accepts no more; its response, or the lack of a response, says why.
    Upstream,
}

impl Upload {
    /// Creates the upload of a body that is counted in `room` while it waits for the upstream. A complete body is
    /// counted already.
    pub(super) fn new(
        body: Body,
        stream: SendStream<Bytes>,
        shared: Rc<Shared>,
        room: Option<Room<'_>>,
        now: fn() -> Instant,
    ) -> Upload {
        let room = room.filter(|_| body.is_streaming());
        let given = room.map(|room| Given { memory: room.reservation(), unwritten: Arc::default() });
        Upload { body, stream, rest: Bytes::new(), stage: Stage::Given(now()), shared, given, now }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Tells the upstream that the rest never comes (RFC 9113 8.1: without END_STREAM it must not look complete).
    pub(super) fn cancel(&mut self) {
        self.stream.send_reset(h2::Reason::CANCEL);
    }

    /// Sends the available content. Ready once the whole body was sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            if !self.rest.is_empty() {
                let room = ready!(self.poll_room(cx))?;
                let piece = self.rest.split_to(self.rest.len().min(room));
                let last = self.rest.is_empty() && self.body.is_end_stream();
                self.give(piece, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                self.stage = Stage::Awaited;
                return Poll::Pending;
            };
            // From here on the upload waits for the upstream.
            self.stage = Stage::Given((self.now)());
            let frame = match frame {
                Some(frame) => frame.map_err(Stopped::Client)?,
                None => return Poll::Ready(self.give(Bytes::new(), true)),
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() && self.body.is_end_stream() => {
                    return Poll::Ready(self.give(data, true));
                }
                Ok(data) => self.rest = data,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    // A trailer section is a field section, and one that is too long may end the connection for all
                    // requests.
                    let limit = self.shared.settings.get().max_header_list_size.unwrap_or(LARGE_HEAD);
                    if section_size(&trailers) > limit {
                        return Poll::Ready(Err(Stopped::Client(BodyError::TrailersTooLarge(limit))));
                    }
                    let sent = self.stream.send_trailers(trailers);
                    return Poll::Ready(sent.map_err(|_| Stopped::Upstream));
                }
            }
        }
    }

    /// Returns the number of bytes that the upstream's windows and our own buffer accept.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Stopped>> {
        let max = match &self.given {
            Some(given) => ready!(given.poll_room(cx)),
            None => usize::MAX,
        };
        self.stream.reserve_capacity(self.rest.len().min(SEND_BUFFER));
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Stopped::Upstream)),
            }
        }
        Poll::Ready(Ok(self.stream.capacity().min(max)))
    }

    fn give(&mut self, data: Bytes, last: bool) -> Result<(), Stopped> {
        self.stage = Stage::Given((self.now)());
        let data = match &mut self.given {
            Some(given) if !data.is_empty() => given.count(data),
            _ => data,
        };
        self.stream.send_data(data, last).map_err(|_| Stopped::Upstream)
    }
}

/// The rest of an upload, in a task of its own: it continues whether the response is read or not, and ends with the
/// response.
pub(super) struct RestOfUpload {
    task: tokio::task::AbortHandle,
    failed: Rc<RefCell<Option<BodyError>>>,
}

impl RestOfUpload {
    pub(super) fn start(mut upload: Upload) -> RestOfUpload {
        let failed: Rc<RefCell<Option<BodyError>>> = Rc::default();
        let told = failed.clone();
        let task = tokio::task::spawn_local(async move {
            if let Err(Stopped::Client(error)) = std::future::poll_fn(|cx| upload.poll(cx)).await {
                told.replace(Some(error));
                upload.cancel();
            }
        });
        RestOfUpload { task: task.abort_handle(), failed }
    }

    /// Returns the client's failure, if there was one.
    pub(super) fn take_failure(&self) -> Option<BodyError> {
        self.failed.take()
    }
}

impl Drop for RestOfUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}
