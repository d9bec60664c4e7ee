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
pub(crate) mod verdict;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::futures::OwnedNotified;

use crate::runtime::clock::{self, Instant};
use cells::{Cell, Cells};
use counters::Counters;
use gcra::Nanoseconds;
use shared::lease::Demand;
use shared::{Open, SharedLimits};
use tier::Tier;
pub(crate) use verdict::{Ask, Permit, Standing, Verdict, Which};

/// Whether a request is decided.
#[derive(Debug)]
pub(crate) enum Decision {
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
    pub cells: Arc<Cells>,
    pub counters: Counters,
    /// The limits that all processes of a fleet count together.
    pub shared: Option<Arc<SharedLimits>>,
    /// The origin of all TATs, for the life of the process.
    origin: Instant,
}

impl Limiter {
    /// Creates a limiter of at most `max_keys` cells, whose clock begins at `origin`.
    pub(crate) fn new(max_keys: usize, origin: Instant) -> Limiter {
        Limiter { cells: Arc::new(Cells::new(max_keys)), counters: Counters::default(), shared: None, origin }
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
    pub(crate) fn ask(self: &Arc<Self>, ask: &Ask<'_>, now: Instant) -> Decision {
        let now = self.since_origin(now);
        match &self.shared {
            Some(shared) if ask.has_quota() => self.ask_shared(shared, ask, now),
            _ => Decision::Decided(self.ask_here(ask, now)),
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
                    Decision::Decided(verdict) => return verdict,
                    // Others spent what came.
                    Decision::Undecided(again) => undecided = again,
                }
            }
        };
        match tokio::time::timeout(shared.settings.timeout, decided).await {
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

    fn ask_shared(self: &Arc<Self>, shared: &Arc<SharedLimits>, ask: &Ask<'_>, now: Nanoseconds) -> Decision {
        let is_away = shared.is_away();
        if is_away && !shared.may_probe(now) {
            return Decision::Decided(self.ask_alone(shared, ask, now));
        }
        let asked: Result<Verdict, Box<Open>> = self.cells.with(ask.key, ask.tier.overflow, now, |cell| {
            let verdict = match shared::is_shared(cell) {
                true => decide::shared(cell, shared, ask, now)?,
                false => decide::here(cell, ask, now),
            };
            Ok(self.conclude(cell, ask, verdict))
        });
        let (done, demands) = match asked {
            Ok(verdict) => return Decision::Decided(verdict),
            Err(open) => (open.done, open.demands),
        };
        if !demands.is_empty() {
            self.ask_server(shared, ask.key.hash, demands);
        }
        match is_away {
            true => Decision::Decided(self.ask_alone(shared, ask, now)),
            false => Decision::Undecided(Undecided(done)),
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

    /// Asks the server for tokens of a caller, and puts them into its cell.
    fn ask_server(self: &Arc<Self>, shared: &Arc<SharedLimits>, hash: u128, demands: Vec<Demand>) {
        let (limiter, shared) = (self.clone(), shared.clone());
        // The question goes on when its request is gone: others wait for it.
        tokio::task::spawn_local(async move {
            let sent = limiter.now();
            let granted = shared.ask(hash, &demands, || limiter.now()).await;
            let now = limiter.now();
            // The cell is kept while its question is on its way.
            limiter.cells.find(hash, |cell| {
                let leases = cell.shared();
                if let Some((there, grants)) = &granted {
                    for (demand, grant) in demands.iter().zip(grants) {
                        let lease = leases.lease(demand.terms.rule);
                        lease.take(demand.terms, grant, sent, now, *there);
                    }
                }
                leases.end();
            });
        });
    }

    fn conclude(self: &Arc<Self>, cell: &mut Cell, ask: &Ask<'_>, mut verdict: Verdict) -> Verdict {
        let counted = if verdict.conforms() { &mut cell.allowed } else { &mut cell.limited };
        *counted = counted.saturating_add(1);
        if let (true, Some(concurrency)) = (verdict.conforms(), ask.concurrency) {
            let hash = cell.key().hash;
            verdict.permit = Some(Permit { cells: self.cells.clone(), hash, rule: concurrency.rule });
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

#[cfg(test)]
mod tests;
