//! The latest decisions, for `pillion explain --request-id`. Keeping one costs as much as a line of the log, so that of
//! each kind some hundred a second are kept; a busy process keeps a sample, and pays one load for all other requests.
//! Requests that are worth an explanation have a ring of their own, which ordinary ones cannot displace.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// Maximum decisions in one ring.
const MAX_KEPT: usize = 1000;
/// Maximum bytes of the decisions in one ring.
const MAX_BYTES: usize = 512 * 1024;
/// Maximum decisions that are kept at once.
const MAX_CREDIT: u32 = 100;
/// Decisions that may be kept in each tick of 100 ms.
const CREDIT_A_TICK: u32 = 10;

/// The latest decisions of one kind, oldest first, as lines of the log in JSON.
struct Ring {
    /// Decisions that may be kept now.
    credit: AtomicU32,
    /// The lines, and the sum of their bytes.
    lines: Mutex<(VecDeque<Arc<[u8]>>, usize)>,
}

impl Ring {
    fn new() -> Ring {
        Ring { credit: AtomicU32::new(MAX_CREDIT), lines: Mutex::default() }
    }

    #[inline(always)]
    fn admits(&self) -> bool {
        self.credit.load(Ordering::Relaxed) > 0 && self.take_credit()
    }

    #[inline(never)]
    fn take_credit(&self) -> bool {
        let less = |credit: u32| credit.checked_sub(1);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn tick(&self) {
        let more = |credit: u32| (credit < MAX_CREDIT).then(|| MAX_CREDIT.min(credit + CREDIT_A_TICK));
        // A ring with all its credit needs no more.
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
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
        lines.push_back(line.into());
    }

    /// Returns the latest decision about a request with this id.
    fn find(&self, id: &str) -> Option<Value> {
        // Searches a copy, so that no worker waits for the search.
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        lines.iter().rev().filter(|line| may_be_about(line, id)).find_map(|line| {
            let document: Value = serde_json::from_slice(line).ok()?;
            (document["request_id"] == id).then_some(document)
        })
    }
}

/// Returns whether a line may be that of the request with this id, without parsing the line.
fn may_be_about(line: &[u8], id: &str) -> bool {
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
    /// Creates empty rings.
    pub(crate) fn new() -> Recent {
        Recent { notable: Ring::new(), ordinary: Ring::new() }
    }

    /// Lets more decisions be kept. To be called every 100 ms.
    pub(crate) fn tick(&self) {
        self.notable.tick();
        self.ordinary.tick();
    }

    fn ring(&self, notable: bool) -> &Ring {
        if notable { &self.notable } else { &self.ordinary }
    }

    /// Returns whether a decision is to be kept.
    #[inline(always)]
    pub(crate) fn admits(&self, notable: bool) -> bool {
        self.ring(notable).admits()
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

    fn line(id: &str, more: usize) -> Vec<u8> {
        format!("{{\"request_id\":\"{id}\",\"path\":\"/{}\"}}\n", "x".repeat(more)).into_bytes()
    }

    #[test]
    fn latest_decision_about_an_id_is_found_in_both_rings() {
        let recent = Recent::new();
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
        let recent = Recent::new();
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
    fn burst_takes_all_the_credit_and_each_tick_gives_some_back() {
        let recent = Recent::new();
        for notable in [false, true] {
            let kept = || (0..1000).filter(|_| recent.admits(notable)).count() as u32;
            assert_eq!(kept(), MAX_CREDIT);
            recent.tick();
            assert_eq!(kept(), CREDIT_A_TICK);
            (0..1000).for_each(|_| recent.tick());
            assert_eq!(kept(), MAX_CREDIT);
        }
    }
}
