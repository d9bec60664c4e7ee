//! References to environment variables in strings of the file: `${NAME}` and `${NAME:-fallback}`.

use std::collections::HashMap;

use crate::config::diagnostic::{Diagnostics, Span};

/// A string whose references are replaced.
pub(super) struct Replaced {
    pub text: String,
    /// Whether the string was one reference and nothing else.
    pub is_reference: bool,
}

/// Returns the name in a text that is `$NAME` and nothing else: a shell would replace it.
pub(super) fn bare_reference(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    (begins && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')).then_some(name)
}

/// A reference in a text.
pub(super) struct Reference<'a> {
    pub name: &'a str,
    /// The text that stands in place of a variable that is not set or is empty.
    pub fallback: Option<&'a str>,
}

/// The references in a text, in their order, as [`replace`] finds them.
pub(super) fn references(text: &str) -> impl Iterator<Item = Reference<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find("${")?;
            let is_escaped = rest[..at].ends_with('$');
            let after = &rest[at + 2..];
            rest = after;
            if !is_escaped {
                let end = after.find('}')?;
                rest = &after[end + 1..];
                return Some(Reference::new(&after[..end]));
            }
        }
    })
}

impl Reference<'_> {
    fn new(inside: &str) -> Reference<'_> {
        match inside.split_once(":-") {
            Some((name, fallback)) => Reference { name, fallback: Some(fallback) },
            None => Reference { name: inside, fallback: None },
        }
    }
}

/// Replaces the references in one string. A malformed reference, and a variable that is not set, become problems.
pub(super) fn replace(
    text: &str,
    span: &Span,
    variables: &HashMap<String, String>,
    problems: &mut Diagnostics,
) -> Replaced {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    let mut references = 0;
    let mut literal = false;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            replaced.push_str(&rest[..at]);
            replaced.push('{');
            rest = &rest[at + 2..];
            literal = true;
            continue;
        }
        literal |= at > 0;
        replaced.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}') else {
            problems
                .at(span, "\"${\" without \"}\"")
                .explains_others()
                .help("close it with }; $${ writes ${");
            return Replaced { text: text.to_owned(), is_reference: false };
        };
        let reference = &rest[at + 2..at + end];
        rest = &rest[at + end + 1..];
        references += 1;
        let Reference { name, fallback } = Reference::new(reference);
        match variables.get(name).map(String::as_str).filter(|value| !value.is_empty()).or(fallback) {
            Some(value) => replaced.push_str(value),
            None if variables.contains_key(name) => {}
            None if name.is_empty() => {
                problems
                    .at(span, "a reference without a name")
                    .explains_others()
                    .help("${NAME} or ${NAME:-fallback}; $${ writes ${");
            }
            None => {
                problems
                    .at(span, format!("the environment variable {name} is not set"))
                    .explains_others()
                    .help(format!("set it, or write ${{{name}:-fallback}}"));
            }
        }
    }
    literal |= !rest.is_empty();
    replaced.push_str(rest);
    Replaced { text: replaced, is_reference: references == 1 && !literal }
}
