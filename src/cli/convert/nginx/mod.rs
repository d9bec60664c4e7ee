//! From nginx's configuration to Pillion's.

mod definitions;
mod guards;
mod listen;
mod location;
mod matching;
mod read;
mod route;
mod server;

use std::path::Path;

use crate::cli::convert::output::Converted;
use read::ReadError;

/// Converts the file, with the files that it includes.
pub(super) fn convert(file: &Path) -> Result<Converted, ReadError> {
    let directives = read::file(file)?;
    Ok(server::Converter::default().convert(&directives))
}
