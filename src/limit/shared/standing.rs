//! The part of a cell that belongs to shared limits.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::lease::Lease;
use crate::limit::gcra::Nanoseconds;

/// Maximum number of leases of one caller. Only the configuration makes limits.
const MAX_LEASES: usize = 64;

/// The leases of a caller.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    leases: SmallVec<[Lease; 1]>,
    /// The time until which a question may be on its way; 0: none is. A question whose task was lost ends by it.
    asking_until: Nanoseconds,
    /// Tells those who wait for an answer.
    pub done: Arc<Notify>,
}

impl Shared {
    /// The lease of a limit, which is empty if there was none.
    pub(crate) fn lease(&mut self, rule: u64) -> &mut Lease {
        let known = self.leases.iter().position(|lease| lease.rule == rule);
        let at = known.unwrap_or_else(|| {
            if self.leases.len() >= MAX_LEASES {
                self.leases.remove(0);
            }
            self.leases.push(Lease::new(rule));
            self.leases.len() - 1
        });
        &mut self.leases[at]
    }

    /// The lease of a limit, if there is one.
    pub(crate) fn known(&self, rule: u64) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.rule == rule && lease.is_known())
    }

    /// Gives all leases up. A question on its way goes on.
    pub(crate) fn reset(&mut self) {
        self.leases.clear();
    }

    pub(super) fn is_asking(&self, now: Nanoseconds) -> bool {
        now < self.asking_until
    }

    /// Begins a question, whose response comes before `until` if at all.
    pub(super) fn begin(&mut self, until: Nanoseconds) {
        self.asking_until = until;
    }

    /// Ends a question, and wakes those who wait for it.
    pub(crate) fn end(&mut self) {
        self.asking_until = 0;
        self.done.notify_waiters();
    }

    /// The time from which on nothing is lost with it.
    pub(crate) fn over_at(&self) -> Nanoseconds {
        self.leases.iter().map(Lease::over_at).max().unwrap_or(0).max(self.asking_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_whose_task_is_lost_ends_by_its_time() {
        let mut shared = Shared::default();
        shared.begin(100);
        assert!(shared.is_asking(99) && !shared.is_asking(100));
        assert_eq!(shared.over_at(), 100);
        shared.end();
        assert!(!shared.is_asking(1) && shared.over_at() == 0);
    }
}
