//! From nginx's configuration to Pillion's.

mod definitions;
mod guards;
mod listen;
mod location;
mod matching;
mod output;
mod read;
mod route;
mod server;
mod values;

use std::path::Path;

pub(super) use output::Converted;
use read::ReadError;

/// Converts the file, with the files that it includes.
pub(super) fn convert(file: &Path) -> Result<Converted, ReadError> {
    let directives = read::file(file)?;
    Ok(server::Converter::default().convert(&directives))
}
