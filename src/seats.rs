//! The client connections of all workers: whose they are, and which are idle or wait for their clients, so that at
//! `max_connections` the right one makes room.
//!
//! A connection is idle when it has asked for nothing, or for nothing whole: a handshake or a head that is half here is
//! none. It waits for its client when there is nothing to do for it but to read the rest of its request, or to write a
//! response that it does not take. While it waits for an upstream it is at work, and never makes room.
//!
//! A connection tells of itself only when it has been silent for a moment and when that ends, so a busy one pays
//! nothing. Looking for one to close walks two arrays of numbers; that is done only when every seat is taken.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use crate::buffers::{ClientSlot, SLOTS, share_of};
use crate::clock::{self, Deadline, Instant};

/// Most seats that are known; connections beyond them are never closed to make room.
const MAX_SEATS: usize = 1 << 16;
/// `idle_since` of a busy connection, and of a free seat.
const BUSY: u64 = 0;
/// Of one that was told to close.
const EVICTED: u64 = u64::MAX;
/// Set in `idle_since` of one that waits for its client.
const WAITING: u64 = 1;

/// A connection waits for its client once that has not taken or sent [`PROGRESS`] for this long.
pub const STALL: Duration = Duration::from_millis(500);
/// A client that takes or sends less than this, in bytes, makes no progress.
pub const PROGRESS: u64 = 4 * 1024;
/// A connection that waits for its client makes room for clients that have, with the new one, at most a fourth as many
/// connections as its own client: nobody's request ends for someone who has as much.
const FAR_MORE: u32 = 4;
/// A client that has this many connections, or more than its share of all, also makes room for itself: what it opens
/// must not keep others waiting behind it.
const MANY: u32 = 8;

/// See the head of the file.
#[derive(Debug)]
pub struct Seats {
    began: Instant,
    /// Twice the milliseconds since `began`, and two; one more where it waits for its client.
    idle_since: Box<[AtomicU64]>,
    clients: Box<[AtomicU16]>,
    wakers: Box<[Mutex<Option<Waker>>]>,
    /// Connections by client.
    by_client: Box<[AtomicU32]>,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    /// Seats from here on were never taken.
    fresh: usize,
    returned: Vec<usize>,
}

impl Seats {
    /// For `count` connections.
    pub fn new(count: usize) -> Arc<Seats> {
        let count = count.min(MAX_SEATS);
        Arc::new(Seats {
            began: clock::now(),
            idle_since: (0..count).map(|_| AtomicU64::new(BUSY)).collect(),
            clients: (0..count).map(|_| AtomicU16::new(0)).collect(),
            wakers: (0..count).map(|_| Mutex::new(None)).collect(),
            by_client: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            free: Mutex::default(),
        })
    }

    /// Number of seats.
    fn len(&self) -> usize {
        self.idle_since.len()
    }

    /// A seat for a connection of `client`.
    pub fn take(self: &Arc<Self>, client: IpAddr, ipv6_prefix: u8) -> Seat {
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
        let client = ClientSlot::new(client, ipv6_prefix);
        let seat = Seat { seats: self.clone(), index, client, is_shared: false };
        seat.count(true);
        seat
    }

    /// Closes one connection for a new one of `newcomer`. A client that has more than its share of all seats comes
    /// first; then idle connections, before those that wait for their clients; then the client with the most
    /// connections; of those, the one that has been so for the longest time.
    pub fn evict(&self, newcomer: ClientSlot) -> Option<Evicted> {
        let count_of =
            |client: usize| self.by_client.get(client).map_or(0, |count| count.load(Ordering::Relaxed));
        let share = u32::try_from(share_of(self.len())).unwrap_or(u32::MAX);
        let new = count_of(newcomer.index()) + 1;
        loop {
            let candidates = self.idle_since.iter().zip(&self.clients).enumerate().filter_map(
                |(index, (since, client))| {
                    let since = since.load(Ordering::Relaxed);
                    if since == BUSY || since == EVICTED {
                        return None;
                    }
                    let client = usize::from(client.load(Ordering::Relaxed));
                    let count = count_of(client);
                    let waits = since & WAITING != 0;
                    let for_itself = client == newcomer.index() && (count >= MANY || count > share);
                    if waits && count < new.saturating_mul(FAR_MORE) && !for_itself {
                        return None;
                    }
                    Some((count > share, !waits, count, std::cmp::Reverse(since), index))
                },
            );
            let (_, is_idle, _, std::cmp::Reverse(since), index) = candidates.max()?;
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

/// A connection that was told to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// It was idle.
    Idle,
    /// It waited for its client.
    Waiting,
}

/// One connection's seat, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    index: Option<usize>,
    client: ClientSlot,
    /// Whether it carries the requests of many clients.
    is_shared: bool,
}

impl Seat {
    fn count(&self, more: bool) {
        let index = self.client.index();
        if let Some(seat) = self.index {
            self.seats.clients[seat].store(u16::try_from(index).unwrap_or_default(), Ordering::Relaxed);
        }
        if more {
            self.seats.by_client[index].fetch_add(1, Ordering::Relaxed);
        } else {
            self.seats.by_client[index].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The connection is another client's than its address said.
    pub fn set_client(&mut self, client: IpAddr, ipv6_prefix: u8) {
        self.count(false);
        self.client = ClientSlot::new(client, ipv6_prefix);
        self.count(true);
    }

    /// The connection is one of a trusted proxy: it carries the requests of many clients, and is closed only while idle.
    pub fn set_shared(&mut self) {
        self.is_shared = true;
    }

    /// The connection is idle. Ready when it is to make room.
    pub fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_evicted(0, cx)
    }

    /// The connection waits for its client; it was busy before. Ready when it is to make room.
    pub fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_shared { Poll::Pending } else { self.poll_evicted(WAITING, cx) }
    }

