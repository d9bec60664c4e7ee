//! One quota and its arithmetic: GCRA, the generic cell rate algorithm, as `governor` implements it.
//!
//! The state of a key is one number for each quota: its theoretical arrival time (TAT) in nanoseconds since the origin
//! of the [limiter](super::Limiter); 0 is the TAT of an unknown key. A TAT in the past is equivalent to that, so such a
//! key may be forgotten.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::direct::NotKeyed;

use crate::runtime::clock::nanoseconds;

/// A time in nanoseconds since the limiter's origin.
pub(crate) type Nanoseconds = u64;

/// Maximum rate of a quota in requests a second; a higher rate is no limit.
pub(crate) const MAX_A_SECOND: u64 = 1_000_000;

/// Maximum time until a burst is available again; within it the arithmetic cannot overflow.
pub(crate) const MAX_REFILL: Duration = Duration::from_secs(366 * 86_400);

/// A quota: a number of requests in a period, and how many of them may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    pub count: u32,
    pub period: Duration,
    /// Number of requests that may come at once.
    pub burst: NonZeroU32,
    governed: governor::Quota,
}

/// Reasons why a rate and a burst are not a valid quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotaError {
    /// The rate is above [`MAX_A_SECOND`].
    TooFast,
    /// The burst would take longer than [`MAX_REFILL`] to be available again.
    TooSlow,
}

impl Quota {
    /// Creates the quota of a rate and a burst.
    pub(crate) fn new(count: u32, period: Duration, burst: NonZeroU32) -> Result<Quota, QuotaError> {
        let nanoseconds = period.as_nanos();
        if u128::from(count) * 1_000_000_000 > u128::from(MAX_A_SECOND) * nanoseconds {
            return Err(QuotaError::TooFast);
        }
        // Rounded up, so that the rate is never exceeded.
        let interval = nanoseconds.div_ceil(u128::from(count.max(1)));
        if interval * u128::from(burst.get()) > MAX_REFILL.as_nanos() {
            return Err(QuotaError::TooSlow);
        }
        let interval = Duration::from_nanos(u64::try_from(interval).map_err(|_| QuotaError::TooSlow)?);
        let governed = governor::Quota::with_period(interval).ok_or(QuotaError::TooFast)?.allow_burst(burst);
        Ok(Quota { count, period, burst, governed })
    }

    /// Returns the time between two requests at an even pace.
    pub(crate) fn interval(&self) -> Nanoseconds {
        nanoseconds(self.governed.replenish_interval())
    }

    /// Tests whether `cost` requests at once conform. Returns the TAT after them, or the time until they do. A cost
    /// above the burst never conforms; the policy compiler rejects it, and here it counts as the burst.
    pub(crate) fn test(
        &self,
        tat: Nanoseconds,
        cost: NonZeroU32,
        now: Nanoseconds,
    ) -> Result<Nanoseconds, Duration> {
        let kept = Kept(Cell::new(tat));
        // The origin is 0 for every limiter; by default governor takes the time of its creation.
        let limiter: RateLimiter<NotKeyed, Kept, Given, NoOpMiddleware<Duration>> =
            RateLimiter::new(self.governed, kept, Given(Cell::new(Duration::ZERO)));
        let now = Duration::from_nanos(now);
        limiter.clock().0.set(now);
        match limiter.check_n(cost.min(self.burst)) {
            Ok(Ok(())) => Ok(limiter.into_state_store().0.get()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(now)),
            Err(_) => Err(MAX_REFILL),
        }
    }

    /// Returns how many requests may come at `now`.
    pub(crate) fn remaining(&self, tat: Nanoseconds, now: Nanoseconds) -> u32 {
        let owed = tat.saturating_sub(now);
        let burst = nanoseconds(self.governed.burst_size_replenished_in());
        u32::try_from(burst.saturating_sub(owed) / self.interval()).unwrap_or(u32::MAX)
    }
}

/// A state store for one TAT: a copy of the value in the cell.
struct Kept(Cell<Nanoseconds>);

impl StateStore for Kept {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (decided, tat) = decide(Some(Nanos::from(self.0.get())))?;
        self.0.set(tat.into());
        Ok(decided)
    }
}

