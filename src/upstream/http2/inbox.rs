//! The received part of a response that waits for its client.
//!
//! The library would keep it frame by frame: uncounted, each frame with the buffer that it was read into, and it ends
//! the whole connection if too many small ones wait. Content is therefore taken from the library as soon as it arrives,
//! and counted in the client's share of the memory. The upstream may send more (RFC 9113 5.2) once the client has read
//! some.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use http_body::Frame;

use super::shared::Open;
use super::upload::RestOfUpload;
use crate::memory::buffers::{Arrival, BufferMemory, ClientSlot};
use crate::message::body::BodyError;
use crate::message::inbound::FIELD_OVERHEAD;
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::runtime::log_throttle::LogThrottle;

/// Size in bytes below which a piece is copied, so that it does not keep its read buffer alive.
const COPIED: usize = 8 * 1024;
/// Size in bytes to which waiting pieces are joined.
const JOINED: usize = 16 * 1024;
/// Bytes that a piece takes beside its content.
const OVERHEAD: usize = 64;
/// Bytes of the first piece for a client without room; each further piece is twice as long. A client that reads nothing
/// therefore holds only the first.
const FIRST_STEP: usize = 1024;
/// Time without a read after which a client counts as not reading a response.
const STALLED: Duration = Duration::from_secs(1);

/// The waiting part of one response.
pub(super) struct Inbox(RefCell<State>);

struct State {
    /// The stream; `None` once it has ended or was canceled.
    stream: Option<RecvStream>,
    /// The count of the stream, until it has ended in both directions.
    open: Option<Open>,
    rest: Option<RestOfUpload>,
    /// Whether all data has arrived; trailers may follow.
    data_ended: bool,
    /// Waiting content, with the memory of each piece in bytes.
    pieces: VecDeque<(Bytes, usize)>,
    /// The last piece, which grows.
    tail: BytesMut,
    /// Memory of all pieces in bytes.
    size: usize,
    /// Memory of the trailers in bytes.
    trailers: usize,
    memory: Option<Arrival>,
    ended: Option<Result<Option<HeaderMap>, BodyError>>,
    reader: Option<Waker>,
    /// Time of the last read, or the start of the response.
    taken: Instant,
    step: usize,
}

impl State {
    fn count(&mut self) {
        let held = self.size + self.tail.capacity() + self.trailers;
        if let Some(memory) = &mut self.memory {
            memory.resize(held);
        }
    }

    /// Ends the last piece: nothing more is added to it.
    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.push_piece(tail.capacity(), tail.freeze());
        }
    }

    fn push_piece(&mut self, capacity: usize, piece: Bytes) {
        let size = capacity + OVERHEAD;
        self.size += size;
        self.pieces.push_back((piece, size));
    }

    fn push(&mut self, data: Bytes) {
        if data.len() >= COPIED {
            self.close_tail();
            // The piece is most of a buffer of its own, whose size is rounded up.
            self.push_piece(data.len() + data.len() / 4, data);
        } else {
            if self.tail.len() + data.len() > JOINED {
                self.close_tail();
            }
            self.tail.extend_from_slice(&data);
        }
        self.count();
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.close_tail();
        }
        let pressed = self.memory.as_ref().is_some_and(|memory| !memory.has_room());
        let (first, _) = self.pieces.front_mut()?;
        let piece = if pressed && first.len() > self.step {
            let piece = Bytes::copy_from_slice(&first.split_to(self.step));
            self.step = (self.step * 2).min(JOINED);
            piece
        } else {
            let (piece, size) = self.pieces.pop_front()?;
            self.size -= size;
            piece
        };
        if !pressed {
            self.step = FIRST_STEP;
        }
        if let Some(stream) = &mut self.stream {
            let _ = stream.flow_control().release_capacity(piece.len());
        }
        self.count();
        Some(piece)
    }

    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    /// Ends the response. Returns the values to drop after the borrow, because their drop may run much code.
    fn end(&mut self, ended: Result<Option<HeaderMap>, BodyError>) -> impl Sized + use<> {
        self.trailers = ended.as_ref().ok().and_then(Option::as_ref).map_or(0, |trailers| {
            trailers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
        });
        self.ended = Some(ended);
        self.count();
        if let Some(open) = &mut self.open {
            open.set_lasting(false);
        }
        // The rest of the request still needs the stream.
        let open = if self.rest.is_none() { self.open.take() } else { None };
        (self.stream.take(), open)
    }

    /// Polls the next event of the stream. Returns the end if this was the last event.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Option<HeaderMap>, BodyError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Some(Ok(None))) };
        if !self.data_ended {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    let last = stream.is_end_stream();
                    if !data.is_empty() {
                        self.push(data);
                    }
                    return Poll::Ready(last.then_some(Ok(None)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.failed(&error)))),
                None => self.data_ended = true,
            }
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(Some(Ok(None))) };
        let trailers = ready!(stream.poll_trailers(cx));
        Poll::Ready(Some(trailers.map_err(|error| self.failed(&error))))
    }

    /// Returns the error with the right fault: a client that broke off its upload also broke off its response.
    fn failed(&self, error: &h2::Error) -> BodyError {
        let client = self.rest.as_ref().and_then(RestOfUpload::take_failure);
        client.unwrap_or_else(|| BodyError::Http2(error.to_string()))
    }
}

impl Inbox {
    pub(super) fn new(
        stream: RecvStream,
        open: Open,
        rest: Option<RestOfUpload>,
        memory: Option<Arrival>,
    ) -> Rc<Inbox> {
        let inbox = Rc::new(Inbox(RefCell::new(State {
            stream: Some(stream),
            open: Some(open),
            rest,
            data_ended: false,
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            size: 0,
            trailers: 0,
            memory,
            ended: None,
            reader: None,
            taken: clock::now(),
            step: FIRST_STEP,
        })));
        register(&inbox);
        inbox
    }

