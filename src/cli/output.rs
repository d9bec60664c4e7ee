//! Exit codes of the commands, and their standard output and standard error.

use std::io::Write as _;

/// Everything went well.
pub(super) const OK: u8 = 0;
/// It did not start, or the running process said no.
pub(super) const FAILED: u8 = 1;
/// The configuration has problems.
pub(super) const PROBLEMS: u8 = 2;

/// Says something on standard output. Who reads may have seen enough and left, which is no failure.
pub(super) fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The same on standard error, where there may be no room for it: the code tells all the same.
pub(super) fn complain(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says why, on one line where one is enough.
pub(super) fn fail(code: u8, why: &dyn std::fmt::Display) -> u8 {
    complain(&format_args!("pillion: {why}"));
    code
}
