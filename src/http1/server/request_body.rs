//! The path of a request body from its connection to its reader: one frame at a time, read from the socket only on
//! demand, so the reader's pace limits the client's pace.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::waiting::Waiting;
use crate::http1::buffered::Buffered;
use crate::http1::chunked::Decoded;
use crate::http1::decode::BodyDecoder;
use crate::http1::framing::Framing;
use crate::memory::buffers;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock::Deadline;

/// Bytes left of a body at or below which it is read in small pieces.
const SMALL_BODY: u64 = 64 * 1024;

#[derive(Default)]
struct Shared {
    frame: Option<Frame<Bytes>>,
    end: Option<Result<(), BodyError>>,
    wanted: bool,
    dropped: bool,
    left: Option<u64>,
    waker: Option<Waker>,
    /// The connection's task, while it rests until a frame is wanted. Usually connection and reader are one task, but
    /// an HTTP/2 connection to the upstream reads in a task of its own.
    producer: Option<Waker>,
}

struct RequestBody(Rc<RefCell<Shared>>);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.0.borrow_mut();
        if let Some(frame) = shared.frame.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match &shared.end {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.clone()))),
            None => {}
        }
        shared.wanted = true;
        wake_other(&mut shared.producer, cx);
        match &shared.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => shared.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.0.borrow();
        shared.frame.is_none() && (shared.left == Some(0) || shared.end == Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.0.borrow();
        let waiting = shared.frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        shared.left.map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + waiting))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.dropped = true;
        if let Some(producer) = shared.producer.take() {
            producer.wake();
        }
    }
}

/// Wakes the task of `waker` unless it is the task of `cx`, which is running.
fn wake_other(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if waker.as_ref().is_some_and(|waker| !waker.will_wake(cx.waker()))
        && let Some(waker) = waker.take()
    {
        waker.wake();
    }
}

/// The connection's end of a request body.
pub(crate) struct RequestBodyReader {
    shared: Rc<RefCell<Shared>>,
    decoder: BodyDecoder,
    continue_due: bool,
    /// Bytes read for this body.
    received: u64,
    /// Maximum silence, shared with the body because its route may allow more.
    silence: Rc<Cell<Duration>>,
    /// Value of `silence` when the present deadline was set.
    silence_set: Duration,
}

impl RequestBodyReader {
    /// Creates a body with this framing, and its reader. `silence` is the maximum time in which the client may send
    /// nothing.
    pub(crate) fn new(
        framing: Framing,
        expects_continue: bool,
        silence: Duration,
    ) -> (RequestBodyReader, Body) {
        let decoder = BodyDecoder::new(framing);
        let shared = Rc::new(RefCell::new(Shared { left: decoder.left(), ..Shared::default() }));
        let mut body = Body::streaming(RequestBody(shared.clone()));
        let silence = Rc::new(Cell::new(silence));
        body.set_silence(silence.clone());
        (
            RequestBodyReader {
                shared,
                decoder,
                continue_due: expects_continue,
                received: 0,
                silence_set: silence.get(),
                silence,
            },
            body,
        )
    }

    /// Starts the timeout for the client's silence.
    fn begin_silence(&mut self, deadline: &mut Deadline) {
        self.silence_set = self.silence.get();
        deadline.set_after(self.silence_set);
    }

    /// Polls the silence timeout. Ready once the client was silent for longer than is allowed now.
    fn poll_silent(&mut self, deadline: &mut Deadline, cx: &mut Context<'_>) -> Poll<()> {
        while deadline.poll_expired(cx).is_ready() {
            let allowed = self.silence.get();
            if allowed <= self.silence_set {
                return Poll::Ready(());
            }
            deadline.set_after(allowed - self.silence_set);
            self.silence_set = allowed;
        }
        Poll::Pending
    }

