//! The state that a connection, its driver and its streams share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::http2::settings::PeerSettings;
use crate::memory::buffers::BufferMemory;
use crate::runtime::clock::Instant;

/// What the upstream may send of one response before its client has taken it.
pub(super) const STREAM_WINDOW: u32 = 128 * 1024;
/// The same while memory is scarce: one frame.
const SCARCE_WINDOW: u32 = 16 * 1024;

/// A field section that is longer than this may be the reason why an upstream that announces no limit ends its
/// connection; bytes as RFC 9113 6.5.2 counts them. It is what gRPC servers and others take at least.
pub(in crate::upstream) const LARGE_HEAD: usize = 8 * 1024;

/// Requests that Pillion gives up on one connection, mostly as their clients left, before it takes no more of them.
/// Servers end a connection of a peer that resets too many streams (CVE-2023-44487), with all that others have on it.
pub(super) const MAX_GIVEN_UP: u32 = 100;

/// What a connection, the task that drives it and its streams know of each other.
pub(super) struct Shared {
    pub streams: Cell<usize>,
    /// Streams that were left before they had ended.
    pub given_up: Cell<u32>,
    /// When a stream last ended.
    pub idle_since: Cell<Instant>,
    /// Since when at least one stream is open.
    pub waiting: Cell<Option<Instant>>,
    /// Whether something was read since the driver last looked.
    pub read: Cell<bool>,
    /// When the driver last saw that something was read.
    pub heard: Cell<Instant>,
    /// No new streams go there.
    pub retired: Cell<bool>,
    /// It was found dead, and Pillion ended it.
    pub dead: Cell<bool>,
    pub settings: Cell<PeerSettings>,
    /// Told when that is known, and when the connection ends.
    pub greeted: Notify,
    /// Where what waits for clients is counted.
    pub memory: Option<Arc<BufferMemory>>,
    /// The window that each stream begins with.
    pub window: Cell<u32>,
    /// Bytes read since others had their turn.
    pub turn: Cell<usize>,
}

impl Shared {
    /// The window that each stream is to begin with now.
    pub(super) fn fitting_window(&self) -> u32 {
        let before = self.window.get() == SCARCE_WINDOW;
        let scarce = self.memory.as_ref().is_some_and(|memory| memory.is_scarce(before));
        if scarce { SCARCE_WINDOW } else { STREAM_WINDOW }
    }
}

pub(super) struct Open {
    shared: Rc<Shared>,
    /// Whether leaving it resets it: it was sent, and has not ended.
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
