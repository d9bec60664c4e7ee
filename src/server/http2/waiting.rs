//! Detects a connection that waits for nothing but its client: every request on it waits for content from the client,
//! or has a response that the client does not read. Its seat is updated when that has lasted for a while, as for
//! HTTP/1.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::connection::seats::{PROGRESS, STALL, Seat};
use crate::runtime::clock::Instant;

/// The waits of all requests on one connection.
pub(super) struct Waiting {
    /// The seat; `None` once the connection has ended, because leftovers of its requests keep no seat.
    seat: RefCell<Option<Seat>>,
    /// Number of requests that wait for the client.
    requests: Cell<usize>,
    /// The time since which any request waits.
    first: Cell<Instant>,
    /// The time since which all requests wait without progress.
    since: Cell<Option<Instant>>,
    /// The time when the client last took or sent [`PROGRESS`]. Requests that begin or end do not count.
    progress: Cell<Instant>,
    /// Bytes written to the connection.
    written: Rc<Cell<u64>>,
    /// Bytes that were written when the client last made progress.
    seen: Cell<u64>,
    /// Whether a response has started since then.
    response_started: Cell<bool>,
    /// Whether the seat was updated.
    told: Cell<bool>,
    evicted: Cell<bool>,
    /// The connection's task, unless it checks again by itself.
    connection: RefCell<Option<Waker>>,
}

impl Waiting {
    /// Creates the state of a connection without requests.
    pub(super) fn new(seat: Seat, written: Rc<Cell<u64>>, now: Instant) -> Waiting {
        Waiting {
            seat: RefCell::new(Some(seat)),
            requests: Cell::new(0),
            first: Cell::new(now),
            since: Cell::new(None),
            progress: Cell::new(now),
            written,
            seen: Cell::new(0),
            response_started: Cell::new(false),
            told: Cell::new(false),
            evicted: Cell::new(false),
            connection: RefCell::default(),
        }
    }

    /// Records that the number of requests has changed to `open`.
    pub(super) fn changed(&self, open: usize, now: Instant) {
        self.leave();
        self.look(open, now);
        self.wake();
    }

    /// Records that a request waits for its client, now or already since `since`.
    pub(super) fn begin(&self, open: usize, since: Instant, now: Instant) {
        if self.requests.get() == 0 {
            self.first.set(since);
        }
        self.requests.set(self.requests.get() + 1);
        self.look(open, now);
    }

    /// Records that a request no longer waits.
    pub(super) fn end(&self) {
        self.requests.set(self.requests.get().saturating_sub(1));
        self.leave();
    }

    /// Records that a response waits: it is handed out piece by piece as its client asks for more.
    pub(super) fn begin_response(&self, open: usize, now: Instant) {
        // The client gets a moment to read, but not for each of many responses too short to show progress.
        if !self.response_started.replace(true) {
            self.progress.set(now);
        }
        self.begin(open, now, now);
        // Nothing of the response is sent while the client's window is closed, so nothing else wakes the task.
        self.wake();
    }

    /// Records that the client asks for more of a response, or that the response is over.
    pub(super) fn end_response(&self) {
        self.end();
    }

    fn look(&self, open: usize, now: Instant) {
        if open > 0 && self.requests.get() >= open && self.since.get().is_none() {
            self.look_at_written(now);
            self.since.set(Some(self.first.get().max(self.progress.get())));
        }
    }

    /// Returns whether the bytes written since the last progress are progress.
    fn look_at_written(&self, now: Instant) -> bool {
        let moved = self.written.get() - self.seen.get() >= PROGRESS;
        if moved {
            self.note_progress(now);
        }
        moved
    }

    /// Records that the client has made progress.
    pub(super) fn note_progress(&self, now: Instant) {
        self.progress.set(now);
        self.seen.set(self.written.get());
        self.response_started.set(false);
    }

    fn leave(&self) {
        if self.since.take().is_some() && self.told.take() && !self.with_seat(Seat::set_busy) {
            self.evicted.set(true);
        }
    }

    /// Returns the result of `ask` for the seat, or `true` without a seat.
    fn with_seat(&self, ask: impl FnOnce(&Seat) -> bool) -> bool {
        self.seat.borrow().as_ref().is_none_or(ask)
    }

    pub(super) fn close(&self) {
        drop(self.seat.take());
    }

    /// Makes the connection check as soon as it can, because there may be no output that would wake it.
    pub(super) fn wake(&self) {
        if self.since.get().is_some()
            && let Some(connection) = self.connection.take()
        {
            connection.wake();
        }
    }

    /// Returns whether the connection has to close, and when it has to check again by itself.
    pub(super) fn poll(&self, open: usize, now: Instant, cx: &mut Context<'_>) -> (bool, Option<Instant>) {
        if self.since.get().is_some() && !self.told.get() && self.look_at_written(now) {
            self.since.set(Some(now));
        }
        let due = self.since.get().map(|since| since + STALL);
        let next = due.filter(|due| now < *due);
        let mut connection = self.connection.borrow_mut();
        match (next, &*connection) {
            // The connection checks at that time anyway.
            (Some(_), _) => *connection = None,
            (None, Some(waker)) if waker.will_wake(cx.waker()) => {}
            (None, _) => *connection = Some(cx.waker().clone()),
        }
        drop(connection);
        if self.evicted.get() {
            return (true, None);
        }
        if open == 0 {
            return (!self.with_seat(|seat| seat.poll_idle(cx).is_pending()), None);
        }
        if due.is_none() || next.is_some() {
            return (!self.with_seat(Seat::set_busy), next);
        }
        // The connection may have been idle until now.
        let stays = self.told.replace(true) || self.with_seat(Seat::set_busy);
        (!(stays && self.with_seat(|seat| seat.poll_waiting(cx).is_pending())), None)
    }
}