    fn poll_evicted(&self, waiting: u64, cx: &mut Context<'_>) -> Poll<()> {
        let Some(index) = self.index else { return Poll::Pending };
        {
            let mut waker = self.seats.wakers[index].lock().unwrap_or_else(PoisonError::into_inner);
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let since = &self.seats.idle_since[index];
        match since.load(Ordering::SeqCst) {
            EVICTED => return Poll::Ready(()),
            BUSY => {
                let age = clock::now().saturating_duration_since(self.seats.began).as_millis();
                let now = u64::try_from(age).unwrap_or_default().saturating_add(1).min(u64::MAX / 4);
                since.store(now * 2 + waiting, Ordering::SeqCst);
            }
            _ => {}
        }
        Poll::Pending
    }

    /// The connection is busy again. False: it was told to make room.
    pub fn set_busy(&self) -> bool {
        let Some(index) = self.index else { return true };
        let since = &self.seats.idle_since[index];
        since.load(Ordering::Relaxed) == BUSY || since.swap(BUSY, Ordering::SeqCst) != EVICTED
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.count(false);
        if let Some(index) = self.index {
            self.seats.idle_since[index].store(BUSY, Ordering::SeqCst);
            *self.seats.wakers[index].lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.seats.free.lock().unwrap_or_else(PoisonError::into_inner).returned.push(index);
        }
    }
}

/// How a connection waits for its client: its seat is told when that has made no progress for [`STALL`], so one whose
/// client keeps up tells nothing.
#[derive(Debug, Default)]
pub struct Stall {
    due: Deadline,
    /// What had moved when the wait began.
    moved: u64,
    waits: bool,
    /// Whether the seat was told.
    told: bool,
    evicted: bool,
}

impl Stall {
    /// The connection waits for its client, which has taken or sent `moved` bytes of this request so far. Ready when it is
    /// to make room.
    pub fn poll(&mut self, seat: Option<&Seat>, moved: u64, cx: &mut Context<'_>) -> Poll<()> {
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

    /// The connection waits no more. False: it was told to make room while it did.
    pub fn end(&mut self, seat: Option<&Seat>) -> bool {
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
    use super::*;

    fn idle(seat: &Seat) -> bool {
        let pending = seat.poll_idle(&mut Context::from_waker(Waker::noop())).is_pending();
        // The order of those that became idle is told by milliseconds.
        std::thread::sleep(Duration::from_millis(2));
        pending
    }

    fn waits(seat: &Seat) -> bool {
        let pending = seat.poll_waiting(&mut Context::from_waker(Waker::noop())).is_pending();
        std::thread::sleep(Duration::from_millis(2));
        pending
    }

    /// For a client that has no connection.
    fn evict(seats: &Seats) -> Option<Evicted> {
        seats.evict(ClientSlot::new(IpAddr::from([203, 0, 113, 1]), 64))
    }

    #[test]
    fn n3_6_what_waits_for_a_client_that_has_far_more_makes_room() {
        let client = |at: u8| IpAddr::from([192, 0, 2, at]);
        let slot = |at| ClientSlot::new(client(at), 64);
        let seats = Seats::new(16);
        let take =
            |count: usize, of: u8| -> Vec<Seat> { (0..count).map(|_| seats.take(client(of), 64)).collect() };
        let (many, few) = (take(8, 1), take(3, 2));
        assert!(few.iter().all(waits), "three are not far more than one");
        assert_eq!(evict(&seats), None);
        // The first of the many is at work for its client.
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
        // But for a client that has more than its share of all.
        let (nearly_all, other) = (take(15, 1), take(1, 2));
        assert!(idle(&other[0]) && nearly_all.iter().all(waits));
        assert_eq!(evict(&seats), Some(Evicted::Waiting));
        assert!(!waits(&nearly_all[0]) && idle(&other[0]));
        // A trusted proxy's connections carry the requests of others.
        drop(nearly_all);
        let mut shared = take(15, 1);
        shared.iter_mut().for_each(Seat::set_shared);
        assert!(other[0].set_busy() && shared.iter().all(waits));
        assert_eq!(evict(&seats), None);
        assert!(idle(&shared[3]));
        assert_eq!(evict(&seats), Some(Evicted::Idle));
    }

    #[test]
    fn n3_6_the_longest_idle_of_the_client_with_the_most_goes_first() {
        let seats = Seats::new(8);
        let client = |at: u8| IpAddr::from([192, 0, 2, at]);
        let one = seats.take(client(1), 64);
        let many: Vec<Seat> = (0..4).map(|_| seats.take(client(2), 64)).collect();
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
        let taken: Vec<Seat> = (0..9).map(|_| seats.take(client(3), 64)).collect();
        assert_eq!(
            taken.iter().filter(|seat| seat.index.is_none()).count(),
            1,
            "eight seats, all free again"
        );
    }

    #[test]
    fn n3_6_a_connection_is_counted_for_the_client_that_the_header_names() {
        let seats = Seats::new(4);
        let (proxy, client) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
        let mut told = seats.take(proxy, 64);
        told.set_client(client, 64);
        let others: Vec<Seat> = (0..2).map(|_| seats.take(client, 64)).collect();
        let lone = seats.take(proxy, 64);
        assert!(idle(&lone) && idle(&told));
        assert!(evict(&seats).is_some());
        assert!(!idle(&told), "one of three");
        drop(others);
    }
}
