//! The frozen contract with users. `tests/contract.txt` lists what users rely on, one fact a line, from the running
//! binary and from the lists that the code itself uses. `tests/contract-texts.txt` lists the texts that users only
//! read. `UPDATE=1 cargo nextest run --test house contract::` writes both files again. `tests/README.md` has more.

mod commands;
mod configuration;
mod listeners;
mod requests;
mod sources;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Facts by section, sorted and without duplicates.
#[derive(Default)]
pub(crate) struct Facts(BTreeMap<&'static str, BTreeSet<String>>);

impl Facts {
    /// Adds a fact to a section, unless the section has it already.
    pub(crate) fn add(&mut self, section: &'static str, fact: impl Into<String>) {
        self.0.entry(section).or_default().insert(fact.into());
    }

    /// Formats the facts as in the file.
    fn text(&self, head: &str) -> String {
        let mut text = head.to_owned();
        for (section, facts) in &self.0 {
            text += &format!("\n[{section}]\n");
            facts.iter().for_each(|fact| text += &format!("{fact}\n"));
        }
        text
    }
}

const HEAD: &str = "\
# What users of Pillion rely on: one fact a line, in the order of the alphabet. Generated from the binary and the code by
# `UPDATE=1 cargo nextest run --test house contract::`; a line that changes or goes is a breaking change.
";

/// Returns the path of a file in the repository.
pub(crate) fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns whether the frozen files are to be written again.
pub(crate) fn updates() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Returns the lines of one text that another does not have, each with its section.
fn lacking<'t>(of: &'t str, other: &'t str) -> Vec<String> {
    let sectioned = |text: &'t str| {
        let mut section = "";
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .filter_map(move |line| match line.starts_with('[') && line.ends_with(']') {
                true => {
                    section = line;
                    None
                }
                false => Some(format!("{section} {line}")),
            })
            .collect::<BTreeSet<String>>()
    };
    sectioned(of).difference(&sectioned(other)).cloned().collect()
}

/// Compares a file with its expected content and reports readable differences, or writes the file on update.
pub(crate) fn hold(path: &str, now: &str) {
    if updates() {
        std::fs::write(root(path), now).unwrap();
        return;
    }
    let frozen = std::fs::read_to_string(root(path)).unwrap_or_default();
    if frozen == now {
        return;
    }
    let gone: String = lacking(&frozen, now).iter().map(|line| format!("- {line}\n")).collect();
    let new: String = lacking(now, &frozen).iter().map(|line| format!("+ {line}\n")).collect();
    panic!(
        "{path} is not what the binary says:\n{gone}{new}\
         If that is meant, write it anew: UPDATE=1 cargo nextest run --test house contract::"
    );
}

#[test]
fn the_contract_is_frozen() {
    let mut facts = Facts::default();
    commands::gather(&mut facts);
    configuration::gather(&mut facts);
    listeners::gather(&mut facts);
    requests::gather(&mut facts);
    sources::gather(&mut facts);
    hold("tests/contract.txt", &facts.text(HEAD));
}

#[test]
fn a_difference_is_told_by_section_and_line() {
    let frozen = "# head\n\n[a]\none\ntwo\n\n[b]\none\n";
    let now = "# another head\n\n[a]\none\n\n[b]\none\nthree\n";
    assert_eq!(lacking(frozen, now), ["[a] two"]);
    assert_eq!(lacking(now, frozen), ["[b] three"]);
}
