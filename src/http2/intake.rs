//! The memory that one HTTP/2 client connection takes beside its individually counted requests and responses: the
//! library's buffers, its state of each stream, unread content, a field block without an end, and the buffers that the
//! HPACK table keeps alive.
//!
//! Frames are counted as they arrive, and content as it is read. When the buffer memory has no room for content, the
//! connection is not read until its own content was read. The memory that every connection takes, some 28 KiB with its
//! first streams, is bounded by `server.max_connections` and not counted. A connection with few streams that are read
//! promptly therefore never touches the shared account.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::memory::buffers::BufferReservation;
use crate::message::inbound::{FIELD_OVERHEAD, ORDINARY};
use crate::runtime::clock::Deadline;

/// Number of open requests above which small amounts are counted too, because they add up.
pub(crate) const FEW: usize = 4;

/// Bytes counted for each further stream while it is open. A call whose upstream hangs was measured to take 11.6 KiB;
/// to count all of it would leave too little of a small `buffer_memory` to responses that are read slowly. The request is
/// counted with this, as its client is known there.
pub(crate) const STREAM: usize = 3 * 1024;
/// Bytes that the library keeps per stream of the peak number of open streams, until the connection ends.
const STREAM_PLACE: usize = 1024;
/// Bytes that the library keeps per frame of the peak number of unread frames, until the connection ends.
const FRAME_PLACE: usize = 320;
/// Number of such frames that every connection may have uncounted.
const FEW_FRAMES: usize = 16;
/// Bytes beside the connection itself that are not reported to the shared account.
const SLACK: usize = 4 * 1024;
/// Granularity in bytes of reports to the shared account.
const STEP: usize = 16 * 1024;
/// Bytes that a connection always has room for: one frame (RFC 9113 6.5.2), because otherwise no content could arrive
/// for a reader.
const FLOOR: usize = 16 * 1024;
/// Bytes in memory of the heads that are read in one turn. Fields from the HPACK table take a thousand times their size
/// on the wire, and all streams of a turn begin before any of them is examined or refused.
const TURN: usize = 8 * 1024;
/// Interval at which a connection without room checks again, because others free memory without notice.
const LOOK: Duration = Duration::from_millis(10);

/// The memory that one HTTP/2 client connection takes, as it is counted in the buffer memory.
#[derive(Debug)]
pub(crate) struct Intake {
    /// The connection's reservation in the buffer memory; `None` if it is not counted.
    reserved: Option<RefCell<BufferReservation>>,
    /// Bytes that one stream may send before they are read.
    stream_window: usize,
    /// Bytes that wait below the library while the client reads nothing.
    write_buffer: usize,
    /// Number of open streams, of ended ones that are not written yet, and the peak of their sum.
    streams: Cell<usize>,
    ended: Cell<usize>,
    peak_streams: Cell<usize>,
    /// Unread content in the library: its octets, its frames, and the peak number of frames.
    unread: Cell<usize>,
    frames: Cell<usize>,
    peak_frames: Cell<usize>,
    /// Number of bodies that read content, of those that wait for content, and of those that begin with the next
    /// request.
    bodies: Cell<usize>,
    dry: Cell<usize>,
    expected: Cell<usize>,
    /// Bytes of the unfinished block, and of buffers that the HPACK table keeps alive.
    block: Cell<usize>,
    pinned: Cell<usize>,
    /// Bytes of heads that were read in this turn.
    turn: Cell<usize>,
    /// Whether a head arrived for which there was no room.
    overdrawn: Cell<bool>,
    /// Whether the client reads nothing at present.
    blocked: Cell<bool>,
    /// The connection's task, while it waits for room, and the time of its next check.
    reader: RefCell<Option<Waker>>,
    look: RefCell<Deadline>,
    /// Whether all bodies waited for content at the last check.
    was_dry: Cell<bool>,
}

