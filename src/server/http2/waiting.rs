//! Whether a connection waits for nothing but its client: every request on it waits for its content, or has a response
//! that is not asked for. Its seat is told when that has lasted for a while, as for HTTP/1.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use crate::connection::seats::{PROGRESS, STALL, Seat};
use crate::runtime::clock::Instant;

/// See the head of the file.
pub(super) struct Waiting {
    /// `None` once the connection has ended: what is left of its requests keeps no seat.
    seat: RefCell<Option<Seat>>,
    /// Requests that wait for the client.
    requests: Cell<usize>,
    /// Since when any of them does.
    first: Cell<Instant>,
    /// Since when all of them do, and none makes progress.
    since: Cell<Option<Instant>>,
    /// When the client last made progress: it took or sent [`PROGRESS`]. Requests that begin or end are none.
    progress: Cell<Instant>,
    /// Bytes written to the connection.
    written: Rc<Cell<u64>>,
    /// What was written when the client last made progress.
    seen: Cell<u64>,
    /// Whether a response has begun since then.
    begun: Cell<bool>,
    /// Whether the seat was told.
    told: Cell<bool>,
    evicted: Cell<bool>,
    /// The connection's task, unless it looks again by itself.
    connection: RefCell<Option<Waker>>,
}

impl Waiting {
    /// Of a connection without requests.
    pub(super) fn new(seat: Seat, written: Rc<Cell<u64>>, now: Instant) -> Waiting {
        Waiting {
            seat: RefCell::new(Some(seat)),
            requests: Cell::new(0),
            first: Cell::new(now),
            since: Cell::new(None),
            progress: Cell::new(now),
            written,
            seen: Cell::new(0),
            begun: Cell::new(false),
            told: Cell::new(false),
            evicted: Cell::new(false),
            connection: RefCell::default(),
        }
    }

    /// The number of requests has changed to `open`.
    pub(super) fn changed(&self, open: usize, now: Instant) {
        self.leave();
        self.look(open, now);
        self.wake();
    }

    /// A request begins to wait for its client, or does so since then already.
    pub(super) fn begin(&self, open: usize, since: Instant, now: Instant) {
        if self.requests.get() == 0 {
            self.first.set(since);
        }
        self.requests.set(self.requests.get() + 1);
        self.look(open, now);
    }

    /// A request waits no more.
    pub(super) fn end(&self) {
        self.requests.set(self.requests.get().saturating_sub(1));
        self.leave();
    }

    /// A response is handed out piece by piece as its client asks for it: it waits from now on.
    pub(super) fn begin_response(&self, open: usize, now: Instant) {
        // Its client has a moment to take it; not for each of many that are too short to show whether it takes any.
        if !self.begun.replace(true) {
            self.progress.set(now);
        }
        self.begin(open, now, now);
        // Nothing is sent of it where the client's window is closed.
        self.wake();
    }

    /// The client asks for more of a response, or it is over.
    pub(super) fn end_response(&self) {
        self.end();
    }

    fn look(&self, open: usize, now: Instant) {
        if open > 0 && self.requests.get() >= open && self.since.get().is_none() {
            self.look_at_written(now);
            self.since.set(Some(self.first.get().max(self.progress.get())));
        }
    }

    /// Whether what was written is progress.
    fn look_at_written(&self, now: Instant) -> bool {
        let moved = self.written.get() - self.seen.get() >= PROGRESS;
        if moved {
            self.note_progress(now);
        }
        moved
    }

    /// The client has made progress.
    pub(super) fn note_progress(&self, now: Instant) {
        self.progress.set(now);
        self.seen.set(self.written.get());
        self.begun.set(false);
    }

    fn leave(&self) {
        if self.since.take().is_some() && self.told.take() && !self.with_seat(Seat::set_busy) {
            self.evicted.set(true);
        }
    }

    /// What the seat says; true where there is none any more.
    fn with_seat(&self, ask: impl FnOnce(&Seat) -> bool) -> bool {
        self.seat.borrow().as_ref().is_none_or(ask)
    }

    pub(super) fn close(&self) {
        drop(self.seat.take());
    }

    /// The connection looks as soon as it can: nothing may be sent that would make it.
    pub(super) fn wake(&self) {
        if self.since.get().is_some()
            && let Some(connection) = self.connection.take()
        {
            connection.wake();
        }
    }

    /// Whether the connection is to make room, and when it has to look again by itself.
    pub(super) fn poll(&self, open: usize, now: Instant, cx: &mut Context<'_>) -> (bool, Option<Instant>) {
        if self.since.get().is_some() && !self.told.get() && self.look_at_written(now) {
            self.since.set(Some(now));
        }
        let due = self.since.get().map(|since| since + STALL);
        let next = due.filter(|due| now < *due);
        let mut connection = self.connection.borrow_mut();
        match (next, &*connection) {
            // It looks then.
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
        // It may have been idle until now.
        let stays = self.told.replace(true) || self.with_seat(Seat::set_busy);
        (!(stays && self.with_seat(|seat| seat.poll_waiting(cx).is_pending())), None)
    }
}
