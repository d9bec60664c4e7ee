//! Rejects trailer sections with a pseudo-header field. They are malformed (RFC 9113 8.1), but the library accepts
//! them, and another parser could see another path or status there. All input of a peer is therefore checked on its way
//! to the library. A bad section gets an additional field that the library refuses as malformed: its stream ends like
//! any malformed one, and the rest of the connection goes on.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hpack::{Progress, Table};
use super::intake::Intake;
use super::settings::{PeerSettings, Reader};
use crate::connection::stream::PeerLeft;

/// Length of the client connection preface (RFC 9113 3.4) in octets.
const PREFACE: usize = 24;
const FRAME: usize = 9;
/// Maximum frame size in octets, unless a peer asks for more (RFC 9113 6.5.2).
const MAX_FRAME: usize = 16 * 1024;
/// Capacity in bytes of the block buffer that a connection keeps for its next block.
const KEPT_BLOCK: usize = 4 * 1024;
/// Maximum bytes of a block that is checked; the library refuses blocks of this size.
const MAX_BLOCK: usize = 4 * 1024 * 1024;
/// Maximum number of remembered streams whose response goes on; the oldest are forgotten.
const MAX_STREAMS: usize = 4096;
/// Bytes that the library reads at once. A stored field keeps all of them alive.
const READ: usize = 16 * 1024;
/// Bytes of one read of a connection without room.
const SMALL_READ: usize = 2 * 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// `connection: x`, not put into any table: a connection field of HTTP/1 is malformed here (RFC 9113 8.2.2).
const REFUSED_FIELD: &[u8] = b"\x00\x0aconnection\x01x";

