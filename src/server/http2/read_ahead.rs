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

/// Content is handed to the library in pieces of at most this, so that a client that takes them slowly is
/// seen to take them.
pub(super) const PIECE: usize = 32 * 1024;

/// What a queued piece takes beside its bytes.
const OVERHEAD: usize = 64;

/// A response on its way. Its body is taken away from a client that does not read, and with it the place it holds at
/// the upstream; the stream itself ends when the client comes back.
pub(super) struct ReadAhead {
    /// Where the content comes from; `None` once it has ended, or was cut.
    pub body: RefCell<Option<Body>>,
    pub queue: RefCell<Queue>,
    /// Bytes to read ahead; zero where nothing is.
    pub max: usize,
    /// What is left of a frame that is handed out in pieces.
    pub rest: RefCell<Bytes>,
    /// Since when its client has taken nothing.
    pub unread: Cell<Option<Unread>>,
    /// When its body was taken away.
    pub cut: Cell<Option<Instant>>,
    /// Told of what the client takes, where that is not what is read.
    pub observer: RefCell<Option<Box<dyn Observer>>>,
    /// What the list of its pieces takes, where those are held in any case.
    pub _list: Option<BufferReservation>,
}

/// A frame that was handed out, after which none was asked for.
#[derive(Clone, Copy)]
pub(super) struct Unread {
    pub since: Instant,
    /// What was written to the connection by then; bytes.
    pub written: u64,
    /// How many requests were open then.
    pub open: usize,
}

#[derive(Default)]
pub(super) struct Queue {
    pub pieces: VecDeque<Bytes>,
    pub bytes: usize,
    pub ended: Option<Result<Option<HeaderMap>, BodyError>>,
    /// What its trailers take; bytes.
    pub trailers: usize,
    pub memory: Option<BufferReservation>,
    /// The stream, where it waits for content.
    pub reader: Option<Waker>,
    /// The task that reads ahead, where it waits for room.
    pub pump: Option<Waker>,
}

/// Bytes that fields take here.
fn size_in_memory(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// Copies the values: as they came, they are parts of all that was read with them, and they may wait for long.
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
            // A client that is behind gets small pieces, each of which is free when it is gone.
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

    /// A piece that stays counted until it was written: the library takes one although the window is closed.
    pub(super) fn hand_out(&mut self, piece: Bytes) -> Bytes {
        match &mut self.memory {
            Some(memory) => {
                // Of a stream nothing is counted before.
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
    /// When its body was taken away.
    pub(super) fn cut_at(&self) -> Option<Instant> {
        self.cut.get()
    }

    /// Since when a frame was handed out and none asked for, and what was written by then.
    pub(super) fn unread_since(&self) -> Option<Unread> {
        self.unread.get()
    }

    pub(super) fn cut(&self, now: Instant) {
        self.close();
        self.cut.set(Some(now));
    }

    pub(super) fn close(&self) {
        // Dropped after the borrow: what is dropped may do much.
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

    /// Reads ahead until the body has ended, or was taken away.
    pub(super) fn poll_pump(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut body = self.body.borrow_mut();
            let Some(source) = &mut *body else { return Poll::Ready(()) };
            let room = {
                let mut queue = self.queue.borrow_mut();
                let room = queue.memory.as_ref().is_none_or(BufferReservation::has_room);
                // A client that waits gets more in any case, be it little.
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
                // The place at the upstream is free from here on.
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

    /// The next content that was read ahead.
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
