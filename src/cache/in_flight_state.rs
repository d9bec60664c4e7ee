//! The pieces of a body in flight, and how far each of its readers is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::store::stored::{Content, weight};
use crate::memory::chunked_bytes::{ChunkedBytes, PIECE};
use crate::memory::memory_budget::Reservation;
use crate::message::body::BodyError;

/// What a piece takes beside its bytes: an app may send each byte as a piece of its own.
pub(super) const SLOT: usize = 2 * size_of::<Bytes>();

#[derive(Debug)]
pub(super) struct Follower {
    pub id: u64,
    /// The piece it wants next, counted from the first there was.
    pub next: u64,
    pub waker: Option<Waker>,
    /// It reads nothing until all of it is stored.
    pub waits: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub pieces: VecDeque<Bytes>,
    /// Pieces that are gone already.
    pub dropped: u64,
    /// Bytes of the pieces that are here.
    pub here: usize,
    /// Bytes there were in all.
    pub length: usize,
    /// What is to be stored of it, as far as it is cut already.
    pub cut: Vec<Bytes>,
    /// How many pieces at the end are not, and their bytes.
    pub uncut: (usize, usize),
    /// Whether all pieces are kept.
    pub keeps: bool,
    /// Bytes of `place` that were reserved for what is still to come.
    pub reserved: usize,
    /// Whether nothing comes any more, and nothing more is stored.
    pub closed: bool,
    pub ended: Option<Result<Option<HeaderMap>, BodyError>>,
    pub followers: Vec<Follower>,
    pub next_id: u64,
    pub pump: Option<Waker>,
    pub place: Reservation,
    /// What was made of it before all of it was stored.
    pub made: Vec<(&'static str, ChunkedBytes)>,
    pub content: Option<Arc<Content>>,
    /// What is being made of it.
    pub making: Vec<&'static str>,
}

impl State {
    pub(super) fn give_up(&mut self) {
        self.keeps = false;
        self.reserved = 0;
        self.made.clear();
        self.cut.clear();
        self.send_away();
    }

    /// Nobody waits any more for all of it.
    pub(super) fn send_away(&mut self) {
        self.wake_waiting();
        self.followers.retain(|follower| !follower.waits);
    }

    /// Adds what came to what is to be stored.
    pub(super) fn keep(&mut self, mut piece: Bytes) {
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
    pub(super) fn cut(&mut self) {
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

    pub(super) fn wake_readers(&mut self) {
        self.wake(false);
    }

    pub(super) fn wake_waiting(&mut self) {
        self.wake(true);
    }

    fn wake(&mut self, waits: bool) {
        let followers = self.followers.iter_mut().filter(|follower| follower.waits == waits);
        followers.filter_map(|follower| follower.waker.take()).for_each(Waker::wake);
    }

    /// Whether the pump may go on where not all is kept: what is read ahead for a slow client is read beyond this, and
    /// counted in the buffer memory.
    pub(super) fn has_room(&self) -> bool {
        self.here == 0
    }

    /// Drops what every reader has had, where not all is kept.
    pub(super) fn give_up_read(&mut self) {
        if self.keeps {
            return;
        }
        let slowest = self.followers.iter().map(|follower| follower.next).min().unwrap_or(u64::MAX);
        while self.dropped < slowest
            && let Some(piece) = self.pieces.pop_front()
        {
            self.here -= piece.len();
            self.dropped += 1;
        }
        // What slow readers have not had yet is held as much as what is stored.
        self.place.shrink(weight(self.here) + self.pieces.len() * SLOT);
        if self.has_room()
            && let Some(pump) = self.pump.take()
        {
            pump.wake();
        }
    }
}
