//! The access log of one worker: which requests are logged, and in which form.

use std::cell::RefCell;
use std::time::Duration;

use http::StatusCode;

use super::line::Line;
use super::members::Members;
use super::plain::printable_lines;
use super::readable::Style;
use super::recent::Recent;
use super::tail::Tail;
use super::writer::LogQueue;
use super::{json, readable};
use crate::policy::{AccessLog as Which, LogFormat, LogPolicy};
use crate::rendering::render_cache::DirectMappedCache;

/// Bytes that most lines fit.
const USUAL_LINE: usize = 512;

/// The access log of one worker.
pub(crate) struct AccessLog {
    lines: LogQueue,
    recurring: RefCell<DirectMappedCache<Members>>,
}

impl AccessLog {
    /// Creates an access log that writes to `lines`.
    pub(crate) fn new(lines: LogQueue) -> AccessLog {
        AccessLog { lines, recurring: RefCell::new(DirectMappedCache::NONE) }
    }

    /// Returns whether a request is logged.
    pub(crate) fn wants(
        &self,
        policy: &LogPolicy,
        status: StatusCode,
        failed: bool,
        duration: Duration,
    ) -> bool {
        let error = failed || status.is_server_error();
        let slow = duration >= policy.slow;
        match policy.access {
            Which::Off => false,
            Which::Errors => error,
            Which::Slow => error || slow,
            Which::All => error || slow || policy.sample >= 1.0 || fastrand::f64() < policy.sample,
        }
    }

    /// Appends a line, or drops and counts it if the buffer is full.
    pub(crate) fn write(&self, policy: &LogPolicy, line: &Line<'_>) {
        self.lines.append(|out| match policy.format {
            LogFormat::Json => json::write(out, &mut self.recurring.borrow_mut(), line),
            // Passes a copy: a reference would force the line into memory, which the branch for JSON avoids.
            LogFormat::Pretty => {
                readable::write(out, *line, Style { color: policy.color, verbose: policy.verbose });
            }
        });
    }

    /// Passes a line to the readers of live decisions, in JSON whatever the format of the log is.
    #[cold]
    pub(crate) fn show(&self, tail: &Tail, line: &Line<'_>) {
        let recurring = &mut *self.recurring.borrow_mut();
        tail.offer(line, |address| {
            let mut text = Vec::with_capacity(USUAL_LINE);
            match address {
                true => json::write(&mut text, recurring, line),
                false => json::write_without_address(&mut text, recurring, line),
            }
            printable_lines(&text).into_owned()
        });
    }

    /// Keeps a line among the latest decisions, without the client's address.
    #[cold]
    pub(crate) fn keep(&self, recent: &Recent, notable: bool, line: &Line<'_>) {
        let mut text = Vec::with_capacity(USUAL_LINE);
        json::write_without_address(&mut text, &mut self.recurring.borrow_mut(), line);
        recent.keep(notable, text);
    }
}
