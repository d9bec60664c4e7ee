//! Remarks about a configuration file, each with its place: errors, warnings and hints.

use std::path::{Path, PathBuf};

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The file is rejected.
    Error,
    /// The setting works but was probably not intended.
    Warning,
    /// The setting is right in some places and wrong in others, and Pillion cannot tell which this is.
    Hint,
}

impl Severity {
    /// Returns the word that stands before the remark.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Hint => "hint",
        }
    }
}

/// The place of a remark in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub line: usize,
    pub column: usize,
    /// Characters that are meant, on this line.
    pub width: usize,
}

/// One remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub severity: Severity,
    pub message: String,
    /// The remedy, as an instruction.
    pub help: Option<String>,
    pub file: PathBuf,
    /// `None` for something that is missing, or that no file says.
    pub place: Option<Place>,
    /// All of it for people: message, place, line, caret, remedy.
    pub shown: String,
}

impl Notice {
    /// Creates an error about a whole file.
    pub(crate) fn error(file: &Path, message: String) -> Notice {
        let shown = format!("error: {message}");
        let severity = Severity::Error;
        Notice { severity, message, help: None, file: file.to_path_buf(), place: None, shown }
    }

    /// Returns the place as compilers write it: `pillion.toml:3:7`.
    pub(crate) fn at(&self) -> String {
        match &self.place {
            Some(Place { line, column, .. }) => format!("{}:{line}:{column}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }

    /// Returns message and remedy in one line, for the log.
    pub(crate) fn line(&self) -> String {
        match &self.help {
            Some(help) => format!("{}; {help}", self.message),
            None => self.message.clone(),
        }
    }
}
