//! The rate limiter: decides whether a request conforms to the limits of its caller. It runs GCRA over cells that all
//! workers share and whose number is bounded. Several quotas are tested in one transaction, so a refusal by one takes
//! nothing from the others.
//!
//! Not here: the identity and the tier of a caller (`layer::limit`), and the response fields (`fields::rate_limit`).

pub(crate) mod cells;
pub(crate) mod collected;
pub(crate) mod counters;
pub(crate) mod gcra;
pub(crate) mod gradient;
pub(crate) mod tier;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::runtime::clock::Instant;
use cells::{Cell, Cells, Key};
use counters::Counters;
use gcra::Nanoseconds;
use tier::{Concurrency, NameId, Tier};

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
}

impl Verdict {
    pub(crate) fn conforms(&self) -> bool {
        self.violated.is_empty()
    }
}

/// The rate limiter of the process; see the head of the file.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub cells: Cells,
    pub counters: Counters,
    /// The origin of all TATs, for the life of the process.
    origin: Instant,
}

impl Limiter {
    /// Creates a limiter of at most `max_keys` cells, whose clock begins at `origin`.
    pub(crate) fn new(max_keys: usize, origin: Instant) -> Limiter {
        Limiter { cells: Cells::new(max_keys), counters: Counters::default(), origin }
    }

    /// Returns the time on the limiter's clock. It begins at 1, because 0 is the TAT of an unknown key.
    pub(crate) fn since_origin(&self, now: Instant) -> Nanoseconds {
        let since = now.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Decides about a request, and takes from the quotas if it conforms.
    pub(crate) fn ask(self: &Arc<Self>, ask: &Ask<'_>, now: Instant) -> Verdict {
        let now = self.since_origin(now);
        self.cells.with(ask.key, ask.tier.overflow, now, |cell| {
            let mut verdict = decide(cell, ask, now);
            let counted = if verdict.conforms() { &mut cell.allowed } else { &mut cell.limited };
            *counted = counted.saturating_add(1);
            if let (true, Some(concurrency)) = (verdict.conforms(), ask.concurrency) {
                let hash = cell.key().hash;
                verdict.permit = Some(Permit { limiter: self.clone(), hash, rule: concurrency.rule });
            }
            verdict
        })
    }

    /// Returns the state of a key under each limit of a tier; `None` if the key has no cell.
    pub(crate) fn standing(&self, hash: u128, tier: &Tier, now: Instant) -> Option<Vec<(usize, Standing)>> {
        let now = self.since_origin(now);
        let of = |cell: &mut Cell| {
            let limits = tier.limits.iter().enumerate();
            limits
                .map(|(at, limit)| {
                    let tat = cell.value(limit.rule);
                    let remaining = limit.quota.remaining(tat, now);
                    let wait = Some(Duration::from_nanos(tat.saturating_sub(now)));
                    (at, Standing { which: Which::Quota(at), remaining, wait })
                })
                .collect()
        };
        self.cells.find(hash, of)
    }
}

/// Returns whether a limit is closer to exhaustion than another: exceeded limits first, by the longest wait, then those
/// with the least remaining.
fn is_closer(this: &Standing, exceeded: bool, other: &Standing, other_exceeded: bool) -> bool {
    if exceeded != other_exceeded {
        return exceeded;
    }
    let waits = |standing: &Standing| standing.wait.unwrap_or_default();
    if exceeded {
        return waits(this) > waits(other);
    }
    (this.remaining, std::cmp::Reverse(waits(this))) < (other.remaining, std::cmp::Reverse(waits(other)))
}

fn decide(cell: &mut Cell, ask: &Ask<'_>, now: Nanoseconds) -> Verdict {
    let mut violated: SmallVec<[Which; 2]> = SmallVec::new();
    let mut taken: SmallVec<[(u64, u64); 4]> = SmallVec::new();
    let mut closest: Option<(Standing, bool)> = None;
    let mut stand = |standing: Standing, exceeded: bool| {
        if closest.as_ref().is_none_or(|(other, of)| is_closer(&standing, exceeded, other, *of)) {
            closest = Some((standing, exceeded));
        }
    };
    for (at, limit) in ask.named.iter().flat_map(|named| ask.tier.limits_on(named)) {
        let tat = cell.value(limit.rule);
        let which = Which::Quota(at);
        match limit.quota.test(tat, ask.cost, now) {
            Ok(next) => {
                taken.push((limit.rule, next));
                let wait = Some(Duration::from_nanos(next.saturating_sub(now)));
                stand(Standing { which, remaining: limit.quota.remaining(next, now), wait }, false);
            }
            Err(wait) => {
                violated.push(which);
                let remaining = limit.quota.remaining(tat, now);
                stand(Standing { which, remaining, wait: Some(wait) }, true);
            }
        }
    }
    if let Some(concurrency) = ask.concurrency {
        let which = Which::Concurrency;
        let max = u64::from(concurrency.max);
        let in_flight = cell.value(concurrency.rule);
        if in_flight >= max {
            violated.push(which);
            stand(Standing { which, remaining: 0, wait: None }, true);
        } else {
            taken.push((concurrency.rule, in_flight + 1));
            let remaining = u32::try_from(max - in_flight - 1).unwrap_or(u32::MAX);
            stand(Standing { which, remaining, wait: None }, false);
        }
    }
    let closest = closest.map(|(standing, _)| standing);
    if violated.is_empty() {
        taken.iter().for_each(|(rule, value)| cell.set(*rule, *value, now));
    }
    Verdict { violated, closest, permit: None }
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
