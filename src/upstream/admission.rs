//! The gate in front of an upstream: limits its concurrent requests to a number derived from its latency. All workers
//! share it, and it outlives reloads.
//!
//! A slot is held until the head of the response: the time that a client takes to read or to write is not caused by the
//! upstream, and must not block other requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::call::{Call, is_spread};
use super::queue::Place;
use crate::limit::gradient::{Gradient, max_waiting};
use crate::metrics::Cell;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// The gate in front of one upstream, which limits its concurrent requests.
#[derive(Debug)]
pub(crate) struct Gate {
    gradient: Mutex<Gradient>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Present limit of concurrent requests.
    limit: AtomicUsize,
    /// Number of permits still out after the limit has shrunk: they are not returned.
    debt: AtomicUsize,
    pub shed: Cell,
}

impl Gate {
    /// Creates the gate of an unmeasured upstream, which may have at most `max` concurrent requests.
    pub(crate) fn new(max: usize, now: Instant) -> Gate {
        let gradient = Gradient::new(max, now);
        let limit = gradient.limit();
        Gate {
            permits: Arc::new(Semaphore::new(limit)),
            gradient: Mutex::new(gradient),
            waiting: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            debt: AtomicUsize::new(0),
            shed: Cell::default(),
        }
    }

    fn gradient(&self) -> MutexGuard<'_, Gradient> {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the present limit of concurrent requests.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Takes a slot for a request of a class, whose tier has rank `rank` of `ranks`, and waits if necessary. Returns
    /// `None` if the request is shed.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        class: u64,
        (rank, ranks): (usize, usize),
        timeout: Duration,
    ) -> Option<Entered> {
        let entered =
            |permit| Some(Entered { gate: self.clone(), permit: Some(permit), class, since: clock::now() });
        // Requests that already wait come first.
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Ok(permit) = self.permits.clone().try_acquire_owned()
        {
            return entered(permit);
        }
        let permit = match Place::take(&self.waiting, max_waiting(self.limit(), rank, ranks)) {
            None => None,
            Some(_place) => {
                let waited = tokio::time::timeout(timeout, self.permits.clone().acquire_owned()).await;
                waited.ok().and_then(Result::ok)
            }
        };
        if permit.is_none() {
            self.shed.add(1);
        }
        permit.and_then(entered)
    }

    /// Records the latency of a request, and adapts the limit.
    fn sample(&self, class: u64, sent: Instant, now: Instant) {
        let free = self.permits.available_permits();
        // All changes of the limit happen under this lock.
        let mut gradient = self.gradient();
        let before = self.limit();
        gradient.sample(class, sent, now, before.saturating_sub(free));
        let limit = gradient.limit();
        self.limit.store(limit, Ordering::Relaxed);
        if limit > before {
            let paid = self.pay(limit - before);
            self.permits.add_permits(limit - before - paid);
        } else if limit < before {
            let forgotten = self.permits.forget_permits(before - limit);
            self.debt.fetch_add(before - limit - forgotten, Ordering::Relaxed);
        }
    }

    /// Reduces the debt by at most `max`. Returns the reduction.
    fn pay(&self, max: usize) -> usize {
        let pay = |debt: usize| Some(debt - debt.min(max));
        let before = self.debt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay);
        before.unwrap_or_default().min(max)
    }

    fn give_back(&self, permit: OwnedSemaphorePermit) {
        if self.debt.load(Ordering::Relaxed) > 0 && self.pay(1) == 1 {
            permit.forget();
        }
    }
}

/// One request in flight; its slot is released when this is dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
    class: u64,
    since: Instant,
}

impl Entered {
    /// Releases the slot when the head of the response arrived. Responses without real work (an error, a redirect, 304)
    /// are fast, and are not sampled.
    pub(crate) fn response_began(mut self, status: StatusCode, sent: Option<Instant>, now: Instant) {
        if let (Some(sent), true) = (sent, status.is_success()) {
            self.gate.sample(self.class, sent, now);
        }
        self.leave();
    }

    fn leave(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.gate.give_back(permit);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.permit.is_some() {
            // There was no response, or nobody waited for it: the upstream took at least this long, which is sampled if
            // it is slow.
            let now = clock::now();
            let gate = self.gate.clone();
            if gate.gradient().is_slow(self.class, now.saturating_duration_since(self.since)) {
                gate.sample(self.class, self.since, now);
            }
        }
        self.leave();
    }
}

/// Returns the class of a request, for requests of similar cost: reads or writes under the same two first path
/// segments, with segments that contain digits taken as equal.
pub(super) fn class(call: &Call<'_>) -> u64 {
    let segments =
        call.target.path().as_bytes().split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
    let reads = is_spread(call.method);
    segments.take(2).fold(u64::from(reads), |class, segment| {
        let number = segment.iter().any(u8::is_ascii_digit);
        xxhash_rust::xxh3::xxh3_64_with_seed(if number { b"#" } else { segment }, class)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_taken_waited_for_and_given_back() {
        let gate = Arc::new(Gate::new(1000, clock::now()));
        let limit = gate.limit();
        let mut inside = Vec::new();
        for _ in 0..limit {
            inside.push(gate.enter(0, (0, 1), Duration::ZERO).await.unwrap());
        }
        assert!(gate.enter(0, (0, 1), Duration::from_millis(10)).await.is_none());
        assert_eq!(gate.shed.get(), 1);
        let waits = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(0, (0, 1), Duration::from_secs(1)).await.is_some() }
        });
        tokio::task::yield_now().await;
        inside.pop();
        assert!(waits.await.unwrap());
        // The slot is released by then.
        assert_eq!(gate.permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_shrunken_limit_takes_places_as_they_come_back() {
        let begin = clock::now();
        let gate = Arc::new(Gate::new(1000, begin));
        let mut inside = Vec::new();
        for _ in 0..gate.limit() {
            inside.push(gate.enter(0, (0, 1), Duration::ZERO).await.unwrap());
        }
        // Fast at first, then a hundred times slower.
        let mut time = begin;
        for (latency, count) in [(10, 60), (1000, 400)] {
            for _ in 0..count {
                time += Duration::from_millis(20);
                gate.sample(0, time - Duration::from_millis(latency), time);
            }
        }
        let held = |inside: &Vec<Entered>| inside.len() + gate.permits.available_permits();
        assert!(gate.limit() < inside.len(), "{}", gate.limit());
        while inside.len() > gate.limit() {
            inside.pop();
        }
        assert_eq!(held(&inside), gate.limit());
        drop(inside);
        assert_eq!(gate.permits.available_permits(), gate.limit());
    }
}
