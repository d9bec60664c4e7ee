//! The memory that one client connection of HTTP/2 takes beside what its requests and responses are counted for by
//! themselves: the library's buffers, its state of each stream, content that nobody has taken out of it yet, a field
//! block without an end, and what the HPACK table keeps alive.
//!
//! Frames are counted as they come in, and content as it is taken. Where the buffer memory has no room for content, the
//! connection is not read until its own content was taken. What every connection takes, some 28 KiB with its first
//! streams, is bounded by `server.max_connections` and not counted: a connection with few streams that are read at once
//! never touches the shared account.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::memory::buffers::BufferReservation;
use crate::message::inbound::{FIELD_OVERHEAD, ORDINARY};
use crate::runtime::clock::Deadline;

/// A connection with more open requests than this has the small things counted too, as many of them are no small thing.
pub(crate) const FEW: usize = 4;

/// What each further stream takes while it is open, with its tasks, its queues, and an ordinary head of its request and
/// response; bytes, measured with calls whose upstream hangs. Its request is counted with this, as it is known there whose
/// it is.
pub(crate) const STREAM: usize = 11 * 1024;
/// What the library keeps of the most streams that were ever open at once, until the connection ends; bytes.
const STREAM_PLACE: usize = 1024;
/// The same for each piece of content that waits in the library; bytes.
const FRAME_PLACE: usize = 320;
/// As many such pieces are part of what every connection takes.
const FEW_FRAMES: usize = 16;
/// Up to this much beside the connection itself is not told to the shared account; bytes.
const SLACK: usize = 4 * 1024;
/// What is told to it is a multiple of this; bytes.
const STEP: usize = 16 * 1024;
/// A connection always has room for one frame (RFC 9113 6.5.2), or nobody could take what comes; bytes.
const FLOOR: usize = 16 * 1024;
/// Heads that are read in one turn; bytes in memory. Fields that stand in the HPACK table take a thousand times what
/// comes on the wire, and all streams of a turn begin before any of them is looked at, or refused.
const TURN: usize = 8 * 1024;
/// How long a connection that has no room waits until it looks again: others free memory without telling it.
const LOOK: Duration = Duration::from_millis(10);

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Its part of the buffer memory; `None` where that is not counted.
    reserved: Option<RefCell<BufferReservation>>,
    /// What one stream may send before it is taken; bytes.
    stream_window: usize,
    /// What waits below the library where the client takes nothing; bytes.
    write_buffer: usize,
    /// Streams that are open, those that have ended and are not written yet, and the most there ever were.
    streams: Cell<usize>,
    ended: Cell<usize>,
    peak_streams: Cell<usize>,
    /// Content in the library that nobody has taken: its octets, its frames, and the most frames there ever were.
    unread: Cell<usize>,
    frames: Cell<usize>,
    peak_frames: Cell<usize>,
    /// Bodies that take content, those of them that wait for some, and those that begin with the next request.
    bodies: Cell<usize>,
    dry: Cell<usize>,
    expected: Cell<usize>,
    /// The block that has not ended, and what the HPACK table keeps alive; bytes.
    block: Cell<usize>,
    pinned: Cell<usize>,
    /// Heads that were read in this turn; bytes.
    turn: Cell<usize>,
    /// There was no room for a head.
    overdrawn: Cell<bool>,
    /// Whether the client takes nothing just now of what is written.
    blocked: Cell<bool>,
    /// The connection, where it waits for room, and when it looks again.
    reader: RefCell<Option<Waker>>,
    look: RefCell<Deadline>,
    /// Whether all bodies waited for content at the last look.
    was_dry: Cell<bool>,
}

impl Intake {
    /// Of a connection that begins. Its streams may send `stream_window` bytes each before they are taken; where the
    /// client takes nothing, `write_buffer` bytes wait below the library.
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

    /// The library is about to be polled.
    pub(crate) fn begin_turn(&self) {
        self.turn.set(0);
    }

    /// The library was polled: each request that it takes has begun, so no body is to come.
    pub(crate) fn end_turn(&self) {
        if self.expected.take() > 0 {
            self.settle();
        }
    }

    /// Whether further heads have to wait for the next turn.
    pub(crate) fn is_turn_over(&self) -> bool {
        self.turn.get() >= TURN
    }

