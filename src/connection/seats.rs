//! The table of all client connections, shared by the workers. It records the client of each connection, and whether
//! the connection is idle or waits for its client, so that at `max_connections` the right connection is closed.
//!
//! A connection is idle while it has no complete request: a half-received handshake or head counts as idle. It waits
//! for its client while the only thing to do is to read the rest of the request, or to write a response that the client
//! does not read. A connection that waits for an upstream is busy, and is never closed to make room.
//!
//! A connection updates its seat only after a moment of silence and when that silence ends, so a busy connection costs
//! nothing. The search for a connection to close walks two arrays of numbers. It runs only when every seat, or a
//! client's share of the seats, is taken.
//!
//! A client, identified by its address, never holds more than its share of the connections. A further connection of
//! that client replaces an idle or waiting connection of the same client, or is closed at once.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::memory::buffers::{ClientSlot, SLOTS, client_share};
use crate::runtime::clock;
use crate::runtime::clock::{Deadline, Instant};

/// Maximum number of seats. Connections beyond it are never closed to make room.
const MAX_SEATS: usize = 1 << 16;
/// Value of `idle_since` for a busy connection and for a free seat.
const BUSY: u64 = 0;
/// Value of `idle_since` for a connection that was told to close.
const EVICTED: u64 = u64::MAX;
/// Bit of `idle_since` that marks a connection that waits for its client.
const WAITING: u64 = 1;

/// Time without [`PROGRESS`] after which a connection counts as waiting for its client.
pub(crate) const STALL: Duration = Duration::from_millis(500);
/// Bytes that a client must take or send within [`STALL`] to count as making progress.
pub(crate) const PROGRESS: u64 = 4 * 1024;
/// A connection that waits for its client is closed only for a client that has, with the new connection, at most a
/// quarter as many connections. No request is ended in favor of a client with as many connections.
const FAR_MORE: u32 = 4;
/// Number of connections from which a client also loses waiting connections to its own new ones: the new connections of
/// a client must not keep other clients waiting.
const MANY: u32 = 8;
/// Minimum time between two log events about clients that reached their share.
const TELL: Duration = Duration::from_secs(60);

/// The table of all client connections of the process.
#[derive(Debug)]
pub(crate) struct Seats {
    began: Instant,
    /// Per seat: twice the milliseconds since `began`, plus two; plus three while the connection waits for its client.
    idle_since: Box<[AtomicU64]>,
    clients: Box<[AtomicU16]>,
    wakers: Box<[Mutex<Option<Waker>>]>,
    by_client: Box<[AtomicU32]>,
    /// Per client: its connections without those of trusted proxies, but with those that do not have a seat yet.
    held: Box<[AtomicU32]>,
    /// Maximum number of connections of one client.
    share: AtomicU32,
    /// Time of the last log event about a client at its share, and the connections refused since then.
    told: Mutex<(Option<Instant>, u64)>,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Index of the first seat that was never taken.
    fresh: usize,
    returned: Vec<usize>,
}

impl Seats {
    /// Creates a table for at most `max` connections.
    pub(crate) fn new(max: usize) -> Arc<Seats> {
        let count = max.min(MAX_SEATS);
        let seats = Seats {
            began: clock::now(),
            idle_since: (0..count).map(|_| AtomicU64::new(BUSY)).collect(),
            clients: (0..count).map(|_| AtomicU16::new(0)).collect(),
            wakers: (0..count).map(|_| Mutex::new(None)).collect(),
            by_client: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            held: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            share: AtomicU32::new(0),
            told: Mutex::default(),
            free: Mutex::default(),
        };
        seats.set_max(max);
        Arc::new(seats)
    }

    /// Sets the maximum number of connections, also while connections are open.
    pub(crate) fn set_max(&self, max: usize) {
        let share = client_share(max);
        // A tiny limit may go to one client entirely: its further connections wait as those of other clients do.
        let share = if share < max { u32::try_from(share).unwrap_or(u32::MAX) } else { u32::MAX };
        self.share.store(share, Ordering::Relaxed);
    }

