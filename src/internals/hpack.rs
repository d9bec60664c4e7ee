//! What the fuzz target of HPACK tries.

use crate::http2::hpack::{Progress, Table};

/// Reads a field block that comes in pieces, until it is malformed.
pub fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) {
    let (mut table, mut progress) = (Table::default(), Progress::default());
    let mut rest = Vec::new();
    for piece in pieces {
        rest.extend_from_slice(piece);
        match table.read(&rest, &mut progress) {
            Ok(taken) => drop(rest.drain(..taken)),
            Err(_) => return,
        }
    }
}
