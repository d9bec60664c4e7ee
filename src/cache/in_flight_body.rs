//! Content that is arriving from the upstream, read by several requests at once.
//!
//! One pump writes; any number of readers on any worker follow. While the content is to be stored all of it is kept, in
//! the memory of the cache, and no reader slows the pump. Therefore readers share content only if it is certain to be
//! kept. Memory for content of known length is reserved first, and all read it as it arrives. Content of unknown length
//! has one reader, the request that began the fetch; others get no byte before its end ([`InFlightBody::whole`]). If it
//! is too long, or memory runs out, they have sent nothing yet and go to the upstream by themselves. Then the one
//! reader takes the content at its client's pace: no client is cut off for the sake of others, and nothing is held for
//! a client that does not read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::cache::in_flight_state::{Follower, SLOT, State};
use crate::cache::store::stored::{Content, StoredHead, weight};
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::memory::memory_budget::Reservation;
use crate::message::body::{BodyError, Kept};

/// Minimum size in bytes of the pieces that content of known length is expected in. Smaller pieces need more slots than
/// are reserved.
const MIN_PIECE: usize = 1024;

/// The result of adding a piece of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is kept, within the reserved memory.
    Kept,
    /// It is kept beyond the reserved memory: the caller must make room or give up the content.
    Grew,
    /// The content is not going to be stored.
    NotKept,
}

/// The content of one response on its way; see the head of the file.
#[derive(Debug)]
pub(crate) struct InFlightBody {
    /// The stored response head, or the one to be stored.
    pub head: Arc<StoredHead>,
    /// The length of the content, if the upstream gave it.
    pub expected: Option<u64>,
    state: Mutex<State>,
}

impl InFlightBody {
    /// Returns the memory to reserve for content of this length, in bytes.
    pub(crate) const fn reservation(length: usize) -> usize {
        weight(length) + (length / MIN_PIECE + 1) * SLOT
    }

    /// Creates the body of a response to be stored. `place` covers its head and `reserved` bytes of its content.
    pub(crate) fn new(
        head: Arc<StoredHead>,
        expected: Option<u64>,
        place: Reservation,
        reserved: usize,
    ) -> InFlightBody {
        let state = State {
            pieces: VecDeque::new(),
            dropped: 0,
            here: 0,
            length: 0,
            cut: Vec::new(),
            uncut: (0, 0),
            keeps: true,
            reserved,
            closed: false,
            ended: None,
            followers: Vec::new(),
            next_id: 0,
            pump: None,
            place,
            made: Vec::new(),
            content: None,
            making: Vec::new(),
        };
        InFlightBody { head, expected, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a reader from the beginning; `None` if not all content is kept.
    pub(crate) fn reader(self: &Arc<InFlightBody>) -> Option<InFlightReader> {
        self.follow(false)
    }

    /// Waits until all of the content is stored; `None` if it is not going to be.
    pub(crate) fn whole(self: &Arc<InFlightBody>) -> Option<Whole> {
        self.follow(true).map(|place| Whole { place })
    }

    fn follow(self: &Arc<InFlightBody>, waits: bool) -> Option<InFlightReader> {
        let mut state = self.state();
        if !state.keeps || (waits && state.closed && state.content.is_none()) {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.followers.push(Follower { id, next: 0, waker: None, waits });
        Some(InFlightReader { fill: self.clone(), id })
    }

    /// Adds a piece that arrived; content longer than `max` bytes is not stored.
    pub(crate) fn push(&self, piece: Bytes, max: usize) -> Pushed {
        let mut state = self.state();
        state.length += piece.len();
        state.here += piece.len();
        let (bytes, before) = (piece.len(), state.pieces.len());
        if state.keeps && state.length > max {
            state.give_up();
        }
        if state.keeps {
            state.keep(piece);
        } else {
            state.pieces.push_back(piece);
        }
        let slots = state.pieces.len() - before;
        let takes = weight(bytes) + slots * SLOT;
        let grows = takes.saturating_sub(state.reserved);
        state.reserved -= takes - grows;
        state.place.grow_over(grows);
        state.give_up_read();
        state.wake_readers();
        match (state.keeps, grows) {
            (false, _) => Pushed::NotKept,
            (true, 0) => Pushed::Kept,
            (true, _) => Pushed::Grew,
        }
    }

    /// Gives up storing the content, for want of memory.
    pub(crate) fn give_up(&self) {
        let mut state = self.state();
        state.give_up();
        state.give_up_read();
    }

    /// Returns whether a reader follows or waits. The pump is woken when the last reader has gone.
    pub(crate) fn is_read(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.state();
        state.pump = Some(cx.waker().clone());
        !state.followers.is_empty()
    }

    /// Gives up storing content that has no reader; returns false if a reader has joined meanwhile.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.state();
        let unread = state.followers.is_empty();
        if unread {
            state.give_up();
            state.give_up_read();
        }
        unread
    }

    /// Waits until the pump may write more, which is always while all is kept. `None`: no reader is left.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        let mut state = self.state();
        if state.keeps {
            return Poll::Ready(Some(()));
        }
        if state.followers.is_empty() {
            return Poll::Ready(None);
        }
        if state.has_room() {
            return Poll::Ready(Some(()));
        }
        state.pump = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the content, with or without an error. Returns the whole content and its reservation if all of it is kept.
    pub(crate) fn finish(
        &self,
        ended: Result<Option<HeaderMap>, BodyError>,
    ) -> Option<(ChunkedBytes, Reservation)> {
        let mut state = self.state();
        let whole = state.keeps && ended.is_ok();
        let content = whole.then(|| {
            state.cut();
            // The pieces that readers follow stay in memory as long as there are readers.
            let slots = state.pieces.len() * SLOT;
            let mut place = state.place.split();
            place.shrink(place.bytes().saturating_sub(slots + std::mem::take(&mut state.reserved)));
            state.place.grow_over(slots);
            (std::mem::take(&mut state.cut).into_iter().collect(), place)
        });
        state.ended = Some(ended);
        state.wake_readers();
        content
    }

    /// Hands the codings and tags made so far to the stored content, and wakes the requests that wait for it.
    pub(crate) fn stored(&self, content: &Arc<Content>) {
        let made = {
            let mut state = self.state();
            state.content = Some(content.clone());
            state.wake_waiting();
            std::mem::take(&mut state.made)
        };
        made.into_iter().for_each(|(name, pieces)| content.keep(name, pieces));
    }

    /// Ends the wait for content that was not stored: nothing more arrives.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        if state.content.is_none() {
            state.send_away();
        }
    }
}

