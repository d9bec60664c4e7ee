//! Uploads that wait for their client, as the connection counts them.

use std::cell::Cell;
use std::rc::Rc;

use super::streams::Streams;
use crate::connection::seats::PROGRESS;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// The wait of one request for its content. It ends when the response has begun: from then on the response counts.
pub(super) struct UploadWait {
    streams: Rc<Streams>,
    waits: Cell<bool>,
    responded: Cell<bool>,
    /// The time since which less than [`PROGRESS`] has arrived, and the bytes that have.
    since: Cell<Option<Instant>>,
    received: Cell<u64>,
}

impl UploadWait {
    /// Creates the state of a request whose content was not asked for yet.
    pub(super) fn new(streams: Rc<Streams>) -> Rc<UploadWait> {
        Rc::new(UploadWait {
            streams,
            waits: Cell::new(false),
            responded: Cell::new(false),
            since: Cell::new(None),
            received: Cell::new(0),
        })
    }

    /// Records that the request's reader waits for the client.
    pub(super) fn begin(&self, now: Instant) {
        if self.responded.get() || self.waits.replace(true) {
            return;
        }
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        self.streams.waiting.begin(self.streams.open.get(), since, now);
        self.streams.waiting.wake();
    }

    /// Records that content arrived, or with `None` that the content ended.
    pub(super) fn end(&self, received: Option<usize>) {
        if self.waits.take() {
            self.streams.waiting.end();
        }
        let Some(count) = received else {
            self.since.set(None);
            return;
        };
        self.received.set(self.received.get() + count as u64);
        if self.received.get() >= PROGRESS {
            self.received.set(0);
            self.since.set(None);
            self.streams.waiting.note_progress(clock::now());
        }
    }

    pub(super) fn set_responded(&self) {
        self.responded.set(true);
        self.end(None);
    }
}
