//! The state that a connection, its driver and its streams share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::http2::settings::PeerSettings;
use crate::memory::buffers::BufferMemory;
use crate::runtime::clock::Instant;

/// Bytes that the upstream may send of one response before its client has read them.
pub(super) const STREAM_WINDOW: u32 = 128 * 1024;
/// The same window while memory is scarce: one frame.
const SCARCE_WINDOW: u32 = 16 * 1024;

/// Size of a field section in bytes, as RFC 9113 6.5.2 counts them, above which it may be why an upstream without an
/// announced limit ends its connection. gRPC servers and others accept at least this much.
pub(in crate::upstream) const LARGE_HEAD: usize = 8 * 1024;

/// Number of requests canceled on one connection, mostly because their clients disconnected, after which it gets no new
/// ones. Servers end a connection whose peer resets too many streams (CVE-2023-44487), with all other requests on it.
pub(super) const MAX_GIVEN_UP: u32 = 100;

/// The state shared by a connection, its driver task and its streams.
pub(super) struct Shared {
    pub streams: Cell<usize>,
    /// Number of streams that were canceled before they had ended.
    pub given_up: Cell<u32>,
    /// Time at which a stream last ended.
    pub idle_since: Cell<Instant>,
    /// Time since which at least one stream is open.
    pub waiting: Cell<Option<Instant>>,
    /// Whether bytes were read since the driver last checked.
    pub read: Cell<bool>,
    /// Time at which the driver last saw that bytes were read.
    pub heard: Cell<Instant>,
    /// Whether the connection gets no new streams.
    pub retired: Cell<bool>,
    /// Whether Pillion ended the connection because it was dead.
    pub dead: Cell<bool>,
    pub settings: Cell<PeerSettings>,
    /// Notification that the settings are known, or that the connection has ended.
    pub greeted: Notify,
    /// The memory in which content that waits for clients is counted.
    pub memory: Option<Arc<BufferMemory>>,
    /// Initial window of each stream.
    pub window: Cell<u32>,
    /// Bytes read since other tasks had their turn.
    pub turn: Cell<usize>,
}

impl Shared {
    /// Returns the initial window that streams should have now.
    pub(super) fn fitting_window(&self) -> u32 {
        let before = self.window.get() == SCARCE_WINDOW;
        let scarce = self.memory.as_ref().is_some_and(|memory| memory.is_scarce(before));
        if scarce { SCARCE_WINDOW } else { STREAM_WINDOW }
    }
}

pub(super) struct Open {
    shared: Rc<Shared>,
    /// Whether dropping this cancels the stream: the request was sent, and the stream has not ended.
    lasts: bool,
    now: fn() -> Instant,
}

impl Open {
    pub(super) fn new(shared: &Rc<Shared>, now: fn() -> Instant) -> Open {
        let shared = shared.clone();
        let streams = shared.streams.get();
        if streams == 0 {
            shared.waiting.set(Some(now()));
        }
        shared.streams.set(streams + 1);
        Open { shared, lasts: false, now }
    }

    pub(super) fn set_lasting(&mut self, lasts: bool) {
        self.lasts = lasts;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let streams = self.shared.streams.get() - 1;
        self.shared.streams.set(streams);
        self.shared.idle_since.set((self.now)());
        if streams == 0 {
            self.shared.waiting.set(None);
        }
        if self.lasts {
            let given_up = self.shared.given_up.get().saturating_add(1);
            self.shared.given_up.set(given_up);
            if given_up >= MAX_GIVEN_UP {
                self.shared.retired.set(true);
            }
        }
    }
}
