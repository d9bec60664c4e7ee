//! The file as written: values with their places. References to variables (`${NAME}`) are replaced already.
//!
//! They are replaced after parsing, so places in the file stay true and a variable can never change the structure of
//! the file.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::variables::{self, Replaced};
use crate::config::diagnostic::{Diagnostics, Span};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub span: Span,
    pub value: Value,
    /// The text of a reference that was read as a number or a boolean: a key that takes a string takes this.
    pub filled: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date or time; used nowhere in the contract.
    Datetime,
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// The value itself where it is short, else what it is.
    pub(super) fn shown(&self) -> String {
        match self {
            Value::String(text) => format!("{text:?}"),
            Value::Integer(integer) => integer.to_string(),
            Value::Float(float) => float.to_string(),
            value => value.kind().to_owned(),
        }
    }

    /// The kind of the value, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime => "a date",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub span: Span,
    pub name: String,
}

/// A table in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub entries: Vec<(Key, Node)>,
}

/// A table that is not written.
pub(super) const EMPTY: &Table = &Table { entries: Vec::new() };

impl Table {
    /// The value of a key.
    pub(super) fn get(&self, name: &str) -> Option<&(Key, Node)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }
}

/// Parses `text`; syntax errors and missing variables become problems. `None` after a syntax error:
/// what else looks wrong then is mostly its echo.
pub(super) fn parse(
    text: &str,
    variables: &HashMap<String, String>,
    problems: &mut Diagnostics,
) -> Option<Table> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        match error.span() {
            // It is not known which part of a line is a value, and of which key.
            Some(span) => problems.at(&span, error.message()).whatever_the_value(),
            None => problems.nowhere(error.message()),
        };
    }
    let whole = problems.is_empty();
    let table = convert_table(table.get_ref(), variables, problems);
    whole.then_some(table)
}

fn convert_table(
    table: &DeTable<'_>,
    variables: &HashMap<String, String>,
    problems: &mut Diagnostics,
) -> Table {
    let mut entries: Vec<(Key, Node)> = table
        .iter()
        .map(|(key, value)| {
            let key = Key { span: key.span(), name: key.get_ref().to_string() };
            (key, convert(value, variables, problems))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    Table { entries }
}

fn convert(
    value: &Spanned<DeValue<'_>>,
    variables: &HashMap<String, String>,
    problems: &mut Diagnostics,
) -> Node {
    let span = value.span();
    let mut filled = None;
    let value = match value.get_ref() {
        DeValue::String(text) => {
            let (value, text) = from_text(variables::replace(text, &span, variables, problems));
            filled = text;
            value
        }
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            match i64::from_str_radix(&digits, integer.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => {
                    problems.at(&span, "the integer is too large");
                    Value::Integer(0)
                }
            }
        }
        DeValue::Float(float) => Value::Float(float.as_str().replace('_', "").parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(array) => {
            Value::Array(array.iter().map(|item| convert(item, variables, problems)).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(table, variables, problems)),
    };
    Node { span, value, filled }
}

/// Returns the value of a string. A string that was one reference and nothing else may be a number or a boolean; its text
/// is returned too, for keys that take a string (a release "1.10" is not 1.1).
fn from_text(replaced: Replaced) -> (Value, Option<String>) {
    let Replaced { text, is_reference } = replaced;
    if is_reference {
        if let Ok(integer) = text.parse() {
            return (Value::Integer(integer), Some(text));
        }
        if let Ok(float) = text.parse() {
            return (Value::Float(float), Some(text));
        }
        if let Ok(boolean) = text.parse() {
            return (Value::Boolean(boolean), Some(text));
        }
    }
    (Value::String(text), None)
}
