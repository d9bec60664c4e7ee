//! The file as written: values with their places, `${NAME}` already filled in.
//!
//! References are filled after parsing, so places in the file stay true and a variable can never
//! change the structure of the file.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::diagnostic::{Diagnostics, MISSING_VARIABLE, Span};

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
            let (value, text) = fill(text, &span, variables, problems);
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

/// Fills the references of one string. One that is nothing but a reference may become a number or a
/// boolean; its text is kept for keys that take a string (a release "1.10" is not 1.1).
fn fill(
    text: &str,
    span: &Span,
    variables: &HashMap<String, String>,
    problems: &mut Diagnostics,
) -> (Value, Option<String>) {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    let mut references = 0;
    let mut literal = false;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            filled.push_str(&rest[..at]);
            filled.push('{');
            rest = &rest[at + 2..];
            literal = true;
            continue;
        }
        literal |= at > 0;
        filled.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            problems.at(span, "\"${\" without \"}\"").help("$${ writes ${");
            return (Value::String(text.to_owned()), None);
        };
        let reference = &rest[at + 2..at + end];
        rest = &rest[at + end + 1..];
        references += 1;
        let (name, fallback) = match reference.split_once(":-") {
            Some((name, fallback)) => (name, Some(fallback)),
            None => (reference, None),
        };
        match variables.get(name).map(String::as_str).filter(|value| !value.is_empty()).or(fallback) {
            Some(value) => filled.push_str(value),
            None if variables.contains_key(name) => {}
            None if name.is_empty() => {
                problems
                    .at(span, "a reference without a name")
                    .help("${NAME} or ${NAME:-fallback}; $${ writes ${");
            }
            None => {
                problems
                    .at(span, format!("{MISSING_VARIABLE} {name} is not set"))
                    .help(format!("set it, or write ${{{name}:-fallback}}"));
            }
        }
    }
    literal |= !rest.is_empty();
    filled.push_str(rest);
    if references == 1 && !literal {
        if let Ok(integer) = filled.parse() {
            return (Value::Integer(integer), Some(filled));
        }
        if let Ok(float) = filled.parse() {
            return (Value::Float(float), Some(filled));
        }
        if let Ok(boolean) = filled.parse() {
            return (Value::Boolean(boolean), Some(filled));
        }
    }
    (Value::String(filled), None)
}
