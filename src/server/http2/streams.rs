//! The state that all streams of one connection share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::read_ahead::ReadAhead;
use super::waiting::Waiting;
use crate::http2::intake::Intake;
use crate::memory::buffers::ClientSlot;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// What the streams of one connection tell the connection.
pub(super) struct Streams {
    /// Requests whose answer has not ended.
    pub open: Cell<usize>,
    /// When a request last began or ended.
    pub moved: Cell<Instant>,
    pub used: Cell<bool>,
    /// When the answers are looked through again.
    pub look: Cell<Instant>,
    /// Bytes written to the connection, which takes more as the client does.
    pub written: Rc<Cell<u64>>,
    /// What was written when the client was last seen to take some, and when that was.
    pub progress: Cell<(u64, Instant)>,
    /// The answers on their way; at most `h2_max_streams` are alive.
    pub read_ahead: RefCell<Vec<Weak<ReadAhead>>>,
    /// Whether all of them wait for the client.
    pub waiting: Waiting,
    /// The memory that the connection takes, and whose it is.
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
