//! The latest decisions, for `pillion explain --request-id`. Keeping one costs as much as a line of the log, so that at
//! most a hundred a second are kept of each kind; a busy process keeps a sample. Requests that are worth an explanation
//! have a ring of their own, which ordinary ones cannot displace.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::rate_window::RateWindow;
use crate::runtime::clock::Instant;

/// Maximum decisions in one ring.
const MAX_KEPT: usize = 1000;
/// Maximum bytes of the decisions in one ring.
const MAX_BYTES: usize = 512 * 1024;
/// Maximum decisions that are kept in a second.
const KEPT_A_SECOND: u32 = 100;

/// The latest decisions of one kind, oldest first, as lines of the log in JSON.
struct Ring {
    window: RateWindow,
    lines: Mutex<(VecDeque<Box<[u8]>>, usize)>,
}

impl Ring {
    fn new(now: Instant) -> Ring {
        let window = RateWindow::new(KEPT_A_SECOND, Duration::from_secs(1), now);
        Ring { window, lines: Mutex::default() }
    }

    fn push(&self, line: Vec<u8>) {
        if line.len() > MAX_BYTES {
            return;
        }
        let mut guard = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, bytes) = &mut *guard;
        while lines.len() >= MAX_KEPT || *bytes + line.len() > MAX_BYTES {
            *bytes -= lines.pop_front().map_or(0, |line| line.len());
        }
        *bytes += line.len();
        lines.push_back(line.into_boxed_slice());
    }

    /// Returns the latest decision about a request with this id.
    fn find(&self, id: &str) -> Option<Value> {
        let is_it = |line: &[u8]| {
            let document: Value = serde_json::from_slice(line).ok()?;
            (document["request_id"] == id).then_some(document)
        };
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let found = lines.0.iter().rev().find(|line| is_about(line, id));
        found.and_then(|line| is_it(line))
    }
}

/// Returns whether a line has the id as one of its values, without parsing the line.
fn is_about(line: &[u8], id: &str) -> bool {
    let member = format!("\"request_id\":\"{id}\"");
    line.windows(member.len()).any(|part| part == member.as_bytes())
}

/// The latest decisions of the process.
pub(crate) struct Recent {
    /// Requests that failed, were slow, or have a status of 400 and above.
    notable: Ring,
    ordinary: Ring,
}

impl Recent {
    /// Creates empty rings. Seconds are counted from `now`.
    pub(crate) fn new(now: Instant) -> Recent {
        Recent { notable: Ring::new(now), ordinary: Ring::new(now) }
    }

    fn ring(&self, notable: bool) -> &Ring {
        if notable { &self.notable } else { &self.ordinary }
    }

    /// Returns whether a decision at `at` is to be kept.
    #[inline(always)]
    pub(crate) fn admits(&self, notable: bool, at: Instant) -> bool {
        self.ring(notable).window.admits(at)
    }

    pub(super) fn keep(&self, notable: bool, line: Vec<u8>) {
        self.ring(notable).push(line);
    }

    /// Returns the members of the log line of the request with this id, if its decision is kept.
    pub(crate) fn find(&self, id: &str) -> Option<Value> {
        self.notable.find(id).or_else(|| self.ordinary.find(id))
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    fn line(id: &str, more: usize) -> Vec<u8> {
        format!("{{\"request_id\":\"{id}\",\"path\":\"/{}\"}}\n", "x".repeat(more)).into_bytes()
    }

    #[test]
    fn latest_decision_about_an_id_is_found_in_both_rings() {
        let recent = Recent::new(clock::now());
        recent.keep(false, line("a", 1));
        recent.keep(false, line("a", 2));
        recent.keep(true, line("b", 3));
        for (id, path) in
            [("a", Some("/xx")), ("b", Some("/xxx")), ("c", None), ("", None), ("a\",\"path", None)]
        {
            let found = recent.find(id);
            assert_eq!(found.as_ref().map(|found| found["path"].as_str().unwrap()), path, "{id}");
        }
    }

    #[test]
    fn rings_are_bounded_by_number_and_bytes_and_apart() {
        let recent = Recent::new(clock::now());
        recent.keep(true, line("notable", 0));
        (0..=MAX_KEPT).for_each(|at| recent.keep(false, line(&at.to_string(), 0)));
        assert!(recent.find("0").is_none() && recent.find("1").is_some() && recent.find("notable").is_some());
        (0..3).for_each(|at| recent.keep(false, line(&format!("long-{at}"), MAX_BYTES / 3)));
        assert!(recent.find("long-0").is_none() && recent.find("long-1").is_some());
        recent.keep(false, line("longest", MAX_BYTES));
        assert!(recent.find("longest").is_none() && recent.find("long-2").is_some());
        let (lines, bytes) = &*recent.ordinary.lines.lock().unwrap();
        assert_eq!(lines.iter().map(|line| line.len()).sum::<usize>(), *bytes);
    }

    #[test]
    fn second_keeps_a_hundred_of_each_kind() {
        let now = clock::now();
        let recent = Recent::new(now);
        for notable in [false, true] {
            let kept = (0..1000).filter(|_| recent.admits(notable, now)).count();
            assert_eq!(kept, KEPT_A_SECOND as usize);
        }
    }
}
