//! Mistakes in a file, shown as compilers do: the place, the line, a caret, the remedy.

use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;

use crate::config::redact;
use crate::policy::notice::{Notice, Place, Severity};

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
    /// Whether all else that is wrong with the same value is wrong because of this.
    pub is_cause: bool,
}

/// All that is wrong with one file.
#[derive(Clone, Debug)]
pub(crate) struct Diagnostics {
    name: PathBuf,
    text: Box<str>,
    list: Vec<Diagnostic>,
    /// Of files that this one names.
    others: Vec<Diagnostics>,
    beside: Box<Beside>,
    /// The keys that were read, where somebody asked for them.
    keys: Option<Vec<ReadKey>>,
}

/// The facts about a file beside its problems.
#[derive(Clone, Debug, Default)]
struct Beside {
    /// Warnings and hints, also of other files: they do not count as problems.
    notices: Vec<Notice>,
    /// Where values of secrets stand; `None` where the text could not be read as TOML.
    secrets: Option<Vec<Span>>,
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
            text: text.into(),
            list: Vec::new(),
            others: Vec::new(),
            beside: Box::default(),
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
        self.list.push(Diagnostic { span, message, help: None, of_value: true, is_cause: false });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Notes where the values of secrets stand: nothing else of the text is hidden.
    pub(super) fn set_secrets(&mut self, secrets: Vec<Span>) {
        self.beside.secrets = Some(secrets);
    }

    /// Adds a warning.
    pub(crate) fn warn(&mut self, span: Option<&Span>, message: impl Into<String>, help: impl Into<String>) {
        self.note(Severity::Warning, span, message.into(), help.into());
    }

    /// Adds a hint.
    pub(crate) fn hint(&mut self, span: Option<&Span>, message: impl Into<String>, help: impl Into<String>) {
        self.note(Severity::Hint, span, message.into(), help.into());
    }

    fn note(&mut self, severity: Severity, span: Option<&Span>, message: String, help: String) {
        let help = Some(help).filter(|help| !help.is_empty());
        let remark = Diagnostic { span: span.cloned(), message, help, of_value: true, is_cause: false };
        let notice = self.notice(severity, &remark);
        self.beside.notices.push(notice);
    }

    /// Takes the warnings and hints, in the order of the file.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.beside.notices);
        let place =
            |notice: &Notice| notice.place.as_ref().map_or((usize::MAX, 0), |at| (at.line, at.column));
        notices.sort_by_key(place);
        notices.dedup();
        notices
    }

    /// All problems as remarks, those of other files first.
    pub(crate) fn errors(&self) -> Vec<Notice> {
        let others = self.others.iter().flat_map(Diagnostics::errors);
        others.chain(self.list.iter().map(|problem| self.notice(Severity::Error, problem))).collect()
    }

    fn notice(&self, severity: Severity, remark: &Diagnostic) -> Notice {
        let message = redact::message(&remark.message).into_owned();
        let mut shown = format!("{}: {message}\n", severity.as_str());
        let place = remark.span.as_ref().map(|span| self.show(&mut shown, span, remark));
        if place.is_none() {
            let _ = writeln!(shown, " --> {}", self.name.display());
            if let Some(help) = &remark.help {
                let _ = writeln!(shown, "  = {help}");
            }
        }
        shown.truncate(shown.trim_end().len());
        Notice { severity, message, help: remark.help.clone(), file: self.name.clone(), place, shown }
    }

    /// Appends the line and the caret. Writing to a string cannot fail.
    fn show(&self, shown: &mut String, span: &Span, remark: &Diagnostic) -> Place {
        let (number, column, line) = self.place(span, remark.of_value);
        let gutter = number.to_string().len();
        let room = line.chars().count().saturating_sub(column - 1).max(1);
        let meant = &self.text[span.start.min(self.text.len())..span.end.min(self.text.len())];
        let width = meant.chars().count().clamp(1, room);
        let name = self.name.display();
        let _ = writeln!(shown, "{:gutter$}--> {name}:{number}:{column}", "");
        let _ = writeln!(shown, "{:gutter$} |", "");
        // A tab is one column here as it is in the count.
        let _ = writeln!(shown, "{number} | {}", line.replace('\t', " "));
        let caret = "^".repeat(width);
        let _ = write!(shown, "{:gutter$} | {:indent$}{caret}", "", "", indent = column - 1);
        if let Some(help) = &remark.help {
            let _ = write!(shown, " {help}");
        }
        Place { line: number, column, width }
    }

    /// Adds those of a file that this one names.
    pub(crate) fn include(&mut self, mut other: Diagnostics) {
        self.beside.notices.append(&mut other.beside.notices);
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
        self.list.dedup_by(|later, first| {
            later == first || (later.span.is_some() && later.span == first.span && first.is_cause)
        });
        self
    }

    /// Returns the place of a span.
    pub(crate) fn place_of(&self, span: &Span) -> Place {
        let (line, column, shown) = self.place(span, true);
        let room = shown.chars().count().saturating_sub(column - 1).max(1);
        let meant = &self.text[span.start.min(self.text.len())..span.end.min(self.text.len())];
        Place { line, column, width: meant.chars().count().clamp(1, room) }
    }

    /// Line, column, and the line as it may be shown.
    fn place(&self, span: &Span, of_value: bool) -> (usize, usize, String) {
        let at = span.start.min(self.text.len());
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let number = self.text[..start].matches('\n').count() + 1;
        let column = self.text[start..at].chars().count() + 1;
        let shown = match &self.beside.secrets {
            Some(secrets) => redact::line_without(&self.text, start, secrets),
            None => redact::line(&self.text, start, of_value),
        };
        (number, column, shown)
    }
}

impl Diagnostic {
    /// Says what to do about it.
    pub(crate) fn help(&mut self, help: impl Into<String>) {
        self.help = Some(help.into());
    }

    /// All else that is wrong with the same value follows from this.
    pub(crate) fn explains_others(&mut self) -> &mut Diagnostic {
        self.is_cause = true;
        self
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
            writeln!(f, "{}", self.notice(Severity::Error, problem).shown)?;
        }
        let plural = if self.list.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} in {name}", self.list.len())
    }
}
