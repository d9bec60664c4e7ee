//! Reads one table key by key. What is there and wrong is noted and the default used, so that one
//! reading finds every problem; what is there and unknown is noted at the end.

use std::time::Duration;

use super::hidden;
use super::node::{Node, Table, Value};
use super::problem::{Problems, Span};
use super::units;

/// A value and where it was written; `None`: it is the default.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub span: Option<Span>,
}

impl<T> At<T> {
    /// Whether it was written down.
    pub fn is_written(&self) -> bool {
        self.span.is_some()
    }
}

/// A value that can be read from a node.
pub trait FromNode: Sized {
    /// What is expected, for people.
    const EXPECTED: &'static str;

    /// Reads it; `None` if it is something else.
    fn from_value(value: &Value) -> Option<Self>;

    /// Reads it from a node, which may hold more than its value.
    fn from_node(node: &Node) -> Option<Self> {
        Self::from_value(&node.value)
    }
}

impl FromNode for String {
    const EXPECTED: &'static str = "a string";
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn from_node(node: &Node) -> Option<Self> {
        node.filled.clone().or_else(|| Self::from_value(&node.value))
    }
}

impl FromNode for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Boolean(boolean) => Some(*boolean),
            _ => None,
        }
    }
}

impl FromNode for u64 {
    const EXPECTED: &'static str = "a whole number, not negative";
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(integer) => u64::try_from(*integer).ok(),
            _ => None,
        }
    }
}

impl FromNode for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Float(float) if float.is_finite() => Some(*float),
            // Whole numbers of the contract are far below 2^53.
            Value::Integer(integer) => Some(*integer as f64),
            _ => None,
        }
    }
}

impl FromNode for Duration {
    const EXPECTED: &'static str = "a duration like \"250ms\", \"30s\", \"5m\", \"1h\" or \"1d\"";
    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value).and_then(|text| units::duration(&text))
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromNode for Size {
    const EXPECTED: &'static str = "a size like \"512B\", \"64KiB\", \"256MiB\" or \"1GiB\"";
    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value).and_then(|text| units::size(&text)).map(Size)
    }
}

/// `T`, or the one word that stands for its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Or<T>(pub Option<T>);

impl<T: FromNode> FromNode for Or<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text == "auto" || text == "unlimited" => Some(Or(None)),
            value => T::from_value(value).map(|value| Or(Some(value))),
        }
    }
}

/// A table being read.
pub struct Section<'a> {
    /// Its name as written, for messages: `server.tls`, `upstreams.media`, `routes`.
    pub name: String,
    table: &'a Table,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Of a table.
    pub fn new(name: impl Into<String>, table: &'a Table) -> Section<'a> {
        Section { name: name.into(), table, known: Vec::new() }
    }

    /// The node of a key.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key).map(|(_, node)| node)
    }

    /// The value of a key, if it is there and right.
    pub fn get<T: FromNode>(&mut self, key: &'static str, problems: &mut Problems) -> Option<At<T>> {
        let node = self.node(key)?;
        match T::from_node(node) {
            Some(value) => Some(At { value, span: Some(node.span.clone()) }),
            None => {
                self.mismatch(key, node, T::EXPECTED, problems);
                None
            }
        }
    }

    /// The value of a key, or its default.
    pub fn or<T: FromNode>(&mut self, key: &'static str, default: T, problems: &mut Problems) -> At<T> {
        self.get(key, problems).unwrap_or(At { value: default, span: None })
    }

    /// Whether a key was written, rightly or not.
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// A list, each item with its place, or its default.
    pub fn list<T: FromNode>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        problems: &mut Problems,
    ) -> Vec<At<T>> {
        let Some(node) = self.node(key) else {
            return default.into_iter().map(|value| At { value, span: None }).collect();
        };
        let Value::Array(items) = &node.value else {
            self.mismatch(key, node, &format!("an array of {}", plural(T::EXPECTED)), problems);
            return default.into_iter().map(|value| At { value, span: None }).collect();
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            match T::from_node(item) {
                Some(value) => list.push(At { value, span: Some(item.span.clone()) }),
                None => self.mismatch(key, item, T::EXPECTED, problems),
            }
        }
        list
    }

    /// One of a few words, or its default.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        default: T,
        problems: &mut Problems,
    ) -> T {
        let Some(written) = self.get::<String>(key, problems) else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == written.value) {
            return *choice;
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        if let Some(span) = &written.span {
            problems
                .at(span, format!("{}.{key} is {:?}", self.name, written.value))
                .help(format!("expected one of {}", words.join(", ")));
        }
        default
    }

    /// Some of a few words, or their default.
    pub fn choices<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        default: &[T],
        problems: &mut Problems,
    ) -> Vec<T> {
        if !self.has(key) {
            self.known.push(key);
            return default.to_vec();
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let mut chosen = Vec::new();
        for written in self.list::<String>(key, Vec::new(), problems) {
            match choices.iter().find(|(word, _)| *word == written.value) {
                Some((_, choice)) => chosen.push(*choice),
                None => {
                    if let Some(span) = &written.span {
                        problems
                            .at(span, format!("{}.{key} has {:?}", self.name, written.value))
                            .help(format!("expected some of {}", words.join(", ")));
                    }
                }
            }
        }
        chosen
    }

    /// A table below this one.
    pub fn table(&mut self, key: &'static str, problems: &mut Problems) -> Option<(&'a Table, Span)> {
        let node = self.node(key)?;
        match &node.value {
            Value::Table(table) => Some((table, node.span.clone())),
            _ => {
                self.mismatch(key, node, "a table", problems);
                None
            }
        }
    }

    /// Every key and value, for tables whose keys are names.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node, &'a Span)> + use<'a> {
        self.table.entries.iter().map(|(key, node)| (key.name.as_str(), node, &key.span))
    }

    /// Notes that a value is not what was expected.
    pub fn mismatch(&self, key: &str, node: &Node, expected: &str, problems: &mut Problems) {
        let found = if hidden::is_secret(key) { node.value.kind().to_owned() } else { node.value.shown() };
        problems
            .at(&node.span, format!("{} is {found}", self.path(key)))
            .help(format!("expected {expected}"));
    }

    /// The full name of a key.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Notes every key that nobody asked for.
    pub fn finish(self, problems: &mut Problems) {
        for (key, node) in &self.table.entries {
            if self.known.contains(&key.name.as_str()) {
                continue;
            }
            let place = if self.name.is_empty() {
                "at the top level".to_owned()
            } else {
                format!("in [{}]", self.name)
            };
            let problem = problems.at(&key.span, format!("unknown key {:?} {place}", key.name));
            let meant = nearest(&key.name, &self.known);
            if !matches!(node.value, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)) {
                problem.whatever_the_value();
            }
            match meant {
                Some(known) => problem.help(format!("did you mean {known:?}?")),
                None => problem.help(format!("known here: {}", self.known.join(", "))),
            }
        }
    }
}

fn plural(expected: &str) -> String {
    match expected {
        "a string" => "strings".to_owned(),
        "a number" => "numbers".to_owned(),
        other => format!("values, each {other}"),
    }
}

/// The known word that was most likely meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}
