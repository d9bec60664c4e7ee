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

/// Bytes that a piece takes beside its content: an upstream may send each byte as a piece of its own.
pub(super) const SLOT: usize = 2 * size_of::<Bytes>();

#[derive(Debug)]
pub(super) struct Follower {
    pub id: u64,
    /// The piece it reads next, counted from the first piece of the content.
    pub next: u64,
    pub waker: Option<Waker>,
    /// Whether it reads nothing until all of the content is stored.
    pub waits: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub pieces: VecDeque<Bytes>,
    /// Number of pieces dropped already.
    pub dropped: u64,
    /// Bytes of the pieces that are held.
    pub here: usize,
    /// Bytes that have arrived in all.
    pub length: usize,
    /// The content to be stored, as far as it is copied into pieces of its own.
    pub cut: Vec<Bytes>,
    /// The number and bytes of the last pieces that are not copied yet.
    pub uncut: (usize, usize),
    /// Whether all pieces are kept.
    pub keeps: bool,
    /// Bytes of `place` that are reserved for content still to come.
    pub reserved: usize,
    /// Whether nothing more arrives or is stored.
    pub closed: bool,
    pub ended: Option<Result<Option<HeaderMap>, BodyError>>,
    pub followers: Vec<Follower>,
    pub next_id: u64,
    pub pump: Option<Waker>,
    pub place: Reservation,
    /// Content codings and tags made before all of the content was stored.
    pub made: Vec<(&'static str, ChunkedBytes)>,
    pub content: Option<Arc<Content>>,
    /// Names of what is being made of the content.
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

    /// Ends the wait of all requests that wait for the whole content.
    pub(super) fn send_away(&mut self) {
        self.wake_waiting();
        self.followers.retain(|follower| !follower.waits);
    }

    /// Adds an arrived piece to the content to be stored.
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

    /// Copies the pieces that are not copied yet into one piece of the stored content. Readers read from the copy, so
    /// the buffers of the connection are free at once.
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

    /// Returns whether the pump may write more while not all is kept. Data read ahead for a slow client is read beyond
    /// this point and counted in the buffer memory.
    pub(super) fn has_room(&self) -> bool {
        self.here == 0
    }

    /// Drops the pieces that every reader has read, if not all is kept.
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
        // Pieces that slow readers still need count as much as stored ones.
        self.place.shrink(weight(self.here) + self.pieces.len() * SLOT);
        if self.has_room()
            && let Some(pump) = self.pump.take()
        {
            pump.wake();
        }
    }
}
