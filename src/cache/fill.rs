//! Content on its way from the app, read by everybody who waits for it as it comes.
//!
//! One pump writes, any number of readers on any worker follow. While the content is to be stored all of it is
//! kept; once it is known not to be (it is too long, or there is no place for it), only what the slowest reader
//! has not had yet. The pump then goes on for as long as one reader waits for it and no reader is further behind than
//! what was kept before: a reader that takes nothing does not stop the others. One that they have to wait for
//! all the same is cut off once they have done so for [`PATIENCE`] before it took its next [`WINDOW`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::stored::{Content, Head, weight};
use crate::body::{BodyError, Kept};
use crate::held::Place;
use crate::pieces::{PIECE, Pieces};

/// What a piece takes beside its bytes: an app may send each byte as a piece of its own.
const SLOT: usize = 2 * size_of::<Bytes>();

/// So much may lie between the pump and the slowest reader of content that is not stored; more where another reader
/// waits, see [`State::lag`].
const WINDOW: usize = 256 * 1024;
/// How long the other readers of a fetch wait for one that is too far behind until it takes another [`WINDOW`].
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Follower {
    id: u64,
    /// The piece it wants next, counted from the first there was.
    next: u64,
    waker: Option<Waker>,
    /// Bytes that it took, and that it had taken when the time began in which others waited for it.
    taken: (usize, usize),
    /// How long others waited for it since then.
    waited: Duration,
    /// It was too far behind, and gets no more.
    cut: bool,
}

#[derive(Debug)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Pieces that are gone already.
    dropped: u64,
    /// Bytes of the pieces that are here.
    here: usize,
    /// Bytes there were in all.
    length: usize,
    /// What is to be stored of it, as far as it is cut already.
    cut: Vec<Bytes>,
    /// How many pieces at the end are not, and their bytes.
    uncut: (usize, usize),
    /// Whether all pieces are kept.
    keeps: bool,
    /// How far a reader may be behind while another one waits, once not all is kept; bytes.
    lag: usize,
    ended: Option<Result<Option<HeaderMap>, BodyError>>,
    followers: Vec<Follower>,
    next_id: u64,
    pump: Option<Waker>,
    place: Place,
    /// What was made of it before all of it was stored.
    made: Vec<(&'static str, Pieces)>,
    content: Option<Arc<Content>>,
    /// What is being made of it.
    making: Vec<&'static str>,
}

/// See the head of the file.
#[derive(Debug)]
pub struct Fill {
    /// The head that was stored, or is to be.
    pub head: Arc<Head>,
    /// The length of the content, where the app told it.
    pub expected: Option<u64>,
    state: Mutex<State>,
}

