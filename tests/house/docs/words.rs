//! The words that users meet, and where the guides explain each: an anchor made of a prefix and the word.

use std::collections::{BTreeMap, BTreeSet};

use super::{guides, root};

/// The kinds of words in `tests/contract.txt`, and the prefix of their anchors. Kinds that mean the same share one.
const PREFIXES: [(&str, &str); 14] = [
    ("Cache-Status detail", "reason-"),
    ("log not_stored", "reason-"),
    ("Cache-Status fwd", "fwd-"),
    ("X-Cache", "x-cache-"),
    ("log cache", "cache-"),
    ("log caller (before the colon)", "caller-"),
    ("log coding", "coding-"),
    ("metrics content result (beside codings)", "coding-"),
    ("log fault", "fault-"),
    ("log limit", "limit-"),
    ("metrics rule (beside the rules that are configured)", "rule-"),
    ("metrics upstream failure kind", "failure-"),
    ("health state", "health-"),
    ("performance state", "performance-"),
];

/// Problem types by what is behind the last colon or `#`, health checks, and alerts.
const PROBLEM: &str = "problem-";
const CHECK: &str = "check-";
const ALERT: &str = "alert-";
/// Held by [`super::configurations`].
pub(crate) const WARNING: &str = "warning-";

/// The anchors there have to be, each with its word.
fn wanted() -> BTreeMap<String, String> {
    let contract = std::fs::read_to_string(root("tests/contract.txt")).unwrap();
    let (mut section, mut wanted) = ("", BTreeMap::new());
    for line in contract.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') && line.ends_with(']') {
            section = line;
            continue;
        }
        let (prefix, word) = match section {
            "[words]" => {
                let (kind, word) = line.rsplit_once(": ").unwrap();
                let known = PREFIXES.iter().find(|(known, _)| *known == kind);
                (known.unwrap_or_else(|| panic!("no guide explains words of {kind:?}")).1, word)
            }
            "[problem types]" => (PROBLEM, line.rsplit(['#', ':']).next().unwrap()),
            "[alerts]" => (ALERT, line.split(' ').next().unwrap()),
            "[health]" if line.starts_with("check ") => (CHECK, &line[6..]),
            _ => continue,
        };
        wanted.insert(format!("{prefix}{word}"), word.to_owned());
    }
    wanted
}

#[test]
fn every_word_has_an_anchor_and_every_anchor_a_word() {
    let wanted = wanted();
    assert!(wanted.len() > 120, "{wanted:?}");
    let (mut found, mut wrong) = (BTreeSet::new(), Vec::new());
    for document in guides() {
        for (line, id, rest) in document.written_anchors() {
            let place = format!("{}:{line}: {id}", document.name);
            if id.starts_with(WARNING) {
                continue;
            }
            match wanted.get(&id) {
                Some(word) if !rest.starts_with(&format!("`{word}`")) => {
                    wrong.push(format!("{place} does not stand before `{word}`"));
                }
                Some(_) => {}
                None => wrong.push(format!("{place} names no word of tests/contract.txt")),
            }
            if !found.insert(id) {
                wrong.push(format!("{place} is there twice"));
            }
        }
    }
    wrong.extend(wanted.keys().filter(|id| !found.contains(*id)).map(|id| format!("no guide has {id}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rows of a guide's tables: the code in their first cells, each with its second cell.
fn rows(guide: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root(guide)).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| {
        let (first, rest) = row.split_once("` | ")?;
        Some((first.to_owned(), rest.split(" | ").next()?.to_owned()))
    });
    rows.collect()
}

/// The lines of a section of the contract.
fn section(name: &str) -> Vec<String> {
    let contract = std::fs::read_to_string(root("tests/contract.txt")).unwrap();
    let text = contract.split(&format!("\n[{name}]\n")).nth(1).unwrap();
    text.lines().take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn the_guide_of_metrics_lists_each_with_its_type() {
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    for line in section("metrics").iter().filter(|line| !line.contains(" label ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        wanted.insert((name.to_owned(), kind.to_owned()));
    }
    let is_metric =
        |(name, _): &(String, String)| name.starts_with("pillion_") || name.starts_with("process_");
    let found: BTreeSet<(String, String)> = rows("docs/metrics.md").into_iter().filter(is_metric).collect();
    assert_eq!(wanted.symmetric_difference(&found).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
}

#[test]
fn the_guide_of_metrics_names_every_label() {
    let text = std::fs::read_to_string(root("docs/metrics.md")).unwrap();
    for line in section("metrics").iter().filter(|line| line.contains(" label ")) {
        let (name, labels) = line.split_once(" label ").unwrap();
        let row = text.lines().find(|row| row.starts_with(&format!("| `{name}` |"))).unwrap();
        for label in labels.split(' ') {
            let label = label.split('=').next().unwrap();
            assert!(row.contains(&format!("`{label}`")), "{label} of {name}: {row}");
        }
    }
}

#[test]
fn guides_name_every_member_of_the_access_log_and_every_command() {
    let observability = std::fs::read_to_string(root("docs/observability.md")).unwrap();
    for line in section("log members") {
        let Some(member) = line.strip_prefix("access .") else { continue };
        let member = member.split([':', ' ']).next().unwrap();
        assert!(
            observability.contains(&format!("`{member}`")),
            "docs/observability.md does not name {member}"
        );
    }
    let operations = std::fs::read_to_string(root("docs/operations.md")).unwrap();
    for line in section("commands") {
        let command = line.split(' ').take_while(|word| !word.starts_with(['-', '<', '['])).nth(1);
        let Some(command) = command else { continue };
        assert!(
            operations.contains(&format!("`pillion {command}")),
            "docs/operations.md does not name {command}"
        );
    }
}

#[test]
fn the_guide_of_configuration_lists_every_key_with_its_default() {
    let text = std::fs::read_to_string(root("docs/configuration.md")).unwrap();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for part in text.split("\n## ").filter(|part| part.starts_with('[')) {
        let (heading, rest) = part.split_once('\n').unwrap();
        let table = heading.trim_matches(['[', ']']);
        for row in rest.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (key, rest) = row.split_once("` |").unwrap();
            let default = rest.split('|').next().unwrap().trim().trim_matches('`');
            found.insert(format!("{table}.{key}"), default.to_owned());
        }
    }
    let mut wrong = Vec::new();
    for line in section("configuration") {
        let fact = line.split("  # ").next().unwrap();
        let (key, default) = fact.split_once(" = ").unwrap_or((fact, ""));
        let default = default.trim_end_matches(" (or \"unlimited\")").replace("{  }", "{}");
        // Tables themselves; what has the keys of [upstream].
        if !key.contains('.') || key.starts_with("upstreams.") {
            continue;
        }
        match found.remove(key) {
            Some(shown) if shown == default || shown.starts_with("a list") => {}
            shown => wrong.push(format!("{key} = {default}, and the guide has {shown:?}")),
        }
    }
    wrong.extend(found.keys().map(|key| format!("{key} is no key")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
