//! The rate limiter: decides whether a request conforms to the limits of its caller. It runs GCRA over cells that all
//! workers share and whose number is bounded. Several quotas are tested in one transaction, so a refusal by one takes
//! nothing from the others.
//!
//! Not here: the identity and the tier of a caller (`layer::limit`), and the response fields (`fields::rate_limit`).

pub(crate) mod cells;
pub(crate) mod collected;
pub(crate) mod counters;
mod decide;
pub(crate) mod gcra;
pub(crate) mod gradient;
pub(crate) mod shared;
pub(crate) mod tier;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::futures::OwnedNotified;

use crate::runtime::clock::{self, Instant};
use cells::{Cell, Cells, Key};
use counters::Counters;
use gcra::Nanoseconds;
use shared::{Open, SharedLimits};
use tier::{Concurrency, Limit, NameId, Tier};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub key: Key,
    pub tier: &'a Tier,
    /// The limits that the route names; `None`: no quota applies on this route.
    pub named: Option<&'a [NameId]>,
    /// Number of requests that this request counts as.
    pub cost: NonZeroU32,
    /// The limit of requests in flight on the route.
    pub concurrency: Option<Concurrency>,
}

impl<'a> Ask<'a> {
    /// The limits that hold for the request, each with its index in the tier.
    fn limits(&self) -> impl Iterator<Item = (usize, &'a Limit)> + use<'a> {
        let tier = self.tier;
        self.named.into_iter().flat_map(move |named| tier.limits_on(named))
    }

    fn has_quota(&self) -> bool {
        self.limits().next().is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Quota(usize),
    /// The route's limit of requests in flight.
    Concurrency,
}

/// The state of a key under one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub which: Which,
    /// Number of requests that may be sent now.
    pub remaining: u32,
    /// Time until the request conforms if it does not, else until the whole burst is available again. `None` for
    /// requests in flight, whose end is unknown.
    pub wait: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    /// The limits that were exceeded; none if the request conforms.
    pub violated: SmallVec<[Which; 2]>,
    /// The limit that is closest to exhaustion, or exceeded for longest. `None` if no limit applies.
    pub closest: Option<Standing>,
    /// Held while the request is in flight.
    pub permit: Option<Permit>,
    /// Whether the request is refused because Redis is away and limits are to be closed then.
    pub unavailable: bool,
}

impl Verdict {
    pub(crate) fn conforms(&self) -> bool {
        self.violated.is_empty() && !self.unavailable
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Decided(Verdict),
    /// Redis has to be asked; [`Limiter::wait`] waits for it.
    Undecided(Undecided),
}

/// A request whose limits are not decided yet.
#[derive(Debug)]
pub(crate) struct Undecided(OwnedNotified);

/// The rate limiter of the process; see the head of the file.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub cells: Cells,
    pub counters: Counters,
    /// The limits that all processes of a fleet count together.
    pub shared: Option<Arc<SharedLimits>>,
    /// The origin of all TATs, for the life of the process.
    origin: Instant,
}

impl Limiter {
    /// Creates a limiter of at most `max_keys` cells, whose clock begins at `origin`.
    pub(crate) fn new(max_keys: usize, origin: Instant) -> Limiter {
        Limiter { cells: Cells::new(max_keys), counters: Counters::default(), shared: None, origin }
    }

    /// The same, with limits that are counted with other processes.
    pub(crate) fn with_shared(self, shared: Option<SharedLimits>) -> Limiter {
        Limiter { shared: shared.map(Arc::new), ..self }
    }

