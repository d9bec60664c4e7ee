//! The progress of the publisher, for the other tasks of its process, and rows of failures.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::server::ServerError;
use crate::runtime::clock::Instant;

/// Number of failures in a row after which an operator is told.
const TOLD_AFTER: u32 = 3;

/// Maximum number of stored entries that were not read back whose content is remembered.
const MAX_UNREAD: usize = 4096;

/// The progress of the publisher.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of the last entry that was stored.
    pub published: Cell<u64>,
    /// The number of the entry that was last sent for the first time, and when.
    pub sent: Cell<Option<(u64, Instant)>>,
    /// Entries that were not read back, each with the last invalidation of the outbox that it covers.
    unread: RefCell<VecDeque<(u64, u64)>>,
}

impl Progress {
    /// Notes what an entry covers that is about to be sent.
    pub(super) fn note(&self, number: u64, covers: u64) {
        let mut unread = self.unread.borrow_mut();
        unread.push_back((number, covers));
        if unread.len() > MAX_UNREAD {
            // A later entry covers what this one did.
            unread.pop_front();
        }
    }

    /// Returns what the entries cover that were read back with this one; `None` if that is known already.
    pub(super) fn read_back(&self, number: u64) -> Option<u64> {
        let mut unread = self.unread.borrow_mut();
        let mut covers = None;
        while unread.front().is_some_and(|(known, _)| *known <= number) {
            covers = unread.pop_front().map(|(_, covers)| covers);
        }
        covers
    }
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
