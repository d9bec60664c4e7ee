//! The permits of one upstream address: their holders, and the queue of requests that wait for one. All workers share
//! them.
//!
//! A client never holds more than its share, so that others always find a permit. A released permit goes to the oldest
//! waiter of the client that holds the fewest. While nobody waits, permits are taken and released without a lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::memory::buffers::{ClientSlot, SLOTS, client_share};

/// The permits of one upstream address, their holders, and the requests that wait for one.
#[derive(Debug)]
pub(crate) struct Permits {
    free: AtomicUsize,
    /// Maximum permits of one client.
    share: u32,
    held: Box<[AtomicU32]>,
    /// Length of `line`, readable without the lock.
    waiting: AtomicUsize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    next_id: u64,
    waiters: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    client: ClientSlot,
    sender: oneshot::Sender<Permit>,
}

impl Permits {
    /// Creates `total` permits, of which one client gets at most its share.
    pub(crate) fn shared(total: usize) -> Permits {
        Permits::new(total, client_share(total))
    }

    fn new(total: usize, share: usize) -> Permits {
        Permits {
            free: AtomicUsize::new(total),
            share: u32::try_from(share).unwrap_or(u32::MAX),
            held: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
        }
    }

    pub(crate) fn free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    /// Takes a permit, if one is free for this client now.
    pub(crate) fn try_acquire(self: &Arc<Self>, client: ClientSlot) -> Option<Permit> {
        // A permit that is free while requests wait is not for those: their clients hold their share.
        let _line = if self.waiting.load(Ordering::SeqCst) > 0 {
            self.hand_over();
            Some(self.line())
        } else {
            None
        };
        self.take(client)
    }

    /// Takes a permit, after a wait in the queue. Returns `None` if the client already has its share of `max_waiting`
    /// waiters.
    pub(crate) async fn acquire(self: &Arc<Self>, client: ClientSlot, max_waiting: usize) -> Option<Permit> {
        let (receiver, _in_line) = self.stand_in_line(client, max_waiting)?;
        // A permit may have become free before this request was queued.
        self.hand_over();
        receiver.await.ok()
    }

    fn stand_in_line(
        self: &Arc<Self>,
        client: ClientSlot,
        max_waiting: usize,
    ) -> Option<(oneshot::Receiver<Permit>, InLine)> {
        let mut line = self.line();
        let own = line.waiters.iter().filter(|waiter| waiter.client == client).count();
        if own >= client_share(max_waiting) {
            return None;
        }
        let id = line.next_id;
        line.next_id += 1;
        let (sender, receiver) = oneshot::channel();
        line.waiters.push_back(Waiter { id, client, sender });
        self.waiting.store(line.waiters.len(), Ordering::SeqCst);
        Some((receiver, InLine { permits: self.clone(), id }))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, client: ClientSlot) -> &AtomicU32 {
        &self.held[client.index()]
    }

    fn take(self: &Arc<Self>, client: ClientSlot) -> Option<Permit> {
        let held = self.held(client);
        let within_share = |held: u32| (held < self.share).then_some(held + 1);
        held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, within_share).ok()?;
        if self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1)).is_ok() {
            return Some(Permit { permits: self.clone(), client });
        }
        held.fetch_sub(1, Ordering::SeqCst);
        None
    }

    /// Gives free permits to waiters.
    fn hand_over(self: &Arc<Self>) {
        loop {
            let (sender, permit) = {
                let mut line = self.line();
                let held = |waiter: &Waiter| self.held(waiter.client).load(Ordering::SeqCst);
                let eligible =
                    line.waiters.iter().enumerate().filter(|(_, waiter)| held(waiter) < self.share);
                let Some((at, client)) =
                    eligible.min_by_key(|(_, waiter)| held(waiter)).map(|(at, waiter)| (at, waiter.client))
                else {
                    return;
                };
                match self.take(client) {
                    Some(permit) => {
                        let Some(waiter) = line.waiters.remove(at) else { return };
                        self.waiting.store(line.waiters.len(), Ordering::SeqCst);
                        (waiter.sender, permit)
                    }
                    None if self.free() == 0 => return,
                    // Another worker gave this client its last permit meanwhile.
                    None => continue,
                }
            };
            // A waiter that has left returns its permit, which takes the lock.
            drop(sender.send(permit));
        }
    }
}

