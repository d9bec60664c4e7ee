//! Uploads that wait for their client, as the connection counts them.

use std::cell::Cell;
use std::rc::Rc;

use super::streams::Streams;
use crate::connection::seats::PROGRESS;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// How one request waits for its content. It does so no more when its response has begun: from then on that counts.
pub(super) struct UploadWait {
    streams: Rc<Streams>,
    waits: Cell<bool>,
    responded: Cell<bool>,
    /// Since when less than [`PROGRESS`] came, and how much.
    since: Cell<Option<Instant>>,
    received: Cell<u64>,
}

impl UploadWait {
    /// Of a request whose content was not asked for yet.
    pub(super) fn new(streams: Rc<Streams>) -> Rc<UploadWait> {
        Rc::new(UploadWait {
            streams,
            waits: Cell::new(false),
            responded: Cell::new(false),
            since: Cell::new(None),
            received: Cell::new(0),
        })
    }

    /// Its reader waits for the client.
    pub(super) fn begin(&self, now: Instant) {
        if self.responded.get() || self.waits.replace(true) {
            return;
        }
        let since = self.since.get().unwrap_or(now);
        self.since.set(Some(since));
        self.streams.waiting.begin(self.streams.open.get(), since, now);
        self.streams.waiting.wake();
    }

    /// So much came, or, with `None`, it ended.
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