/// The role of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frame {
    fn parse(header: &[u8]) -> Option<Frame> {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *header.first_chunk()?;
        Some(Frame {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn is_block(self) -> bool {
        matches!(self.kind, HEADERS | CONTINUATION)
    }
}

/// The state of the input, frame by frame.
#[derive(Debug)]
struct Watch {
    sender: Sender,
    table: Table,
    /// Octets left until the next frame begins.
    left: usize,
    /// The current frame, if it is part of a block.
    frame: Option<Frame>,
    /// The HEADERS frame of the unfinished block, and whether the block is a trailer section.
    head: Option<(Frame, bool)>,
    /// The unread part of the block, the offset of its last frame, and the progress of reading.
    block: Vec<u8>,
    begin: usize,
    read: Progress,
    /// Octets of the block's frames.
    octets: usize,
    /// Octets of frames since the HPACK table last got an entry.
    since_entry: usize,
    intake: Option<Rc<Intake>>,
    /// The last stream that a client opened.
    last: u32,
    /// Streams of a server with a final head and no end yet.
    open: BTreeSet<u32>,
    /// The server's announced settings, and whether the current frame contains some.
    settings: Reader,
    in_settings: bool,
    /// Whether the input is not understood; the library will report the error.
    lost: bool,
}

impl Watch {
    fn new(sender: Sender, intake: Option<Rc<Intake>>) -> Watch {
        Watch {
            sender,
            table: Table::default(),
            left: if sender == Sender::Client { PREFACE } else { 0 },
            frame: None,
            head: None,
            block: Vec::new(),
            begin: 0,
            read: Progress::default(),
            octets: 0,
            since_entry: 0,
            intake,
            last: 0,
            open: BTreeSet::new(),
            settings: Reader::default(),
            in_settings: false,
            lost: false,
        }
    }

    /// Returns whether a frame belongs to a trailer section.
    fn is_of_trailers(&self, frame: Frame) -> bool {
        match (frame.kind, self.head, self.sender) {
            (CONTINUATION, Some((_, trailers)), _) => trailers,
            // Identifiers only grow, so HEADERS on an earlier stream are no new request (RFC 9113 5.1.1).
            (HEADERS, _, Sender::Client) => frame.stream <= self.last,
            (HEADERS, _, Sender::Server) => self.open.contains(&frame.stream),
            _ => false,
        }
    }

    /// Returns whether no further frame may pass in this turn.
    fn is_paused(&self) -> bool {
        self.left == 0 && self.intake.as_ref().is_some_and(|intake| intake.is_turn_over())
    }

    /// Checks octets and returns how many of them may pass. The rest starts with an incomplete frame header, with a
    /// frame of a trailer section that has to be complete first, or with a frame that has to wait for the next turn.
    fn pass(&mut self, octets: &[u8]) -> usize {
        let mut at = 0;
        while at < octets.len() {
            if self.lost {
                return octets.len();
            }
            if self.left > 0 {
                let take = self.left.min(octets.len() - at);
                if self.frame.is_some() {
                    self.block.extend_from_slice(&octets[at..at + take]);
                } else if self.in_settings {
                    self.settings.take(&octets[at..at + take]);
                }
                self.left -= take;
                at += take;
                if self.left == 0 {
                    self.end_of_frame();
                }
                continue;
            }
            let Some(frame) = Frame::parse(&octets[at..]).filter(|_| !self.is_paused()) else { return at };
            if self.is_of_trailers(frame) && frame.length <= MAX_FRAME {
                return at;
            }
            self.begin_frame(frame);
            self.left = frame.length;
            at += FRAME;
            if self.left == 0 {
                self.end_of_frame();
            }
        }
        at
    }

    /// Clears the block. Capacity that most blocks do not need is freed.
    fn forget_block(&mut self) {
        if self.block.capacity() > KEPT_BLOCK {
            self.block = Vec::new();
        }
        self.block.clear();
    }

    fn begin_frame(&mut self, frame: Frame) {
        self.since_entry += FRAME + frame.length;
        match frame.kind {
            HEADERS => {
                let trailers = self.is_of_trailers(frame);
                self.head = Some((frame, trailers));
                if self.sender == Sender::Client {
                    self.last = self.last.max(frame.stream);
                }
                self.forget_block();
                (self.read, self.octets) = (Progress::default(), 0);
                if let Some(intake) = self.intake.as_ref().filter(|_| !trailers && !frame.has(END_STREAM)) {
                    intake.expect_body();
                }
            }
            // Pushed responses are never requested; the library ends the connection.
            PUSH_PROMISE => self.lost = true,
            SETTINGS => self.in_settings = self.sender == Sender::Server && !frame.has(ACK),
            RST_STREAM => drop(self.open.remove(&frame.stream)),
            DATA => {
                if let Some(intake) = &self.intake {
                    intake.receive_data(frame.length);
                }
                if frame.has(END_STREAM) {
                    self.open.remove(&frame.stream);
                }
            }
            _ => {}
        }
        self.begin = self.block.len();
        self.frame = (frame.is_block() && self.head.is_some()).then_some(frame);
        if self.frame.is_some() {
            self.octets += frame.length;
            self.lost |= self.octets > MAX_BLOCK;
            self.count_block(frame);
        }
    }

    /// Counts a block that is longer than a connection's buffers, or may never end.
    fn count_block(&self, frame: Frame) {
        let long = self.octets > KEPT_BLOCK || !frame.has(END_HEADERS);
        if let Some(intake) = self.intake.as_ref().filter(|_| long) {
            intake.set_block(self.octets + self.block.capacity().max(frame.length), self.read.fields);
        }
    }

    /// Counts a finished head and the buffers that its table entries keep alive.
    fn count_head(&mut self) {
        // An entry keeps the whole read buffer alive, but no more than the octets since the last entry.
        let pinned = self.since_entry.min(self.octets + READ);
        self.table.pin(&self.read, pinned);
        if self.read.has_entry() {
            self.since_entry = 0;
        }
        if let Some(intake) = &self.intake {
            intake.set_block(0, 0);
            intake.set_pinned(self.table.pinned());
            intake.receive_head(self.read.size, self.read.fields);
        }
    }

    /// Ends a frame: reads the complete fields of its block. Returns `true` for a trailer section with a pseudo-header
    /// field.
    fn end_of_frame(&mut self) -> bool {
        let Some(frame) = self.frame.take() else {
            if std::mem::take(&mut self.in_settings) {
                self.settings.end();
            }
            return false;
        };
        if frame.kind == HEADERS && !self.strip(frame) {
            self.lost = true;
            return false;
        }
        // Complete fields are read and dropped at once, because a block may never end.
        let Ok(taken) = self.table.read(&self.block, &mut self.read) else {
            self.lost = true;
            return false;
        };
        let whole = taken == self.block.len();
        self.block.drain(..taken);
        let Some((head, trailers)) = self.head.filter(|_| frame.has(END_HEADERS)) else {
            self.count_block(frame);
            return false;
        };
        self.head = None;
        if !whole {
            self.lost = true;
            return false;
        }
        self.forget_block();
        self.count_head();
        let found = self.read.found;
        if self.sender == Sender::Server {
            if head.has(END_STREAM) {
                self.open.remove(&head.stream);
            } else if !found.interim {
                self.open.insert(head.stream);
                if self.open.len() > MAX_STREAMS {
                    self.open.pop_first();
                }
            }
        }
        trailers && found.pseudo
    }

    /// Removes padding and priority from the payload of a HEADERS frame (RFC 9113 6.2).
    fn strip(&mut self, frame: Frame) -> bool {
        const WEIGHT: usize = 5;
        let payload = &self.block[self.begin..];
        let padding =
            if frame.has(PADDED) { payload.first().map(|octets| usize::from(*octets)) } else { Some(0) };
        let before = usize::from(frame.has(PADDED)) + if frame.has(PRIORITY) { WEIGHT } else { 0 };
        let Some(padding) = padding.filter(|padding| before + padding <= payload.len()) else { return false };
        self.block.truncate(self.block.len() - padding);
        self.block.drain(self.begin..self.begin + before);
        true
    }

    /// Checks the first frame in `held` and moves it to `ready`. Returns `false` while the frame is incomplete.
    fn careful(&mut self, held: &mut BytesMut, ready: &mut BytesMut) -> bool {
        let Some(frame) = Frame::parse(held).filter(|frame| held.len() >= FRAME + frame.length) else {
            return false;
        };
        let whole = held.split_to(FRAME + frame.length);
        self.begin_frame(frame);
        self.block.extend_from_slice(&whole[FRAME..]);
        let malformed = self.end_of_frame();
        if malformed {
            refuse(frame, &whole, ready);
        } else {
            ready.extend_from_slice(&whole);
        }
        true
    }
}

/// Rewrites the last frame of a trailer section so that the library refuses it: with one more field, in a frame of its
/// own if this one has no room.
fn refuse(frame: Frame, whole: &[u8], out: &mut BytesMut) {
    let (begin, payload) = whole.split_at(FRAME);
    let mut begin: Vec<u8> = begin.to_vec();
    let length = frame.length + REFUSED_FIELD.len();
    if length <= MAX_FRAME {
        let padded = frame.kind == HEADERS && frame.has(PADDED);
        let padding = payload.first().filter(|_| padded).map_or(0, |octets| usize::from(*octets));
        let (block, padding) = payload.split_at(payload.len().saturating_sub(padding));
        begin[..3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        [&begin, block, REFUSED_FIELD, padding].iter().for_each(|part| out.extend_from_slice(part));
    } else {
        begin[4] &= !END_HEADERS;
        let continued = [0, 0, REFUSED_FIELD.len() as u8, CONTINUATION, END_HEADERS];
        let stream = &frame.stream.to_be_bytes();
        [&begin, payload, &continued, stream, REFUSED_FIELD]
            .iter()
            .for_each(|part| out.extend_from_slice(part));
    }
}

/// A connection whose input is checked.
#[derive(Debug)]
pub struct Watched<T> {
    inner: T,
    watch: Watch,
    /// Input that is not complete yet: less than a frame.
    held: BytesMut,
    /// Checked input that was not read yet.
    ready: BytesMut,
    /// Whether `held` has to wait for the next turn.
    waits: bool,
}

impl<T> Watched<T> {
    /// Creates a connection on which `sender` sends.
    pub fn new(inner: T, sender: Sender) -> Watched<T> {
        let watch = Watch::new(sender, None);
        Watched { inner, watch, held: BytesMut::new(), ready: BytesMut::new(), waits: false }
    }

    /// Creates a connection on which a client sends. `intake` counts the input and decides when more may come.
    pub(crate) fn counted(inner: T, intake: Rc<Intake>) -> Watched<T> {
        let watch = Watch::new(Sender::Client, Some(intake));
        Watched { inner, watch, held: BytesMut::new(), ready: BytesMut::new(), waits: false }
    }

    /// Returns the settings that the peer announced so far, if it is a server.
    pub fn peer_settings(&self) -> PeerSettings {
        self.watch.settings.settings()
    }

    /// Continues with input that had to wait for this turn. Returns whether any of it may pass.
    fn resumes(&mut self) -> bool {
        if self.waits {
            self.waits = false;
            self.release();
        }
        !self.ready.is_empty()
    }

    /// Moves the octets that may pass from `held` to `ready`.
    fn release(&mut self) {
        loop {
            let count = self.watch.pass(&self.held);
            self.ready.extend_from_slice(&self.held[..count]);
            self.held.advance(count);
            self.waits = !self.held.is_empty() && self.watch.is_paused();
            if self.held.is_empty() || self.waits || !self.watch.careful(&mut self.held, &mut self.ready) {
                return;
            }
        }
    }
}

impl<T: AsyncRead + PeerLeft + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.ready.is_empty() {
                let take = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..take]);
                this.ready.advance(take);
                if this.ready.is_empty() && this.ready.capacity() > KEPT_BLOCK {
                    this.ready = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            if this.watch.is_paused() {
                // The streams that have begun are handled first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if this.resumes() {
                continue;
            }
            let room = match &this.watch.intake {
                Some(intake) => match intake.poll_room(this.watch.left, cx) {
                    Poll::Ready(room) => room,
                    // Only a read would show the close. Memory of a disconnected client must be freed at once.
                    Poll::Pending if this.inner.peer_left() => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                },
                None => usize::MAX,
            };
            let before = buf.filled().len();
            if room < buf.remaining() {
                let mut small = [0; SMALL_READ];
                let mut piece = ReadBuf::new(&mut small[..room.min(SMALL_READ)]);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
                buf.put_slice(piece.filled());
            } else {
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            }
            let read = &buf.filled()[before..];
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let passed = if this.held.is_empty() { this.watch.pass(read) } else { 0 };
            if passed < read.len() {
                this.held.extend_from_slice(&read[passed..]);
                buf.set_filled(before + passed);
                this.release();
            }
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
