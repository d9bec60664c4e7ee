//! The limiter: whether a request conforms to what its caller may do. GCRA over cells of our own, which are
//! bounded in number and answer for all workers; several quotas at once are one transaction, so a refusal by one
//! takes nothing from the others.
//!
//! Not here: who the caller is and which tier is theirs (`layer::limit`), and how answers say it (`fields`).

pub(crate) mod cells;
pub(crate) mod collected;
pub(crate) mod counters;
pub(crate) mod gradient;
pub(crate) mod quota;
pub(crate) mod tier;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::runtime::clock::Instant;
use cells::{Cell, Cells, Key};
use counters::Counters;
use quota::Nanoseconds;
use tier::{Concurrency, NameId, Tier};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub key: Key,
    pub tier: &'a Tier,
    /// The limits its route names; `None`: no quota holds there.
    pub named: Option<&'a [NameId]>,
    /// As how many requests it counts.
    pub cost: NonZeroU32,
    /// How many may be in flight.
    pub concurrency: Option<Concurrency>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Quota(usize),
    /// The route's cap on requests in flight.
    Concurrency,
}

/// Where a key stands with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub which: Which,
    /// How many may come now.
    pub remaining: u32,
    /// Until there are enough, where there are not; else until the whole burst is there again. Not known of
    /// requests in flight.
    pub wait: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    /// The limits that were exceeded; none: it conforms.
    pub violated: SmallVec<[Which; 2]>,
    /// The limit that is closest to exhaustion, or that is exceeded for longest. None where no limit holds.
    pub closest: Option<Standing>,
    /// Held while the request is in flight.
    pub permit: Option<Permit>,
}

impl Verdict {
    pub(crate) fn conforms(&self) -> bool {
        self.violated.is_empty()
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub cells: Cells,
    pub counters: Counters,
    /// All TATs count from here, for the life of the process.
    origin: Instant,
}

impl Limiter {
    /// With at most `max_keys` cells. Time begins at `origin`.
    pub(crate) fn new(max_keys: usize, origin: Instant) -> Limiter {
        Limiter { cells: Cells::new(max_keys), counters: Counters::default(), origin }
    }

    /// On the limiter's clock. It begins at 1: 0 is the TAT of a key never seen.
    pub(crate) fn since_origin(&self, now: Instant) -> Nanoseconds {
        let since = now.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Decides, and takes what a conforming request uses.
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

    /// Where a key stands with every limit of a tier; `None`: nothing is kept of it.
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

/// Which is nearer to its end: one that is exceeded, longest first; then the one with the least left.
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

/// A request in flight; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<Limiter>,
    hash: u128,
    rule: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The cell is there: requests in flight keep it.
        self.limiter.cells.find(self.hash, |cell| {
            let left = cell.value(self.rule).saturating_sub(1);
            // It is there already, so nothing of it is aged.
            cell.set(self.rule, left, 0);
        });
    }
}

#[cfg(test)]
mod tests;