impl Fill {
    /// Of an answer to be stored; `place` is for its head.
    pub fn new(head: Arc<Head>, expected: Option<u64>, place: Place) -> Fill {
        let state = State {
            pieces: VecDeque::new(),
            dropped: 0,
            here: 0,
            length: 0,
            cut: Vec::new(),
            uncut: (0, 0),
            keeps: true,
            lag: WINDOW,
            ended: None,
            followers: Vec::new(),
            next_id: 0,
            pump: None,
            place,
            made: Vec::new(),
            content: None,
            making: Vec::new(),
        };
        Fill { head, expected, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader from the beginning; `None` where the beginning is gone.
    pub fn reader(self: &Arc<Fill>) -> Option<Reader> {
        let mut state = self.state();
        if state.dropped > 0 || !state.keeps {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.followers.push(Follower {
            id,
            next: 0,
            waker: None,
            taken: (0, 0),
            waited: Duration::ZERO,
            cut: false,
        });
        Some(Reader { fill: self.clone(), id })
    }

    /// Adds what came. False: it is not going to be stored any more, because it is longer than `most`.
    pub fn push(&self, piece: Bytes, most: usize) -> bool {
        let mut state = self.state();
        state.length += piece.len();
        state.here += piece.len();
        let (bytes, before) = (piece.len(), state.pieces.len());
        if state.keeps && state.length > most {
            // That much is held already.
            state.lag = most.max(WINDOW);
            state.give_up();
        }
        if state.keeps {
            state.keep(piece);
        } else {
            state.pieces.push_back(piece);
        }
        let slots = state.pieces.len() - before;
        state.place.grow_over(weight(bytes) + slots * SLOT);
        state.give_up_read();
        state.wake_followers();
        state.keeps
    }

    /// There is no place for all of it: it is not going to be stored.
    pub fn give_up(&self) {
        let mut state = self.state();
        state.give_up();
        state.give_up_read();
    }

    /// Whether somebody reads it. The pump is woken when the last reader has gone.
    pub fn is_read(&self, cx: &mut Context<'_>) -> bool {
        let mut state = self.state();
        state.pump = Some(cx.waker().clone());
        !state.followers.is_empty()
    }

    /// Nobody reads it, and it is not going to be stored; false: somebody came meanwhile.
    pub fn abandon(&self) -> bool {
        let mut state = self.state();
        let unread = state.followers.is_empty();
        if unread {
            state.give_up();
            state.give_up_read();
        }
        unread
    }

    /// Whether the pump may go on: always while all is kept. `None`: nobody wants it.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Option<()>> {
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

    /// The reader for which the pump and another reader wait, and how long they do so yet.
    pub fn laggard(&self) -> Option<(u64, Duration)> {
        let mut state = self.state();
        if state.keeps || state.has_room() || !state.is_waited_for() {
            return None;
        }
        let slowest = state.followers.iter_mut().filter(|follower| !follower.cut);
        let slowest = slowest.min_by_key(|follower| follower.next)?;
        let (taken, before) = &mut slowest.taken;
        if *taken - *before >= WINDOW {
            *before = *taken;
            slowest.waited = Duration::ZERO;
        }
        Some((slowest.id, PATIENCE.saturating_sub(slowest.waited)))
    }

    /// Others have waited for a reader.
    pub fn charge(&self, id: u64, waited: Duration) {
        let mut state = self.state();
        if let Some(follower) = state.followers.iter_mut().find(|follower| follower.id == id) {
            follower.waited += waited;
        }
    }

    /// Cuts a reader off.
    pub fn cut(&self, id: u64) {
        let mut state = self.state();
        if let Some(follower) = state.followers.iter_mut().find(|follower| follower.id == id) {
            follower.cut = true;
            follower.waker.take().into_iter().for_each(Waker::wake);
        }
        state.give_up_read();
    }

    /// The end, or why there is none. Gives the whole content and its place, where all of it was kept and came.
    pub fn finish(&self, ended: Result<Option<HeaderMap>, BodyError>) -> Option<(Pieces, Place)> {
        let mut state = self.state();
        let whole = state.keeps && ended.is_ok();
        let content = whole.then(|| {
            state.cut();
            // The pieces that readers follow stay here, for as long as there are readers.
            let slots = state.pieces.len() * SLOT;
            let mut place = state.place.split();
            place.shrink(place.bytes().saturating_sub(slots));
            state.place.grow_over(slots);
            (std::mem::take(&mut state.cut).into_iter().collect(), place)
        });
        state.ended = Some(ended);
        state.wake_followers();
        content
    }

    /// It is stored: what was made of it belongs to that.
    pub fn stored(&self, content: &Arc<Content>) {
        let made = {
            let mut state = self.state();
            state.content = Some(content.clone());
            std::mem::take(&mut state.made)
        };
        made.into_iter().for_each(|(name, pieces)| content.keep(name, pieces));
    }
}

impl Kept for Fill {
    fn content(&self) -> Option<Pieces> {
        self.state().content.as_ref().map(|content| content.pieces().clone())
    }

    fn made(&self, name: &'static str) -> Option<Pieces> {
        let content = self.state().content.clone();
        content.and_then(|content| Kept::made(&*content, name))
    }

    fn keep(&self, name: &'static str, pieces: Pieces) {
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

impl State {
    fn give_up(&mut self) {
        self.keeps = false;
        self.made.clear();
        self.cut.clear();
    }

    /// Adds what came to what is to be stored.
    fn keep(&mut self, mut piece: Bytes) {
        while !piece.is_empty() {
            let (count, bytes) = self.uncut;
            let now = piece.split_to(piece.len().min(PIECE - bytes));
            self.uncut = (count + 1, bytes + now.len());
            self.pieces.push_back(now);
            if self.uncut.1 == PIECE {
                self.cut();
            }
        }
    }

    /// Makes a piece of what is stored of those that are not yet. Who reads them reads of that: what came off the wire
    /// is free at once.
    fn cut(&mut self) {
        let (count, bytes) = std::mem::take(&mut self.uncut);
        if bytes == 0 {
            return;
        }
        let first = self.pieces.len().saturating_sub(count);
        let mut cut = BytesMut::with_capacity(bytes);
        self.pieces.range(first..).for_each(|piece| cut.extend_from_slice(piece));
        let cut = cut.freeze();
        let mut start = 0;
        for piece in self.pieces.range_mut(first..) {
            let end = start + piece.len();
            *piece = cut.slice(start..end);
            start = end;
        }
        self.cut.push(cut);
    }

    fn wake_followers(&mut self) {
        self.followers.iter_mut().filter_map(|follower| follower.waker.take()).for_each(Waker::wake);
    }

    /// Whether a reader has had all there is.
    fn is_waited_for(&self) -> bool {
        let all = self.dropped + self.pieces.len() as u64;
        self.followers.iter().any(|follower| !follower.cut && follower.next >= all)
    }

    /// Whether the pump may go on where not all is kept.
    fn has_room(&self) -> bool {
        self.here <= WINDOW || (self.here <= self.lag && self.is_waited_for())
    }

    /// Drops what every reader has had, where not all is kept.
    fn give_up_read(&mut self) {
        if self.keeps {
            return;
        }
        let reading = self.followers.iter().filter(|follower| !follower.cut);
        let slowest = reading.map(|follower| follower.next).min().unwrap_or(u64::MAX);
        while self.dropped < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.here -= piece.len();
            self.dropped += 1;
        }
        // What slow readers have not had yet is held as much as what is stored.
        self.place.shrink(weight(self.here) + self.pieces.len() * SLOT);
        // Also where there is no room: a reader that waits for the pump makes it look at those that are behind.
        if (self.here <= WINDOW || self.is_waited_for())
            && let Some(pump) = self.pump.take()
        {
            pump.wake();
        }
    }
}

/// One reader's place in a [`Fill`].
#[derive(Debug)]
pub struct Reader {
    fill: Arc<Fill>,
    id: u64,
}

impl Drop for Reader {
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

impl http_body::Body for Reader {
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
        if follower.cut {
            let id = self.id;
            state.followers.retain(|follower| follower.id != id);
            return Poll::Ready(Some(Err(BodyError::ClientGone)));
        }
        let at = usize::try_from(follower.next.saturating_sub(state.dropped)).unwrap_or(usize::MAX);
        if let Some(piece) = state.pieces.get(at).cloned() {
            follower.next += 1;
            follower.taken.0 += piece.len();
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
        // What is still to come, and what is here and not read.
        let to_come = total.saturating_sub(state.length as u64);
        SizeHint::with_exact(to_come + left as u64)
    }
}
