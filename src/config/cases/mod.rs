//! Reads a file of test cases for a configuration: requests, canned responses and expectations, each with its place.

mod claims;
mod expectation;
mod moment;
mod request;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::diagnostic::{Diagnostics, Span};
use super::secrecy::Level;
use super::table_reader::Section;
use super::value::{self, Class, Classes, Table, Value};
use crate::policy::notice::Place;

pub(crate) use expectation::{Expectation, ExpectedField, ExpectedValue, Key};
pub(crate) use request::CaseRequest;

/// Maximum number of requests of one case.
const MAX_TIMES: u64 = 1000;
/// Maximum number of cases in one file.
const MAX_CASES: usize = 10_000;

/// A file of test cases.
#[derive(Clone, Debug)]
pub(crate) struct CaseFile {
    pub path: PathBuf,
    /// The configuration that the cases are about, if the file names it.
    pub config: Option<PathBuf>,
    /// Values for `${NAME}` in the configuration.
    pub variables: HashMap<String, String>,
    pub cases: Vec<Case>,
    /// The text, to find places and to report what only the configuration shows to be wrong.
    problems: Diagnostics,
}

/// A test case: a request, the upstream's response, and expectations.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub name: String,
    pub span: Span,
    pub request: CaseRequest,
    /// The status of the upstream's response.
    pub status: StatusCode,
    /// The fields of the upstream's response.
    pub fields: HeaderMap,
    pub content: bytes::Bytes,
    /// The time by the wall clock; `None`: the present time.
    pub now: Option<SystemTime>,
    /// Number of equal requests in a row; the expectations are about the last.
    pub times: u32,
    pub expectations: Vec<Expectation>,
}

impl CaseFile {
    /// Returns the place of a span in the file.
    pub(crate) fn place(&self, span: &Span) -> Place {
        self.problems.place_of(span)
    }

    /// Returns the problem of a case that only its configuration shows.
    pub(crate) fn refuse(&self, span: &Span, message: &str, help: &str) -> Diagnostics {
        let mut problems = self.problems.clone();
        problems.at(span, message).help(help);
        problems
    }
}

/// Secrets of a file of cases: values of variables, and values under keys that are named like secrets.
#[derive(Clone, Copy)]
enum CaseLevel {
    Root,
    Variables,
    Other(Level),
}

impl Classes for CaseLevel {
    fn step(self, key: &str) -> (Class, CaseLevel) {
        match self {
            CaseLevel::Root if key == "variables" => (Class::Other, CaseLevel::Variables),
            CaseLevel::Root => CaseLevel::Other(Level::Unknown).step(key),
            CaseLevel::Variables => (Class::Secret, CaseLevel::Variables),
            CaseLevel::Other(_) if key == "key" => (Class::Secret, self),
            CaseLevel::Other(level) => {
                let (class, below) = level.step(key);
                (class, CaseLevel::Other(below))
            }
        }
    }
}

/// Reads the file at `path` with this text. `environment` has the values for `${NAME}` that the file does not set.
pub(crate) fn read(
    path: &Path,
    text: &str,
    environment: &HashMap<String, String>,
) -> Result<CaseFile, Diagnostics> {
    let mut problems = Diagnostics::new(path, text);
    // Variables are read first, because the rest of the file may refer to them.
    let mut scratch = problems.clone();
    let own = value::parse(text, environment, CaseLevel::Root, &mut scratch);
    let own = own.map_or_else(Vec::new, |table| variables(&table, &mut scratch));
    let mut known = environment.clone();
    known.extend(own);
    let Some(table) = value::parse(text, &known, CaseLevel::Root, &mut problems) else {
        return Err(problems.sorted());
    };
    let variables = variables(&table, &mut problems);
    let mut section = Section::new("", &table);
    section.node("variables");
    let config = section.get::<String>("config", &mut problems).map(|config| PathBuf::from(config.value));
    let cases = read_cases(&mut section, &mut problems);
    section.finish(&mut problems);
    check_names(&cases, &mut problems);
    if !problems.is_empty() {
        return Err(problems.sorted());
    }
    let variables = variables.into_iter().collect();
    Ok(CaseFile { path: path.to_path_buf(), config, variables, cases, problems })
}

