//! A log-linear (HDR) histogram of durations. Each power of two from a microsecond to more than an hour has 64 buckets,
//! so a reported value is within 0.8 % of the true one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::runtime::clock;

/// Number of buckets for each power of two.
const PARTS: u64 = 64;
const PARTS_LOG2: u32 = 6;
/// Logarithm of the minimum, 1,024 ns. Shorter durations count as the minimum.
const MIN_LOG2: u32 = 10;
/// Logarithm of the maximum, 2^42 ns or 73 minutes. Longer durations count as the maximum.
const MAX_LOG2: u32 = 42;
pub(crate) const BUCKETS: usize = ((MAX_LOG2 - MIN_LOG2) as u64 * PARTS) as usize;

fn index(duration: Duration) -> usize {
    let nanoseconds = clock::nanoseconds(duration);
    let nanoseconds = nanoseconds.clamp(1 << MIN_LOG2, (1 << MAX_LOG2) - 1);
    let exponent = nanoseconds.ilog2();
    // The bits after the leading one select the part.
    let part = (nanoseconds >> (exponent - PARTS_LOG2)) & (PARTS - 1);
    (u64::from(exponent - MIN_LOG2) * PARTS + part) as usize
}

/// Returns the middle of a bucket.
fn middle(index: usize) -> Duration {
    let (octave, part) = (index as u64 / PARTS, index as u64 % PARTS);
    let width = 1u64 << (octave + u64::from(MIN_LOG2 - PARTS_LOG2));
    Duration::from_nanos((PARTS + part) * width + width / 2)
}

/// The live histogram that several workers add to.
pub(crate) struct Live(Box<[AtomicU32]>);

impl Default for Live {
    fn default() -> Live {
        Live((0..BUCKETS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Live {
    pub(crate) fn add(&self, duration: Duration) {
        self.0[index(duration)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns all counts and resets them to zero.
    pub(crate) fn take(&self) -> Sparse {
        let taken = (0u16..).zip(&self.0).filter_map(|(at, cell)| {
            // Most cells are zero, and a read is cheaper than a write.
            let count = if cell.load(Ordering::Relaxed) == 0 { 0 } else { cell.swap(0, Ordering::Relaxed) };
            (count > 0).then_some((at, count))
        });
        Sparse(taken.collect())
    }
}

/// An immutable histogram that stores only non-empty buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse(Box<[(u16, u32)]>);

/// The sum of several histograms.
#[derive(Clone, Debug)]
pub(crate) struct Merged(Vec<u64>);

impl Default for Merged {
    fn default() -> Merged {
        Merged(vec![0; BUCKETS])
    }
}

impl Merged {
    pub(crate) fn add(&mut self, counts: &Sparse) {
        for (at, count) in &counts.0 {
            self.0[usize::from(*at)] += u64::from(*count);
        }
    }

    pub(crate) fn join(&mut self, others: &Merged) {
        self.0.iter_mut().zip(&others.0).for_each(|(sum, count)| *sum += count);
    }

    pub(crate) fn sparse(&self) -> Sparse {
        let some = (0u16..).zip(&self.0).filter(|(_, count)| **count > 0);
        Sparse(some.map(|(at, count)| (at, u32::try_from(*count).unwrap_or(u32::MAX))).collect())
    }

    /// Returns the duration that the fraction `share` of all durations does not exceed (nearest rank); zero if there
    /// are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let count: u64 = self.0.iter().sum();
        let rank = ((share * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (at, here) in self.0.iter().enumerate() {
            seen += here;
            if seen >= rank {
                return middle(at);
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends() {
        assert_eq!((index(Duration::ZERO), index(Duration::from_nanos(1024))), (0, 0));
        assert_eq!(index(Duration::MAX), BUCKETS - 1);
        assert_eq!(Merged::default().quantile(0.5), Duration::ZERO);
    }

    proptest! {
        /// Checks that quantiles are within 1 % for any durations.
        #[test]
        fn quantiles_are_true(
            mut nanoseconds in proptest::collection::vec(1_024u64..4_000_000_000_000, 1..500),
            share in 0.01f64..1.0,
        ) {
            let live = Live::default();
            nanoseconds.iter().for_each(|value| live.add(Duration::from_nanos(*value)));
            let mut merged = Merged::default();
            merged.add(&live.take());
            prop_assert_eq!(live.take(), Sparse::default());
            nanoseconds.sort_unstable();
            let rank = ((share * nanoseconds.len() as f64).ceil() as usize).clamp(1, nanoseconds.len());
            let truth = nanoseconds[rank - 1] as f64;
            let told = merged.quantile(share).as_nanos() as f64;
            prop_assert!((told - truth).abs() <= truth * 0.01, "{told} for {truth}");
            prop_assert_eq!(merged.sparse().0.iter().map(|(_, count)| *count as usize).sum::<usize>(), nanoseconds.len());
        }
    }
}
