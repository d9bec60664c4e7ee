//! Decisions about one request, from the cell of its caller: by what the process counts itself, by the leases of shared
//! limits, or by its share of them while Redis is away.

use std::time::Duration;

use smallvec::SmallVec;

use super::cells::Cell;
use super::gcra::{Nanoseconds, Quota};
use super::shared::lease::{Look, Terms};
use super::shared::{self, OnError, Open, SharedLimits};
use super::tier::{IN_FLIGHT, Limit};
use super::verdict::{Ask, Standing, Verdict, Which};

/// Makes the rule of a process's own share of a shared limit from the limit's rule.
const SHARE: u64 = 0x5a5a_5a5a_5a5a_5a5a & !IN_FLIGHT;

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

/// A decision while it is made: each limit adds to it.
#[derive(Default)]
struct Deciding {
    violated: SmallVec<[Which; 2]>,
    /// The values of rules that a request which conforms leaves.
    taken: SmallVec<[(u64, u64); 4]>,
    closest: Option<(Standing, bool)>,
}

impl Deciding {
    fn stand(&mut self, standing: Standing, exceeded: bool) {
        if self.closest.as_ref().is_none_or(|(other, of)| is_closer(&standing, exceeded, other, *of)) {
            self.closest = Some((standing, exceeded));
        }
        if exceeded {
            self.violated.push(standing.which);
        }
    }

    /// Tests a quota whose TAT the cell has under `rule`.
    fn quota(&mut self, cell: &Cell, ask: &Ask<'_>, at: usize, rule: u64, quota: &Quota, now: Nanoseconds) {
        let tat = cell.value(rule);
        let which = Which::Quota(at);
        match quota.test(tat, ask.cost, now) {
            Ok(next) => {
                self.taken.push((rule, next));
                let wait = Some(Duration::from_nanos(next.saturating_sub(now)));
                self.stand(Standing { which, remaining: quota.remaining(next, now), wait }, false);
            }
            Err(wait) => {
                let remaining = quota.remaining(tat, now);
                self.stand(Standing { which, remaining, wait: Some(wait) }, true);
            }
        }
    }

    /// Tests the limit of requests in flight, which each process counts by itself.
    fn concurrency(&mut self, cell: &Cell, ask: &Ask<'_>) {
        let Some(concurrency) = ask.concurrency else { return };
        let which = Which::Concurrency;
        let max = u64::from(concurrency.max);
        let in_flight = cell.value(concurrency.rule);
        if in_flight >= max {
            self.stand(Standing { which, remaining: 0, wait: None }, true);
        } else {
            self.taken.push((concurrency.rule, in_flight + 1));
            let remaining = u32::try_from(max - in_flight - 1).unwrap_or(u32::MAX);
            self.stand(Standing { which, remaining, wait: None }, false);
        }
    }

    /// Ends the decision; a request that conforms takes what it needs.
    fn end(self, cell: &mut Cell, now: Nanoseconds) -> Verdict {
        let Deciding { violated, taken, closest } = self;
        if violated.is_empty() {
            taken.iter().for_each(|(rule, value)| cell.set(*rule, *value, now));
        }
        let closest = closest.map(|(standing, _)| standing);
        Verdict { violated, closest, permit: None, unavailable: false }
    }
}

/// Decides by what this process counts.
pub(super) fn here(cell: &mut Cell, ask: &Ask<'_>, now: Nanoseconds) -> Verdict {
    let mut deciding = Deciding::default();
    for (at, limit) in ask.limits() {
        deciding.quota(cell, ask, at, limit.rule, &limit.quota, now);
    }
    deciding.concurrency(cell, ask);
    deciding.end(cell, now)
}

/// Decides by the leases of the caller; the error is what has to be asked before.
pub(super) fn shared(
    cell: &mut Cell,
    limits: &SharedLimits,
    ask: &Ask<'_>,
    now: Nanoseconds,
) -> Result<Verdict, Box<Open>> {
    let terms: SmallVec<[(usize, Terms); 2]> =
        ask.limits().map(|(at, limit)| (at, limits.terms(limit))).collect();
    let cost = |terms: &Terms| ask.cost.get().min(terms.burst);
    let looks = shared::look(cell, &terms, cost, now, limits.ends_before(now))?;
    let mut deciding = Deciding::default();
    for ((at, terms), look) in terms.iter().zip(&looks) {
        let lease = cell.shared().lease(terms.rule);
        let which = Which::Quota(*at);
        let remaining = lease.remaining(now);
        match look {
            Look::Refused(wait) => {
                let wait = Some(Duration::from_nanos(*wait));
                deciding.stand(Standing { which, remaining, wait }, true);
            }
            Look::Conforms | Look::Ask => {
                let remaining = remaining.saturating_sub(cost(terms));
                let wait = Some(Duration::from_nanos(lease.full_in(now)));
                deciding.stand(Standing { which, remaining, wait }, false);
            }
        }
    }
    deciding.concurrency(cell, ask);
    if deciding.violated.is_empty() {
        for (_, terms) in &terms {
            cell.shared().lease(terms.rule).spend(cost(terms), now);
        }
    }
    Ok(deciding.end(cell, now))
}

/// Decides while Redis is away.
pub(super) fn alone(cell: &mut Cell, limits: &SharedLimits, ask: &Ask<'_>, now: Nanoseconds) -> Verdict {
    let mut deciding = Deciding::default();
    match limits.settings.on_error {
        OnError::Open => {}
        OnError::Closed => {
            return Verdict { unavailable: true, ..deciding.end(cell, now) };
        }
        OnError::Local => {
            for (at, limit) in ask.limits() {
                let quota = limits.share(&limit.quota);
                let rule = limit.rule ^ SHARE;
                begin_share(cell, limit, rule, &quota, limits.live(), now);
                deciding.quota(cell, ask, at, rule, &quota, now);
            }
        }
    }
    deciding.concurrency(cell, ask);
    deciding.end(cell, now)
}

/// Lets the share of a limit go on from what was last known of the shared bucket.
fn begin_share(cell: &mut Cell, limit: &Limit, rule: u64, quota: &Quota, live: usize, now: Nanoseconds) {
    if cell.value(rule) != 0 {
        return;
    }
    let Some(lease) = cell.known().and_then(|shared| shared.known(limit.rule)) else { return };
    // Tokens that were used since then are refilled by now.
    let refilled = u64::from(limit.quota.burst.get())
        .saturating_sub(lease.full_in(now).div_ceil(limit.quota.interval().max(1)));
    let share = u32::try_from(refilled / live.max(1) as u64).unwrap_or(u32::MAX).min(quota.burst.get());
    let owed = u64::from(quota.burst.get() - share).saturating_mul(quota.interval());
    cell.set(rule, now.saturating_add(owed), now);
}

/// Returns the state of a caller under a limit.
pub(super) fn standing(cell: &Cell, at: usize, limit: &Limit, now: Nanoseconds) -> Standing {
    let which = Which::Quota(at);
    if let Some(lease) = cell.known().and_then(|shared| shared.known(limit.rule)) {
        let wait = Some(Duration::from_nanos(lease.full_in(now)));
        return Standing { which, remaining: lease.remaining(now), wait };
    }
    let tat = cell.value(limit.rule);
    let wait = Some(Duration::from_nanos(tat.saturating_sub(now)));
    Standing { which, remaining: limit.quota.remaining(tat, now), wait }
}