/// A clock that shows the time it was set to.
struct Given(Cell<Duration>);

impl Clock for Given {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn quota(count: u32, period: u64, burst: u32) -> Quota {
        Quota::new(count, Duration::from_secs(period), NonZeroU32::new(burst).unwrap()).unwrap()
    }

    fn one() -> NonZeroU32 {
        NonZeroU32::MIN
    }

    #[test]
    fn bounds() {
        let new = |count, period, burst| {
            Quota::new(count, Duration::from_secs(period), NonZeroU32::new(burst).unwrap()).err()
        };
        assert_eq!(new(1_000_000, 1, 1), None);
        assert_eq!(new(1_000_001, 1, 1), Some(QuotaError::TooFast));
        assert_eq!(new(60_000_000, 60, u32::MAX), None);
        assert_eq!(new(1, 86_400, 366), None);
        assert_eq!(new(1, 86_400, 367), Some(QuotaError::TooSlow));
    }

    #[test]
    fn a_burst_then_an_even_pace() {
        let quota = quota(10, 60, 2);
        let tat = quota.test(0, one(), 0).unwrap();
        assert_eq!(quota.remaining(tat, 0), 1);
        let tat = quota.test(tat, one(), 0).unwrap();
        assert_eq!(quota.remaining(tat, 0), 0);
        assert_eq!(quota.test(tat, one(), 0), Err(Duration::from_secs(6)));
        assert_eq!(quota.test(tat, one(), 6 * SECOND - 1), Err(Duration::from_nanos(1)));
        assert!(quota.test(tat, one(), 6 * SECOND).is_ok());
        assert_eq!(quota.test(tat, NonZeroU32::new(2).unwrap(), 6 * SECOND), Err(Duration::from_secs(6)));
    }

    proptest! {
        /// In any window at most burst + rate x elapsed requests pass.
        #[test]
        fn never_more_than_the_rate(
            count in 1u32..5000,
            period in prop_oneof![Just(1u64), Just(60), Just(3600), Just(86_400)],
            burst in 1u32..60,
            gaps in proptest::collection::vec((0u64..4000, 1u32..6), 1..200),
        ) {
            let quota = quota(count, period, burst);
            let interval = u128::from(period) * u128::from(SECOND) / u128::from(count);
            let (mut now, mut tat) = (0u64, 0u64);
            let mut passed: Vec<(u64, u32)> = Vec::new();
            for (gap, cost) in gaps {
                // From a thousandth of the pace to four times it.
                now += (u128::from(gap) * interval / 1000) as u64;
                let cost = cost.min(burst);
                if let Ok(next) = quota.test(tat, NonZeroU32::new(cost).unwrap(), now) {
                    tat = next;
                    passed.push((now, cost));
                }
            }
            for (at, (begin, _)) in passed.iter().enumerate() {
                let mut sum = 0u128;
                for (end, cost) in &passed[at..] {
                    sum += u128::from(*cost);
                    let earned = u128::from(end - begin) * u128::from(count) / (u128::from(period) * u128::from(SECOND));
                    prop_assert!(sum <= u128::from(burst) + earned, "{sum} in {} ns", end - begin);
                }
            }
        }

        /// After exactly the returned wait the next request conforms; a nanosecond earlier it does not.
        #[test]
        fn the_wait_is_true(
            count in 1u32..1_000_000, burst in 1u32..50, cost in 1u32..50, used in 0u32..80, now in 0u64..u64::from(u32::MAX),
        ) {
            let quota = quota(count, 1, burst);
            let mut tat = 0;
            for _ in 0..used {
                tat = quota.test(tat, one(), now).unwrap_or(tat);
            }
            let cost = NonZeroU32::new(cost.min(burst)).unwrap();
            match quota.test(tat, cost, now) {
                Ok(_) => prop_assert!(quota.remaining(tat, now) >= cost.get()),
                Err(wait) => {
                    prop_assert!(quota.remaining(tat, now) < cost.get());
                    let then = now + wait.as_nanos() as u64;
                    prop_assert!(quota.test(tat, cost, then).is_ok());
                    prop_assert_eq!(quota.test(tat, cost, then - 1), Err(Duration::from_nanos(1)));
                }
            }
        }
    }
}
