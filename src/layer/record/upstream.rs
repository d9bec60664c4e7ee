//! The outcome of the forward layer: the progress of the upstream request, and the status of its response.

use std::cell::{Cell, Ref};
use std::sync::Arc;

use http::StatusCode;

use crate::upstream::{Address, Progress};

/// The outcome of the upstream request, if there is one.
#[derive(Default)]
pub(crate) struct UpstreamOutcome {
    /// The progress of the last upstream request: a request may go to the upstream more than once.
    pub progress: Progress,
    status: Cell<Option<StatusCode>>,
}

impl UpstreamOutcome {
    /// Records the status of the upstream's response. The last call counts.
    pub(crate) fn set_status(&self, status: StatusCode) {
        self.status.set(Some(status));
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        self.status.get()
    }

    /// Returns the address of the last try.
    pub(super) fn address(&self) -> Ref<'_, Option<Arc<Address>>> {
        self.progress.address.borrow()
    }

    pub(super) fn retries(&self) -> u32 {
        self.progress.retries.get()
    }
}
