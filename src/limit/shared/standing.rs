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
    asking: bool,
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

    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    pub(super) fn begin(&mut self) {
        self.asking = true;
    }

    /// Ends a question, and wakes those who wait for it.
    pub(crate) fn end(&mut self) {
        self.asking = false;
        self.done.notify_waiters();
    }

    /// The time from which on nothing is lost with it; the end of all time while a question is on its way.
    pub(crate) fn over_at(&self) -> Nanoseconds {
        match self.asking {
            true => Nanoseconds::MAX,
            false => self.leases.iter().map(Lease::over_at).max().unwrap_or(0),
        }
    }
}
