//! Kinds of keys whose values are addresses: a string, or a bare port.

use serde_json::Value as Json;

use super::declare::{Describe, Form};
use super::kind::Kind;
use crate::config::diagnostic::Diagnostics;
use crate::config::table_reader::{FromNode, Section, Spanned};
use crate::config::value::{Node, Value};

/// An address as it is written: a port may stand without quotes.
struct Written(String);

impl FromNode for Written {
    const EXPECTED: &'static str = "an address, or a port";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Written(text.clone())),
            Value::Integer(port) => u16::try_from(*port).ok().map(|port| Written(port.to_string())),
            _ => None,
        }
    }

    fn from_node(node: &Node) -> Option<Self> {
        node.filled.clone().map(Written).or_else(|| Self::from_value(&node.value))
    }

    fn written(&self) -> String {
        format!("{:?}", self.0)
    }
}

fn plain(at: Spanned<Written>) -> Spanned<String> {
    Spanned { value: at.value.0, span: at.span }
}

/// One address with a default.
pub(crate) struct Address(pub &'static str);

impl Describe for Address {
    fn form(&self) -> Form {
        Form::Address
    }

    fn default(&self) -> Option<Json> {
        Some(Json::from(self.0))
    }
}

impl Kind for Address {
    type Value = Spanned<String>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        plain(section.or(name, Written(self.0.to_owned()), problems))
    }
}

/// One address without a default.
pub(crate) struct OptionalAddress;

impl Describe for OptionalAddress {
    fn form(&self) -> Form {
        Form::Address
    }
}

impl Kind for OptionalAddress {
    type Value = Option<Spanned<String>>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        section.get(name, problems).map(plain)
    }
}

/// One address, or an array of them.
pub(crate) struct Addresses(pub &'static [&'static str]);

impl Describe for Addresses {
    fn form(&self) -> Form {
        Form::Addresses
    }

    fn default(&self) -> Option<Json> {
        Some(Json::from(self.0.to_vec()))
    }
}

impl Kind for Addresses {
    type Value = Vec<Spanned<String>>;

    fn read(&self, name: &'static str, section: &mut Section<'_>, problems: &mut Diagnostics) -> Self::Value {
        let default = || -> Vec<Written> { self.0.iter().map(|text| Written((*text).to_owned())).collect() };
        let usual = || default().into_iter().map(|value| Spanned { value, span: None }).collect();
        let read = match section.node(name).map(|node| &node.value) {
            Some(Value::Array(_)) | None => section.list(name, default(), problems),
            // A value of another kind is reported, and the default avoids an echo.
            Some(_) => section.get(name, problems).map_or_else(usual, |one| vec![one]),
        };
        read.into_iter().map(plain).collect()
    }
}
