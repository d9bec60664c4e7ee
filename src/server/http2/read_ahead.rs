//! A response that is read ahead of its client: its queue, and since when the client has taken nothing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};

use crate::memory::buffers;
use crate::memory::buffers::BufferReservation;
use crate::message::body::{Body, BodyError, Observer};
use crate::message::inbound::FIELD_OVERHEAD;
use crate::runtime::clock::Instant;

/// Maximum bytes of a piece that is handed to the library, so that slow progress of a client is visible.
pub(super) const PIECE: usize = 32 * 1024;

/// Bytes that a queued piece takes beside its content.
const OVERHEAD: usize = 64;

/// A response that is being sent. If its client does not read, the body is dropped, and with it the permit at the
/// upstream; the stream itself ends when the client reads again.
pub(super) struct ReadAhead {
    /// The source of the content; `None` once it has ended or was cut.
    pub body: RefCell<Option<Body>>,
    pub queue: RefCell<Queue>,
    /// Maximum bytes to read ahead; zero for no read-ahead.
    pub max: usize,
    /// The rest of a frame that is handed out in pieces.
    pub rest: RefCell<Bytes>,
    /// The time since which the client has taken nothing.
    pub unread: Cell<Option<Unread>>,
    /// When its body was taken away.
    pub cut: Cell<Option<Instant>>,
    /// Observer of the bytes that the client takes, if those differ from the bytes read.
    pub observer: RefCell<Option<Box<dyn Observer>>>,
    /// Reservation for the list of chunks of stored content, which is itself in memory anyway.
    pub _list: Option<BufferReservation>,
}

/// A frame that was handed out, without a request for more after it.
#[derive(Clone, Copy)]
pub(super) struct Unread {
    pub since: Instant,
    /// Bytes written to the connection by then.
    pub written: u64,
    /// Number of open requests at that time.
    pub open: usize,
}

#[derive(Default)]
pub(super) struct Queue {
    pub pieces: VecDeque<Bytes>,
    pub bytes: usize,
    pub ended: Option<Result<Option<HeaderMap>, BodyError>>,
    /// Memory of the trailers in bytes.
    pub trailers: usize,
    pub memory: Option<BufferReservation>,
    /// The stream, while it waits for content.
    pub reader: Option<Waker>,
    /// The read-ahead task, while it waits for room.
    pub pump: Option<Waker>,
}

/// Returns the memory of the fields in bytes.
fn size_in_memory(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// Copies the values: as received they keep whole read buffers alive, and they may wait for long.
fn set_apart(fields: &mut HeaderMap) {
    for value in fields.values_mut() {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive());
            *value = copy;
        }
    }
}

impl Queue {
    fn count(&mut self) {
        let held = self.bytes + self.pieces.len() * OVERHEAD + self.trailers;
        if let Some(memory) = &mut self.memory {
            memory.resize(held);
        }
    }

    fn push(&mut self, piece: Bytes) {
        let behind = self.bytes > PIECE;
        self.bytes += piece.len();
        if behind && piece.len() > PIECE {
            // A client that lags behind gets small pieces, each of which is freed once sent.
            self.pieces.extend(piece.chunks(PIECE).map(Bytes::copy_from_slice));
        } else {
            self.pieces.push_back(piece);
        }
        self.count();
        wake(&mut self.reader);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        let piece = self.hand_out(piece);
        self.count();
        wake(&mut self.pump);
        Some(piece)
    }

    /// Returns a piece that stays counted until it was written, because the library takes a piece even while the window
    /// is closed.
    pub(super) fn hand_out(&mut self, piece: Bytes) -> Bytes {
        match &mut self.memory {
            Some(memory) => {
                // Content of a stream without read-ahead was not counted before.
                if memory.bytes() < piece.len() {
                    memory.resize(piece.len());
                }
                buffers::hold(piece.clone(), memory.split(piece.len()))
            }
            None => piece,
        }
    }

