//! Whether a request that failed is sent again, and what its failures say of the addresses where it failed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Upstream;
use super::address::{Address, Evidence};
use super::balance;
use super::error::ForwardError;
use super::http2::LARGE_HEAD;
use super::send::{Call, Outcome};
use crate::http2::section_size;
use crate::runtime::clock;

pub(super) struct Attempt {
    pub error: ForwardError,
    /// The request can be sent again whatever its method: the app saw nothing of it.
    pub nothing_sent: bool,
    /// The connection was an idle one, which the app may close at any moment, or one shared with other requests, any of
    /// which may be why the app closed it; that is no illness.
    pub reused: bool,
    /// The app ended an HTTP/2 connection under it, or objected to what it was sent. This request may be why.
    pub suspect: bool,
}

impl Attempt {
    pub(super) fn before_sending(error: ForwardError) -> Attempt {
        Attempt { error, nothing_sent: true, reused: false, suspect: false }
    }

    /// A connection that others use ended under the request. It counts once, where it ends under its first request.
    fn is_shared_end(&self) -> bool {
        self.reused && matches!(self.error, ForwardError::Http2Ended(_))
    }
}

/// What the earlier tries of a request tell the next one.
#[derive(Default)]
pub(super) struct Tries {
    pub failed: Vec<u64>,
    /// Addresses whose idle connections were found closed: they get a new one.
    pub stale: Vec<u64>,
    /// The request may be why the app ended a connection: it shares none with others until it has a response, and is
    /// not tried once more after that.
    pub apart: bool,
    /// Addresses where an exchange failed.
    pub blamed: Vec<Arc<Address>>,
}

impl Tries {
    /// Whether there may be another one. A request that may be why the app ends connections is tried once more, on one
    /// of its own; and not at all where it is likely to be.
    pub(super) fn allow(&self, failed: &Attempt, large: bool) -> bool {
        !failed.suspect || !(large || self.apart)
    }
}

impl Upstream {
    /// Notes a try that failed; true where it costs none of the tries: once for each address, as the app may close an
    /// idle connection at any moment.
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
        // Once for each request, however often it tried.
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

    /// Notes the addresses where exchanges of a request failed, now that its end is known. What fails at two addresses
    /// and nowhere gets a response is the doing of the request: one client must not take all of them out.
    pub(super) fn blame(&self, tries: &Tries, outcome: &Outcome) {
        let last = outcome.address.borrow().as_ref().map(|address| address.id);
        let responded = outcome.responded.get().is_some();
        if !responded && tries.blamed.len() > 1 {
            return;
        }
        let failed = tries.blamed.iter().filter(|address| !(responded && Some(address.id) == last));
        failed.for_each(|address| self.note_failure(address, Evidence::Exchange));
    }

    pub(super) fn may_retry(
        &self,
        failed: &Attempt,
        call: &Call<'_>,
        retries: u32,
        replayable: bool,
    ) -> bool {
        let refused_here = matches!(
            failed.error,
            ForwardError::QueueFull
                | ForwardError::QueueTimeout(_)
                | ForwardError::TooManyStreams
                | ForwardError::Body(_)
                | ForwardError::CannotUpgrade
                | ForwardError::HeadTooLarge(_)
                | ForwardError::Resolve(_)
                // It would be as malformed the next time.
                | ForwardError::Malformed(_)
                | ForwardError::NotUpgraded
        );
        if refused_here || retries >= self.policy.retries {
            return false;
        }
        if failed.nothing_sent {
            return true;
        }
        // RFC 9110 9.2.2. A deadline that passed is not tried again: the client waited long enough.
        let safe = balance::is_idempotent(call.method)
            && replayable
            && call.upgrade.is_none()
            && !matches!(failed.error, ForwardError::TimedOut);
        if !safe {
            return false;
        }
        let granted = (failed.reused && failed.error.is_broken()) || self.budget.withdraw(clock::now());
        if !granted {
            self.counters.retries_refused.add(1);
        }
        granted
    }
}

/// The size of the head of a request over HTTP/2, but for the fields that Pillion adds; bytes as RFC 9113 6.5.2 counts
/// them.
pub(super) fn head_size(call: &Call<'_>) -> usize {
    call.target.as_str().len() + section_size(call.headers)
}

/// Whether the head is so large that the app may end a connection because of it, as far as is known.
pub(super) fn is_large(call: &Call<'_>, address: &Address) -> bool {
    head_size(call) > LARGE_HEAD.max(address.max_head.load(Ordering::Relaxed))
}