    /// Returns whether the whole body was read from the connection.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.shared.borrow().end, Some(Ok(())))
    }

    /// Cancels a pending 100 (Continue), which must not follow the final response (RFC 9110 15.2.1). Returns `true` if
    /// it was still due, so the body may never come.
    pub(crate) fn forget_continue(&mut self) -> bool {
        std::mem::take(&mut self.continue_due)
    }

    pub(crate) fn error(&self) -> Option<BodyError> {
        match &self.shared.borrow().end {
            Some(Err(error)) => Some(error.clone()),
            _ => None,
        }
    }

    /// Returns whether the reader dropped the body.
    pub(crate) fn is_dropped(&self) -> bool {
        self.shared.borrow().dropped
    }

    /// Returns whether a frame waits for its reader, or the reader has not asked for a frame.
    pub(crate) fn is_resting(&self) -> bool {
        let shared = self.shared.borrow();
        !shared.wanted || shared.frame.is_some() || shared.end.is_some()
    }

    /// Returns whether the reader waits for the client.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_resting() && !self.is_dropped()
    }

    /// Returns the bytes received for this body, framing included.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of bytes left, if it is known and the client sends them without a 100 (Continue).
    pub(crate) fn rest(&self) -> Option<u64> {
        if self.continue_due { None } else { self.decoder.left() }
    }

    /// Discards received bytes of a body without a reader. Returns `true` once the body has ended.
    pub(crate) fn discard(&mut self, io: &mut Buffered) -> bool {
        while let Ok(Decoded::Data(_)) = self.decoder.decode(&mut io.read) {}
        self.decoder.left() == Some(0)
    }

    fn settle(&self, end: Result<(), BodyError>) {
        let mut shared = self.shared.borrow_mut();
        shared.end = Some(end);
        shared.wanted = false;
    }

    /// Reads a frame if the reader wants one. Returns `true` if there is something new for the reader.
    pub(crate) fn poll(
        &mut self,
        io: &mut Buffered,
        waiting: &mut Waiting,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.is_resting() || self.is_dropped() {
            let mut shared = self.shared.borrow_mut();
            if shared.end.is_none()
                && !shared.producer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                shared.producer = Some(cx.waker().clone());
            }
            return false;
        }
        if self.continue_due {
            // RFC 9110 10.1.1: the reader wants the body, so the response depends on it.
            self.continue_due = false;
            io.push_small(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let end = loop {
            match self.decoder.decode(&mut io.read) {
                Ok(Decoded::Data(data)) => {
                    let mut shared = self.shared.borrow_mut();
                    shared.left = self.decoder.left();
                    if shared.left == Some(0) {
                        shared.end = Some(Ok(()));
                    }
                    shared.frame = Some(Frame::data(data));
                    break None;
                }
                Ok(Decoded::End(trailers)) => {
                    if let Some(trailers) = trailers {
                        self.shared.borrow_mut().frame = Some(Frame::trailers(trailers));
                    }
                    break Some(Ok(()));
                }
                Ok(Decoded::NeedMore) => {}
                Err(what) => break Some(Err(BodyError::ClientMalformed(what))),
            }
            let left = self.decoder.left();
            if left.is_some_and(|left| left <= SMALL_BODY) {
                io.read_little();
            }
            let pressed = io.reads_much() && !waiting.has_room();
            let filled =
                buffers::while_pressed(pressed, || io.poll_fill_at_most(left.unwrap_or(u64::MAX), cx));
            match filled {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.received += count as u64;
                    self.begin_silence(deadline);
                }
                Poll::Ready(_) => break Some(Err(BodyError::ClientGone)),
                Poll::Pending => {
                    io.release_read();
                    if !deadline.is_set() {
                        self.begin_silence(deadline);
                    }
                    if self.poll_silent(deadline, cx).is_pending() {
                        return false;
                    }
                    break Some(Err(BodyError::ClientSilent));
                }
            }
        };
        deadline.clear();
        if let Some(end) = end {
            self.settle(end);
        }
        let mut shared = self.shared.borrow_mut();
        shared.wanted = false;
        wake_other(&mut shared.waker, cx);
        true
    }
}
