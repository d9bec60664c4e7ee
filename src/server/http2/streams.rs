//! The state that all streams of one connection share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::read_ahead::ReadAhead;
use super::waiting::Waiting;
use crate::http2::intake::Intake;
use crate::memory::buffers::ClientSlot;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// The state that the streams of one connection share with it.
pub(super) struct Streams {
    /// Number of requests whose response has not ended.
    pub open: Cell<usize>,
    /// The time when a request last began or ended.
    pub moved: Cell<Instant>,
    pub used: Cell<bool>,
    /// The time of the next check of the responses.
    pub look: Cell<Instant>,
    /// Bytes written to the connection, which accepts more as the client reads.
    pub written: Rc<Cell<u64>>,
    /// Bytes written when the client was last seen to read, and the time of that.
    pub progress: Cell<(u64, Instant)>,
    /// The responses being sent; at most `h2_max_streams` are alive.
    pub read_ahead: RefCell<Vec<Weak<ReadAhead>>>,
    /// Whether all requests wait for the client.
    pub waiting: Waiting,
    /// The memory that the connection takes, and the client that it counts for.
    pub intake: Rc<Intake>,
    pub client: ClientSlot,
}

pub(super) struct Open(pub Rc<Streams>);

impl Open {
    pub(super) fn new(streams: Rc<Streams>) -> Open {
        let now = clock::now();
        streams.open.set(streams.open.get() + 1);
        streams.moved.set(now);
        streams.waiting.changed(streams.open.get(), now);
        streams.intake.set_streams(streams.open.get());
        streams.used.set(true);
        Open(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let now = clock::now();
        self.0.open.set(self.0.open.get() - 1);
        self.0.moved.set(now);
        self.0.waiting.changed(self.0.open.get(), now);
        self.0.intake.set_streams(self.0.open.get());
    }
}
