//! Health of addresses: failures and successes are noted here, and an address that keeps failing is ejected.

use std::sync::Arc;

use super::address::{Address, Evidence};
use super::call::Progress;
use super::error::ForwardError;
use super::retry::{Attempt, Tries};
use super::state::Upstream;

impl Upstream {
    /// Records a failed try. Returns `true` if it does not count as a retry: once per address, because the upstream may
    /// close an idle connection at any moment.
    pub(super) fn note_try(
        &self,
        failed: &Attempt,
        address: &Arc<Address>,
        large: bool,
        tries: &mut Tries,
    ) -> bool {
        if failed.reused && failed.error.is_broken() {
            tries.stale.push(address.id);
            return true;
        }
        // Counted once for each request, however often it is tried.
        let first = !tries.failed.contains(&address.id);
        tries.failed.push(address.id);
        if !first || !failed.error.is_unhealthy() || failed.is_shared_end() || large {
            return false;
        }
        if matches!(failed.error, ForwardError::Connect(..)) {
            self.note_failure(address, Evidence::Connection);
        } else {
            tries.blamed.push(address.clone());
        }
        false
    }

    /// Records failures of exchanges at their addresses, once the end of the request is known. A request that fails at
    /// two addresses and gets no response causes the failures itself: one client must not get all addresses ejected.
    pub(super) fn blame(&self, tries: &Tries, progress: &Progress) {
        let last = progress.address.borrow().as_ref().map(|address| address.id);
        let responded = progress.responded.get().is_some();
        if !responded && tries.blamed.len() > 1 {
            return;
        }
        let failed = tries.blamed.iter().filter(|address| !(responded && Some(address.id) == last));
        failed.for_each(|address| self.note_failure(address, Evidence::Exchange));
    }

    /// Records a failure of `address`, which ejects it at the limit unless it is the last healthy one.
    pub(super) fn note_failure(&self, address: &Arc<Address>, evidence: Evidence) {
        if !address.failed(evidence, self.policy.health.unhealthy_after) {
            return;
        }
        let another = self.addresses().iter().any(|(_, other)| other.id != address.id && other.is_healthy());
        if another && address.eject(self.policy.health.unhealthy_after) {
            tracing::warn!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "address ejected: it keeps failing"
            );
        } else if address.failures() == self.policy.health.unhealthy_after {
            tracing::warn!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "address failing, but not ejected: it is the last one"
            );
        }
    }

    /// Records that `address` sent a response, whether a success or not.
    pub(super) fn note_response(&self, address: &Address) {
        if address.note_response() {
            tracing::info!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "the upstream responded for the first time"
            );
        }
    }

    /// Records a success of `address`.
    pub(super) fn note_success(&self, address: &Address, evidence: Evidence) {
        let health = &self.policy.health;
        // With a health path, only its response says that the upstream is up.
        if evidence == Evidence::Probe || health.path.is_none() {
            self.note_response(address);
        }
        let down = address.is_healthy() && address.failures() >= health.unhealthy_after;
        if address.succeeded(evidence, health.path.is_some(), health.healthy_after) {
            tracing::info!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "address restored: it responds again"
            );
        } else if down && address.failures() < health.unhealthy_after {
            tracing::info!(
                upstream = self.policy.name,
                address = address.name.as_str(),
                "address healthy: it responds again"
            );
        }
    }
}
