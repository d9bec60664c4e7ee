//! Counters of one upstream.

use super::error;
use crate::metrics::Cell;

/// The counters of one upstream, kept for the life of the process.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub connects: Cell,
    /// Connections that could not be made.
    pub connect_failures: Cell,
    pub retries: Cell,
    /// Retries that the budget refused.
    pub retries_refused: Cell,
    /// Requests that waited for a connection.
    pub waits: Cell,
    pub wait_nanoseconds: Cell,
    /// Requests refused because the queue was full or too slow.
    pub queue_refused: Cell,
    /// Failed requests by kind; see [`error::KINDS`].
    pub failures: [Cell; error::KINDS.len()],
}
