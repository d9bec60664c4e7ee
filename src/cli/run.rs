//! The command `pillion run`, which starts the proxy.

use super::output::{FAILED, OK, fail};
use super::source::Where;
use crate::app;

/// Runs the proxy until it is told to stop; returns the exit code.
pub(super) fn run(place: Where) -> u8 {
    let source = match place.source() {
        Ok(source) => source,
        Err(why) => return fail(FAILED, &why),
    };
    match app::run(source, |_| {}) {
        Ok(()) => OK,
        Err(why) => fail(FAILED, &why),
    }
}