    /// Counts a connection of `client` that does not have a seat yet. Returns `None` if the client has its share
    /// already. A trusted proxy (`is_shared`) carries the requests of many clients, and has no share.
    pub(crate) fn claim(self: &Arc<Self>, client: ClientSlot, is_shared: bool) -> Option<Claim> {
        if !is_shared {
            let share = self.share.load(Ordering::Relaxed);
            let one_more = |held: u32| (held < share).then_some(held + 1);
            self.held[client.index()].fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        }
        Some(Claim { seats: self.clone(), client, is_shared })
    }

    /// Counts a connection that was refused because its client has its share. Returns the number refused since the last
    /// log event if a new one is due, at most once a minute.
    pub(crate) fn count_refused(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.1 += 1;
        if told.0.is_some_and(|last| now.saturating_duration_since(last) < TELL) {
            return None;
        }
        Some(std::mem::replace(&mut *told, (Some(now), 0)).1)
    }

    /// Takes a seat for a connection. Beyond [`MAX_SEATS`] the seat has no index.
    pub(crate) fn take(self: &Arc<Self>, claim: Claim) -> Seat {
        let index = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.returned.pop().or_else(|| {
                let fresh = free.fresh;
                (fresh < self.idle_since.len()).then(|| {
                    free.fresh += 1;
                    fresh
                })
            })
        };
        let seat = Seat { claim, index };
        seat.count(true);
        seat
    }

    /// Closes one connection for a new one of `newcomer`. Connections of a client that has its share of all seats are
    /// closed first, then idle connections before waiting ones, then those of the client with the most connections.
    /// Among equals, the connection that has been idle or waiting longest is closed.
    pub(crate) fn evict(&self, newcomer: ClientSlot) -> Option<Evicted> {
        let count_of =
            |client: usize| self.by_client.get(client).map_or(0, |count| count.load(Ordering::Relaxed));
        let share = self.share.load(Ordering::Relaxed);
        let new = count_of(newcomer.index()) + 1;
        self.evict_first(|client, waits| {
            let count = count_of(client);
            let for_itself = client == newcomer.index() && count >= MANY;
            let stays = waits && count < new.saturating_mul(FAR_MORE) && !for_itself;
            (!stays).then_some((count >= share, !waits, count))
        })
    }

    /// Closes one connection of a client that has its share, for a new one of the same client: the longest idle one,
    /// otherwise the longest waiting one.
    pub(crate) fn evict_own(&self, client: ClientSlot) -> Option<Evicted> {
        self.evict_first(|of, waits| (of == client.index()).then_some((false, !waits, 0)))
    }

    /// Closes the connection with the highest rank. `rank` gets the client's index and whether the connection waits for
    /// its client, and returns `None` to spare the connection. Among equal ranks, the connection that has been idle or
    /// waiting longest is closed.
    fn evict_first(&self, rank: impl Fn(usize, bool) -> Option<(bool, bool, u32)>) -> Option<Evicted> {
        loop {
            let candidates = self.idle_since.iter().zip(&self.clients).enumerate().filter_map(
                |(index, (since, client))| {
                    let since = since.load(Ordering::Relaxed);
                    if since == BUSY || since == EVICTED {
                        return None;
                    }
                    let rank = rank(usize::from(client.load(Ordering::Relaxed)), since & WAITING != 0)?;
                    Some((rank, std::cmp::Reverse(since), index))
                },
            );
            let ((_, is_idle, _), std::cmp::Reverse(since), index) = candidates.max()?;
            let evicted =
                self.idle_since[index].compare_exchange(since, EVICTED, Ordering::SeqCst, Ordering::SeqCst);
            if evicted.is_ok() {
                let waker = self.wakers[index].lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waker) = waker {
                    waker.wake();
                }
                return Some(if is_idle { Evicted::Idle } else { Evicted::Waiting });
            }
        }
    }
}

