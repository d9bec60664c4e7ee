//! Exit codes of the commands, and their standard output and standard error.

use std::io::Write as _;

/// Exit code if the command succeeded.
pub(super) const OK: u8 = 0;
/// Exit code if the process did not start, or the running process refused the command.
pub(super) const FAILED: u8 = 1;
/// Exit code if the configuration has problems.
pub(super) const PROBLEMS: u8 = 2;

/// Prints a line on standard output. A reader that closed the pipe early is no error.
pub(super) fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a line on standard error. A failed write is ignored, since the exit code reports the failure too.
pub(super) fn complain(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints the reason of a failure, prefixed with the program's name, and returns the exit code.
pub(super) fn fail(code: u8, why: &dyn std::fmt::Display) -> u8 {
    complain(&format_args!("pillion: {why}"));
    code
}
