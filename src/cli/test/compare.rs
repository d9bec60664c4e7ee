//! Compares a rehearsed request with the expectations of its case.

use std::collections::{BTreeSet, HashMap};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::result::{Failure, Rehearsed};
use crate::cache::rules::not_stored;
use crate::cache::settings::Scope;
use crate::config::cases::{Case, CaseFile, Expectation, ExpectedField, ExpectedValue, Key};
use crate::config::units;
use crate::layer::explain;
use crate::layer::explain::facts::Facts;
use crate::layer::explain::render::Explanation;
use crate::layer::rehearsal::course::{NONE, Rehearsal};
use crate::limit::tier::CONCURRENCY;

/// An expected and a different actual value, as texts.
type Difference = (String, String);

/// Returns the expectations of a case that were not met. `others` are all cases of the file.
pub(super) fn failures(
    cases: &CaseFile,
    case: &Case,
    this: &Rehearsed,
    others: &HashMap<&str, Rehearsed>,
) -> Vec<Failure> {
    let mut failures = Vec::new();
    for expectation in &case.expectations {
        for (expected, got) in differences(expectation, this, others) {
            let because = match (expectation.key, &expectation.value) {
                (Key::Route, ExpectedValue::Text(expected)) => route_reasons(expected, this),
                (key, _) => reasons(key, &this.rehearsal),
            };
            let place = cases.place(&expectation.span);
            failures.push(Failure { key: expectation.key, place, expected, got, because });
        }
    }
    failures
}

fn differences(
    expectation: &Expectation,
    this: &Rehearsed,
    others: &HashMap<&str, Rehearsed>,
) -> Vec<Difference> {
    let rehearsal = &this.rehearsal;
    match &expectation.value {
        ExpectedValue::Text(expected) => {
            let got = text(expectation.key, rehearsal);
            if is_same(expected, &got) {
                Vec::new()
            } else {
                vec![(format!("{expected:?}"), format!("{got:?}"))]
            }
        }
        ExpectedValue::Texts(expected) => {
            let got = texts(expectation.key, rehearsal);
            let is_same = expected.iter().collect::<BTreeSet<_>>() == got.iter().collect();
            if is_same { Vec::new() } else { vec![(format!("{expected:?}"), format!("{got:?}"))] }
        }
        ExpectedValue::Lifetime(expected) => {
            let got = rehearsal.stored.as_ref().map(|stored| stored.lifetime);
            let shown = |lifetime: Option<_>| match lifetime {
                Some(lifetime) => format!("{:?}", units::duration_text(lifetime)),
                None => format!("{NONE:?}"),
            };
            if *expected == got { Vec::new() } else { vec![(shown(*expected), shown(got))] }
        }
        ExpectedValue::Status(expected) if *expected == rehearsal.status => Vec::new(),
        ExpectedValue::Status(expected) => {
            vec![(expected.as_u16().to_string(), rehearsal.status.as_u16().to_string())]
        }
        ExpectedValue::Fields(expected) => {
            let found = match expectation.key {
                Key::UpstreamHeaders => rehearsal.sent.as_ref().map(|sent| &sent.fields),
                _ => Some(&rehearsal.fields),
            };
            expected.iter().filter_map(|(name, expected)| field(name, expected, found)).collect()
        }
        ExpectedValue::Cases(names) => {
            let expected = expectation.key == Key::SameKeyAs;
            let wrong = |(_, other): &(&String, &Rehearsed)| {
                rehearsal.shares_with(&other.rehearsal, &this.snapshot.policy.cache) != expected
            };
            let shown = |(name, other): (&String, &Rehearsed)| {
                let got = format!("{} and {}", key_text(rehearsal), key_text(&other.rehearsal));
                match expected {
                    true => (format!("the key of {name:?}"), got),
                    false => (format!("another key than {name:?}"), got),
                }
            };
            names
                .iter()
                .filter_map(|name| Some((name, others.get(name.as_str())?)))
                .filter(wrong)
                .map(shown)
                .collect()
        }
    }
}

/// Returns whether two texts differ at most in white space, as patterns of routes may.
fn is_same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

/// Returns the actual value of a key whose value is a text.
fn text(key: Key, rehearsal: &Rehearsal) -> String {
    let facts = &rehearsal.facts;
    let found = match key {
        Key::Route => facts.route.as_ref().and_then(|route| route.pattern.clone()),
        Key::Upstream => rehearsal.sent.as_ref().map(|sent| sent.upstream.clone()),
        Key::UpstreamPath => rehearsal.sent.as_ref().map(|sent| sent.target.clone()),
        Key::Cache => Some(rehearsal.cache.to_owned()),
        Key::Coding => Some(rehearsal.coding.to_owned()),
        Key::Tier => facts.limits().map(|limits| limits.tier.clone()),
        Key::Scope => facts.forwarded().map(|found| scope(found.cache.scope).to_owned()),
        _ => None,
    };
    found.unwrap_or_else(|| NONE.to_owned())
}

fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Auto => "auto",
        Scope::Shared => "shared",
        Scope::User => "user",
        Scope::Off => "off",
    }
}

/// Returns the actual values of a key whose value is a list of texts.
fn texts(key: Key, rehearsal: &Rehearsal) -> Vec<String> {
    match key {
        Key::Tags => rehearsal.stored.as_ref().map_or_else(Vec::new, |stored| stored.tags.clone()),
        Key::Drops => rehearsal.invalidated.clone(),
        Key::Limits => limits(&rehearsal.facts),
        Key::Principal => {
            rehearsal.facts.forwarded().map_or_else(Vec::new, |found| found.credentials.clone())
        }
        _ => Vec::new(),
    }
}

/// Returns the names of the limits that apply.
fn limits(facts: &Facts) -> Vec<String> {
    let Some(limits) = facts.limits() else { return Vec::new() };
    let concurrency = limits.max_in_flight.map(|_| CONCURRENCY.to_owned());
    limits.quotas.iter().map(|quota| quota.name.clone()).chain(concurrency).collect()
}

/// Compares one field. Without `found` there is no message that could have it.
fn field(name: &HeaderName, expected: &ExpectedField, found: Option<&HeaderMap>) -> Option<Difference> {
    let shown = match expected {
        ExpectedField::Present => format!("a field {name}"),
        ExpectedField::Absent => format!("no field {name}"),
        ExpectedField::Value(value) => format!("{name}: {value}"),
    };
    let Some(fields) = found else { return Some((shown, "no request to the upstream".to_owned())) };
    let lines: Vec<_> = fields.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let value =
        fields.contains_key(name).then(|| String::from_utf8_lossy(&lines.join(&b", "[..])).into_owned());
    let is_met = match (expected, &value) {
        (ExpectedField::Present, value) => value.is_some(),
        (ExpectedField::Absent, value) => value.is_none(),
        (ExpectedField::Value(expected), value) => value.as_ref() == Some(expected),
    };
    let got = value.map_or_else(|| format!("no field {name}"), |value| format!("{name}: {value}"));
    (!is_met).then_some((shown, got))
}

/// Returns the cache key of a request for people.
fn key_text(rehearsal: &Rehearsal) -> String {
    match rehearsal.facts.read().and_then(|read| read.stored.as_ref()) {
        Some(stored) => format!("{}{}", stored.host, stored.target),
        None => "no key".to_owned(),
    }
}

/// Returns the reasons why a request takes another route than the expected one. Of the routes that do not match, only
/// that one matters.
fn route_reasons(expected: &str, this: &Rehearsed) -> Vec<String> {
    let mut rehearsal = this.rehearsal.clone();
    if let Some(route) = &mut rehearsal.facts.route {
        route.skipped.retain(|skipped| is_same(&skipped.pattern, expected));
    }
    let is_known =
        expected == NONE || explain::patterns(&this.snapshot).any(|known| is_same(&known, expected));
    let unknown = (!is_known).then(|| format!("route: no route has match = {expected:?}"));
    unknown.into_iter().chain(reasons(Key::Route, &rehearsal)).collect()
}

/// Returns the reasons for the actual value of a key.
fn reasons(key: Key, rehearsal: &Rehearsal) -> Vec<String> {
    let parts: &[&str] = match key {
        Key::Route => &["path", "route"],
        Key::Upstream | Key::UpstreamPath | Key::UpstreamHeaders => {
            &["refused", "answered", "dropped", "rewritten", "app"]
        }
        Key::Status | Key::Headers => &["refused", "answered", "limits"],
        Key::Cache | Key::Scope => &["refused", "answered", "token", "cache"],
        Key::Lifetime => &["cache", "lifetime"],
        Key::Tags => &["cache", "tags"],
        Key::Drops => &["invalidates"],
        Key::Tier | Key::Limits => &["refused", "limits"],
        Key::Coding => &["coding"],
        Key::Principal => &["token", "principal"],
        Key::SameKeyAs | Key::OtherKeyThan => &["cache", "key"],
    };
    let explanation = Explanation::new(&rehearsal.facts);
    let explained = parts.iter().flat_map(|part| {
        explanation.part(part).map(move |line| format!("{part}: {line}")).collect::<Vec<_>>()
    });
    let about_response = [Key::Cache, Key::Lifetime, Key::Tags, Key::SameKeyAs].contains(&key);
    let not_stored = not_stored::sentence(rehearsal.cache).filter(|_| about_response);
    let not_stored = not_stored.map(|sentence| format!("{}: {sentence}", rehearsal.cache));
    let error = rehearsal.error.as_ref().filter(|_| key != Key::Route);
    let error = error.map(|error| format!("{}: {error}", rehearsal.status.as_u16()));
    not_stored.into_iter().chain(error).chain(explained).collect()
}
