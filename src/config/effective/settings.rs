//! The settings, their names, and the digest of all.

use serde_json::Value as Json;

use super::origin::Origin;
use crate::rendering::digest::Digest;
use crate::rendering::secret::Secret;

/// Version of the digest; it changes when the members of the digest change their meaning.
const VERSION: u8 = 1;

/// The full name of a setting, like `routes[0].cache.ttl`.
pub(super) fn name_of(path: &[Step]) -> String {
    let mut full = String::new();
    for step in path {
        match step {
            Step::Name(name) if full.is_empty() => full.push_str(&quoted(name)),
            Step::Name(name) => full.push_str(&format!(".{}", quoted(name))),
            Step::Index(at) => full.push_str(&format!("[{at}]")),
        }
    }
    full
}

/// A key of TOML.
pub(super) fn quoted(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { text(name) }
}

/// A string of TOML: one of JSON, but that TOML takes no DEL. `${` would be a reference.
pub(super) fn text(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007F").replace("${", "$${")
}

/// One step of the full name of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Name(String),
    /// The place in an array of tables, counted from 0.
    Index(usize),
}

/// One setting.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub path: Vec<Step>,
    /// The value in its canonical form, masked where it is a secret; `None` for a table that is there and empty.
    pub value: Option<Json>,
    /// The value itself where `value` is masked.
    pub secret: Option<Secret<Json>>,
    pub origin: Origin,
}

impl Setting {
    /// The full name, like `routes[0].cache.ttl`.
    pub(crate) fn key(&self) -> String {
        name_of(&self.path)
    }

    /// The value as documents show it; an empty table where it is one.
    pub(crate) fn shown(&self) -> Json {
        self.value.clone().unwrap_or_else(|| Json::Object(serde_json::Map::new()))
    }
}

/// All settings of a configuration. Those of a table come before those of the tables in it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub file: String,
    pub all: Vec<Setting>,
}

impl Settings {
    /// Returns the digest of the settings in 32 hexadecimal digits. Neither the values of secrets nor the order of keys
    /// nor the origins count. Whether a secret is set does.
    pub(crate) fn digest(&self) -> String {
        let mut members: Vec<(String, String)> = self
            .all
            .iter()
            .map(|setting| (setting.key(), setting.value.as_ref().map(Json::to_string).unwrap_or_default()))
            .collect();
        members.sort();
        let mut digest = Digest::new("effective settings", VERSION);
        members.iter().for_each(|(key, value)| digest.text(key, value));
        format!("{:032x}", digest.finish_wide())
    }
}
