//! Walks the declared keys along a file and notes the value of each, written or default.

use serde_json::{Map, Value as Json};

use super::origin::{Origin, Origins};
use super::settings::{Setting, Step, name_of};
use crate::config::diagnostic::Span;
use crate::config::keys::{self, Declared, Form};
use crate::config::redact;
use crate::config::secrecy::Level;
use crate::config::units;
use crate::config::value::{Class, Classes as _, Node, Table, Value};
use crate::rendering::secret::Secret;

/// Stands in place of a secret. Its length says nothing.
const MASK: &str = "****************";

/// Gathers the settings of a file.
pub(super) fn all(table: &Table, origins: &Origins<'_>) -> Vec<Setting> {
    let mut gatherer = Gatherer { origins, path: Vec::new(), settings: Vec::new() };
    gatherer.table(&keys::root::TABLE, Some(table), Level::Root);
    gatherer.settings
}

struct Gatherer<'a> {
    origins: &'a Origins<'a>,
    path: Vec<Step>,
    settings: Vec<Setting>,
}

impl Gatherer<'_> {
    /// Gathers the keys of a table, its values before the tables in it, as TOML has them.
    fn table(&mut self, declared: &keys::Table, written: Option<&Table>, level: Level) {
        let node = |key: &dyn Declared| written.and_then(|table| table.get(key.name())).map(|(_, node)| node);
        let is_table = |key: &dyn Declared| match key.form() {
            Form::Table(_) | Form::Tables(_) | Form::Named(..) | Form::Texts | Form::Map(_) => true,
            _ => node(key).is_some_and(|node| matches!(node.value, Value::Table(_))),
        };
        for tables in [false, true] {
            for key in declared.keys.iter().filter(|key| is_table(**key) == tables) {
                let (class, below) = level.step(key.name());
                self.path.push(Step::Name(key.name().to_owned()));
                if tables {
                    self.below(*key, node(*key), below);
                } else {
                    self.value(*key, node(*key), class);
                }
                self.path.pop();
            }
        }
    }

    fn value(&mut self, key: &dyn Declared, node: Option<&Node>, class: Class) {
        let form = key.form();
        if let Some((value, origin)) = self.origins.overridden(&name_of(&self.path)) {
            let value = match form {
                Form::Addresses => Json::from(vec![value]),
                _ => Json::from(value),
            };
            self.note(value, class, origin);
        } else if let Some(node) = node {
            self.note(canonical(&form, node), class, self.origins.written(&node.span));
        } else if let Some(default) = key.default().filter(|_| !key.matters_where_written()) {
            self.note(default, class, Origin::Default);
        }
    }

    /// Gathers what stands under a key whose value is a table, or several.
    fn below(&mut self, key: &dyn Declared, node: Option<&Node>, level: Level) {
        match (key.form(), node.map(|node| (&node.value, &node.span))) {
            (Form::Table(inner), Some((Value::Table(table), span))) => {
                self.one(span, |gatherer| gatherer.table(inner, Some(table), level));
            }
            (Form::Table(inner), None) if !key.matters_where_written() || self.is_overridden(key) => {
                self.table(inner, None, level);
            }
            (Form::Tables(inner), Some((Value::Array(items), _))) => {
                for (at, item) in items.iter().enumerate() {
                    let Value::Table(table) = &item.value else { continue };
                    self.path.push(Step::Index(at));
                    self.one(&item.span, |gatherer| gatherer.table(inner, Some(table), level));
                    self.path.pop();
                }
            }
            (Form::Named(inner, _), Some((Value::Table(tables), span))) => self.one(span, |gatherer| {
                for (name, node) in &tables.entries {
                    let Value::Table(table) = &node.value else { continue };
                    let (_, level) = level.step(&name.name);
                    gatherer.path.push(Step::Name(name.name.clone()));
                    gatherer.one(&node.span, |gatherer| gatherer.table(inner, Some(table), level));
                    gatherer.path.pop();
                }
            }),
            (form, Some((Value::Table(table), span))) => self.one(span, |gatherer| {
                let item = match &form {
                    Form::Map(item) => item.as_ref(),
                    _ => &Form::Text,
                };
                for (name, node) in &table.entries {
                    gatherer.path.push(Step::Name(name.name.clone()));
                    let (class, _) = level.step(&name.name);
                    gatherer.note(canonical(item, node), class, gatherer.origins.written(&node.span));
                    gatherer.path.pop();
                }
            }),
            (_, None) => {
                for (name, value) in key.default().and_then(pairs).unwrap_or_default() {
                    self.path.push(Step::Name(name));
                    self.note(value, Class::Other, Origin::Default);
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    /// Whether an option gives a value to a key of this table.
    fn is_overridden(&self, key: &dyn Declared) -> bool {
        key.name() == "upstream" && self.path.len() == 1 && self.origins.overridden("upstream.url").is_some()
    }

    /// Gathers one table, which is noted itself where nothing in it is.
    fn one(&mut self, span: &Span, gather: impl FnOnce(&mut Self)) {
        let before = self.settings.len();
        gather(self);
        if self.settings.len() == before {
            let origin = self.origins.written(&(span.start..span.start));
            self.settings.push(Setting { path: self.path.clone(), value: None, secret: None, origin });
        }
    }

    fn note(&mut self, value: Json, class: Class, origin: Origin) {
        let shown = masked(&value, class == Class::Secret);
        let (shown, secret) = match shown {
            Some(shown) => (shown, Some(Secret::new(value))),
            None => (value, None),
        };
        self.settings.push(Setting { path: self.path.clone(), value: Some(shown), secret, origin });
    }
}

fn pairs(value: Json) -> Option<Map<String, Json>> {
    match value {
        Json::Object(pairs) => Some(pairs),
        _ => None,
    }
}

/// Returns what is shown of a value that is a secret or has one in it; `None`: all of it is shown.
fn masked(value: &Json, is_secret: bool) -> Option<Json> {
    match value {
        // An empty one is none.
        Json::String(text) if text.is_empty() => None,
        _ if is_secret => Some(Json::from(MASK)),
        Json::String(text) => url_without_secrets(text).map(Json::from),
        Json::Array(items) => {
            let masks: Vec<Option<Json>> = items.iter().map(|item| masked(item, false)).collect();
            let shown = |(item, mask): (&Json, Option<Json>)| mask.unwrap_or_else(|| item.clone());
            let has_secret = masks.iter().any(Option::is_some);
            has_secret.then(|| items.iter().zip(masks).map(shown).collect())
        }
        _ => None,
    }
}

/// Returns a URL without its password and its query; `None` where it has neither. Each part that is not shown is one
/// asterisk, so that its length is not shown either.
fn url_without_secrets(text: &str) -> Option<String> {
    if !text.contains("://") {
        return None;
    }
    let shown = redact::message(text);
    if shown == text {
        return None;
    }
    let mut out = String::with_capacity(shown.len());
    for c in shown.chars().filter(|c| !c.is_control()) {
        if c != '*' || !out.ends_with('*') {
            out.push(c);
        }
    }
    Some(out)
}

/// Returns a value as the reader takes it, in one form of all that mean the same.
fn canonical(form: &Form, node: &Node) -> Json {
    let text = || match (&node.filled, &node.value) {
        (Some(text), _) | (None, Value::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let is_auto = |auto: bool| auto && matches!(text(), Some("auto" | "unlimited"));
    match (form, &node.value) {
        (Form::Addresses, Value::String(_) | Value::Integer(_)) => {
            Json::from(vec![canonical(&Form::Address, node)])
        }
        (Form::Addresses, Value::Array(items)) => {
            items.iter().map(|item| canonical(&Form::Address, item)).collect()
        }
        (Form::Address, Value::Integer(port)) => Json::from(port.to_string()),
        (Form::List(item), Value::Array(items)) => items.iter().map(|node| canonical(item, node)).collect(),
        (Form::Integer { auto, .. }, _) | (Form::Size { auto, .. }, _) if is_auto(*auto) => {
            Json::from("auto")
        }
        (Form::Duration { .. }, _) => {
            let read = text().and_then(units::duration);
            read.map_or_else(|| plain(node), |duration| Json::from(units::duration_text(duration)))
        }
        (Form::Size { .. }, _) => {
            let read = text().and_then(units::size);
            read.map_or_else(|| plain(node), |bytes| Json::from(units::size_text(bytes)))
        }
        (Form::Rate, _) => text().map_or_else(|| plain(node), |rate| Json::from(rate.replace('_', ""))),
        (Form::Flag | Form::Integer { .. } | Form::Codes(_) | Form::Share | Form::Seconds, _) => plain(node),
        _ => text().map_or_else(|| plain(node), Json::from),
    }
}

/// Returns a value as it is. A whole float is an integer: keys that take the one take the other.
fn plain(node: &Node) -> Json {
    match &node.value {
        Value::String(text) => Json::from(text.as_str()),
        Value::Integer(integer) => Json::from(*integer),
        Value::Float(float) if float.fract() == 0.0 && float.abs() < 1e15 => Json::from(*float as i64),
        Value::Float(float) => Json::from(*float),
        Value::Boolean(boolean) => Json::from(*boolean),
        Value::Datetime => Json::Null,
        Value::Array(items) => items.iter().map(|item| canonical(&Form::Text, item)).collect(),
        Value::Table(table) => {
            let pair = |(key, node): &(crate::config::value::Key, Node)| (key.name.clone(), plain(node));
            Json::Object(table.entries.iter().map(pair).collect())
        }
    }
}
