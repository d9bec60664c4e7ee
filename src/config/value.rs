//! The file as written: values with their places. References to variables (`${NAME}`) are replaced already.
//!
//! They are replaced after parsing, so places in the file stay true and a variable can never change the structure of
//! the file.

use std::collections::{BTreeSet, HashMap};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::foreign;
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
    /// The entry with this full name, like `server.tls.listen`.
    pub(super) fn find(&self, path: &str) -> Option<&(Key, Node)> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let entry = self.get(first)?;
        match (rest, &entry.1.value) {
            (None, _) => Some(entry),
            (Some(rest), Value::Table(table)) => table.find(rest),
            _ => None,
        }
    }

    /// The value of a key.
    pub(super) fn get(&self, name: &str) -> Option<&(Key, Node)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }
}

/// The kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Secret,
    /// A URL, a path or an address.
    Place,
    Other,
}

/// Knowledge of the keys of a table: which values are secrets.
pub(super) trait Classes: Copy {
    /// Classifies the value under `key`, and returns what is known of the tables in it.
    fn step(self, key: &str) -> (Class, Self);
}

/// Parses `text`; syntax errors and missing variables become problems. `None` after a syntax error:
/// what else looks wrong then is mostly its echo.
pub(super) fn parse(
    text: &str,
    variables: &HashMap<String, String>,
    root: impl Classes,
    problems: &mut Diagnostics,
) -> Option<Table> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let whole = errors.is_empty();
    if let Some((language, help)) = errors.first().and_then(|_| foreign::language(text)) {
        let span = errors.iter().find_map(toml::de::Error::span).unwrap_or(0..0);
        problems
            .at(&span, format!("this looks like {language}, not like TOML"))
            .whatever_the_value()
            .help(help);
        return None;
    }
    let mut lines = BTreeSet::new();
    for error in errors {
        let help = remedy(error.message());
        match error.span() {
            // The second mistake of a line is mostly the echo of the first.
            Some(span) if !lines.insert(line_of(text, &span)) => {}
            // It is not known which part of a line is a value, and of which key.
            Some(span) => problems.at(&span, error.message()).whatever_the_value().help(help),
            None => problems.nowhere(error.message()).help(help),
        };
    }
    let mut secrets = Vec::new();
    let table = Converter { variables, problems, secrets: &mut secrets }.table(table.get_ref(), root);
    if whole {
        problems.set_secrets(secrets);
    }
    whole.then_some(table)
}

fn line_of(text: &str, span: &Span) -> usize {
    text[..span.start.min(text.len())].matches('\n').count()
}

/// The remedies for mistakes in the form of the file, by the parser's messages.
fn remedy(message: &str) -> &'static str {
    let remedies = [
        ("unclosed table", "close the name of the table: [name]"),
        ("unclosed array of tables", "close the name: [[name]]"),
        ("unclosed array", "close the array with ]"),
        ("missing comma between array", "put a comma between two values, and close the array with ]"),
        ("unclosed inline table", "close the table with } on its line"),
        ("must be quoted", "write the value in quotes"),
        ("invalid basic string", "close the string with a quote on its line; a backslash is written \\\\"),
        ("invalid literal string", "close the string with a quote on its line"),
        ("duplicate key", "remove one of them"),
        ("unquoted key", "write key = value"),
        ("key with no value", "write key = value"),
    ];
    let found = remedies.iter().find(|(part, _)| message.contains(part));
    found.map_or("expected key = value, [table] or [[table]]", |(_, remedy)| remedy)
}

/// A step from what the parser found to nodes.
struct Converter<'a> {
    variables: &'a HashMap<String, String>,
    problems: &'a mut Diagnostics,
    /// Where values of secrets stand.
    secrets: &'a mut Vec<Span>,
}

impl Converter<'_> {
    fn table(&mut self, table: &DeTable<'_>, classes: impl Classes) -> Table {
        let mut entries: Vec<(Key, Node)> = Vec::with_capacity(table.len());
        for (key, value) in table {
            let (class, below) = classes.step(key.get_ref());
            let key = Key { span: key.span(), name: key.get_ref().to_string() };
            entries.push((key, self.node(value, class, below)));
        }
        entries.sort_by_key(|(key, _)| key.span.start);
        Table { entries }
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>, class: Class, below: impl Classes) -> Node {
        let span = value.span();
        let mut filled = None;
        let is_scalar = !matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_));
        if class == Class::Secret && is_scalar {
            self.secrets.push(span.clone());
        }
        let value = match value.get_ref() {
            DeValue::String(text) => {
                if let Some(name) = variables::bare_reference(text) {
                    self.bare_reference(name, &span, class);
                }
                let (value, text) = from_text(variables::replace(text, &span, self.variables, self.problems));
                filled = text;
                value
            }
            DeValue::Integer(integer) => {
                let digits = integer.as_str().replace('_', "");
                match i64::from_str_radix(&digits, integer.radix()) {
                    Ok(integer) => Value::Integer(integer),
                    Err(_) => {
                        self.problems.at(&span, "the integer is too large");
                        Value::Integer(0)
                    }
                }
            }
            DeValue::Float(float) => {
                Value::Float(float.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(boolean) => Value::Boolean(*boolean),
            DeValue::Datetime(_) => Value::Datetime,
            DeValue::Array(array) => {
                Value::Array(array.iter().map(|item| self.node(item, class, below)).collect())
            }
            DeValue::Table(table) => Value::Table(self.table(table, below)),
        };
        Node { span, value, filled }
    }

    /// Says that a name is not replaced without braces. Where the text itself can hardly be meant, it is an error.
    fn bare_reference(&mut self, name: &str, span: &Span, class: Class) {
        let message = format!("the reference ${name} is not replaced: it has no braces");
        let help = format!("write ${{{name}}}");
        if class == Class::Other {
            self.problems.warn(Some(span), message, help);
        } else {
            // The name of a variable is no secret.
            self.problems.at(span, message).explains_others().help(help);
        }
    }
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
