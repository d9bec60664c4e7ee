//! Reads one table key by key. What is there and wrong is noted and the default used, so that one
//! reading finds every problem; what is there and unknown is noted at the end.

use std::time::Duration;

use super::units;
use crate::config::diagnostic::{Diagnostics, ReadKey, Span};
use crate::config::redact;
use crate::config::value::{Node, Table, Value};

/// A value and where it was written; `None`: it is the default.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub value: T,
    pub span: Option<Span>,
}

impl<T> Spanned<T> {
    /// Whether it was written down.
    pub(crate) fn is_written(&self) -> bool {
        self.span.is_some()
    }
}

/// A value that can be read from a node.
pub(crate) trait FromNode: Sized {
    /// The expected form of the value, for people.
    const EXPECTED: &'static str;

    /// Reads it; `None` if it is something else.
    fn from_value(value: &Value) -> Option<Self>;

    /// Reads it from a node, which may hold more than its value.
    fn from_node(node: &Node) -> Option<Self> {
        Self::from_value(&node.value)
    }

    /// As a file would have it, for lists of defaults.
    fn written(&self) -> String;
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

    fn written(&self) -> String {
        format!("{self:?}")
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

    fn written(&self) -> String {
        self.to_string()
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

    fn written(&self) -> String {
        self.to_string()
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

    fn written(&self) -> String {
        self.to_string()
    }
}

impl FromNode for Duration {
    const EXPECTED: &'static str = "a duration like \"250ms\", \"30s\", \"5m\", \"1h\" or \"1d\"";
    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value).and_then(|text| units::duration(&text))
    }

    fn written(&self) -> String {
        format!("{:?}", units::duration_text(*self))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub u64);

impl FromNode for Size {
    const EXPECTED: &'static str = "a size like \"512B\", \"64KiB\", \"256MiB\" or \"1GiB\"";
    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value).and_then(|text| units::size(&text)).map(Size)
    }

    fn written(&self) -> String {
        format!("{:?}", units::size_text(self.0))
    }
}

/// A count and its period.
pub(crate) struct Rate(pub u64, pub std::time::Duration);

impl FromNode for Rate {
    const EXPECTED: &'static str = "a rate like \"20/s\", \"100/min\", \"1000/h\" or \"5000/d\"";
    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value)
            .and_then(|text| units::rate(&text))
            .map(|(count, period)| Rate(count, period))
    }

    fn written(&self) -> String {
        format!("\"{} in {:?}\"", self.0, self.1)
    }
}

/// `T`, or the one word that stands for its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AutoOr<T>(pub Option<T>);

impl<T: FromNode> FromNode for AutoOr<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text == "auto" || text == "unlimited" => Some(AutoOr(None)),
            value => T::from_value(value).map(|value| AutoOr(Some(value))),
        }
    }

    fn written(&self) -> String {
        self.0.as_ref().map_or_else(|| "\"auto\" (or \"unlimited\")".to_owned(), T::written)
    }
}

