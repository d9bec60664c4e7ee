//! A lease: tokens of one limit that this process took from the shared bucket of a caller and may spend by itself.
//!
//! Tokens live for [`life`] from before they were asked for. When little is left, the server gives slots: tokens that
//! may be spent from a time on, one after the other, each for the life of a lease. So in any time W all processes
//! together admit at most `burst + rate x (W + 2 x life)` and one request for each process.

use std::time::Duration;

use crate::limit::gcra::{Nanoseconds, Quota};
use crate::runtime::clock::nanoseconds;

/// Bounds of the life of a lease.
const LIVES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Longest time for which a refusal is remembered: other processes may give tokens back.
const MAX_REFUSED: Nanoseconds = 2_000_000_000;

/// Returns the life of a lease: a tenth of the time in which the burst is refilled.
pub(crate) fn life(quota: &Quota) -> Nanoseconds {
    let refill = quota.interval().saturating_mul(u64::from(quota.burst.get()));
    (refill / 10).clamp(nanoseconds(LIVES.0), nanoseconds(LIVES.1))
}

/// The terms under which tokens of a limit are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub rule: u64,
    /// Time between two requests at an even pace.
    pub step: Nanoseconds,
    pub burst: u32,
    /// Life of the lease; 0: each request asks.
    pub life: Nanoseconds,
}

impl Terms {
    pub(crate) fn new(rule: u64, quota: &Quota, is_exact: bool) -> Terms {
        let life = if is_exact { 0 } else { life(quota) };
        Terms { rule, step: quota.interval(), burst: quota.burst.get(), life }
    }
}

/// The demand of a process under one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub terms: Terms,
    /// Tokens that the asking request needs.
    pub cost: u32,
    pub wanted: u32,
    /// Tokens that are given back.
    pub back: u32,
    /// Time of the server at which those were taken, in microseconds.
    pub since: u64,
}

/// The answer of the server for one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    pub tokens: u32,
    pub slots: u32,
    /// Time until the first slot.
    pub first: Nanoseconds,
    /// Tokens that are left for all.
    pub left: u32,
    /// Time until the bucket is full.
    pub full: Nanoseconds,
    /// Time until the request conforms; 0 if it does.
    pub wait: Nanoseconds,
}

/// The decision of a lease about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Conforms,
    /// The request is refused; it conforms after this time.
    Refused(Nanoseconds),
    /// The server has to be asked.
    Ask,
}

/// The lease of a caller under one limit, with all that is known of the shared bucket.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub rule: u64,
    tokens: u32,
    /// End of the life of `tokens`.
    until: Nanoseconds,
    slots: u32,
    /// The time from which on the first of `slots` may be spent.
    first: Nanoseconds,
    step: Nanoseconds,
    life: Nanoseconds,
    /// Tokens that were not spent in time, to be given back.
    lapsed: u32,
    /// Time of the server at which the tokens were taken, in microseconds.
    since: u64,
    /// When the next request conforms, as far as is known.
    refused_until: Nanoseconds,
    /// Until then the server is not asked.
    asks_at: Nanoseconds,
    left: u32,
    full_at: Nanoseconds,
    /// Tokens spent since `window`, and in the life of a lease before it.
    spent: u32,
    before: u32,
    window: Nanoseconds,
}

impl Lease {
    pub(crate) fn new(rule: u64) -> Lease {
        Lease {
            rule,
            tokens: 0,
            until: 0,
            slots: 0,
            first: 0,
            step: 0,
            life: 0,
            lapsed: 0,
            since: 0,
            refused_until: 0,
            asks_at: 0,
            left: 0,
            full_at: 0,
            spent: 0,
            before: 0,
            window: 0,
        }
    }

    /// Takes what is over from what may be spent.
    fn expire(&mut self, now: Nanoseconds) {
        if self.until <= now {
            self.lapsed = self.lapsed.saturating_add(std::mem::take(&mut self.tokens));
        }
        // Rare: slots are spent as they come where they were asked for.
        while self.slots > 0 && self.first.saturating_add(self.life) <= now {
            self.slots -= 1;
            self.lapsed = self.lapsed.saturating_add(1);
            self.first = self.first.saturating_add(self.step);
        }
    }

    /// Number of slots whose time has come.
    fn ready(&self, now: Nanoseconds) -> u32 {
        match now.checked_sub(self.first) {
            Some(since) if self.slots > 0 => {
                let ready = since / self.step.max(1) + 1;
                u32::try_from(ready).unwrap_or(u32::MAX).min(self.slots)
            }
            _ => 0,
        }
    }