impl Intake {
    /// Creates the count of a new connection. Each stream may send `stream_window` bytes before they are read. While
    /// the client reads nothing, `write_buffer` bytes wait below the library.
    pub(crate) fn new(
        reserved: Option<BufferReservation>,
        stream_window: usize,
        write_buffer: usize,
    ) -> Rc<Intake> {
        let intake = Intake {
            reserved: reserved.map(RefCell::new),
            stream_window,
            write_buffer,
            streams: Cell::default(),
            ended: Cell::default(),
            peak_streams: Cell::default(),
            unread: Cell::default(),
            frames: Cell::default(),
            peak_frames: Cell::default(),
            bodies: Cell::default(),
            dry: Cell::default(),
            expected: Cell::default(),
            block: Cell::default(),
            pinned: Cell::default(),
            turn: Cell::default(),
            overdrawn: Cell::default(),
            blocked: Cell::default(),
            reader: RefCell::default(),
            look: RefCell::default(),
            was_dry: Cell::default(),
        };
        intake.settle();
        Rc::new(intake)
    }

    /// Starts a turn: the library is about to be polled.
    pub(crate) fn begin_turn(&self) {
        self.turn.set(0);
    }

    /// Ends a turn: the library was polled. All requests that it accepted have begun, so no body is expected anymore.
    pub(crate) fn end_turn(&self) {
        if self.expected.take() > 0 {
            self.settle();
        }
    }

    /// Returns whether further heads have to wait for the next turn.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.turn.get() >= TURN
    }

    /// Returns whether a head arrived without room for it, so that the connection has to end.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.overdrawn.get()
    }

    /// Sets the number of open streams, after a request has begun or ended.
    pub(crate) fn set_streams(&self, streams: usize) {
        let before = self.streams.replace(streams);
        if streams < before && self.blocked.get() {
            // The response of an ended stream waits in the library.
            self.ended.set(self.ended.get() + before - streams);
        }
        let all = streams + self.ended.get();
        self.peak_streams.set(self.peak_streams.get().max(all));
        if all.max(before) > FEW {
            self.settle();
        }
    }

    /// Sets whether the client reads nothing at present.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        if self.blocked.replace(blocked) == blocked {
            return;
        }
        if !blocked {
            self.ended.set(0);
        }
        self.settle();
    }

    /// Announces the body of a request that is about to begin.
    pub(crate) fn expect_body(&self) {
        self.expected.set(self.expected.get() + 1);
    }

    /// Counts a DATA frame: its octets take from the windows, and from the memory.
    pub(crate) fn receive_data(&self, octets: usize) {
        self.unread.set(self.unread.get() + octets);
        if octets > 0 {
            self.frames.set(self.frames.get() + 1);
        }
        self.settle();
    }

    /// Sets the octets and fields of the unfinished block; both are zero once it has ended.
    pub(crate) fn set_block(&self, octets: usize, fields: usize) {
        self.set(&self.block, octets + fields * FIELD_OVERHEAD);
    }

    /// Counts a finished head with this number of fields; `size` is the bytes of their names and values.
    pub(crate) fn receive_head(&self, size: usize, fields: usize) {
        self.turn.set(self.turn.get() + size + fields * FIELD_OVERHEAD);
    }

    /// Sets the bytes that the HPACK table keeps alive.
    pub(crate) fn set_pinned(&self, bytes: usize) {
        self.set(&self.pinned, bytes);
    }

    /// Sets the bytes of `part`. The connection ends if that grows beyond an ordinary size without room.
    fn set(&self, part: &Cell<usize>, bytes: usize) {
        let before = part.replace(bytes);
        if bytes == before {
            return;
        }
        self.settle();
        if bytes > before.max(ORDINARY) && !self.has_room() {
            self.overdrawn.set(true);
        }
    }

    /// Returns the number of octets that may be read now. The `left` octets of a frame in progress never wait, because
    /// half a frame is useless.
    pub(crate) fn poll_room(&self, left: usize, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            let room = match self.has_room() {
                true => usize::MAX,
                false => FLOOR.saturating_sub(self.unread()).max(left),
            };
            let mut look = self.look.borrow_mut();
            if room > 0 {
                look.clear();
                return Poll::Ready(room);
            }
            if !look.is_set() {
                look.set_after(LOOK);
            }
            if look.poll_expired(cx).is_pending() {
                *self.reader.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            drop(look);
            // If all bodies wait for content, they have read everything: the rest was discarded with its streams. This
            // must hold at two checks in a row, because a body wakes a moment after its content arrived.
            let dry = self.dry.get() >= self.bodies.get() + self.expected.get();
            if self.was_dry.replace(dry) && dry {
                self.was_dry.set(false);
                self.unread.set(0);
                self.frames.set(0);
                self.settle();
            }
        }
    }

    /// Returns whether the connection may hold more.
    pub(crate) fn has_room(&self) -> bool {
        self.reserved.as_ref().is_none_or(|reserved| reserved.borrow().has_room())
    }

    /// Returns the bytes of unread content. Content discarded with its stream is noticed only when there are too few
    /// bodies to hold that much.
    fn unread(&self) -> usize {
        let max = (self.bodies.get() + self.expected.get()) * self.stream_window;
        let unread = self.unread.get().min(max);
        self.unread.set(unread);
        // Each frame has at least one octet.
        let frames = self.frames.get().min(unread);
        self.frames.set(frames);
        self.peak_frames.set(self.peak_frames.get().max(frames));
        unread
    }

    /// Reports the bytes held now to the shared account.
    fn settle(&self) {
        let Some(reserved) = &self.reserved else { return };
        let unread = self.unread();
        let beyond = |count: usize, few: usize| count.saturating_sub(few);
        // A frame that the library cuts out of its read buffer keeps the whole buffer.
        let held = unread
            + unread / 4
            + beyond(self.peak_frames.get(), FEW_FRAMES) * FRAME_PLACE
            + beyond(self.ended.get(), FEW) * STREAM
            + beyond(self.peak_streams.get(), FEW) * STREAM_PLACE
            + if self.blocked.get() { self.write_buffer } else { 0 }
            + self.block.get()
            + self.pinned.get();
        let wanted = if held > SLACK { held.next_multiple_of(STEP) } else { 0 };
        let mut reserved = reserved.borrow_mut();
        let now = reserved.bytes();
        // A reservation shrinks by more than one step only, so that short-lived changes are reported once.
        if wanted > now || wanted + 2 * STEP <= now || (held <= SLACK && wanted < now) {
            reserved.resize(wanted);
        }
    }

    fn wake(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// One body that reads its content from the library.
#[derive(Debug)]
pub(crate) struct IntakeBody {
    intake: Rc<Intake>,
    dry: bool,
}

impl IntakeBody {
    /// Counts the body of a request that begins.
    pub(crate) fn new(intake: Rc<Intake>) -> IntakeBody {
        intake.bodies.set(intake.bodies.get() + 1);
        intake.expected.set(intake.expected.get().saturating_sub(1));
        IntakeBody { intake, dry: false }
    }

    /// Records that the body read one frame of `bytes` bytes.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.set_dry(false);
        let intake = &self.intake;
        intake.unread.set(intake.unread.get().saturating_sub(bytes));
        intake.frames.set(intake.frames.get().saturating_sub(1));
        intake.settle();
        intake.wake();
    }

    /// Records that the body waits for content.
    pub(crate) fn wait(&mut self) {
        self.set_dry(true);
    }

    fn set_dry(&mut self, dry: bool) {
        if dry != self.dry {
            self.dry = dry;
            let count = self.intake.dry.get();
            self.intake.dry.set(if dry { count + 1 } else { count.saturating_sub(1) });
        }
    }
}