    /// Returns the time on the limiter's clock. It begins at 1, because 0 is the TAT of an unknown key.
    pub(crate) fn since_origin(&self, now: Instant) -> Nanoseconds {
        let since = now.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Returns the present time on the limiter's clock.
    fn now(&self) -> Nanoseconds {
        self.since_origin(clock::now())
    }

    /// Decides about a request, and takes from the quotas if it conforms.
    pub(crate) fn ask(self: &Arc<Self>, ask: &Ask<'_>, now: Instant) -> Answer {
        let now = self.since_origin(now);
        match &self.shared {
            Some(shared) if ask.has_quota() => self.ask_shared(shared, ask, now),
            _ => Answer::Decided(self.ask_here(ask, now)),
        }
    }

    /// Waits for the decision about a request, for a bounded time.
    pub(crate) async fn wait(self: &Arc<Self>, ask: &Ask<'_>, undecided: Undecided) -> Verdict {
        let Some(shared) = &self.shared else { return self.ask_here(ask, self.now()) };
        let decided = async {
            let mut undecided = undecided;
            loop {
                undecided.0.await;
                match self.ask(ask, clock::now()) {
                    Answer::Decided(verdict) => return verdict,
                    // Others spent what came.
                    Answer::Undecided(again) => undecided = again,
                }
            }
        };
        match tokio::time::timeout(shared.settings.patience, decided).await {
            Ok(verdict) => verdict,
            Err(_) => self.ask_alone(shared, ask, self.now()),
        }
    }

    fn ask_here(self: &Arc<Self>, ask: &Ask<'_>, now: Nanoseconds) -> Verdict {
        self.cells.with(ask.key, ask.tier.overflow, now, |cell| {
            let verdict = decide::here(cell, ask, now);
            self.conclude(cell, ask, verdict)
        })
    }

    fn ask_shared(self: &Arc<Self>, shared: &Arc<SharedLimits>, ask: &Ask<'_>, now: Nanoseconds) -> Answer {
        let is_away = shared.is_away();
        if is_away && !shared.may_probe(now) {
            return Answer::Decided(self.ask_alone(shared, ask, now));
        }
        let asked: Result<Verdict, Box<Open>> = self.cells.with(ask.key, ask.tier.overflow, now, |cell| {
            let verdict = match shared::is_shared(cell) {
                true => decide::shared(cell, shared, ask, now)?,
                false => decide::here(cell, ask, now),
            };
            Ok(self.conclude(cell, ask, verdict))
        });
        let (done, demands) = match asked {
            Ok(verdict) => return Answer::Decided(verdict),
            Err(open) => (open.done, open.demands),
        };
        if !demands.is_empty() {
            self.ask_server(shared, ask.key.hash, demands);
        }
        match is_away {
            true => Answer::Decided(self.ask_alone(shared, ask, now)),
            false => Answer::Undecided(Undecided(done)),
        }
    }

    /// Decides without Redis about a request whose limits are shared.
    fn ask_alone(self: &Arc<Self>, shared: &SharedLimits, ask: &Ask<'_>, now: Nanoseconds) -> Verdict {
        shared.counters.alone.fetch_add(1, Ordering::Relaxed);
        self.cells.with(ask.key, ask.tier.overflow, now, |cell| {
            let verdict = decide::alone(cell, shared, ask, now);
            self.conclude(cell, ask, verdict)
        })
    }

    fn conclude(self: &Arc<Self>, cell: &mut Cell, ask: &Ask<'_>, mut verdict: Verdict) -> Verdict {
        let counted = if verdict.conforms() { &mut cell.allowed } else { &mut cell.limited };
        *counted = counted.saturating_add(1);
        if let (true, Some(concurrency)) = (verdict.conforms(), ask.concurrency) {
            let hash = cell.key().hash;
            verdict.permit = Some(Permit { limiter: self.clone(), hash, rule: concurrency.rule });
        }
        verdict
    }

    /// Returns the state of a key under each limit of a tier; `None` if the key has no cell.
    pub(crate) fn standing(&self, hash: u128, tier: &Tier, now: Instant) -> Option<Vec<(usize, Standing)>> {
        let now = self.since_origin(now);
        self.cells.find(hash, |cell| {
            let limits = tier.limits.iter().enumerate();
            limits.map(|(at, limit)| (at, decide::standing(cell, at, limit, now))).collect()
        })
    }

    /// Forgets what a key used, in this process. Returns false if it has no cell.
    pub(crate) fn reset(&self, hash: u128) -> bool {
        self.cells.find(hash, Cell::reset).is_some()
    }
}

/// A request in flight; dropping this ends it.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<Limiter>,
    hash: u128,
    rule: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The cell exists: requests in flight keep it from being forgotten.
        self.limiter.cells.find(self.hash, |cell| {
            let left = cell.value(self.rule).saturating_sub(1);
            // The entry exists, so no other entry of the cell is evicted.
            cell.set(self.rule, left, 0);
        });
    }
}

#[cfg(test)]
mod tests;