/// The state of a connection at the time it was told to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    Idle,
    /// The connection was waiting for its client.
    Waiting,
}

/// A connection counted in its client's share until dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    seats: Arc<Seats>,
    client: ClientSlot,
    /// Whether the connection carries the requests of many clients.
    is_shared: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_shared {
            self.seats.held[self.client.index()].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The seat of one connection, freed when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    claim: Claim,
    index: Option<usize>,
}

impl Seat {
    pub(crate) fn seats(&self) -> &Arc<Seats> {
        &self.claim.seats
    }

    fn count(&self, more: bool) {
        let index = self.claim.client.index();
        if let Some(seat) = self.index {
            self.seats().clients[seat].store(u16::try_from(index).unwrap_or_default(), Ordering::Relaxed);
        }
        if more {
            self.seats().by_client[index].fetch_add(1, Ordering::Relaxed);
        } else {
            self.seats().by_client[index].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Moves the connection to another client, when a PROXY header names one. Returns `false` if that client has its
    /// share already: another connection of that client then makes room for its next one.
    pub(crate) fn set_client(&mut self, client: ClientSlot, is_shared: bool) -> bool {
        if client == self.claim.client && is_shared == self.claim.is_shared {
            return true;
        }
        let Some(claim) = self.seats().claim(client, is_shared) else {
            self.seats().evict_own(client);
            return false;
        };
        self.count(false);
        self.claim = claim;
        self.count(true);
        true
    }

    /// Marks the connection as idle. Ready once it has to close.
    pub(crate) fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_evicted(0, cx)
    }

    /// Marks a busy connection as waiting for its client. Ready once it has to close.
    pub(crate) fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.claim.is_shared { Poll::Pending } else { self.poll_evicted(WAITING, cx) }
    }

    fn poll_evicted(&self, waiting: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(index) = self.index else { return Poll::Pending };
        {
            let mut waker = self.seats().wakers[index].lock().unwrap_or_else(PoisonError::into_inner);
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let since = &self.seats().idle_since[index];
        match since.load(Ordering::SeqCst) {
            EVICTED => return Poll::Ready(()),
            BUSY => {
                let age = clock::now().saturating_duration_since(self.seats().began).as_millis();
                let now = u64::try_from(age).unwrap_or_default().saturating_add(1).min(u64::MAX / 4);
                since.store(now * 2 + waiting, Ordering::SeqCst);
            }
            _ => {}
        }
        Poll::Pending
    }

    /// Marks the connection as busy again. Returns `false` if it was already told to close.
    pub(crate) fn set_busy(&self) -> bool {
        let Some(index) = self.index else { return true };
        let since = &self.seats().idle_since[index];
        since.load(Ordering::Relaxed) == BUSY || since.swap(BUSY, Ordering::SeqCst) != EVICTED
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.count(false);
        if let Some(index) = self.index {
            self.seats().idle_since[index].store(BUSY, Ordering::SeqCst);
            *self.seats().wakers[index].lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.seats().free.lock().unwrap_or_else(PoisonError::into_inner).returned.push(index);
        }
    }
}

/// The wait of a connection for its client. The seat is updated only after [`STALL`] without progress, so a connection
/// whose client keeps up costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    due: Deadline,
    /// Bytes that had moved when the wait began.
    moved: u64,
    waits: bool,
    /// Whether the seat was updated.
    told: bool,
    evicted: bool,
}

impl Stall {
    /// Continues the wait. `moved` is the number of bytes of this request that the client has taken or sent so far.
    /// Ready once the connection has to close.
    pub(crate) fn poll(&mut self, seat: Option<&Seat>, moved: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(seat) = seat else { return Poll::Pending };
        if !self.waits || moved.saturating_sub(self.moved) >= PROGRESS {
            if !self.end(Some(seat)) {
                return Poll::Ready(());
            }
            self.waits = true;
            self.moved = moved;
            self.due.set_after(STALL);
        }
        if !self.told {
            ready!(self.due.poll_expired(cx));
            self.told = true;
        }
        ready!(seat.poll_waiting(cx));
        self.evicted = true;
        Poll::Ready(())
    }

