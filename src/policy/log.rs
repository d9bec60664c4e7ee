//! `[log]`.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Json,
    Pretty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessLog {
    All,
    Errors,
    /// Those that failed or took longer than `slow`.
    Slow,
    Off,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogPolicy {
    pub format: LogFormat,
    pub level: tracing::Level,
    pub access: AccessLog,
    /// The share of ordinary ones.
    pub sample: f64,
    /// From this duration on a request is slow.
    pub slow: Duration,
    /// Names, in lower case without what is neither letter nor digit, whose values never appear.
    pub mask: Vec<String>,
}