impl Kept for InFlightBody {
    fn content(&self) -> Option<ChunkedBytes> {
        self.state().content.as_ref().map(|content| content.pieces().clone())
    }

    fn made(&self, name: &'static str) -> Option<ChunkedBytes> {
        let content = self.state().content.clone();
        content.and_then(|content| Kept::made(&*content, name))
    }

    fn keep(&self, name: &'static str, pieces: ChunkedBytes) {
        let content = {
            let mut state = self.state();
            if state.content.is_none() && state.keeps {
                state.place.grow_over(weight(pieces.len()));
                state.made.push((name, pieces));
                return;
            }
            state.content.clone()
        };
        if let Some(content) = content {
            content.keep(name, pieces);
        }
    }

    fn begin(&self, name: &'static str) -> bool {
        let mut state = self.state();
        let new = !state.making.contains(&name);
        if new {
            state.making.push(name);
        }
        new
    }

    fn end(&self, name: &'static str) {
        self.state().making.retain(|known| *known != name);
    }

    fn given(&self) -> u32 {
        0
    }

    fn claim(&self, _: &'static str) -> bool {
        false
    }
}

/// Waits for the whole content; see [`InFlightBody::whole`].
#[derive(Debug)]
pub(crate) struct Whole {
    place: InFlightReader,
}

impl Future for Whole {
    type Output = Option<Arc<Content>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arc<Content>>> {
        let mut state = self.place.fill.state();
        if let Some(content) = &state.content {
            return Poll::Ready(Some(content.clone()));
        }
        match state.followers.iter_mut().find(|follower| follower.id == self.place.id) {
            Some(follower) => {
                follower.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }
}

/// The position of one reader in an [`InFlightBody`].
#[derive(Debug)]
pub(crate) struct InFlightReader {
    fill: Arc<InFlightBody>,
    id: u64,
}

impl Drop for InFlightReader {
    fn drop(&mut self) {
        let mut state = self.fill.state();
        state.followers.retain(|follower| follower.id != self.id);
        state.give_up_read();
        if state.followers.is_empty()
            && let Some(pump) = state.pump.take()
        {
            pump.wake();
        }
    }
}

impl http_body::Body for InFlightReader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut guard = self.fill.state();
        let state = &mut *guard;
        let Some(follower) = state.followers.iter_mut().find(|follower| follower.id == self.id) else {
            return Poll::Ready(None);
        };
        let at = usize::try_from(follower.next.saturating_sub(state.dropped)).unwrap_or(usize::MAX);
        if let Some(piece) = state.pieces.get(at).cloned() {
            follower.next += 1;
            state.give_up_read();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &state.ended {
            None => {
                follower.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Err(error)) => {
                let error = error.clone();
                follower.next = u64::MAX;
                let id = self.id;
                state.followers.retain(|follower| follower.id != id);
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(trailers)) => {
                let trailers = trailers.clone();
                let id = self.id;
                state.followers.retain(|follower| follower.id != id);
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.fill.state();
        match state.followers.iter().find(|follower| follower.id == self.id) {
            None => true,
            Some(follower) => {
                let ended = matches!(state.ended, Some(Ok(None)));
                ended && follower.next >= state.dropped + state.pieces.len() as u64
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.fill.state();
        let total = match (&state.ended, self.fill.expected) {
            (Some(Ok(_)), _) => Some(state.length as u64),
            (_, expected) => expected,
        };
        let Some(total) = total else { return SizeHint::default() };
        let Some(follower) = state.followers.iter().find(|follower| follower.id == self.id) else {
            return SizeHint::with_exact(0);
        };
        let at = usize::try_from(follower.next.saturating_sub(state.dropped)).unwrap_or(usize::MAX);
        let left: usize = state.pieces.iter().skip(at).map(Bytes::len).sum();
        // The content still to come, and the content that is here but unread.
        let to_come = total.saturating_sub(state.length as u64);
        SizeHint::with_exact(to_come + left as u64)
    }
}