    /// Returns whether a request that costs `cost` may pass.
    pub(crate) fn look(&mut self, cost: u32, now: Nanoseconds) -> Look {
        self.expire(now);
        if self.tokens.saturating_add(self.ready(now)) >= cost {
            return Look::Conforms;
        }
        if self.tokens.saturating_add(self.slots) >= cost {
            // The time of the slot that is the last to be needed.
            let needed = u64::from(cost.saturating_sub(self.tokens).saturating_sub(1));
            let at = self.first.saturating_add(needed.saturating_mul(self.step));
            return Look::Refused(at.saturating_sub(now).max(1));
        }
        if now < self.asks_at {
            return Look::Refused(self.refused_until.saturating_sub(now).max(1));
        }
        Look::Ask
    }

    /// Spends tokens, after [`Lease::look`] said that there are enough.
    pub(crate) fn spend(&mut self, cost: u32, now: Nanoseconds) {
        let of_tokens = cost.min(self.tokens);
        self.tokens -= of_tokens;
        let of_slots = (cost - of_tokens).min(self.slots);
        self.slots -= of_slots;
        self.first = self.first.saturating_add(u64::from(of_slots).saturating_mul(self.step));
        self.roll(now);
        self.spent = self.spent.saturating_add(cost);
    }

    /// Begins the next window of counting when one is over.
    fn roll(&mut self, now: Nanoseconds) {
        let since = now.saturating_sub(self.window);
        if since >= self.life {
            self.before = if since < self.life.saturating_mul(2) { self.spent } else { 0 };
            (self.spent, self.window) = (0, now);
        }
    }

    /// Gives up what is left and asks for more: as much as was spent in the last life of a lease, so that the next one
    /// lasts about as long.
    pub(crate) fn demand(&mut self, terms: Terms, cost: u32, now: Nanoseconds) -> Demand {
        self.expire(now);
        self.roll(now);
        let wanted = if terms.life == 0 { cost } else { self.spent.max(self.before).max(cost) };
        let back = self.lapsed.saturating_add(self.tokens).saturating_add(self.slots);
        (self.lapsed, self.tokens, self.slots) = (0, 0, 0);
        Demand { terms, cost, wanted, back, since: self.since }
    }

    /// Takes what the server granted. `sent` is the time before the question, `there` that of the server in microseconds.
    pub(crate) fn take(
        &mut self,
        terms: Terms,
        grant: &Grant,
        sent: Nanoseconds,
        now: Nanoseconds,
        there: u64,
    ) {
        // A request that asks each time spends its tokens at once; they stay for one that comes back late.
        let life = if terms.life == 0 { nanoseconds(LIVES.0) } else { terms.life };
        (self.step, self.life, self.since) = (terms.step, life, there);
        (self.tokens, self.until) = (grant.tokens, sent.saturating_add(life));
        (self.slots, self.first) = (grant.slots, now.saturating_add(grant.first));
        (self.left, self.full_at) = (grant.left, now.saturating_add(grant.full));
        if grant.wait == 0 {
            (self.refused_until, self.asks_at) = (0, 0);
            return;
        }
        self.refused_until = now.saturating_add(grant.wait);
        // A slot is given at most one life ahead. Where each asked as soon as one may be had, all would ask all the time.
        let pause = if terms.life == 0 {
            grant.wait
        } else {
            grant.wait.saturating_sub(terms.life).max(terms.life / 20 * 17)
        };
        self.asks_at = now.saturating_add(pause.min(MAX_REFUSED));
    }

    /// Tokens that the caller has now, in the shared bucket and here.
    pub(crate) fn remaining(&self, now: Nanoseconds) -> u32 {
        let here = if self.until > now { self.tokens } else { 0 };
        self.left.saturating_add(here)
    }

    /// Time until the shared bucket is full.
    pub(crate) fn full_in(&self, now: Nanoseconds) -> Nanoseconds {
        self.full_at.saturating_sub(now)
    }

    /// The time from which on nothing is lost with the lease.
    pub(crate) fn over_at(&self) -> Nanoseconds {
        let slots = u64::from(self.slots).saturating_mul(self.step);
        let slots =
            if self.slots == 0 { 0 } else { self.first.saturating_add(slots).saturating_add(self.life) };
        let tokens = if self.tokens == 0 { 0 } else { self.until };
        tokens.max(slots).max(self.asks_at)
    }

    /// Returns whether the shared bucket was ever heard of.
    pub(crate) fn is_known(&self) -> bool {
        self.since > 0
    }
}