fn variables(table: &Table, problems: &mut Diagnostics) -> Vec<(String, String)> {
    let mut section = Section::new("", table);
    let found = section.map::<String>("variables", &[], problems);
    found.into_iter().map(|(name, value)| (name.value, value.value)).collect()
}

fn read_cases(section: &mut Section<'_>, problems: &mut Diagnostics) -> Vec<Case> {
    let Some(node) = section.node("case") else {
        problems.nowhere("the file has no case").help("write [[case]] with name, request and [case.expect]");
        return Vec::new();
    };
    let Value::Array(items) = &node.value else {
        problems.at(&node.span, format!("case is {}", node.value.kind())).help("expected [[case]] tables");
        return Vec::new();
    };
    if items.len() > MAX_CASES {
        let message = format!("the file has {} cases", items.len());
        problems.at(&node.span, message).help(format!("write at most {MAX_CASES} in one file"));
    }
    let mut cases = Vec::new();
    for item in items.iter().take(MAX_CASES) {
        match &item.value {
            Value::Table(table) => cases.extend(read_case(table, &item.span, problems)),
            other => problems.at(&item.span, format!("a case is {}", other.kind())).help("expected a table"),
        }
    }
    cases
}

fn read_case(table: &Table, span: &Span, problems: &mut Diagnostics) -> Option<Case> {
    let mut section = Section::new("case", table);
    let name = section.get::<String>("name", problems);
    if !section.has("name") {
        problems.at(span, "the case has no name").help("say in a sentence what it shows: name = \"...\"");
    }
    let request = request::read(&mut section, span, problems);
    let now = moment::read(&mut section, problems);
    let times = section.or::<u64>("times", 1, problems);
    if let Some(span) = times.span.as_ref().filter(|_| !(1..=MAX_TIMES).contains(&times.value)) {
        problems
            .at(span, format!("case.times is {}", times.value))
            .help(format!("expected 1 to {MAX_TIMES}"));
    }
    let response = section.table("response", problems).map(|(table, _)| read_response(table, problems));
    let (status, fields, content) = response.unwrap_or_default();
    let expect = section.table("expect", problems).map(|(table, _)| table);
    let expectations = expect.map_or_else(Vec::new, |table| expectation::read(table, problems));
    let is_empty = expect.is_some_and(|table| table.entries.is_empty());
    if is_empty || !section.has("expect") {
        problems.at(span, "the case expects nothing").help("write a table [case.expect]");
    }
    section.finish(problems);
    let name = name?;
    Some(Case {
        span: name.span.unwrap_or_else(|| span.clone()),
        name: name.value,
        request: request?,
        status,
        fields,
        content,
        now,
        times: u32::try_from(times.value).unwrap_or(1),
        expectations,
    })
}

fn read_response(table: &Table, problems: &mut Diagnostics) -> (StatusCode, HeaderMap, bytes::Bytes) {
    let mut section = Section::new("case.response", table);
    let status = expectation::status(&mut section, problems).unwrap_or_default();
    let fields = request::fields(&mut section, "headers", problems);
    let content = request::content(&mut section, problems);
    section.finish(problems);
    (status, fields.into_iter().collect(), content)
}

/// Checks that names are unique, and that the names that cases refer to exist.
fn check_names(cases: &[Case], problems: &mut Diagnostics) {
    let mut names = HashSet::new();
    for case in cases {
        if !names.insert(case.name.as_str()) {
            let message = format!("two cases are named {:?}", case.name);
            problems.at(&case.span, message).help("rename one of them");
        }
    }
    for case in cases {
        for expectation in &case.expectations {
            let ExpectedValue::Cases(others) = &expectation.value else { continue };
            for other in others.iter().filter(|other| !names.contains(other.as_str()) || **other == case.name)
            {
                let message = match *other == case.name {
                    true => format!("{} names its own case", expectation.key.as_str()),
                    false => format!("no case is named {other:?}"),
                };
                problems.at(&expectation.span, message).help("write the name of another case of this file");
            }
        }
    }
}
