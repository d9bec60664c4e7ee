//! A histogram of durations that several workers add to. It has classic buckets for every scraper, and native ones
//! (Prometheus 3, schema 3: eight for each power of two) for scrapers that accept them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{MetricEncoder, NativeHistogram, NativeHistogramBuckets};

use crate::runtime::clock;

/// The native schema: 2^3 buckets for each power of two, so the bounds of a bucket are at most 9 % apart.
const SCHEMA: i32 = 3;
const PER_OCTAVE: i32 = 1 << SCHEMA;
/// Index of the native bucket for a microsecond (2^-20 s) or less. The last bucket is for an hour (2^12 s) or more.
const FIRST: i32 = -20 * PER_OCTAVE;
const LAST: i32 = 12 * PER_OCTAVE;
/// The number of native buckets.
const NATIVE: usize = (LAST - FIRST + 1) as usize;
/// Durations below this count as zero, in seconds; the minimum that Prometheus recommends.
const ZERO_THRESHOLD: f64 = 2.938735877055719e-39;

/// The upper bounds of the classic buckets.
#[derive(Debug)]
pub(super) struct Bounds {
    nanoseconds: Box<[u64]>,
    seconds: Box<[f64]>,
    /// For each native bucket, and one after the last: the number of classic bounds that lie in lower native buckets.
    below: Box<[usize]>,
    began: SystemTime,
}

impl Bounds {
    /// Creates bounds from increasing values in seconds. Counting starts at `now`.
    pub(super) fn new(seconds: &[f64], now: SystemTime) -> Arc<Bounds> {
        let bound = |seconds: &f64| Duration::from_secs_f64(*seconds);
        let nanoseconds = seconds.iter().map(|seconds| clock::nanoseconds(bound(seconds))).collect();
        let natives: Vec<usize> = seconds.iter().map(|seconds| native_index(bound(seconds))).collect();
        let below = (0..=NATIVE).map(|native| natives.partition_point(|other| *other < native)).collect();
        Arc::new(Bounds { nanoseconds, seconds: seconds.into(), below, began: now })
    }

    /// Returns the index of the native and of the classic bucket of a duration.
    fn buckets(&self, duration: Duration, nanoseconds: u64) -> (usize, usize) {
        let native = native_index(duration);
        let above = &self.nanoseconds[self.below[native]..];
        let further = above.iter().take_while(|bound| **bound < nanoseconds).count();
        (native, self.below[native] + further)
    }

    /// Iterates over all pairs of a native and a classic bucket that overlap.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..NATIVE).flat_map(|native| {
            (self.below[native]..=self.below[native + 1]).map(move |classic| (native, classic))
        })
    }
}

/// A histogram of durations, with classic and native buckets at once.
#[derive(Debug)]
pub(super) struct Durations {
    nanoseconds: AtomicU64,
    /// One counter for each overlapping pair of a native and a classic bucket, at the sum of their indices. Two
    /// different pairs never have the same sum, because both indices rise together. One addition thus counts a request
    /// in both.
    cells: Box<[AtomicU64]>,
    /// The latest exemplar of each classic bucket. Nothing is allocated for histograms without traced requests.
    exemplars: OnceLock<Box<[Mutex<Option<Exemplar>>]>>,
}

/// A request whose trace is recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traced {
    pub trace: u128,
    /// The end of the request, as time since the Unix epoch.
    pub at: Duration,
}

/// A request that represents the others in its bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exemplar {
    pub traced: Traced,
    /// The duration of the request in seconds.
    pub seconds: f64,
}

#[derive(Clone, Debug)]
pub(super) struct Counted {
    seconds: f64,
    count: u64,
    classic: Vec<u64>,
    native: Vec<u64>,
}

impl Counted {
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// The lower bounds of the buckets in an octave: 2^(i/8).
const WITHIN: [f64; PER_OCTAVE as usize] = [
    1.0,
    1.0905077326652577,
    1.189207115002721,
    1.2968395546510096,
    std::f64::consts::SQRT_2,
    1.5422108254079407,
    1.681792830507429,
    1.8340080864093424,
];

/// Returns the bucket of a duration. Bucket `i` holds values greater than 2^((i-1)/8) and at most 2^(i/8) seconds. The
/// octave is read from the exponent of the floating-point number, which is faster than a logarithm. Zero falls below
/// the first octave.
fn native_index(duration: Duration) -> usize {
    const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;
    const ONE: u64 = 1.0f64.to_bits();
    let bits = duration.as_secs_f64().to_bits();
    let octave = (bits >> MANTISSA) as i32 - (ONE >> MANTISSA) as i32;
    let part = f64::from_bits(bits & ((1 << MANTISSA) - 1) | ONE);
    let within: i32 = WITHIN.iter().map(|bound| i32::from(*bound < part)).sum();
    ((octave * PER_OCTAVE + within).clamp(FIRST, LAST) - FIRST) as usize
}

impl Durations {
    pub(super) fn new(bounds: &Bounds) -> Durations {
        Durations {
            nanoseconds: AtomicU64::new(0),
            cells: (0..NATIVE + bounds.nanoseconds.len()).map(|_| AtomicU64::new(0)).collect(),
            exemplars: OnceLock::new(),
        }
    }

