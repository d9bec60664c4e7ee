//! The settings of a configuration as far as they may be shown, and the tables of its arrays.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::config::effective::Settings;

/// A setting as `GET /config?format=json` lists it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Listed {
    /// Its full name, like `routes[0].cache.ttl`.
    pub key: String,
    /// Its value, masked where it is a secret.
    pub value: Json,
    pub origin: String,
    pub secret: bool,
}

impl Listed {
    pub(super) fn is_default(&self) -> bool {
        self.origin == "default"
    }

    /// Whether an option of the running process or its variable stands in place of the file's value.
    pub(super) fn is_overridden(&self) -> bool {
        self.origin.starts_with("--") || self.origin.starts_with("environment ")
    }
}

/// The settings of a configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Listing {
    pub digest: String,
    pub settings: Vec<Listed>,
}

impl Listing {
    pub(crate) fn new(settings: &Settings) -> Listing {
        let listed = settings.all.iter().map(|setting| Listed {
            key: setting.key(),
            value: setting.shown(),
            origin: setting.origin.to_string(),
            secret: setting.secret.is_some(),
        });
        Listing { digest: settings.digest(), settings: listed.collect() }
    }

    /// The settings outside of arrays of tables, by their full names.
    pub(super) fn outside(&self) -> Named<'_> {
        let is_inside =
            |key: &str| ["routes", "invalidate", "warm"].iter().any(|array| place(key, array).is_some());
        let outside = self.settings.iter().filter(|listed| !is_inside(&listed.key));
        outside.map(|listed| (listed.key.as_str(), listed)).collect()
    }

    /// The tables of an array, in their order.
    pub(super) fn items(&self, array: &str) -> Vec<Item<'_>> {
        let mut items: Vec<Item<'_>> = Vec::new();
        for listed in &self.settings {
            let Some((at, name)) = place(&listed.key, array) else { continue };
            if at == items.len() {
                items.push(Item::default());
            }
            if let Some(item) = items.get_mut(at) {
                item.settings.insert(name, listed);
            }
        }
        items
    }
}

/// Splits `routes[3].cache.ttl` into 3 and `cache.ttl`.
pub(super) fn place<'a>(key: &'a str, array: &str) -> Option<(usize, &'a str)> {
    let (at, name) = key.strip_prefix(array)?.strip_prefix('[')?.split_once(']')?;
    Some((at.parse().ok()?, name.strip_prefix('.').unwrap_or(name)))
}

/// Settings by their names.
pub(super) type Named<'a> = BTreeMap<&'a str, &'a Listed>;

/// One table of an array of tables.
#[derive(Debug, Default)]
pub(super) struct Item<'a> {
    pub settings: Named<'a>,
}

impl Item<'_> {
    /// The part that tells it apart from the others: its match and its conditions.
    pub(super) fn identity(&self) -> String {
        let is_part = |name: &str| matches!(name, "match" | "on") || is_condition(name);
        let parts = self.settings.iter().filter(|(name, _)| is_part(name));
        parts.map(|(name, listed)| format!("{name}={}\n", listed.value)).collect()
    }

    /// Its name for people.
    pub(super) fn name(&self) -> String {
        // Rules of [[invalidate]] have paths too.
        let names = ["match", "on", "paths"];
        let matched = names.iter().find_map(|name| self.settings.get(name));
        let text = match matched.map(|listed| &listed.value) {
            Some(Json::String(text)) => text.clone(),
            Some(Json::Array(all)) => all.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(", "),
            _ => String::new(),
        };
        let has_conditions = self.settings.keys().any(|name| is_condition(name));
        if has_conditions { format!("{text} (with when)") } else { text }
    }

    /// The settings that its file writes, but for what it matches.
    pub(super) fn written(&self) -> BTreeMap<String, Json> {
        let is_named = |name: &str| matches!(name, "match" | "on");
        let written = self.settings.iter().filter(|(name, listed)| !listed.is_default() && !is_named(name));
        written.map(|(name, listed)| ((*name).to_owned(), listed.value.clone())).collect()
    }
}

fn is_condition(name: &str) -> bool {
    name == "when" || name.starts_with("when.")
}
