//! Retries: the decision to send a failed request again, and the budget.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::address::Address;
use super::call::{Call, is_idempotent};
use super::counters::Counters;
use super::error::ForwardError;
use super::http2::LARGE_HEAD;
use crate::http2::section_size;
use crate::policy::UpstreamPolicy;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// Retries earned per request sent.
const SHARE: f64 = 0.2;
/// Retries earned per second, independent of traffic.
const MIN_PER_SECOND: f64 = 3.0;
/// Time over which unused retries accumulate.
const HORIZON: Duration = Duration::from_secs(10);

pub(super) struct Attempt {
    pub error: ForwardError,
    /// Whether the upstream saw nothing of the request, so that it can be sent again with any method.
    pub nothing_sent: bool,
    /// Whether the connection was idle, which the upstream may close at any moment, or shared with other requests, any
    /// of which may be why the upstream closed it. Neither counts against its health.
    pub reused: bool,
    /// Whether the upstream ended an HTTP/2 connection under the request, or complained about its frames. This request
    /// may be why.
    pub suspect: bool,
}

impl Attempt {
    pub(super) fn before_sending(error: ForwardError) -> Attempt {
        Attempt { error, nothing_sent: true, reused: false, suspect: false }
    }

    /// Returns whether a shared connection ended under the request. Such an end counts once, for the first request on
    /// the connection.
    pub(super) fn is_shared_end(&self) -> bool {
        self.reused && matches!(self.error, ForwardError::Http2Ended(_))
    }
}

/// The earlier tries of a request.
#[derive(Default)]
pub(super) struct Tries {
    pub failed: Vec<u64>,
    /// Addresses whose idle connections were closed: they get a new connection.
    pub stale: Vec<u64>,
    /// Whether the request may be why the upstream ended a connection. It then shares no connection until it has a
    /// response, and gets only one more try.
    pub apart: bool,
    /// Addresses where an exchange failed.
    pub blamed: Vec<Arc<Address>>,
}

impl Tries {
    /// Returns whether another try is allowed. A request that may be why the upstream ends connections gets one more
    /// try, on a connection of its own; a request that probably is gets none.
    pub(super) fn allow(&self, failed: &Attempt, large: bool) -> bool {
        !failed.suspect || !(large || self.apart)
    }
}

pub(super) fn may_retry(
    policy: &UpstreamPolicy,
    budget: &RetryBudget,
    counters: &Counters,
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
            // The response would be as malformed the next time.
            | ForwardError::Malformed(_)
            | ForwardError::NotUpgraded
    );
    if refused_here || retries >= policy.retries {
        return false;
    }
    if failed.nothing_sent {
        return true;
    }
    // RFC 9110 9.2.2. A request that timed out is not tried again: the client has waited long enough.
    let safe = is_idempotent(call.method)
        && replayable
        && call.upgrade.is_none()
        && !matches!(failed.error, ForwardError::TimedOut);
    if !safe {
        return false;
    }
    let granted = (failed.reused && failed.error.is_broken()) || budget.withdraw(clock::now());
    if !granted {
        counters.retries_refused.add(1);
    }
    granted
}

/// Limits retries to a share of the traffic, so that they do not overload a struggling upstream.
#[derive(Debug, Default)]
pub(super) struct RetryBudget {
    /// Requests sent so far: the only cost for an ordinary request.
    requests: AtomicU64,
    state: Mutex<Option<BudgetState>>,
}

#[derive(Debug)]
struct BudgetState {
    tokens: f64,
    requests: u64,
    at: Instant,
}

impl RetryBudget {
    pub(super) fn deposit(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one retry from the budget. Returns `false` if it is empty.
    pub(super) fn withdraw(&self, now: Instant) -> bool {
        let requests = self.requests.load(Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = state.get_or_insert(BudgetState { tokens: MIN_PER_SECOND, requests: 0, at: now });
        let elapsed = now.saturating_duration_since(state.at);
        let earned =
            elapsed.as_secs_f64() * MIN_PER_SECOND + (requests - state.requests.min(requests)) as f64 * SHARE;
        // Unused retries accumulate for a limited time: neither an idle night nor a busy hour before the trouble may
        // turn into a retry storm.
        state.tokens = (state.tokens + earned)
            .min((earned / elapsed.as_secs_f64().max(1.0)).max(MIN_PER_SECOND) * HORIZON.as_secs_f64());
        state.requests = requests;
        state.at = now;
        let granted = state.tokens >= 1.0;
        if granted {
            state.tokens -= 1.0;
        }
        granted
    }
}

/// Returns the size of a request head over HTTP/2 without the fields that Pillion adds; in bytes as RFC 9113 6.5.2
/// counts them.
pub(super) fn head_size(call: &Call<'_>) -> usize {
    call.target.as_str().len() + section_size(call.headers)
}

/// Returns whether the head is so large that the upstream may end a connection because of it, as far as is known.
pub(super) fn is_large(call: &Call<'_>, address: &Address) -> bool {
    head_size(call) > LARGE_HEAD.max(address.max_head.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_grants_a_fifth_and_a_trickle() {
        let budget = RetryBudget::default();
        let start = clock::now();
        let granted = |now| (0..10_000).take_while(|_| budget.withdraw(now)).count();
        assert_eq!(granted(start), 3);
        (0..100).for_each(|_| budget.deposit());
        assert_eq!(granted(start), 20);
        assert_eq!(granted(start + Duration::from_secs(1)), 3);
        assert_eq!(
            granted(start + Duration::from_secs(3600)),
            30,
            "what was not used does not add up for ever"
        );
        (0..1_000_000).for_each(|_| budget.deposit());
        assert!(granted(start + Duration::from_secs(7200)) < 1000, "nor does an hour of traffic");
    }
}
