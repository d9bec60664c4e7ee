//! The command `pillion config`, which shows the effective settings of a running Pillion or of a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use super::control::Admin;
use super::output::{FAILED, OK, PROBLEMS, complain, fail, say};
use crate::app;
use crate::config::{self, LoadError, Settings, Source};

/// Timeout of the request to a running process.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The arguments of `pillion config`.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Configuration file to show, without a running Pillion; --config without --admin does the same
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["admin", "config"])]
    file: Option<PathBuf>,
    /// How the settings are printed
    #[arg(long, value_enum, default_value_t = Format::Toml)]
    format: Format,
    #[command(flatten)]
    admin: Admin,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A file that `pillion check` reads, with each origin in a comment
    Toml,
    /// One JSON document
    Json,
}

/// Prints the effective settings; returns the exit code.
pub(super) fn run(options: Options) -> u8 {
    let Options { file, format, admin } = options;
    let named = file.or_else(|| admin.config.clone().filter(|_| !admin.names_process()));
    let Some(file) = named else { return of_process(&admin, format) };
    match of_file(&file) {
        Ok(settings) => {
            match format {
                Format::Toml => say(&settings.toml().trim_end()),
                Format::Json => say(&settings.json()),
            }
            OK
        }
        Err(problems) => {
            complain(&problems);
            PROBLEMS
        }
    }
}

/// Reads and compiles a file, as a start would, and returns its settings.
fn of_file(file: &Path) -> Result<Settings, LoadError> {
    let source = Source { file: Some(file.to_path_buf()), ..Source::default() };
    let (_, kept) = config::load_and_keep(&source, &app::environment())?;
    kept.settings().map_err(LoadError::Problems)
}

fn of_process(admin: &Admin, format: Format) -> u8 {
    let path = match format {
        Format::Toml => "/config?format=toml",
        Format::Json => "/config?format=json",
    };
    match admin.get(path, TIMEOUT) {
        Ok((true, text)) => {
            say(&text);
            OK
        }
        Ok((false, text)) => fail(FAILED, &text),
        Err(why) => fail(FAILED, &why),
    }
}
