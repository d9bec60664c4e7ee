//! The entry point of the fuzz target for HPACK.

use crate::http2::hpack::{Progress, Table};

/// Decodes a field block that arrives in fragments, until it is malformed.
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
