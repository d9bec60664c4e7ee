//! The effective settings of a configuration: every key that has a value, with the value and its origin, for
//! `pillion config`, `pillion diff` and the digest of the settings. Secrets are masked here, so that nothing above this
//! room handles them by accident.

mod gather;
mod origin;
mod render;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;

use crate::config::diagnostic::Diagnostics;
use crate::config::secrecy::Level;
use crate::config::source::{Environment, Source};
use crate::config::{value, variables};

pub(crate) use render::value as toml_value;
pub(crate) use settings::Settings;

/// A configuration as it was loaded: the text, the variables it refers to, and the options that override it. Its
/// settings are gathered when somebody asks for them, so a process keeps no more than this.
pub(crate) struct Kept {
    name: PathBuf,
    text: Box<str>,
    variables: HashMap<String, String>,
    source: Source,
    digest: String,
}

impl Kept {
    /// Keeps `text` and the variables of `environment` that settings may come from.
    pub(super) fn new(name: PathBuf, text: String, source: &Source, environment: &Environment) -> Kept {
        let options = origin::OVERRIDES.iter().map(|(_, _, variable)| *variable);
        let named = variables::references(&text).map(|reference| reference.name).chain(options);
        let variables = named
            .filter_map(|name| Some((name.to_owned(), environment.variables.get(name)?.clone())))
            .collect();
        let mut kept = Kept {
            name,
            text: text.into_boxed_str(),
            variables,
            source: source.clone(),
            digest: String::new(),
        };
        kept.digest = kept.settings().map(|settings| settings.digest()).unwrap_or_default();
        kept
    }

    /// The digest of the settings, as [`Settings::digest`] returns it.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Gathers the settings. The error lists what is wrong with the form of the file.
    pub(crate) fn settings(&self) -> Result<Settings, Diagnostics> {
        let mut problems = Diagnostics::new(&self.name, &self.text);
        let parsed = value::parse(&self.text, &self.variables, Level::Root, &mut problems);
        let Some(table) = parsed.filter(|_| problems.is_empty()) else {
            return Err(problems.sorted());
        };
        let origins = origin::Origins::new(&self.name, &self.text, &self.variables, &self.source);
        Ok(Settings { file: self.name.display().to_string(), all: gather::all(&table, &origins) })
    }
}
