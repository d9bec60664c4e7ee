//! The metrics and the log that requests are written to.

use crate::log::AccessLog;
use crate::runtime::log_throttle::LogThrottle;
use crate::state::live_policy::SharedState;

/// Where requests are counted and logged; one a worker.
pub(crate) struct Sink {
    pub shared_state: SharedState,
    /// The worker's end of the access log.
    pub log: AccessLog,
    /// How often requests that failed are told of as events.
    pub failures: LogThrottle,
}
