//! Mistakes in a file, shown as compilers do: the place, the line, a caret, the remedy.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::config::redact;

/// How the message about a variable that is not set begins.
pub(crate) const MISSING_VARIABLE: &str = "the environment variable";

/// A place in the text, in bytes.
pub(crate) type Span = Range<usize>;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// Where; `None` for something that is missing.
    pub span: Option<Span>,
    pub message: String,
    /// The remedy, as an instruction.
    pub help: Option<String>,
    /// Whether the value matters; else what is written under the key is not shown, as it may be a secret.
    pub of_value: bool,
}

/// All that is wrong with one file.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostics {
    name: PathBuf,
    text: String,
    list: Vec<Diagnostic>,
    /// Of files that this one names.
    others: Vec<Diagnostics>,
    /// The keys that were read, where somebody asked for them.
    keys: Option<Vec<ReadKey>>,
}

/// A key of the configuration, as the code reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadKey {
    /// Its full name: `server.tls.listen`.
    pub path: String,
    /// The values it takes, for people; empty where that is decided elsewhere.
    pub expected: String,
    /// Its default as the file would have it; `None`: it has none.
    pub default: Option<String>,
}

impl Diagnostics {
    /// None yet, for the file `name` with this content.
    pub(crate) fn new(name: impl Into<PathBuf>, text: &str) -> Diagnostics {
        Diagnostics {
            name: name.into(),
            text: text.to_owned(),
            list: Vec::new(),
            others: Vec::new(),
            keys: None,
        }
    }

    /// The same, and the keys that are read are listed.
    pub(crate) fn listing_keys(name: impl Into<PathBuf>, text: &str) -> Diagnostics {
        Diagnostics { keys: Some(Vec::new()), ..Diagnostics::new(name, text) }
    }

    /// Whether the keys that are read are listed.
    pub(crate) fn lists_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Lists keys of one table.
    pub(crate) fn list_keys(&mut self, read: impl Iterator<Item = ReadKey>) {
        self.keys.get_or_insert_default().extend(read);
    }

    /// The keys that were read.
    pub(crate) fn into_keys(self) -> Vec<ReadKey> {
        self.keys.unwrap_or_default()
    }

    /// Adds one with a place.
    pub(crate) fn at(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.push(Some(span.clone()), message.into())
    }

    /// Adds one without a place.
    pub(crate) fn nowhere(&mut self, message: impl Into<String>) -> &mut Diagnostic {
        self.push(None, message.into())
    }

    fn push(&mut self, span: Option<Span>, message: String) -> &mut Diagnostic {
        self.list.push(Diagnostic { span, message, help: None, of_value: true });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Adds those of a file that this one names.
    pub(crate) fn include(&mut self, other: Diagnostics) {
        if !other.is_empty() {
            self.others.push(other.sorted());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len() + self.others.iter().map(Diagnostics::len).sum::<usize>()
    }

    /// In the order of the file.
    pub(crate) fn sorted(mut self) -> Diagnostics {
        self.list.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        // A value made of a missing variable is wrong only because of that.
        self.list.dedup_by(|later, first| {
            later == first
                || (later.span.is_some()
                    && later.span == first.span
                    && first.message.starts_with(MISSING_VARIABLE))
        });
        self
    }

    /// Line, column, and the line as it may be shown.
    fn place(&self, span: &Span, of_value: bool) -> (usize, usize, String) {
        let at = span.start.min(self.text.len());
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let number = self.text[..start].matches('\n').count() + 1;
        let column = self.text[start..at].chars().count() + 1;
        (number, column, redact::line(&self.text, start, of_value))
    }
}

impl Diagnostic {
    /// Says what to do about it.
    pub(crate) fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }

    /// The value has nothing to do with it.
    pub(crate) fn whatever_the_value(&mut self) -> &mut Diagnostic {
        self.of_value = false;
        self
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for other in &self.others {
            writeln!(f, "{other}")?;
        }
        let name = self.name.display();
        if self.list.is_empty() {
            return write!(
                f,
                "{name} names {}",
                if self.others.len() == 1 { "this file" } else { "these files" }
            );
        }
        for problem in &self.list {
            writeln!(f, "error: {}", redact::message(&problem.message))?;
            match &problem.span {
                Some(span) => {
                    let (number, column, line) = self.place(span, problem.of_value);
                    let gutter = number.to_string().len();
                    let room = line.chars().count().saturating_sub(column - 1).max(1);
                    let width = self.text[span.start.min(self.text.len())..span.end.min(self.text.len())]
                        .chars()
                        .count()
                        .clamp(1, room);
                    writeln!(f, "{:gutter$}--> {name}:{number}:{column}", "")?;
                    writeln!(f, "{:gutter$} |", "")?;
                    // A tab is one column here as it is in the count.
                    writeln!(f, "{number} | {}", line.replace('\t', " "))?;
                    write!(f, "{:gutter$} | {:indent$}{}", "", "", "^".repeat(width), indent = column - 1)?;
                    match &problem.help {
                        Some(help) => writeln!(f, " {help}")?,
                        None => writeln!(f)?,
                    }
                }
                None => {
                    writeln!(f, " --> {name}")?;
                    if let Some(help) = &problem.help {
                        writeln!(f, "  = {help}")?;
                    }
                }
            }
        }
        let plural = if self.list.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} in {name}", self.list.len())
    }
}