/// A waiter's entry in the queue, removed when dropped.
struct InLine {
    permits: Arc<Permits>,
    id: u64,
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut line = self.permits.line();
        line.waiters.retain(|waiter| waiter.id != self.id);
        self.permits.waiting.store(line.waiters.len(), Ordering::SeqCst);
    }
}

/// A request in the queue for a permit.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    permits: Arc<Permits>,
    client: ClientSlot,
}

impl Queued {
    /// Creates the handle of a request of `client` that waits for one of these permits.
    pub(crate) fn new(permits: Arc<Permits>, client: ClientSlot) -> Queued {
        Queued { permits, client }
    }

    /// Returns whether a new request of `other` would be served before this one, because its client holds fewer
    /// permits.
    pub(crate) fn serves_first(&self, other: ClientSlot) -> bool {
        let held = |client| self.permits.held(client).load(Ordering::Relaxed);
        held(other) < held(self.client)
    }
}

/// A permit, released when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    client: ClientSlot,
}

impl Permit {
    pub(crate) fn client(&self) -> ClientSlot {
        self.client
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.held(self.client).fetch_sub(1, Ordering::SeqCst);
        self.permits.free.fetch_add(1, Ordering::SeqCst);
        if self.permits.waiting.load(Ordering::SeqCst) > 0 {
            self.permits.hand_over();
        }
    }
}

/// A counted wait, ended when dropped.
pub(super) struct Place<'a>(&'a std::sync::atomic::AtomicUsize);

