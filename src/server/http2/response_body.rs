//! A response's body on one stream of HTTP/2, read ahead of its client.
//!
//! The library asks for content only while the client's window is open. A body that arrives is therefore read by a
//! task of its own, up to `buffer_response`, so that a client that does not read does not hold the upstream. One that
//! is whole, and one without an expected end, is handed on as it is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};

use super::{Open, PIECE, Streams};
use crate::http2::intake::FEW;
use crate::memory::buffers;
use crate::memory::buffers::{BufferMemory, BufferReservation};
use crate::message::body::{Body, BodyError, Observer};
use crate::message::inbound::FIELD_OVERHEAD;
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::runtime::lifecycle::{Phase, PhaseWatcher};

/// Whole content from this length on is counted, and any of a connection that has many open; bytes.
const COUNTED: u64 = 4 * 1024;
/// What a queued piece takes beside its bytes.
const OVERHEAD: usize = 64;

/// How far a body is read ahead.
pub(super) struct Ahead {
    /// At most so many bytes.
    pub bytes: usize,
    /// The memory they are counted in.
    pub memory: Option<Arc<BufferMemory>>,
}

/// A response on its way. Its body is taken away from a client that does not read, and with it the place it holds at
/// the upstream; the stream itself ends when the client comes back.
pub(super) struct ReadAhead {
    /// Where the content comes from; `None` once it has ended, or was cut.
    body: RefCell<Option<Body>>,
    queue: RefCell<Queue>,
    /// Bytes to read ahead; zero where nothing is.
    max: usize,
    /// What is left of a frame that is handed out in pieces.
    rest: RefCell<Bytes>,
    /// Since when its client has taken nothing.
    unread: Cell<Option<Unread>>,
    /// When its body was taken away.
    cut: Cell<Option<Instant>>,
    /// Told of what the client takes, where that is not what is read.
    observer: RefCell<Option<Box<dyn Observer>>>,
    /// What the list of its pieces takes, where those are held in any case.
    _list: Option<BufferReservation>,
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

impl Unread {
    fn new(streams: &Streams, now: Instant) -> Unread {
        Unread { since: now, written: streams.written.get(), open: streams.open.get() }
    }
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    ended: Option<Result<Option<HeaderMap>, BodyError>>,
    /// What its trailers take; bytes.
    trailers: usize,
    memory: Option<BufferReservation>,
    /// The stream, where it waits for content.
    reader: Option<Waker>,
    /// The task that reads ahead, where it waits for room.
    pump: Option<Waker>,
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
    fn hand_out(&mut self, piece: Bytes) -> Bytes {
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

    fn close(&self) {
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
    fn poll_pump(&self, cx: &mut Context<'_>) -> Poll<()> {
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

    fn told(&self, result: Result<(), &BodyError>) {
        if let Some(mut observer) = self.observer.take() {
            observer.end(result);
        }
    }

    fn is_end_stream(&self) -> bool {
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
    fn poll_queue(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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

/// See the head of the file.
pub(super) struct StreamBody {
    response: Rc<ReadAhead>,
    open: Option<Open>,
    /// For streams without an end: they are closed when draining starts.
    phase_watcher: Option<PhaseWatcher>,
}

impl StreamBody {
    /// Of a stream that became a tunnel.
    pub(super) fn tunnel() -> StreamBody {
        let response = Rc::new(ReadAhead {
            body: RefCell::new(Some(Body::empty())),
            queue: RefCell::default(),
            max: 0,
            rest: RefCell::default(),
            unread: Cell::new(None),
            cut: Cell::new(None),
            observer: RefCell::default(),
            _list: None,
        });
        StreamBody { response, open: None, phase_watcher: None }
    }

    pub(super) fn new(
        mut body: Body,
        open: Open,
        phase_watcher: Option<PhaseWatcher>,
        ahead: Ahead,
    ) -> StreamBody {
        let arrives = body.is_streaming() && !body.is_endless() && ahead.bytes > 0;
        let observer = if arrives { body.take_observer() } else { None };
        let client = body.client();
        let Open(streams) = &open;
        // What is whole already is counted where it may wait for long. What is stored is held in any case, but for the
        // list of its pieces. It had room when it became whole, in this very poll.
        let crowded = streams.open.get() > FEW;
        let length = if body.is_here() { body.size_hint().exact().unwrap_or_default() } else { 0 };
        let list = Some(body.list_size()).filter(|size| *size >= COUNTED as usize || crowded);
        let list = body.keeper().and(list).zip(ahead.memory.clone()).map(|(size, memory)| {
            let mut list = BufferReservation::new(memory, client);
            list.resize(size);
            list
        });
        let waits = Some(length).filter(|length| *length >= COUNTED || (crowded && *length > 0));
        let waits = waits.filter(|_| body.keeper().is_none());
        let memory = ahead.memory.filter(|_| body.is_streaming() || waits.is_some());
        let mut memory = memory.map(|memory| BufferReservation::new(memory, client));
        if let (Some(memory), Some(length)) = (&mut memory, waits) {
            memory.resize(usize::try_from(length).unwrap_or(usize::MAX));
        }
        let now = clock::now();
        streams.waiting.begin_response(streams.open.get(), now);
        let response = Rc::new(ReadAhead {
            body: RefCell::new(Some(body)),
            queue: RefCell::new(Queue { memory, ..Queue::default() }),
            max: if arrives { ahead.bytes } else { 0 },
            rest: RefCell::default(),
            // From the head on: a window that is closed from the start counts too.
            unread: Cell::new(Some(Unread::new(streams, now))),
            cut: Cell::new(None),
            observer: RefCell::new(observer),
            _list: list,
        });
        {
            let mut bodies = streams.read_ahead.borrow_mut();
            // Those that ended are forgotten before the list outgrows what is open.
            if bodies.len() >= 2 * streams.open.get().max(8) {
                bodies.retain(|response| response.strong_count() > 0);
            }
            bodies.push(Rc::downgrade(&response));
        }
        if arrives {
            let response = response.clone();
            tokio::task::spawn_local(std::future::poll_fn(move |cx| response.poll_pump(cx)));
        }
        StreamBody { response, open: Some(open), phase_watcher }
    }

    /// The client asks for more, or for nothing any more.
    fn set_asked_for(&self) {
        if let (Some(_), Some(Open(streams))) = (self.response.unread.take(), &self.open) {
            streams.waiting.end_response();
        }
    }

    fn poll_source(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.response.max > 0 {
            return self.response.poll_queue(cx);
        }
        let mut body = self.response.body.borrow_mut();
        let frame = ready!(body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx)));
        let hand_out = |piece| self.response.queue.borrow_mut().hand_out(piece);
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hand_out))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.set_asked_for();
        self.response.close();
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.set_asked_for();
        if this.phase_watcher.as_ref().is_some_and(|phase_watcher| phase_watcher.watch(cx) >= Phase::Draining)
        {
            return Poll::Ready(Some(Err(BodyError::Draining)));
        }
        if this.response.cut.take().is_some() {
            return Poll::Ready(Some(Err(BodyError::ClientGone)));
        }
        let mut piece = std::mem::take(&mut *this.response.rest.borrow_mut());
        if piece.is_empty() {
            let frame = ready!(this.poll_source(cx));
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => piece = data,
                    Err(trailers) => {
                        this.response.told(Ok(()));
                        return Poll::Ready(Some(Ok(trailers)));
                    }
                },
                other => {
                    this.response.told(other.as_ref().map_or(Ok(()), |result| result.as_ref().map(|_| ())));
                    return Poll::Ready(other);
                }
            }
        }
        let rest = piece.split_off(piece.len().min(PIECE));
        *this.response.rest.borrow_mut() = rest;
        if let Some(Open(streams)) = &this.open {
            let now = clock::now();
            streams.waiting.begin_response(streams.open.get(), now);
            this.response.unread.set(Some(Unread::new(streams, now)));
        }
        if let Some(observer) = &mut *this.response.observer.borrow_mut() {
            observer.data(piece.len());
        }
        // A receiver that knows the length stops asking: the end is told with the last frame.
        if this.response.is_end_stream() {
            this.response.queue.borrow_mut().memory = None;
            this.response.told(Ok(()));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.response.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.response.rest.borrow().len() as u64;
        let queue = self.response.queue.borrow();
        let here = rest + queue.bytes as u64;
        match (&*self.response.body.borrow(), &queue.ended) {
            (Some(body), _) => {
                let hint = http_body::Body::size_hint(body).exact();
                hint.map_or_else(SizeHint::default, |exact| SizeHint::with_exact(exact + here))
            }
            (None, Some(Ok(None))) => SizeHint::with_exact(here),
            (None, _) => SizeHint::default(),
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
