//! Runs every health check once a second, remembers since when each state holds, and reports changes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::finding::{Finding, State};
use super::health;
use crate::policy::Check;
use crate::state::live_policy::{SharedState, Snapshot};

/// Number of consecutive observations after which a new state is confirmed, so that flicker at a threshold is no
/// change.
const SEEN: u32 = 2;

/// A confirmed change of a check's state.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub check: Check,
    pub from: State,
    pub to: Finding,
    pub at: SystemTime,
}

#[derive(Debug)]
struct Known {
    state: State,
    since: SystemTime,
    /// An unconfirmed state: the state, the number of consecutive observations, and the time of the first.
    other: (State, u32, SystemTime),
    /// Number of consecutive observations of any other state, and the time of the first.
    away: (u32, SystemTime),
}

/// The states of all health checks, and since when each holds.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    checks: Mutex<HashMap<Check, Known>>,
    /// For each address id, whether the address is healthy, and since when.
    addresses: Mutex<HashMap<u64, (bool, SystemTime)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Monitor {
    fn known(&self) -> MutexGuard<'_, HashMap<Check, Known>> {
        lock(&self.checks)
    }

    pub(crate) fn look(
        &self,
        snapshot: &Snapshot,
        shared_state: &SharedState,
        now: SystemTime,
    ) -> Vec<Change> {
        self.note_addresses(health::states(snapshot), now);
        let findings = health::checks(shared_state.redis.is_some())
            .map(|check| (check, health::run(check, snapshot, shared_state)));
        // An upstream that is still starting is no change of its health.
        let starting = health::is_starting(snapshot);
        let told = findings.filter(|(check, _)| !(starting && *check == Check::Upstream));
        told.filter_map(|(check, finding)| self.note(check, finding, now)).collect()
    }

    /// Records the state of all current addresses, and forgets removed ones.
    fn note_addresses(&self, states: impl Iterator<Item = (u64, bool)>, now: SystemTime) {
        let mut known = lock(&self.addresses);
        let before = std::mem::take(&mut *known);
        *known = states
            .map(|(id, well)| {
                let since =
                    before.get(&id).filter(|(known, _)| *known == well).map_or(now, |(_, since)| *since);
                (id, (well, since))
            })
            .collect();
    }

    /// Returns since when an address is in the state just observed; `None` if the state is new.
    pub(crate) fn address_since(&self, id: u64, well: bool) -> Option<SystemTime> {
        lock(&self.addresses).get(&id).filter(|(known, _)| *known == well).map(|(_, since)| *since)
    }

    fn note(&self, check: Check, finding: Finding, now: SystemTime) -> Option<Change> {
        let mut known = self.known();
        let found = finding.status;
        let known = known.entry(check).or_insert(Known {
            // A check that starts unhealthy is reported as a change too.
            state: State::Healthy,
            since: now,
            other: (State::Healthy, 0, now),
            away: (0, now),
        });
        if found == known.state {
            (known.other.1, known.away.0) = (0, 0);
            return None;
        }
        let again = known.other.0 == found && known.other.1 > 0;
        known.other = if again { (found, known.other.1 + 1, known.other.2) } else { (found, 1, now) };
        known.away = if known.away.0 > 0 { (known.away.0 + 1, known.away.1) } else { (1, now) };
        // A check that alternates between the two other states is taken to be in the middle one, degraded.
        let between = found == State::Degraded && known.away.0 > SEEN;
        if known.other.1 < SEEN && !between {
            return None;
        }
        let from = std::mem::replace(&mut known.state, found);
        known.since = if between { known.away.1 } else { known.other.2 };
        (known.other.1, known.away.0) = (0, 0);
        Some(Change { check, from, to: finding, at: now })
    }

    /// Returns the confirmed state of some checks. A check that has not run yet counts as healthy.
    pub(crate) fn states(&self, checks: impl Iterator<Item = Check>) -> Vec<(Check, State)> {
        let known = self.known();
        checks.map(|check| (check, known.get(&check).map_or(State::Healthy, |known| known.state))).collect()
    }

    /// Returns since when a check is in `state`, which was just observed; `None` if the state is new.
    pub(crate) fn since(&self, check: Check, state: State) -> Option<SystemTime> {
        let known = self.known();
        let Known { state: believed, since, other, .. } = known.get(&check)?;
        if *believed == state {
            return Some(*since);
        }
        (other.0 == state && other.1 > 0).then_some(other.2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_flickers_is_no_change() {
        let monitor = Monitor::default();
        let mut told = Vec::new();
        use State::{Degraded, Healthy, Unhealthy};
        let second = |at: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        for (at, status, since) in [
            (0, Healthy, Some(0)),
            (1, Degraded, Some(1)),
            (2, Healthy, Some(0)),
            (3, Degraded, Some(3)),
            (4, Degraded, Some(3)),
            (5, Degraded, Some(3)),
            (6, Unhealthy, Some(6)),
            (7, Unhealthy, Some(6)),
            (8, Healthy, Some(8)),
            (9, Healthy, Some(8)),
            (10, Unhealthy, Some(10)),
            (11, Degraded, Some(11)),
            (12, Unhealthy, Some(12)),
            (13, Degraded, Some(10)),
            (14, Healthy, Some(14)),
            (15, Unhealthy, Some(15)),
            (16, Unhealthy, Some(15)),
            (17, Degraded, Some(17)),
            (18, Healthy, Some(18)),
            (19, Healthy, Some(18)),
        ] {
            let finding = Finding { status, detail: String::new() };
            let change = monitor.note(Check::Memory, finding, second(at));
            told.extend(change.map(|change| (change.from, change.to.status)));
            assert_eq!(monitor.since(Check::Memory, status), since.map(second), "{at}");
        }
        let changes = [
            (Healthy, Degraded),
            (Degraded, Unhealthy),
            (Unhealthy, Healthy),
            (Healthy, Degraded),
            (Degraded, Unhealthy),
            (Unhealthy, Healthy),
        ];
        assert_eq!(told, changes);
        assert_eq!(monitor.since(Check::Memory, Degraded), None, "not seen again yet");
    }

    #[test]
    fn addresses_are_so_since_they_changed() {
        let monitor = Monitor::default();
        let second = |at: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(at);
        for (at, states, since) in [
            (0, vec![(1, true), (2, true)], [Some(0), Some(0)]),
            (1, vec![(1, true), (2, false)], [Some(0), Some(1)]),
            (2, vec![(1, true), (2, false)], [Some(0), Some(1)]),
            (3, vec![(2, true)], [None, Some(3)]),
            (4, vec![(1, true), (2, true)], [Some(4), Some(3)]),
        ] {
            monitor.note_addresses(states.iter().copied(), second(at));
            let well = |id: u64| states.iter().find(|(known, _)| *known == id).is_some_and(|(_, well)| *well);
            assert_eq!(
                [1, 2].map(|id| monitor.address_since(id, well(id))),
                since.map(|at| at.map(second)),
                "{at}"
            );
        }
    }
}
