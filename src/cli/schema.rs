//! `pillion schema`: the keys of the configuration file, for editors and for documents.

use clap::{Args, ValueEnum};

use super::generate::write;
use crate::config;

/// The arguments of `pillion schema`.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// A JSON Schema (draft 2020-12), or tables of the keys in Markdown
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Markdown,
}

/// Writes the schema.
pub(super) fn run(options: Options) -> u8 {
    let text = match options.format {
        Format::Json => format!("{:#}\n", config::schema()),
        Format::Markdown => format!("{}\n", config::markdown()),
    };
    write(text.as_bytes())
}
