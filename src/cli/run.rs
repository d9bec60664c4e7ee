//! `pillion run`.

use super::{FAILED, OK, Where, fail};
use crate::app;

/// Runs until it is told to stop.
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