    /// Whether a head came for which there is no room: the connection has to end.
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.overdrawn.get()
    }

    /// A request has begun or ended; `streams` are open now.
    pub(crate) fn set_streams(&self, streams: usize) {
        let before = self.streams.replace(streams);
        if streams < before && self.blocked.get() {
            // Its response waits in the library.
            self.ended.set(self.ended.get() + before - streams);
        }
        let all = streams + self.ended.get();
        self.peak_streams.set(self.peak_streams.get().max(all));
        if all.max(before) > FEW {
            self.settle();
        }
    }

    /// Whether the client takes nothing just now of what is written to it.
    pub(crate) fn set_blocked(&self, blocked: bool) {
        if self.blocked.replace(blocked) == blocked {
            return;
        }
        if !blocked {
            self.ended.set(0);
        }
        self.settle();
    }

    /// A request with content is on its way to the one who takes it.
    pub(crate) fn expect_body(&self) {
        self.expected.set(self.expected.get() + 1);
    }

    /// A DATA frame begins: its octets take from the windows, and from the memory.
    pub(crate) fn receive_data(&self, octets: usize) {
        self.unread.set(self.unread.get() + octets);
        if octets > 0 {
            self.frames.set(self.frames.get() + 1);
        }
        self.settle();
    }

    /// Octets of the block that has not ended, and its fields; zero for both when it has.
    pub(crate) fn set_block(&self, octets: usize, fields: usize) {
        self.set(&self.block, octets + fields * FIELD_OVERHEAD);
    }

    /// A block has ended that is a head of so many fields; `size` counts their names and values.
    pub(crate) fn receive_head(&self, size: usize, fields: usize) {
        self.turn.set(self.turn.get() + size + fields * FIELD_OVERHEAD);
    }

    /// What the HPACK table keeps alive now; bytes.
    pub(crate) fn set_pinned(&self, bytes: usize) {
        self.set(&self.pinned, bytes);
    }

    /// Sets what `part` takes. The connection ends where that grows beyond what is ordinary and there is no room.
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

    /// How many octets may be read just now. `left` of a frame are on their way: they never wait, as half a frame is of
    /// use to nobody.
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
            // Bodies that all wait for content have taken all there is: the rest was thrown away with its stream. Seen
            // twice with time between, as a body wakes a moment after its content came.
            let dry = self.dry.get() >= self.bodies.get() + self.expected.get();
            if self.was_dry.replace(dry) && dry {
                self.was_dry.set(false);
                self.unread.set(0);
                self.frames.set(0);
                self.settle();
            }
        }
    }

    /// Whether the connection may hold more.
    pub(crate) fn has_room(&self) -> bool {
        self.reserved.as_ref().is_none_or(|reserved| reserved.borrow().has_room())
    }

    /// Content that nobody has taken; bytes. What was thrown away with its stream is known only by there being fewer
    /// bodies than it takes to hold so much.
    fn unread(&self) -> usize {
        let max = (self.bodies.get() + self.expected.get()) * self.stream_window;
        let unread = self.unread.get().min(max);
        self.unread.set(unread);
        // Each is of an octet at least.
        let frames = self.frames.get().min(unread);
        self.frames.set(frames);
        self.peak_frames.set(self.peak_frames.get().max(frames));
        unread
    }

    /// Tells the shared account what is held now.
    fn settle(&self) {
        let Some(reserved) = &self.reserved else { return };
        let unread = self.unread();
        let beyond = |count: usize, few: usize| count.saturating_sub(few);
        // A frame that the library cuts out of what it read takes a whole buffer.
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
        // It shrinks by more than one step, so that what comes and goes is told once.
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

/// One body that takes its content out of the library.
#[derive(Debug)]
pub(crate) struct IntakeBody {
    intake: Rc<Intake>,
    dry: bool,
}

impl IntakeBody {
    /// Of a request that begins.
    pub(crate) fn new(intake: Rc<Intake>) -> IntakeBody {
        intake.bodies.set(intake.bodies.get() + 1);
        intake.expected.set(intake.expected.get().saturating_sub(1));
        IntakeBody { intake, dry: false }
    }

    /// It took so many bytes of content, in one piece.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.set_dry(false);
        let intake = &self.intake;
        intake.unread.set(intake.unread.get().saturating_sub(bytes));
        intake.frames.set(intake.frames.get().saturating_sub(1));
        intake.settle();
        intake.wake();
    }

    /// It waits for content: there is none for it.
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
        // What another body left there is gone, and this one waits.
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
        /// Streams open, send, are read and go away with what they hold, in any order: never less is counted than is
        /// held, and in the end all is given back.
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
