//! Keys of the contract whose features are not built yet. They are read and checked like any other, so a file written
//! for them is right or wrong today as it will be then; and refused, so that nobody relies on what is not there.

use crate::config::diagnostic::Diagnostics;
use crate::config::table_reader::{Section, nearest};
use crate::config::value::{Node, Value};

/// Keys of `[redis]` whose features are still to come.
const REDIS: &[(&str, &[&str])] = &[("read_your_writes", &["off", "cookie", "header"])];

/// Reads the later keys of `[redis]`.
pub(super) fn redis(section: &mut Section<'_>, problems: &mut Diagnostics) {
    for (name, words) in REDIS {
        if let Some(node) = section.node(name) {
            let path = format!("redis.{name}");
            if check(&path, node, words, problems) {
                refuse(&path, node, problems);
            }
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

fn fits(value: &Value, words: &[&str]) -> Result<(), String> {
    match value {
        Value::String(text) if words.contains(&text.as_str()) => Ok(()),
        Value::String(text) => Err(match nearest(text, words) {
            Some(word) => format!("one of {}; did you mean {word:?}?", words.join(", ")),
            None => format!("one of {}", words.join(", ")),
        }),
        _ => Err(format!("one of {}", words.join(", "))),
    }
}

fn check(path: &str, node: &Node, words: &[&str], problems: &mut Diagnostics) -> bool {
    let fits = fits(&node.value, words);
    if let Err(what) = &fits {
        expected(path, node, what, problems);
    }
    fits.is_ok()
}
