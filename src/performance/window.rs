//! Measurements of one route over the last minute, five minutes and hour, as a sequence of time spans of which the
//! oldest are discarded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::histogram::{Live, Merged, Sparse};
use crate::rendering::words::words;
use crate::runtime::clock;

/// Length of the current span. The shorter windows consist of such spans.
pub(crate) const STEP: Duration = Duration::from_secs(5);
/// Number of steps kept: five minutes.
const STEPS: usize = 60;
/// Number of steps that one longer span combines.
const STEPS_A_MINUTE: usize = 12;
/// Number of minutes kept: an hour.
const MINUTES: usize = 60;

words! {
    /// The time window of a report.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Window {
        Minute => "1m",
        FiveMinutes => "5m",
        Hour => "1h",
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub duration: Duration,
    /// Bytes of content sent to clients.
    pub bytes: u64,
    /// Whether the response was a 5xx, or missing.
    pub failed: bool,
    /// Whether the request took longer than `log.slow`.
    pub slow: bool,
    /// Whether the cache had the response; `None` if the cache was not asked.
    pub cache: Option<bool>,
}

#[derive(Debug, Default)]
struct Counts {
    bytes: AtomicU64,
    failed: AtomicU64,
    slow: AtomicU64,
    asked: AtomicU64,
    hits: AtomicU64,
    max: AtomicU64,
    count: AtomicU64,
}

/// The measurements of a finished span.
#[derive(Clone, Debug, Default)]
struct Span {
    counts: Sparse,
    figures: Figures,
}

/// The sums of a span or a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub count: u64,
    /// Bytes of content sent to clients.
    pub bytes: u64,
    pub failed: u64,
    pub slow: u64,
    /// Number of requests for which the cache was asked.
    pub asked: u64,
    pub hits: u64,
    pub max: Duration,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Figures) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.slow += other.slow;
        self.asked += other.asked;
        self.hits += other.hits;
        self.max = self.max.max(other.max);
    }
}

/// The pool of one worker.
#[derive(Default)]
pub(crate) struct RouteTimes {
    live: Live,
    counts: Counts,
    past: Mutex<Past>,
}

#[derive(Default)]
struct Past {
    steps: VecDeque<Span>,
    minutes: VecDeque<Span>,
    /// Number of steps since the last entry in `minutes`.
    since_minute: usize,
}

impl RouteTimes {
    pub(crate) fn add(&self, sample: &Sample) {
        let Counts { bytes, failed, slow, asked, hits, max, count } = &self.counts;
        self.live.add(sample.duration);
        count.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(sample.bytes, Ordering::Relaxed);
        let nanoseconds = clock::nanoseconds(sample.duration);
        if nanoseconds > max.load(Ordering::Relaxed) {
            max.fetch_max(nanoseconds, Ordering::Relaxed);
        }
        for (counter, counts) in [
            (failed, sample.failed),
            (slow, sample.slow),
            (asked, sample.cache.is_some()),
            (hits, sample.cache == Some(true)),
        ] {
            if counts {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn step(&self) {
        let Counts { bytes, failed, slow, asked, hits, max, count } = &self.counts;
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let figures = Figures {
            count: take(count),
            bytes: take(bytes),
            failed: take(failed),
            slow: take(slow),
            asked: take(asked),
            hits: take(hits),
            max: Duration::from_nanos(take(max)),
        };
        let counts = if figures.count > 0 { self.live.take() } else { Sparse::default() };
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.steps.push_back(Span { counts, figures });
        past.since_minute += 1;
        if past.since_minute == STEPS_A_MINUTE {
            past.since_minute = 0;
            let minute = together(past.steps.iter().rev().take(STEPS_A_MINUTE));
            past.minutes.push_back(Span { counts: minute.1.sparse(), figures: minute.0 });
            if past.minutes.len() > MINUTES {
                past.minutes.pop_front();
            }
        }
        if past.steps.len() > STEPS {
            past.steps.pop_front();
        }
    }

    /// Returns the sums of a window, its durations, and the time it really covers, which is shorter at first.
    pub(crate) fn over(&self, window: Window) -> (Figures, Merged, Duration) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = |max: usize| {
            let taken = past.steps.len().min(max);
            let (figures, merged) = together(past.steps.iter().rev().take(max));
            (figures, merged, STEP * u32::try_from(taken).unwrap_or(0))
        };
        match window {
            Window::Minute => steps(STEPS_A_MINUTE),
            Window::FiveMinutes => steps(STEPS),
            Window::Hour => {
                let recent = past.steps.iter().rev().take(past.since_minute);
                let (figures, merged) = together(past.minutes.iter().chain(recent));
                let steps = past.minutes.len() * STEPS_A_MINUTE + past.since_minute;
                (figures, merged, STEP * u32::try_from(steps).unwrap_or(u32::MAX))
            }
        }
    }
}

fn together<'a>(spans: impl Iterator<Item = &'a Span>) -> (Figures, Merged) {
    let (mut figures, mut merged) = (Figures::default(), Merged::default());
    for span in spans {
        figures.add(&span.figures);
        merged.add(&span.counts);
    }
    (figures, merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(milliseconds: u64) -> Sample {
        let duration = Duration::from_millis(milliseconds);
        Sample {
            duration,
            bytes: 10,
            failed: milliseconds > 100,
            slow: milliseconds > 50,
            cache: Some(milliseconds < 5),
        }
    }

    #[test]
    fn windows_hold_what_fell_into_them() {
        let times = RouteTimes::default();
        // Two hours with one request in each step, each longer than the one before.
        for step in 1..=1440 {
            times.add(&sample(step));
            times.step();
        }
        for (window, count, max) in
            [(Window::Minute, 12, 1440), (Window::FiveMinutes, 60, 1440), (Window::Hour, 720, 1440)]
        {
            let (figures, merged, over) = times.over(window);
            assert_eq!((figures.count, figures.bytes), (count, count * 10), "{window:?}");
            assert_eq!(figures.max, Duration::from_millis(max));
            assert_eq!(over, STEP * count as u32);
            let truth = Duration::from_millis(1440 - count / 2);
            let told = merged.quantile(0.5);
            assert!(
                told.abs_diff(truth) <= truth / 100 + Duration::from_millis(1),
                "{window:?} {told:?} for {truth:?}"
            );
        }
        for _ in 0..12 {
            times.step();
        }
        assert_eq!(times.over(Window::Minute).0, Figures::default());
        assert_eq!(times.over(Window::FiveMinutes).0.count, 48);
    }

    #[test]
    fn the_hour_has_what_came_since_its_last_minute() {
        let times = RouteTimes::default();
        times.add(&sample(1));
        (0..13).for_each(|_| times.step());
        times.add(&sample(200));
        times.step();
        let (figures, _, over) = times.over(Window::Hour);
        assert_eq!(
            (figures.count, figures.failed, figures.slow, figures.asked, figures.hits),
            (2, 1, 1, 2, 1)
        );
        assert_eq!(over, STEP * 14);
    }
}
