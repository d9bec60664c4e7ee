//! Sections of the contract whose features are not built yet. They are read and checked like any
//! other, so a file written for them is right or wrong today as it will be then; and refused, so that
//! nobody relies on what is not there.

use std::time::Duration;

use crate::config::diagnostic::Diagnostics;
use crate::config::table_reader::{FromNode, Section, nearest};
use crate::config::value::{Node, Table, Value};

#[derive(Clone, Copy)]
enum Shape {
    Bool,
    Text,
    Word(&'static [&'static str]),
    Span,
    /// A table with these keys.
    Keys(&'static [(&'static str, Shape)]),
}

use Shape::{Bool, Keys, Span, Text, Word};

const SECTIONS: &[(&str, Shape)] = &[(
    "redis",
    Keys(&[
        ("url", Text),
        ("prefix", Text),
        ("timeout", Span),
        ("cache", Word(&["shared", "all", "off"])),
        ("rate_limit", Bool),
        ("on_error", Word(&["local", "open", "closed"])),
        ("on_lost", Word(&["serve", "revalidate"])),
    ]),
)];

/// Reads the later sections of the whole file.
pub(super) fn sections(root: &mut Section<'_>, problems: &mut Diagnostics) {
    for (name, shape) in SECTIONS {
        if let Some(node) = root.node(name) {
            check(name, node, *shape, problems);
            refuse(&format!("[{name}]"), node, problems);
        }
    }
}

/// Says that a key is understood and its feature missing.
pub(super) fn refuse(what: &str, node: &Node, problems: &mut Diagnostics) {
    problems
        .at(&node.span, format!("{what} is not there yet in this version of Pillion"))
        .help("remove it for now; it is rejected so that nothing relies on it");
}

fn expected(path: &str, node: &Node, what: &str, problems: &mut Diagnostics) {
    problems.at(&node.span, format!("{path} is {}", node.value.shown())).help(format!("expected {what}"));
}

fn fits(value: &Value, shape: Shape) -> Result<(), String> {
    fn check_value<T: FromNode>(value: &Value) -> Result<(), String> {
        T::from_value(value).map(|_| ()).ok_or_else(|| T::EXPECTED.to_owned())
    }
    match shape {
        Bool => check_value::<bool>(value),
        Text => check_value::<String>(value),
        Span => check_value::<Duration>(value),
        Word(words) => match value {
            Value::String(text) if words.contains(&text.as_str()) => Ok(()),
            Value::String(text) => Err(match nearest(text, words) {
                Some(word) => format!("one of {}; did you mean {word:?}?", words.join(", ")),
                None => format!("one of {}", words.join(", ")),
            }),
            _ => Err(format!("one of {}", words.join(", "))),
        },
        Keys(_) => Ok(()),
    }
}

fn check(path: &str, node: &Node, shape: Shape, problems: &mut Diagnostics) {
    match (shape, &node.value) {
        (Keys(keys), Value::Table(table)) => check_keys(path, table, keys, problems),
        (Keys(_), _) => expected(path, node, "a table", problems),
        (shape, value) => {
            if let Err(what) = fits(value, shape) {
                expected(path, node, &what, problems);
            }
        }
    }
}

fn check_keys(path: &str, table: &Table, keys: &'static [(&'static str, Shape)], problems: &mut Diagnostics) {
    let mut section = Section::new(path, table);
    for (key, shape) in keys {
        if let Some(node) = section.node(key) {
            check(&format!("{path}.{key}"), node, *shape, problems);
        }
    }
    section.finish(problems);
}
