//! Looks at every check once a second, remembers since when it is as it is, and tells changes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::health::{self, Finding, State};
use crate::layer::live::{Lasting, Snapshot};
use crate::policy::Check;

/// A state is believed when it was seen so often in a row: what flickers at a threshold is no change.
const SEEN: u32 = 2;

/// A check that is in another state than before.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which.
    pub check: Check,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: Finding,
    /// When it was seen.
    pub at: SystemTime,
}

#[derive(Debug)]
struct Known {
    state: State,
    since: SystemTime,
    /// Another state that was seen, and how often in a row.
    other: (State, u32),
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Monitor(Mutex<HashMap<Check, Known>>);

impl Monitor {
    fn known(&self) -> MutexGuard<'_, HashMap<Check, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at everything.
    pub fn look(&self, snapshot: &Snapshot, lasting: &Lasting, now: SystemTime) -> Vec<Change> {
        let findings = Check::ALL.map(|check| (check, health::run(check, snapshot, lasting)));
        findings.into_iter().filter_map(|(check, finding)| self.note(check, finding, now)).collect()
    }

    fn note(&self, check: Check, finding: Finding, now: SystemTime) -> Option<Change> {
        let mut known = self.known();
        let found = finding.status;
        let known = known.entry(check).or_insert(Known {
            // What is not well from the beginning is a change as well.
            state: State::Healthy,
            since: now,
            other: (State::Healthy, 0),
        });
        if found == known.state {
            known.other.1 = 0;
            return None;
        }
        known.other = if known.other.0 == found { (found, known.other.1 + 1) } else { (found, 1) };
        if known.other.1 < SEEN {
            return None;
        }
        let from = std::mem::replace(&mut known.state, found);
        (known.since, known.other.1) = (now, 0);
        Some(Change { check, from, to: finding, at: now })
    }

    /// In which state each check is; one that was not looked at yet is not known to be unwell.
    pub fn states(&self) -> Vec<(Check, State)> {
        let known = self.known();
        let state = |check: &Check| known.get(check).map_or(State::Healthy, |known| known.state);
        Check::ALL.iter().map(|check| (*check, state(check))).collect()
    }

    /// Since when a check is in the state it is in.
    pub fn since(&self, check: Check) -> Option<SystemTime> {
        self.known().get(&check).map(|known| known.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_flickers_is_no_change() {
        let monitor = Monitor::default();
        let mut told = Vec::new();
        use State::{Degraded, Healthy, Unhealthy};
        for status in
            [Healthy, Degraded, Healthy, Degraded, Degraded, Degraded, Unhealthy, Unhealthy, Healthy, Healthy]
        {
            let finding = Finding { status, detail: String::new() };
            let change = monitor.note(Check::Memory, finding, SystemTime::UNIX_EPOCH);
            told.extend(change.map(|change| (change.from, change.to.status)));
        }
        assert_eq!(told, [(Healthy, Degraded), (Degraded, Unhealthy), (Unhealthy, Healthy)]);
    }
}