    /// Ends the wait. Returns `false` if the connection was told to close during it.
    pub(crate) fn end(&mut self, seat: Option<&Seat>) -> bool {
        if std::mem::take(&mut self.waits) {
            self.due.clear();
            if std::mem::take(&mut self.told) && seat.is_some_and(|seat| !seat.set_busy()) {
                self.evicted = true;
            }
        }
        !self.evicted
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn idle(seat: &Seat) -> bool {
        let pending = seat.poll_idle(&mut Context::from_waker(Waker::noop())).is_pending();
        // Idle connections are ordered by milliseconds.
        std::thread::sleep(Duration::from_millis(2));
        pending
    }

    fn waits(seat: &Seat) -> bool {
        let pending = seat.poll_waiting(&mut Context::from_waker(Waker::noop())).is_pending();
        std::thread::sleep(Duration::from_millis(2));
        pending
    }

    fn slot(at: u8) -> ClientSlot {
        ClientSlot::new(IpAddr::from([192, 0, 2, at]), 64)
    }

    /// Takes a seat for a client that is below its share.
    fn take(seats: &Arc<Seats>, at: u8) -> Seat {
        seats.take(seats.claim(slot(at), false).unwrap())
    }

    /// Takes a seat for a connection of a trusted proxy.
    fn take_shared(seats: &Arc<Seats>, at: u8) -> Seat {
        seats.take(seats.claim(slot(at), true).unwrap())
    }

    /// Closes a connection for a client that has none.
    fn evict(seats: &Seats) -> Option<Evicted> {
        seats.evict(ClientSlot::new(IpAddr::from([203, 0, 113, 1]), 64))
    }

    #[test]
    fn n3_6_what_waits_for_a_client_that_has_far_more_makes_room() {
        let seats = Seats::new(16);
        let take = |count: usize, of: u8| -> Vec<Seat> { (0..count).map(|_| take(&seats, of)).collect() };
        let (many, few) = (take(8, 1), take(3, 2));
        assert!(few.iter().all(waits), "three are not far more than one");
        assert_eq!(evict(&seats), None);
        // The first of these connections is busy.
        assert!(many.iter().skip(1).rev().all(waits));
        assert!(!many[7].set_busy() || waits(&many[7]), "it makes progress");
        let lone = take(1, 3);
        assert_eq!(seats.evict(slot(3)), Some(Evicted::Waiting), "eight are four times two");
        assert!(!waits(&many[6]) && waits(&many[7]), "the one that waits longest");
        assert_eq!(seats.evict(slot(2)), None, "eight are not four times four");
        assert_eq!(seats.evict(slot(1)), Some(Evicted::Waiting), "a client with many makes room for itself");
        assert!(!waits(&many[5]));
        assert!(idle(&few[0]) && few[0].set_busy() && idle(&few[0]));
        assert_eq!(evict(&seats), Some(Evicted::Idle), "what is idle goes first");
        assert!(!idle(&few[0]));
        drop((many, few, lone));
        // A client that has its share of all seats loses waiting connections first.
        let (nearly_all, other) = (take(14, 1), take(1, 2));
        assert!(idle(&other[0]) && nearly_all.iter().all(waits));
        assert_eq!(evict(&seats), Some(Evicted::Waiting));
        assert!(!waits(&nearly_all[0]) && idle(&other[0]));
        // A trusted proxy's connections carry the requests of other clients.
        drop(nearly_all);
        let shared: Vec<Seat> = (0..15).map(|_| take_shared(&seats, 1)).collect();
        assert!(other[0].set_busy() && shared.iter().all(waits));
        assert_eq!(evict(&seats), None);
        assert!(idle(&shared[3]));
        assert_eq!(evict(&seats), Some(Evicted::Idle));
    }

    #[test]
    fn n3_6_the_longest_idle_of_the_client_with_the_most_goes_first() {
        let seats = Seats::new(8);
        let one = take(&seats, 1);
        let many: Vec<Seat> = (0..4).map(|_| take(&seats, 2)).collect();
        assert!(evict(&seats).is_none(), "none is idle");
        assert!(idle(&one));
        assert!(many.iter().skip(1).all(idle), "the first of the many is busy");
        assert!(many[1].set_busy() && idle(&many[1]), "it was busy again meanwhile");
        let evicted = |seat: &Seat| !idle(seat);
        for (count, gone) in [(1, 2), (2, 3), (3, 1)] {
            assert!(evict(&seats).is_some());
            assert!(evicted(&many[gone]), "{count}: {gone}");
            assert!(!evicted(&one));
        }
        assert!(evict(&seats).is_some() && evicted(&one), "then that of the one that has less");
        assert!(evict(&seats).is_none());
        assert!(!one.set_busy(), "it was told to leave");
        drop((one, many));
        assert!(seats.by_client.iter().all(|count| count.load(Ordering::Relaxed) == 0));
        let taken: Vec<Seat> = (0..9).map(|_| take_shared(&seats, 3)).collect();
        assert_eq!(
            taken.iter().filter(|seat| seat.index.is_none()).count(),
            1,
            "eight seats, all free again"
        );
    }

    #[test]
    fn n3_6_a_connection_is_counted_for_the_client_that_the_header_names() {
        let seats = Seats::new(4);
        let (proxy, client) = (1, 2);
        let mut told = take_shared(&seats, proxy);
        assert!(told.set_client(slot(client), false));
        let others: Vec<Seat> = (0..2).map(|_| take(&seats, client)).collect();
        let mut lone = take_shared(&seats, proxy);
        assert!(idle(&lone) && idle(&told));
        assert!(evict(&seats).is_some());
        assert!(!idle(&told), "one of three");
        assert!(!lone.set_client(slot(client), false), "three of four are its share");
        drop(others);
    }

    #[test]
    fn n3_6_one_client_has_at_most_its_share() {
        for (max, share) in [(3, 2), (4, 3), (8, 7), (100, 87)] {
            let seats = Seats::new(max);
            let mut taken: Vec<Claim> = std::iter::from_fn(|| seats.claim(slot(1), false)).collect();
            assert_eq!(taken.len(), share, "of {max}");
            assert!(seats.claim(slot(2), false).is_some() && seats.claim(slot(1), true).is_some());
            drop(taken.pop());
            assert!(seats.claim(slot(1), false).is_some(), "it was given back");
            // A reload changes the limit.
            seats.set_max(max * 2 + 2);
            assert!(seats.claim(slot(1), false).is_some());
        }
        let seats = Seats::new(8);
        let mut own: Vec<Seat> = (0..7).map(|_| take(&seats, 1)).collect();
        let other = take(&seats, 2);
        assert!(idle(&other) && waits(&own[0]) && waits(&own[1]) && idle(&own[2]));
        assert_eq!(seats.evict_own(slot(1)), Some(Evicted::Idle));
        assert_eq!(seats.evict_own(slot(1)), Some(Evicted::Waiting));
        assert!(!waits(&own[0]) && !idle(&own[2]) && idle(&other));
        assert!(seats.claim(slot(1), false).is_none(), "until they have left");
        drop((own.remove(2), own.remove(0)));
        assert_eq!(seats.evict_own(slot(1)), Some(Evicted::Waiting));
        assert_eq!(seats.evict_own(slot(1)), None, "the rest is at work");
        assert!([1, 1].into_iter().all(|at| seats.claim(slot(at), false).is_some()));
    }

    #[test]
    fn n3_6_refused_connections_are_told_of_once_a_minute() {
        let (seats, begun) = (Seats::new(8), clock::now());
        let after = |seconds| seats.count_refused(begun + Duration::from_secs(seconds));
        assert_eq!([after(0), after(1), after(59)], [Some(1), None, None]);
        assert_eq!([after(60), after(61), after(200)], [Some(3), None, Some(2)]);
    }
}
