//! The metrics and the log that requests are written to.

use std::time::SystemTime;

use crate::log::AccessLog;
use crate::runtime::log_throttle::LogThrottle;
use crate::state::live_policy::SharedState;

/// The metrics and the access log of one worker.
pub(crate) struct Sink {
    pub shared_state: SharedState,
    /// The access log of the worker.
    pub log: AccessLog,
    /// Throttles the events about failed requests.
    pub failures: LogThrottle,
    /// The time by the wall clock at which requests are rehearsed; `None`: the present time.
    pub wall: Option<SystemTime>,
}
