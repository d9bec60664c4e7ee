//! A response body on one HTTP/2 stream, read ahead of its client.
//!
//! The library asks for content only while the client's window is open. A body that is still arriving is therefore read
//! by a task of its own, up to `buffer_response`, so that a client that does not read does not hold the upstream. A
//! complete body, and one without an expected end, is passed on unchanged.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::read_ahead::{PIECE, Queue, ReadAhead, Unread};
use super::streams::{Open, Streams};
use crate::http2::intake::FEW;
use crate::memory::buffers::{BufferMemory, BufferReservation};
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::runtime::lifecycle::{Phase, PhaseWatcher};

/// Bytes from which complete content is counted. On a connection with many open streams all content is counted.
const COUNTED: u64 = 4 * 1024;
/// The read-ahead of a body.
pub(super) struct Ahead {
    /// Maximum bytes to read ahead.
    pub bytes: usize,
    /// The memory that the bytes are counted in.
    pub memory: Option<Arc<BufferMemory>>,
}

impl Unread {
    fn new(streams: &Streams, now: Instant) -> Unread {
        Unread { since: now, written: streams.written.get(), open: streams.open.get() }
    }
}

/// The response body of one stream; see the module documentation.
pub(super) struct StreamBody {
    response: Rc<ReadAhead>,
    open: Option<Open>,
    /// The phase, for streams without an expected end, which are closed when draining starts.
    phase_watcher: Option<PhaseWatcher>,
}

impl StreamBody {
    /// Creates the body of a stream that became a tunnel.
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
        // Complete content is counted if it may wait for long. Stored content is in memory anyway, except for the list
        // of its chunks. There was room when the content became complete, in this very poll.
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
            // The time runs from the head on: a window that is closed from the start counts too.
            unread: Cell::new(Some(Unread::new(streams, now))),
            cut: Cell::new(None),
            observer: RefCell::new(observer),
            _list: list,
        });
        {
            let mut bodies = streams.read_ahead.borrow_mut();
            // Ended responses are removed before the list outgrows the open ones.
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

    /// Records that the client asks for more, or that the response is over.
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
        // A receiver that knows the length stops polling, so the end is reported with the last frame.
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
