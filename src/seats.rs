//! The client connections of all workers: whose they are, and which are idle, so that at `max_connections` the right
//! one makes room.
//!
//! A connection tells of itself only when it has been silent for a moment and when that ends, so a busy one pays
//! nothing. Looking for one to close walks two arrays of numbers; that is done only when every seat is taken.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::buffers::{ClientSlot, SLOTS};
use crate::clock::{self, Instant};

/// Most seats that are known; connections beyond them are never closed to make room.
const MAX_SEATS: usize = 1 << 16;
/// `idle_since` of a busy connection, and of a free seat.
const BUSY: u64 = 0;
/// Of one that was told to close.
const EVICTED: u64 = u64::MAX;

/// See the head of the file.
#[derive(Debug)]
pub struct Seats {
    began: Instant,
    /// Milliseconds since `began`, and one.
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
        let seat = Seat { seats: self.clone(), index, client };
        seat.count(true);
        seat
    }

    /// Closes the connection that is idle longest among those of the client that has the most connections of all whose
    /// connections are idle. False: none is idle.
    pub fn evict(&self) -> bool {
        loop {
            let idle = self.idle_since.iter().zip(&self.clients).enumerate().filter_map(
                |(index, (since, client))| {
                    let since = since.load(Ordering::Relaxed);
                    let of = usize::from(client.load(Ordering::Relaxed));
                    let connections = self.by_client.get(of)?.load(Ordering::Relaxed);
                    (since != BUSY && since != EVICTED).then_some((
                        connections,
                        std::cmp::Reverse(since),
                        index,
                    ))
                },
            );
            let Some((_, std::cmp::Reverse(since), index)) = idle.max() else { return false };
            let evicted =
                self.idle_since[index].compare_exchange(since, EVICTED, Ordering::SeqCst, Ordering::SeqCst);
            if evicted.is_ok() {
                let waker = self.wakers[index].lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(waker) = waker {
                    waker.wake();
                }
                return true;
            }
        }
    }
}

/// One connection's seat, given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    index: Option<usize>,
    client: ClientSlot,
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

    /// The connection is idle. Ready when it is to make room.
    pub fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
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
                let now = u64::try_from(age).unwrap_or(u64::MAX - 2) + 1;
                since.store(now, Ordering::SeqCst);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn idle(seat: &Seat) -> bool {
        let pending = seat.poll_idle(&mut Context::from_waker(Waker::noop())).is_pending();
        // The order of those that became idle is told by milliseconds.
        std::thread::sleep(Duration::from_millis(2));
        pending
    }

    #[test]
    fn n3_6_the_longest_idle_of_the_client_with_the_most_goes_first() {
        let seats = Seats::new(8);
        let client = |at: u8| IpAddr::from([192, 0, 2, at]);
        let one = seats.take(client(1), 64);
        let many: Vec<Seat> = (0..4).map(|_| seats.take(client(2), 64)).collect();
        assert!(!seats.evict(), "none is idle");
        assert!(idle(&one));
        assert!(many.iter().skip(1).all(idle), "the first of the many is busy");
        assert!(many[1].set_busy() && idle(&many[1]), "it was busy again meanwhile");
        let evicted = |seat: &Seat| !idle(seat);
        for (count, gone) in [(1, 2), (2, 3), (3, 1)] {
            assert!(seats.evict());
            assert!(evicted(&many[gone]), "{count}: {gone}");
            assert!(!evicted(&one));
        }
        assert!(seats.evict() && evicted(&one), "then that of the one that has less");
        assert!(!seats.evict());
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
        assert!(seats.evict());
        assert!(!idle(&told), "one of three");
        drop(others);
    }
}