impl Drop for IntakeBody {
    fn drop(&mut self) {
        self.set_dry(false);
        self.intake.bodies.set(self.intake.bodies.get().saturating_sub(1));
        self.intake.settle();
        self.intake.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;
    use crate::memory::buffers::{BufferMemory, ClientSlot};

    const WINDOW: usize = 64 * 1024;

    fn intake(max: usize) -> (Arc<BufferMemory>, Rc<Intake>) {
        let memory = Arc::new(BufferMemory::new(max));
        let reserved = BufferReservation::new(memory.clone(), ClientSlot::default());
        (memory, Intake::new(Some(reserved), WINDOW, 0))
    }

    #[test]
    fn n3_4_a_connection_with_few_streams_reserves_nothing() {
        let (memory, intake) = intake(1 << 20);
        assert_eq!(memory.bytes(), 0);
        for _ in 0..100 {
            intake.begin_turn();
            intake.expect_body();
            intake.receive_head(100, 5);
            intake.receive_data(1024);
            intake.set_streams(1);
            let mut body = IntakeBody::new(intake.clone());
            intake.end_turn();
            assert_eq!(memory.bytes(), 0, "a small upload");
            body.took(1024);
            drop(body);
            intake.set_streams(0);
        }
        assert_eq!((memory.bytes(), intake.unread()), (0, 0));
    }

    #[test]
    fn n3_4_places_of_streams_stay_and_responses_that_are_not_written_are_counted() {
        let (memory, intake) = intake(1 << 20);
        intake.set_streams(FEW);
        assert_eq!(memory.bytes(), 0);
        intake.set_streams(FEW + 100);
        assert!(memory.bytes() >= 100 * STREAM_PLACE);
        intake.set_blocked(true);
        intake.set_streams(0);
        assert!(memory.bytes() >= 100 * (STREAM + STREAM_PLACE), "responses that are not written");
        intake.set_blocked(false);
        let left = memory.bytes();
        assert!((100 * STREAM_PLACE..100 * STREAM_PLACE + 2 * STEP).contains(&left), "{left}");
    }

    #[tokio::test]
    async fn n3_4_a_connection_without_room_is_read_as_its_content_is_taken() {
        let (memory, intake) = intake(1 << 20);
        let mut others = BufferReservation::new(memory.clone(), ClientSlot::default());
        others.resize(1 << 20);
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(intake.poll_room(0, cx), Poll::Ready(FLOOR), "one frame always");
        intake.expect_body();
        intake.receive_data(FLOOR);
        let mut body = IntakeBody::new(intake.clone());
        assert_eq!(intake.poll_room(100, cx), Poll::Ready(100), "the rest of a frame always");
        assert_eq!(intake.poll_room(0, cx), Poll::Pending);
        body.took(1000);
        assert_eq!(intake.poll_room(0, cx), Poll::Ready(1000));
        intake.receive_data(1000);
        assert_eq!(intake.poll_room(0, cx), Poll::Pending);
        // The unread rest was left by another body, and this body waits.
        body.wait();
        let room = std::future::poll_fn(|cx| intake.poll_room(0, cx));
        assert_eq!(tokio::time::timeout(Duration::from_secs(20), room).await, Ok(FLOOR));
        let cx = &mut Context::from_waker(Waker::noop());
        others.resize(0);
        assert_eq!(intake.poll_room(0, cx), Poll::Ready(usize::MAX));
    }

    #[test]
    fn n3_4_heads_without_room_end_their_connection() {
        let (memory, intake) = intake(1 << 20);
        intake.set_block(60_000, 0);
        assert!(memory.bytes() >= 60_000);
        intake.set_block(0, 0);
        assert_eq!(memory.bytes(), 0);
        let mut others = BufferReservation::new(memory.clone(), ClientSlot::default());
        others.resize(1 << 20);
        intake.set_block(ORDINARY, 0);
        assert!(!intake.is_overdrawn(), "an ordinary one");
        intake.set_block(ORDINARY + 1, 0);
        assert!(intake.is_overdrawn());
    }

    proptest! {
        /// Streams open, send, are read and end with unread content, in any order. The count is never below the bytes
        /// held, and in the end everything is released.
        #[test]
        fn n3_4_what_is_unread_is_never_counted_too_low(
            events in proptest::collection::vec((0usize..5, 0usize..8, 1usize..16_384), 1..200),
        ) {
            let (memory, intake) = intake(usize::MAX / 16);
            let mut streams: Vec<Option<(IntakeBody, Vec<usize>)>> = (0..8).map(|_| None).collect();
            for (event, at, size) in events {
                match (event, &mut streams[at]) {
                    (0, empty @ None) => {
                        intake.expect_body();
                        *empty = Some((IntakeBody::new(intake.clone()), Vec::new()));
                    }
                    (1 | 2, Some((_, queue))) if queue.iter().sum::<usize>() + size <= WINDOW => {
                        intake.receive_data(size);
                        queue.push(size);
                    }
                    (3, Some((body, queue))) => match queue.pop() {
                        Some(size) => body.took(size),
                        None => body.wait(),
                    },
                    (4, stream) => *stream = None,
                    _ => {}
                }
                let held: usize = streams.iter().flatten().flat_map(|(_, queue)| queue).sum();
                prop_assert!(intake.unread() >= held, "{} of {held}", intake.unread());
                prop_assert!(memory.bytes() + SLACK >= held);
            }
            streams.clear();
            prop_assert_eq!(intake.unread(), 0);
        }
    }
}
