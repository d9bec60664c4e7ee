//! The progress of the publisher, for the other tasks of its process, and rows of failures.

use std::cell::Cell;

use super::server::ServerError;
use crate::runtime::clock::Instant;

/// Number of failures in a row after which an operator is told.
const TOLD_AFTER: u32 = 3;

/// The progress of the publisher.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of the last entry that was stored.
    pub published: Cell<u64>,
    /// The number of the entry that was last sent for the first time, and when.
    pub sent: Cell<Option<(u64, Instant)>>,
}

/// Failures of one operation in a row. A single failure is a matter of the link, which tells of itself.
#[derive(Debug, Default)]
pub(super) struct Failures(Cell<u32>);

impl Failures {
    /// Counts a failure; tells of it once in a row.
    pub(super) fn count(&self, operation: &'static str, error: &ServerError) {
        if *error == ServerError::Down {
            return;
        }
        self.0.set(self.0.get().saturating_add(1));
        if self.0.get() == TOLD_AFTER {
            tracing::warn!(operation, %error, "Redis refuses an operation of the fleet; it is tried again");
        }
    }

    /// Ends the row.
    pub(super) fn end(&self) {
        self.0.set(0);
    }
}
