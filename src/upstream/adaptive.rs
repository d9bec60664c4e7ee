//! Requests to one app at once, as many as its latency says it can bear: the gate in front of it. Shared by all
//! workers; it outlives reloads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::send::Place;
use crate::clock::{self, Instant};
use crate::limit::adaptive::{Gradient, most_waiting};
use crate::metrics::Cell;

/// No app is given more at once; `max_connections` is the cap of each address.
const MOST: usize = 100_000;

/// See the head of the file.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// As many requests as may be.
    limit: AtomicUsize,
    /// Requests turned away.
    pub shed: Cell,
}

#[derive(Debug)]
struct State {
    gradient: Gradient,
    /// Permits that are out although the limit has shrunk meanwhile: they do not come back.
    debt: usize,
}

impl Gate {
    /// For an app of which nothing is known yet.
    pub fn new(now: Instant) -> Gate {
        let gradient = Gradient::new(MOST, now);
        let limit = gradient.limit();
        Gate {
            permits: Arc::new(Semaphore::new(limit)),
            state: Mutex::new(State { gradient, debt: 0 }),
            waiting: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            shed: Cell::default(),
        }
    }

    /// As many requests as may be.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// What the app shows when nothing waits in it; zero while that is not known.
    pub fn baseline(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).gradient.baseline().unwrap_or_default()
    }

    /// A place for one who ranks `rank` of `ranks`, perhaps after a wait; `None`: there is none.
    pub async fn enter(self: &Arc<Self>, rank: usize, ranks: usize, patience: Duration) -> Option<Entered> {
        let entered =
            |permit, sent| Some(Entered { gate: self.clone(), permit: Some(permit), sent, answered: false });
        // Whoever waits comes first.
        if self.waiting.load(Ordering::Relaxed) == 0
            && let Ok(permit) = self.permits.clone().try_acquire_owned()
        {
            return entered(permit, clock::now());
        }
        let permit = match Place::take(&self.waiting, most_waiting(self.limit(), rank, ranks)) {
            None => None,
            Some(_place) => {
                let waited = tokio::time::timeout(patience, self.permits.clone().acquire_owned()).await;
                waited.ok().and_then(Result::ok)
            }
        };
        match permit {
            Some(permit) => entered(permit, clock::now()),
            None => {
                self.shed.add(1);
                None
            }
        }
    }

    /// What came of a request; the limit follows.
    fn sample(&self, sent: Instant, now: Instant) {
        let pressed = self.permits.available_permits() == 0;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gradient.sample(sent, now, pressed);
        let limit = state.gradient.limit();
        let before = self.limit.swap(limit, Ordering::Relaxed);
        if limit > before {
            let paid = state.debt.min(limit - before);
            state.debt -= paid;
            self.permits.add_permits(limit - before - paid);
        } else if limit < before {
            let forgotten = self.permits.forget_permits(before - limit);
            state.debt += before - limit - forgotten;
        }
    }

    fn give_back(&self, permit: OwnedSemaphorePermit) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.debt > 0 {
            state.debt -= 1;
            permit.forget();
        }
    }
}

/// One request in flight; its place is given back when this is dropped.
#[derive(Debug)]
pub struct Entered {
    gate: Arc<Gate>,
    permit: Option<OwnedSemaphorePermit>,
    sent: Instant,
    answered: bool,
}

impl Entered {
    /// The head of its answer came, or was given up.
    pub fn answered(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.answered, true) {
            self.gate.sample(self.sent, now);
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.gate.give_back(permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_taken_waited_for_and_given_back() {
        let gate = Arc::new(Gate::new(clock::now()));
        let limit = gate.limit();
        let mut inside = Vec::new();
        for _ in 0..limit {
            inside.push(gate.enter(0, 1, Duration::ZERO).await.unwrap());
        }
        assert!(gate.enter(0, 1, Duration::from_millis(10)).await.is_none());
        assert_eq!(gate.shed.get(), 1);
        let waits = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter(0, 1, Duration::from_secs(1)).await.is_some() }
        });
        tokio::task::yield_now().await;
        inside.pop();
        assert!(waits.await.unwrap());
        // It is given back by then.
        assert_eq!(gate.permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_shrunken_limit_takes_places_as_they_come_back() {
        let begin = clock::now();
        let gate = Arc::new(Gate::new(begin));
        let mut inside = Vec::new();
        for _ in 0..gate.limit() {
            inside.push(gate.enter(0, 1, Duration::ZERO).await.unwrap());
        }
        // Quick at first, then a hundred times as slow.
        let mut time = begin;
        for (latency, count) in [(10, 60), (1000, 400)] {
            for _ in 0..count {
                time += Duration::from_millis(20);
                gate.sample(time - Duration::from_millis(latency), time);
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
