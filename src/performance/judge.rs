//! What is thought of a route by its last minute: how many of its requests fail, how many are slow.

use super::window::Figures;
use crate::rendering::words::words;

/// Fewer requests in a minute say nothing.
const MIN: u64 = 20;
/// A higher share of failures is too high.
const MAX_FAILED: f64 = 0.10;
/// A higher share of slow requests degrades, ...
const DEGRADED: f64 = 0.05;
/// ... and a still higher one is unhealthy.
const UNHEALTHY: f64 = 0.10;

words! {
    /// How slow a route is.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Slowness {
        /// Less than 5 % of its requests are slow.
        #[default]
        Healthy => "healthy",
        /// 5 to 10 %.
        Degraded => "degraded",
        Unhealthy => "unhealthy",
    }
}

/// See the head of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether too many of its requests fail.
    pub failing: bool,
    pub slowness: Slowness,
}

/// Remembers what it thought before, so that a change is told once.
#[derive(Debug, Default)]
pub(crate) struct Judge(Verdict);

impl Judge {
    pub(crate) fn verdict(&self) -> Verdict {
        self.0
    }

    /// Judges anew; what changed, each with whether it got better.
    pub(crate) fn judge(&mut self, minute: &Figures) -> Vec<(bool, String)> {
        // A route that nobody asks for any more is well again.
        let has_data = minute.count >= MIN || (minute.count == 0 && self.0 != Verdict::default());
        if !has_data {
            return Vec::new();
        }
        let share = |part: u64| part as f64 / minute.count.max(1) as f64;
        let (failed, slow) = (share(minute.failed), share(minute.slow));
        let slowness = match slow {
            slow if slow > UNHEALTHY => Slowness::Unhealthy,
            slow if slow >= DEGRADED => Slowness::Degraded,
            _ => Slowness::Healthy,
        };
        let now = Verdict { failing: failed > MAX_FAILED, slowness };
        let before = std::mem::replace(&mut self.0, now);
        let mut told = Vec::new();
        if now.failing != before.failing {
            let word = if now.failing { "failed" } else { "failed, as few as before" };
            let none = minute.count == 0;
            told.push((
                !now.failing,
                match none {
                    true => "no requests came in the last minute".to_owned(),
                    false => format!("{:.0}% of requests {word} in the last minute", failed * 100.0),
                },
            ));
        }
        if now.slowness != before.slowness {
            let text = format!(
                "{}: {:.0}% of requests were slow in the last minute",
                slowness.as_str(),
                slow * 100.0
            );
            told.push((now.slowness < before.slowness, text));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let of = |count, failed, slow| {
            let mut judge = Judge::default();
            judge.judge(&Figures { count, failed, slow, ..Figures::default() });
            judge.verdict()
        };
        let verdict = |failing, slowness| Verdict { failing, slowness };
        assert_eq!(of(19, 19, 19), Verdict::default());
        assert_eq!(of(100, 10, 4), verdict(false, Slowness::Healthy));
        assert_eq!(of(100, 11, 5), verdict(true, Slowness::Degraded));
        assert_eq!(of(100, 0, 10), verdict(false, Slowness::Degraded));
        assert_eq!(of(100, 0, 11), verdict(false, Slowness::Unhealthy));
    }

    #[test]
    fn silence_after_trouble_is_recovery() {
        let mut judge = Judge::default();
        judge.judge(&Figures { count: 100, failed: 50, ..Figures::default() });
        let told = judge.judge(&Figures::default());
        assert!(told[0].0 && !judge.verdict().failing, "{told:?}");
    }
}