impl<'a> Place<'a> {
    pub(super) fn take(waiting: &'a std::sync::atomic::AtomicUsize, max: usize) -> Option<Place<'a>> {
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place(waiting);
        (before < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    const MAX_WAITING: usize = 1024;

    type Waiting = Pin<Box<dyn Future<Output = Option<Permit>>>>;

    fn slots() -> Vec<ClientSlot> {
        let mut slots: Vec<ClientSlot> = Vec::new();
        for at in 1..=32u8 {
            let slot = ClientSlot::new([192, 0, 2, at].into(), 64);
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots
    }

    fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn n3_4_one_client_leaves_places_for_others() {
        let permits = Arc::new(Permits::shared(8));
        let (greedy, other) = (slots()[0], slots()[1]);
        let held: Vec<Permit> = std::iter::from_fn(|| permits.try_acquire(greedy)).collect();
        assert_eq!(held.len(), 7, "seven eighths");
        let mut waits = pin!(permits.acquire(greedy, MAX_WAITING));
        assert!(poll(waits.as_mut()).is_pending());
        let others = permits.try_acquire(other);
        assert!(others.is_some(), "the waiters of the greedy client do not keep another one out");
        assert!(permits.try_acquire(other).is_none());
        drop(others);
        assert!(poll(waits.as_mut()).is_pending(), "not its own share");
        assert_eq!(permits.free(), 1);
        drop(held);
        assert!(poll(waits.as_mut()).is_ready());
    }

    #[test]
    fn n3_4_a_freed_place_goes_to_the_client_that_holds_fewest() {
        let permits = Arc::new(Permits::shared(4));
        let (a, b) = (slots()[0], slots()[1]);
        let mut held: Vec<Permit> = vec![permits.try_acquire(b).unwrap()];
        held.extend((0..3).map(|_| permits.try_acquire(a).unwrap()));
        let mut first_a = pin!(permits.acquire(a, MAX_WAITING));
        let mut first_b = pin!(permits.acquire(b, MAX_WAITING));
        let mut second_b = pin!(permits.acquire(b, MAX_WAITING));
        assert!(poll(first_a.as_mut()).is_pending());
        assert!(poll(first_b.as_mut()).is_pending());
        assert!(poll(second_b.as_mut()).is_pending());
        held.pop();
        // `a` holds two, `b` one: `b` is served although `a` waits longer, its oldest waiter first.
        let Poll::Ready(Some(given)) = poll(first_b.as_mut()) else { panic!("nobody got it") };
        assert!(poll(first_a.as_mut()).is_pending() && poll(second_b.as_mut()).is_pending());
        drop(given);
        assert!(poll(second_b.as_mut()).is_ready());
    }

    #[test]
    fn n3_4_the_line_is_shared_too_and_leaving_it_gives_nothing_away() {
        let permits = Arc::new(Permits::shared(1));
        let (a, b) = (slots()[0], slots()[1]);
        let held = permits.try_acquire(a).unwrap();
        let mut waiting: Vec<_> = (0..7).map(|_| Box::pin(permits.acquire(a, 8))).collect();
        assert!(waiting.iter_mut().all(|waits| poll(waits.as_mut()).is_pending()));
        assert!(matches!(poll(pin!(permits.acquire(a, 8))), Poll::Ready(None)), "seven of eight");
        let mut other = Box::pin(permits.acquire(b, 8));
        assert!(poll(other.as_mut()).is_pending());
        drop(other);
        waiting.clear();
        assert_eq!(permits.waiting.load(Ordering::SeqCst), 0);
        drop(held);
        // A permit comes back if its waiter leaves without taking it.
        let held = permits.try_acquire(b).unwrap();
        let mut leaves = Box::pin(permits.acquire(a, 8));
        assert!(poll(leaves.as_mut()).is_pending());
        drop(held);
        assert_eq!(permits.free(), 0, "it is on its way");
        drop(leaves);
        assert_eq!(permits.free(), 1);
    }

    proptest! {
        /// Checks that in any sequence of events no client holds more than its share, no permit is lost or created, and
        /// none stays free while a waiter may have it.
        #[test]
        fn n3_4_places_are_conserved(
            total in 1usize..12,
            steps in proptest::collection::vec((0u8..4, 0usize..4, any::<u8>()), 1..80),
        ) {
            let permits = Arc::new(Permits::shared(total));
            let slots = slots();
            let mut held: Vec<Permit> = Vec::new();
            let mut waiting: Vec<(ClientSlot, Waiting)> = Vec::new();
            for (step, client, which) in steps {
                let client = slots[client];
                let which = usize::from(which);
                match step {
                    0 => held.extend(permits.try_acquire(client)),
                    1 => {
                        let permits = permits.clone();
                        let mut waits: Waiting =
                            Box::pin(async move { permits.acquire(client, MAX_WAITING).await });
                        match poll(waits.as_mut()) {
                            Poll::Ready(permit) => held.extend(permit),
                            Poll::Pending => waiting.push((client, waits)),
                        }
                    }
                    2 if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                    3 if !waiting.is_empty() => drop(waiting.swap_remove(which % waiting.len())),
                    _ => {}
                }
                let mut still = Vec::new();
                for (client, mut waits) in waiting.drain(..) {
                    match poll(waits.as_mut()) {
                        Poll::Ready(permit) => held.extend(permit),
                        Poll::Pending => still.push((client, waits)),
                    }
                }
                waiting = still;
                let of = |client| held.iter().filter(|permit| permit.client() == client).count();
                prop_assert_eq!(held.len() + permits.free(), total);
                prop_assert!(slots.iter().all(|slot| of(*slot) <= client_share(total)));
                let eligible = waiting.iter().any(|(client, _)| of(*client) < client_share(total));
                prop_assert!(permits.free() == 0 || !eligible);
            }
            drop((held, waiting));
            prop_assert_eq!(permits.free(), total);
            prop_assert!(permits.held.iter().all(|held| held.load(Ordering::SeqCst) == 0));
        }
    }
}
