//! Judges a route by its last minute: the ratio of failed requests, and of slow ones.

use super::window::Figures;
use crate::rendering::words::words;

/// Minimum requests in a minute for a judgment.
const MIN: u64 = 20;
/// Maximum ratio of failed requests before a route counts as failing.
const MAX_FAILED: f64 = 0.10;
/// Minimum ratio of slow requests at which a route is degraded.
const DEGRADED: f64 = 0.05;
/// Ratio of slow requests above which a route is unhealthy.
const UNHEALTHY: f64 = 0.10;

words! {
    /// The slowness of a route.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) enum Slowness {
        /// Less than 5 % of the requests are slow.
        #[default]
        Healthy => "healthy",
        /// Between 5 and 10 % of the requests are slow.
        Degraded => "degraded",
        Unhealthy => "unhealthy",
    }
}

/// The judgment on a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether more than 10 % of the requests fail.
    pub failing: bool,
    pub slowness: Slowness,
}

/// Remembers the last judgment, so that each change is reported once.
#[derive(Debug, Default)]
pub(crate) struct Judge(Verdict);

impl Judge {
    pub(crate) fn verdict(&self) -> Verdict {
        self.0
    }

    /// Judges the route again. Returns each change, with whether it is an improvement.
    pub(crate) fn judge(&mut self, minute: &Figures) -> Vec<(bool, String)> {
        // A route without any requests recovers.
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
