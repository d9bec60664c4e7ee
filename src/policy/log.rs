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
    /// Only requests that failed or took longer than `slow`.
    Slow,
    Off,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogPolicy {
    pub format: LogFormat,
    pub level: tracing::Level,
    pub access: AccessLog,
    /// The fraction of ordinary requests that is logged.
    pub sample: f64,
    /// Minimum duration of a slow request.
    pub slow: Duration,
    /// Names whose values are never logged, reduced to letters and digits in lower case.
    pub mask: Vec<String>,
    /// Whether lines for people have colors.
    pub color: bool,
    /// Whether lines for people hold all that JSON lines do.
    pub verbose: bool,
}