    /// Takes content as it arrives until the stream has ended.
    pub(super) fn poll_collect(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let (ended, reader, beyond) = {
                let mut state = self.0.borrow_mut();
                if state.ended.is_some() {
                    return Poll::Ready(());
                }
                let ended = ready!(state.poll_stream(cx)).map(|ended| state.end(ended));
                let beyond =
                    state.memory.as_ref().filter(|memory| memory.memory().is_beyond(memory.client()));
                let beyond = beyond.map(|memory| memory.memory().clone());
                (ended, state.reader.take(), beyond)
            };
            if let Some(reader) = reader {
                reader.wake();
            }
            if let Some(memory) = beyond {
                give_up(&memory);
                if memory.excess().is_some() {
                    memory.tell_beyond();
                }
            }
            if ended.is_some() {
                return Poll::Ready(());
            }
        }
    }

    /// Returns the next frame for the client.
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.borrow_mut();
        state.taken = clock::now();
        if let Some(piece) = state.pop() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut state.ended {
            Some(Ok(trailers)) => {
                let trailers = trailers.take();
                state.trailers = 0;
                state.count();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.clone()))),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Returns whether the client has read the whole response.
    pub(super) fn is_end_stream(&self) -> bool {
        let state = self.0.borrow();
        state.is_empty() && matches!(state.ended, Some(Ok(None)))
    }

    /// Drops the response, because nobody reads it anymore. `whole` says that all declared content was read, so the
    /// stream does not count as canceled.
    pub(super) fn close(&self, whole: bool) {
        let mut state = self.0.borrow_mut();
        if let Some(open) = state.open.as_mut().filter(|_| whole) {
            open.set_lasting(false);
        }
        drop_content(state);
    }

    /// Cancels the response for lack of memory: the upstream is told to stop, and the client gets an error.
    fn give_up(&self) {
        let mut state = self.0.borrow_mut();
        state.trailers = 0;
        state.ended = Some(Err(BodyError::ClientBehind));
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        drop_content(state);
    }
}

/// Drops the stream and all waiting content, after the borrow because the drop may run much code.
fn drop_content(mut state: std::cell::RefMut<'_, State>) {
    let content = (std::mem::take(&mut state.pieces), std::mem::take(&mut state.tail));
    let stream = (state.rest.take(), state.stream.take(), state.open.take());
    state.size = 0;
    state.count();
    drop(state);
    drop((content, stream));
}

/// The inboxes of one worker.
struct Inboxes {
    all: Vec<Weak<Inbox>>,
    /// Length of the list at which ended inboxes are removed.
    full: usize,
    /// The task that cancels responses when another worker asks for memory.
    task: Option<tokio::task::JoinHandle<()>>,
    told: LogThrottle,
}

thread_local! {
    static INBOXES: RefCell<Inboxes> =
        const { RefCell::new(Inboxes { all: Vec::new(), full: 0, task: None, told: LogThrottle::new(1) }) };
}

fn register(inbox: &Rc<Inbox>) {
    const FEW: usize = 64;
    INBOXES.with_borrow_mut(|inboxes| {
        if inboxes.all.len() >= inboxes.full {
            inboxes.all.retain(|inbox| inbox.strong_count() > 0);
            inboxes.full = 2 * inboxes.all.len().max(FEW);
        }
        inboxes.all.push(Rc::downgrade(inbox));
        let memory = inbox.0.borrow().memory.as_ref().map(|memory| memory.memory().clone());
        if let Some(memory) = memory
            && inboxes.task.as_ref().is_none_or(tokio::task::JoinHandle::is_finished)
        {
            inboxes.task = Some(tokio::task::spawn_local(async move {
                loop {
                    memory.told_beyond().await;
                    give_up(&memory);
                }
            }));
        }
    });
}

/// Cancels responses on this worker of the client that holds most, as far as memory is exceeded: first those that
/// nobody reads, the largest first.
fn give_up(memory: &Arc<BufferMemory>) {
    let Some((client, mut excess)) = memory.excess() else { return };
    let now = clock::now();
    let mut found = INBOXES.with_borrow(|inboxes| {
        let alive = inboxes.all.iter().filter_map(Weak::upgrade);
        let held = alive.filter_map(|inbox| {
            let (stalled, bytes) = inbox.holds(client, now)?;
            Some((stalled, bytes, inbox))
        });
        held.collect::<Vec<_>>()
    });
    found.sort_unstable_by_key(|(stalled, bytes, _)| std::cmp::Reverse((*stalled, *bytes)));
    let mut count = 0_u64;
    for (_, bytes, inbox) in found {
        if excess == 0 {
            break;
        }
        inbox.give_up();
        excess = excess.saturating_sub(bytes);
        count += 1;
    }
    memory.count_given_up(count);
    if count > 0
        && let Some(unsaid) = INBOXES.with_borrow(|inboxes| inboxes.told.may(now))
    {
        tracing::warn!(
            responses = count,
            unsaid,
            "responses of HTTP/2 upstreams ended: their client reads too little and holds most of \
            the buffer memory"
        );
    }
}

impl Inbox {
    /// Returns whether `client` has stopped reading this response, and its waiting bytes. Returns `None` for another
    /// client's response.
    fn holds(&self, client: ClientSlot, now: Instant) -> Option<(bool, usize)> {
        let state = self.0.try_borrow().ok()?;
        let memory =
            state.memory.as_ref().filter(|memory| memory.client() == client && memory.bytes() > 0)?;
        Some((now.saturating_duration_since(state.taken) >= STALLED, memory.bytes()))
    }
}
