//! The house itself: the changelog's form.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Keep a Changelog 1.1.0: versions with their dates, and under each what kind of change it is.
#[test]
fn changelog_versions_and_kinds_have_their_form() {
    const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    let text = read("CHANGELOG.md");
    assert!(text.starts_with("# Changelog\n"), "the title");
    let (mut versions, mut kinds) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if let Some(version) = line.strip_prefix("## ") {
            let dated = version.strip_prefix('[').and_then(|rest| rest.split_once("] - ")).is_some_and(
                |(number, date)| {
                    number.split('.').count() == 3
                        && number.split('.').all(|part| part.parse::<u32>().is_ok())
                        && date.len() == 10
                        && date.split('-').all(|part| part.parse::<u32>().is_ok())
                },
            );
            assert!(version == "[Unreleased]" || dated, "{line}: [Unreleased], or [1.2.3] - 2026-01-31");
            assert!(!versions.contains(&version), "{line} twice");
            versions.push(version);
            kinds.clear();
        } else if let Some(kind) = line.strip_prefix("### ") {
            assert!(KINDS.contains(&kind), "{line}: one of {KINDS:?}");
            assert!(!kinds.contains(&kind), "{line} twice in {versions:?}");
            kinds.push(kind);
        } else if line.starts_with("- ") {
            assert!(!versions.is_empty() && !kinds.is_empty(), "an entry under no kind of change: {line}");
        }
    }
    assert_eq!(versions.first(), Some(&"[Unreleased]"), "what comes next stands first");
}