pub(crate) struct Section<'a> {
    /// Its name as written, for messages: `server.tls`, `upstreams.media`, `routes`.
    pub name: String,
    table: &'a Table,
    known: Vec<&'static str>,
    /// The known ones as they are listed, where somebody asks for that.
    listed: Vec<ReadKey>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(name: impl Into<String>, table: &'a Table) -> Section<'a> {
        Section { name: name.into(), table, known: Vec::new(), listed: Vec::new() }
    }

    /// The node of a key.
    pub(crate) fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.get(key).map(|(_, node)| node)
    }

    /// The value of a key, if it is there and right.
    pub(crate) fn get<T: FromNode>(
        &mut self,
        key: &'static str,
        problems: &mut Diagnostics,
    ) -> Option<Spanned<T>> {
        self.list_key(key, problems, || (T::EXPECTED.to_owned(), None));
        let node = self.node(key)?;
        match T::from_node(node) {
            Some(value) => Some(Spanned { value, span: Some(node.span.clone()) }),
            None => {
                self.mismatch(key, node, T::EXPECTED, problems);
                None
            }
        }
    }

    /// The value of a key, or its default.
    pub(crate) fn or<T: FromNode>(
        &mut self,
        key: &'static str,
        default: T,
        problems: &mut Diagnostics,
    ) -> Spanned<T> {
        let written = self.get(key, problems);
        self.list_key(key, problems, || (T::EXPECTED.to_owned(), Some(default.written())));
        written.unwrap_or(Spanned { value: default, span: None })
    }

    /// Lists a key: the values it takes and its default. The last word on a key is the one that counts.
    pub(crate) fn list_key(
        &mut self,
        key: &str,
        problems: &Diagnostics,
        described: impl FnOnce() -> (String, Option<String>),
    ) {
        if problems.lists_keys() {
            let ((expected, default), path) = (described(), self.path(key));
            self.listed.retain(|listed| listed.path != path);
            self.listed.push(ReadKey { path, expected, default });
        }
    }

    /// Whether a key was written, rightly or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// A list, each item with its place, or its default.
    pub(crate) fn list<T: FromNode>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        problems: &mut Diagnostics,
    ) -> Vec<Spanned<T>> {
        self.list_key(key, problems, || {
            let items: Vec<String> = default.iter().map(T::written).collect();
            (format!("an array of {}", plural(T::EXPECTED)), Some(format!("[{}]", items.join(", "))))
        });
        let Some(node) = self.node(key) else {
            return default.into_iter().map(|value| Spanned { value, span: None }).collect();
        };
        let Value::Array(items) = &node.value else {
            let one = match &node.value {
                Value::String(text) if !redact::is_secret(key) => format!(", like [{text:?}]"),
                _ => String::new(),
            };
            self.mismatch(key, node, &format!("an array of {}{one}", plural(T::EXPECTED)), problems);
            return default.into_iter().map(|value| Spanned { value, span: None }).collect();
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            match T::from_node(item) {
                Some(value) => list.push(Spanned { value, span: Some(item.span.clone()) }),
                None => self.mismatch(key, item, T::EXPECTED, problems),
            }
        }
        list
    }

    /// One of a few words, or its default.
    pub(crate) fn choice<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        default: T,
        problems: &mut Diagnostics,
    ) -> T {
        let written = self.get::<String>(key, problems);
        self.list_key(key, problems, || {
            let usual = choices.iter().find(|(_, choice)| *choice == default);
            (format!("one of {}", quoted(choices)), usual.map(|(word, _)| format!("{word:?}")))
        });
        let Some(written) = written else { return default };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == written.value) {
            return *choice;
        }
        if let Some(span) = &written.span {
            problems
                .at(span, format!("{}.{key} is {:?}", self.name, written.value))
                .help(format!("expected one of {}", quoted(choices)));
        }
        default
    }

    /// Some of a few words, or their default.
    pub(crate) fn choices<T: Copy + PartialEq>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        default: &[T],
        problems: &mut Diagnostics,
    ) -> Vec<T> {
        let written = self.list::<String>(key, Vec::new(), problems);
        self.list_key(key, problems, || {
            let usual: Vec<_> =
                choices.iter().filter(|(_, choice)| default.contains(choice)).copied().collect();
            (format!("some of {}", quoted(choices)), Some(format!("[{}]", quoted(&usual))))
        });
        if !self.has(key) {
            return default.to_vec();
        }
        let mut chosen = Vec::new();
        for written in written {
            match choices.iter().find(|(word, _)| *word == written.value) {
                Some((_, choice)) => chosen.push(*choice),
                None => {
                    if let Some(span) = &written.span {
                        problems
                            .at(span, format!("{}.{key} has {:?}", self.name, written.value))
                            .help(format!("expected some of {}", quoted(choices)));
                    }
                }
            }
        }
        chosen
    }

    /// A table below this one.
    pub(crate) fn table(
        &mut self,
        key: &'static str,
        problems: &mut Diagnostics,
    ) -> Option<(&'a Table, Span)> {
        self.list_key(key, problems, || ("a table".to_owned(), None));
        let node = self.node(key)?;
        match &node.value {
            Value::Table(table) => Some((table, node.span.clone())),
            _ => {
                self.mismatch(key, node, "a table", problems);
                None
            }
        }
    }

    /// A table whose keys are names, or its default.
    pub(crate) fn map<T: FromNode + Clone>(
        &mut self,
        key: &'static str,
        default: &[(&str, T)],
        problems: &mut Diagnostics,
    ) -> Vec<(Spanned<String>, Spanned<T>)> {
        let written = self.table(key, problems);
        self.list_key(key, problems, || {
            let pairs: Vec<String> =
                default.iter().map(|(name, value)| format!("{name} = {}", value.written())).collect();
            (format!("a table of names, each {}", T::EXPECTED), Some(format!("{{ {} }}", pairs.join(", "))))
        });
        let Some((table, _)) = written else {
            let pair = |(name, value): &(&str, T)| {
                let name = Spanned { value: (*name).to_owned(), span: None };
                (name, Spanned { value: value.clone(), span: None })
            };
            return default.iter().map(pair).collect();
        };
        let mut found = Vec::new();
        for (name, node) in &table.entries {
            let key = Spanned { value: name.name.clone(), span: Some(name.span.clone()) };
            match T::from_node(node) {
                Some(value) => found.push((key, Spanned { value, span: Some(node.span.clone()) })),
                None => self.mismatch(&name.name, node, T::EXPECTED, problems),
            }
        }
        found
    }

    /// Every key and value, for tables whose keys are names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Node, &'a Span)> + use<'a> {
        self.table.entries.iter().map(|(key, node)| (key.name.as_str(), node, &key.span))
    }

    /// Notes that a value is not what was expected.
    pub(crate) fn mismatch(&self, key: &str, node: &Node, expected: &str, problems: &mut Diagnostics) {
        let found = if redact::is_secret(key) { node.value.kind().to_owned() } else { node.value.shown() };
        problems
            .at(&node.span, format!("{} is {found}", self.path(key)))
            .help(format!("expected {expected}"));
    }

    /// The full name of a key.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Notes every key that nobody asked for.
    pub(crate) fn finish(self, problems: &mut Diagnostics) {
        if problems.lists_keys() {
            let is_listed = |key: &str| self.listed.iter().any(|listed| listed.path == self.path(key));
            let others = self.known.iter().filter(|key| !is_listed(key));
            let bare = |key: &&str| ReadKey { path: self.path(key), expected: String::new(), default: None };
            let others: Vec<ReadKey> = others.map(bare).collect();
            problems.list_keys(self.listed.iter().cloned().chain(others));
        }
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

/// Words as a file would have them.
fn quoted<T>(choices: &[(&str, T)]) -> String {
    let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
    words.join(", ")
}

fn plural(expected: &str) -> String {
    match expected {
        "a string" => "strings".to_owned(),
        "a number" => "numbers".to_owned(),
        other => format!("values, each {other}"),
    }
}

/// The known word that was most likely meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}
