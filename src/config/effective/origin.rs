//! Where the value of a setting comes from.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use crate::config::diagnostic::Span;
use crate::config::source::Source;
use crate::config::variables;

/// The options that stand in place of a key: the key, the option, and the option's variable.
pub(super) const OVERRIDES: [(&str, &str, &str); 4] = [
    ("server.listen", "--listen", "PILLION_LISTEN"),
    ("server.admin", "--admin", "PILLION_ADMIN"),
    ("server.probes", "--probes", "PILLION_PROBES"),
    ("upstream.url", "--upstream", "PILLION_UPSTREAM"),
];

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    /// A line of the file, counted from 1, and the references to variables in the value as they are written.
    File {
        file: String,
        line: usize,
        references: Vec<String>,
    },
    /// An option of `pillion run`.
    Option(&'static str),
    /// The variable of such an option.
    Environment(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { file, line, references } => {
                // A line break in a file name would end the comment.
                write!(f, "{}:{line}", file.replace(char::is_control, "?"))?;
                references.iter().try_for_each(|reference| write!(f, " {reference}"))
            }
            Origin::Option(option) => f.write_str(option),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
        }
    }
}

/// The facts about origins in one configuration.
pub(super) struct Origins<'a> {
    file: String,
    text: &'a str,
    variables: &'a HashMap<String, String>,
    source: &'a Source,
    /// Where lines begin.
    lines: Vec<usize>,
}

impl<'a> Origins<'a> {
    pub(super) fn new(
        name: &Path,
        text: &'a str,
        variables: &'a HashMap<String, String>,
        source: &'a Source,
    ) -> Origins<'a> {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Origins { file: name.display().to_string(), text, variables, source, lines }
    }

    /// The origin of a value that stands at `span`.
    pub(super) fn written(&self, span: &Span) -> Origin {
        let line = self.lines.partition_point(|start| *start <= span.start);
        let mut references = Vec::new();
        for reference in variables::references(self.text.get(span.clone()).unwrap_or("")) {
            let is_set = self.variables.get(reference.name).is_some_and(|value| !value.is_empty());
            let told = match reference.fallback {
                Some(_) if !is_set => format!("${{{}}} (fallback)", reference.name),
                _ => format!("${{{}}}", reference.name),
            };
            if !references.contains(&told) {
                references.push(told);
            }
        }
        Origin::File { file: self.file.clone(), line, references }
    }

    /// The value that an option gives to a key in place of the file's, and its origin.
    pub(super) fn overridden(&self, key: &str) -> Option<(&'a str, Origin)> {
        let given = match key {
            "server.listen" => &self.source.listen,
            "server.admin" => &self.source.admin,
            "server.probes" => &self.source.probes,
            "upstream.url" => &self.source.upstream,
            _ => return None,
        };
        let value = given.as_deref()?;
        let (_, option, variable) = OVERRIDES.iter().find(|(of, ..)| *of == key)?;
        let origin = match self.variables.get(*variable) {
            Some(set) if set == value => Origin::Environment(variable),
            _ => Origin::Option(option),
        };
        Some((value, origin))
    }
}