    pub(super) fn add(&self, bounds: &Bounds, duration: Duration, traced: Option<Traced>) {
        let nanoseconds = clock::nanoseconds(duration);
        let (native, classic) = bounds.buckets(duration, nanoseconds);
        self.cells[native + classic].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if let Some(traced) = traced {
            let none = || (0..=bounds.nanoseconds.len()).map(|_| Mutex::default()).collect();
            let exemplars = self.exemplars.get_or_init(none);
            // A thread never waits to record an exemplar.
            if let Ok(mut exemplar) = exemplars[classic].try_lock() {
                *exemplar = Some(Exemplar { traced, seconds: duration.as_secs_f64() });
            }
        }
    }

    /// Returns the exemplars, each with the index of its classic bucket.
    pub(super) fn exemplars(&self) -> Vec<(usize, Exemplar)> {
        let cells = self.exemplars.get().into_iter().flat_map(|cells| cells.iter().enumerate());
        let read = |cell: &Mutex<Option<Exemplar>>| *cell.lock().unwrap_or_else(PoisonError::into_inner);
        cells.filter_map(|(bucket, cell)| Some((bucket, read(cell)?))).collect()
    }

    pub(super) fn count(&self) -> u64 {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn counted(&self, bounds: &Bounds) -> Counted {
        let mut counted = Counted {
            seconds: self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9,
            count: 0,
            classic: vec![0; bounds.nanoseconds.len() + 1],
            native: vec![0; NATIVE],
        };
        for (native, classic) in bounds.pairs() {
            let count = self.cells[native + classic].load(Ordering::Relaxed);
            counted.count += count;
            counted.native[native] += count;
            counted.classic[classic] += count;
        }
        counted
    }
}

impl Counted {
    pub(super) fn encode(
        &self,
        bounds: &Bounds,
        mut encoder: MetricEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let upper = bounds.seconds.iter().copied().chain([f64::INFINITY]);
        let classic: Vec<(f64, u64)> = upper.zip(self.classic.iter().copied()).collect();
        let (spans, deltas) = spans(&self.native);
        let none = NativeHistogramBuckets { spans: &[], deltas: &[] };
        let native = NativeHistogram {
            schema: SCHEMA,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: 0,
            negative: none,
            positive: NativeHistogramBuckets { spans: &spans, deltas: &deltas },
            created: Some(bounds.began),
        };
        encoder.encode_histogram_with_native::<[(&str, &str); 0]>(
            self.seconds,
            self.count,
            &classic,
            None,
            native,
        )
    }
}

/// Returns the runs of non-empty buckets, each with the gap before it, and the differences between their counts.
fn spans(native: &[u64]) -> (Vec<(i32, u32)>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<(i32, u32)>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut next, mut before) = (0i32, 0i64);
    for (index, count) in (FIRST..).zip(native).filter(|(_, count)| **count > 0) {
        match spans.last_mut() {
            Some((_, length)) if index == next => *length += 1,
            // The first gap is counted from bucket 0, so it may be negative.
            _ => spans.push((index - next, 1)),
        }
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        (next, before) = (index + 1, count);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn native_buckets() {
        let of = |seconds: f64| native_index(Duration::from_secs_f64(seconds)) as i32 + FIRST;
        // A bound belongs to the bucket below it.
        assert_eq!([of(1.0), of(1.01), of(2.0), of(0.5), of(1.1)], [0, 1, 8, -8, 2]);
        assert_eq!([of(0.0), of(1e9)], [FIRST, LAST]);
        for index in FIRST + 1..LAST {
            let bound = (f64::from(index) / f64::from(PER_OCTAVE)).exp2();
            // Durations are exact to the nanosecond.
            let (below, above) = (bound * 0.9999 - 1e-9, bound * 1.0001 + 1e-9);
            assert_eq!([of(below), of(above)], [index, index + 1], "{bound}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_counted_in_both_its_buckets(
            durations in proptest::collection::vec(0u64..5_000_000_000, 1..60),
            mut seconds in proptest::collection::vec(1u32..5_000, 0..20),
        ) {
            seconds.sort_unstable();
            seconds.dedup();
            let seconds: Vec<f64> = seconds.into_iter().map(|milliseconds| f64::from(milliseconds) / 1e3).collect();
            let bounds = Bounds::new(&seconds, SystemTime::UNIX_EPOCH);
            let counting = Durations::new(&bounds);
            let (mut classic, mut native) = (vec![0; seconds.len() + 1], vec![0; NATIVE]);
            for nanoseconds in &durations {
                let duration = Duration::from_nanos(*nanoseconds);
                counting.add(&bounds, duration, None);
                classic[bounds.nanoseconds.partition_point(|bound| bound < nanoseconds)] += 1;
                native[native_index(duration)] += 1;
            }
            let counted = counting.counted(&bounds);
            prop_assert_eq!((counted.classic, counted.native), (classic, native));
            prop_assert_eq!((counted.count, counting.count()), (durations.len() as u64, durations.len() as u64));
        }
    }

    #[test]
    fn runs_of_buckets() {
        let mut native = vec![0u64; NATIVE];
        let at = |index: i32| (index - FIRST) as usize;
        for (index, count) in [(-8, 5), (-7, 3), (0, 4)] {
            native[at(index)] = count;
        }
        assert_eq!(spans(&native), (vec![(-8, 2), (6, 1)], vec![5, -2, 1]));
    }
}
