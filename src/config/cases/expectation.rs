//! Reads the expectations of a test case.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::request::field_name;
use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::table_reader::{FromNode as _, Section, nearest};
use crate::config::units;
use crate::config::value::{Node, Table, Value};
use crate::layer;
use crate::layer::rehearsal::course::{NONE, OFF, STORED};
use crate::rendering::words::words;
use crate::represent::coding::Coding;
use crate::represent::compression_decision::Reason;

words! {
    /// The subject of an expectation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Key {
        /// The pattern of the route, as the configuration has it.
        Route => "route",
        /// The name of the upstream that gets the request.
        Upstream => "upstream",
        /// Path and query as the upstream gets them.
        UpstreamPath => "upstream_path",
        /// The fields as the upstream gets them.
        UpstreamHeaders => "upstream_headers",
        /// The status that the client gets.
        Status => "status",
        /// The fields that the client gets.
        Headers => "headers",
        /// One word for the outcome of the cache.
        Cache => "cache",
        /// How long the stored response is fresh.
        Lifetime => "lifetime",
        /// The scope of the route's stored responses.
        Scope => "scope",
        /// The tags of the stored response.
        Tags => "tags",
        /// The tags and paths that are invalidated.
        Drops => "drops",
        /// The tier of the caller.
        Tier => "tier",
        /// The names of the limits that apply.
        Limits => "limits",
        /// The coding of the content, or the reason for none.
        Coding => "coding",
        /// The credentials that identify the sender.
        Principal => "principal",
        /// Cases whose stored response serves this request too.
        SameKeyAs => "same_key_as",
        /// Cases whose stored response does not serve this request.
        OtherKeyThan => "other_key_than",
    }
}

/// An expectation, with its place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    pub key: Key,
    pub span: Span,
    pub value: ExpectedValue,
}

/// An expected value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedValue {
    Text(String),
    /// These texts in any order, and no others.
    Texts(Vec<String>),
    /// A freshness lifetime; `None`: nothing is stored.
    Lifetime(Option<Duration>),
    Status(StatusCode),
    Fields(Vec<(HeaderName, ExpectedField)>),
    /// The names of other cases.
    Cases(Vec<String>),
}

/// The expected state of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedField {
    Present,
    Absent,
    /// It has this value; several lines are joined with a comma.
    Value(String),
}

/// Reads the table `expect`.
pub(super) fn read(table: &Table, problems: &mut Diagnostics) -> Vec<Expectation> {
    let mut section = Section::new("case.expect", table);
    let mut found = Vec::new();
    for key in Key::ALL {
        let Some(node) = section.node(key.as_str()) else { continue };
        if let Some(value) = read_value(key, node, &mut section, problems) {
            found.push(Expectation { key, span: node.span.clone(), value });
        }
    }
    section.finish(problems);
    found.sort_by_key(|expectation| expectation.span.start);
    found
}

fn read_value(
    key: Key,
    node: &Node,
    section: &mut Section<'_>,
    problems: &mut Diagnostics,
) -> Option<ExpectedValue> {
    let name = key.as_str();
    match key {
        Key::Route | Key::Upstream | Key::UpstreamPath | Key::Tier => {
            section.get::<String>(name, problems).map(|text| ExpectedValue::Text(text.value))
        }
        Key::Cache => word(section, name, &cache_words(), problems),
        Key::Coding => word(section, name, &coding_words(), problems),
        Key::Scope => word(section, name, &["auto", "shared", "user", "off"], problems),
        Key::Status => status(section, problems).map(ExpectedValue::Status),
        Key::Lifetime => match String::from_node(node) {
            Some(text) if text == NONE => Some(ExpectedValue::Lifetime(None)),
            text => {
                let duration = text.and_then(|text| units::duration(&text));
                if duration.is_none() {
                    section.mismatch(name, node, "a duration like \"5m\", or \"none\"", problems);
                }
                Some(ExpectedValue::Lifetime(Some(duration?)))
            }
        },
        Key::Tags | Key::Drops | Key::Limits | Key::Principal => {
            Some(ExpectedValue::Texts(texts(section, name, problems)))
        }
        Key::SameKeyAs | Key::OtherKeyThan => match &node.value {
            Value::String(other) => Some(ExpectedValue::Cases(vec![other.clone()])),
            _ => Some(ExpectedValue::Cases(texts(section, name, problems))),
        },
        Key::UpstreamHeaders | Key::Headers => fields(section, name, problems).map(ExpectedValue::Fields),
    }
}

fn texts(section: &mut Section<'_>, name: &'static str, problems: &mut Diagnostics) -> Vec<String> {
    let texts = section.list::<String>(name, Vec::new(), problems);
    texts.into_iter().map(|text| text.value).collect()
}

/// Reads a status.
pub(super) fn status(section: &mut Section<'_>, problems: &mut Diagnostics) -> Option<StatusCode> {
    let written = section.get::<u64>("status", problems)?;
    let status = u16::try_from(written.value).ok().filter(|code| (100..600).contains(code));
    let status = status.and_then(|code| StatusCode::from_u16(code).ok());
    if let (None, Some(span)) = (status, &written.span) {
        let message = format!("{} is {}", section.path("status"), written.value);
        problems.at(span, message).help("expected a status from 100 to 599");
    }
    status
}

fn word(
    section: &mut Section<'_>,
    name: &'static str,
    known: &[&'static str],
    problems: &mut Diagnostics,
) -> Option<ExpectedValue> {
    let written = section.get::<String>(name, problems)?;
    if known.contains(&written.value.as_str()) {
        return Some(ExpectedValue::Text(written.value));
    }
    if let Some(span) = &written.span {
        let problem = problems.at(span, format!("{} is {:?}", section.path(name), written.value));
        problem.help(match nearest(&written.value, known) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("expected one of {}", known.join(", ")),
        });
    }
    None
}

/// Returns the words for outcomes of the cache.
fn cache_words() -> Vec<&'static str> {
    let all = layer::words();
    let of_log = all.iter().filter(|(place, _)| ["log cache", "log not_stored"].contains(place));
    let known = of_log.flat_map(|(_, words)| words).copied();
    // A request that missed is told apart by whether its response is stored.
    let replaced = ["miss", "expired", "bypass"];
    let mut words = vec![STORED, NONE];
    for word in known.filter(|word| !replaced.contains(word)) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// Returns the codings and the reasons for none.
fn coding_words() -> Vec<&'static str> {
    let codings = Coding::ALL.map(Coding::as_str).into_iter();
    codings.chain(Reason::ALL.map(Reason::as_str)).chain([OFF, NONE]).collect()
}

fn fields(
    section: &mut Section<'_>,
    name: &'static str,
    problems: &mut Diagnostics,
) -> Option<Vec<(HeaderName, ExpectedField)>> {
    let path = section.path(name);
    let (table, _) = section.table(name, problems)?;
    let named = Section::new(path, table);
    let mut fields = Vec::new();
    for (name, node, at) in named.entries() {
        let Some(field) = field_name(name, at, problems) else { continue };
        let expected = match (&node.filled, &node.value) {
            (Some(text), _) | (None, Value::String(text)) => ExpectedField::Value(text.clone()),
            (None, Value::Boolean(true)) => ExpectedField::Present,
            (None, Value::Boolean(false)) => ExpectedField::Absent,
            _ => {
                let expected = "a string, true if any value will do, or false if the field is absent";
                named.mismatch(name, node, expected, problems);
                continue;
            }
        };
        fields.push((field, expected));
    }
    Some(fields)
}