    fn end(&mut self, mut ended: Result<Option<HeaderMap>, BodyError>) {
        if let (Ok(Some(trailers)), None) = (&mut ended, &self.reader) {
            set_apart(trailers);
        }
        self.trailers = ended.as_ref().ok().and_then(Option::as_ref).map_or(0, size_in_memory);
        self.ended = Some(ended);
        self.count();
        wake(&mut self.reader);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl ReadAhead {
    /// Returns the time at which the body was cut.
    pub(super) fn cut_at(&self) -> Option<Instant> {
        self.cut.get()
    }

    /// Returns the frame that was handed out without a request for more, if there is one.
    pub(super) fn unread_since(&self) -> Option<Unread> {
        self.unread.get()
    }

    pub(super) fn cut(&self, now: Instant) {
        self.close();
        self.cut.set(Some(now));
    }

    pub(super) fn close(&self) {
        // Dropped after the borrow, because the drop may run much code.
        let (body, observer) = (self.body.take(), self.observer.take());
        self.rest.take();
        let mut queue = self.queue.borrow_mut();
        queue.pieces.clear();
        queue.bytes = 0;
        queue.count();
        wake(&mut queue.pump);
        drop(queue);
        drop((body, observer));
    }

    /// Reads ahead until the body has ended or was cut.
    pub(super) fn poll_pump(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut body = self.body.borrow_mut();
            let Some(source) = &mut *body else { return Poll::Ready(()) };
            let room = {
                let mut queue = self.queue.borrow_mut();
                let room = queue.memory.as_ref().is_none_or(BufferReservation::has_room);
                // A client that waits gets more in any case, even if little.
                if queue.reader.is_none() && !(room && queue.bytes < self.max) {
                    queue.pump = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                room
            };
            let frame = ready!(buffers::while_pressed(!room, || Pin::new(&mut *source).poll_frame(cx)));
            let ended = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = http_body::Body::is_end_stream(source);
                        if !data.is_empty() {
                            self.queue.borrow_mut().push(data);
                        }
                        last.then_some(Ok(None))
                    }
                    Err(frame) => Some(Ok(frame.into_trailers().ok())),
                },
                Some(Err(error)) => Some(Err(error)),
                None => Some(Ok(None)),
            };
            if let Some(ended) = ended {
                let source = body.take();
                drop(body);
                // The permit at the upstream is free from here on.
                drop(source);
                self.queue.borrow_mut().end(ended);
                return Poll::Ready(());
            }
        }
    }

    pub(super) fn told(&self, result: Result<(), &BodyError>) {
        if let Some(mut observer) = self.observer.take() {
            observer.end(result);
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        if !self.rest.borrow().is_empty() {
            return false;
        }
        if self.max == 0 {
            return self.body.borrow().as_ref().is_some_and(http_body::Body::is_end_stream);
        }
        let queue = self.queue.borrow();
        queue.pieces.is_empty() && matches!(queue.ended, Some(Ok(None)))
    }

    /// Returns the next content that was read ahead.
    pub(super) fn poll_queue(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut queue = self.queue.borrow_mut();
        if let Some(piece) = queue.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut queue.ended {
            Some(Ok(trailers)) => {
                let trailers = trailers.take();
                queue.trailers = 0;
                queue.count();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone()))),
            None => {
                queue.reader = Some(cx.waker().clone());
                wake(&mut queue.pump);
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_4_trailers_that_wait_keep_nothing_of_what_was_read_with_them() {
        let read = Bytes::from(vec![b't'; 100_000]);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-trailer", HeaderValue::from_maybe_shared(read.slice(..1000)).unwrap());
        let mut queue = Queue::default();
        queue.end(Ok(Some(trailers)));
        assert!(read.is_unique(), "the waiting trailers are a copy");
        assert!(queue.trailers > 1000, "and counted");
        let Some(Ok(Some(trailers))) = &queue.ended else { panic!("they are there") };
        assert_eq!(trailers["x-trailer"].as_bytes(), &read[..1000]);
    }
}
