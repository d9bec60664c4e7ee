//! Tests of the reference configuration: it loads, and lists every key.

use std::path::Path;
use std::process::Command;

use crate::harness::{self, Folder, printed};

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/pillion.toml");

fn check(file: &Path) -> (bool, String) {
    let output = Command::new(harness::binary()).arg("check").arg(file).output().unwrap();
    let text = format!("{}{}", printed(&output.stdout), printed(&output.stderr));
    (output.status.success(), text)
}

#[test]
fn the_reference_loads() {
    let (fine, said) = check(Path::new(REFERENCE));
    assert!(fine, "{said}");
}

#[test]
fn every_example_loads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        // The check includes files that an example names, but no certificates are stored beside the examples (see
        // `tests/e2e/examples.rs`); test cases are no configuration.
        let name = path.to_string_lossy();
        if name.ends_with("-keys.toml") || name.ends_with(".test.toml") || path.ends_with("edge.toml") {
            continue;
        }
        let (fine, said) = check(&path);
        assert!(fine && !said.contains("warning"), "{said}");
        count += 1;
    }
    assert!(count >= 1);
}

/// The error for an unknown key names the known keys. Collected for every table, that is the list of all keys.
#[test]
fn the_reference_lists_every_key() {
    let reference = std::fs::read_to_string(REFERENCE).unwrap();
    let folder = Folder::new();
    let base = "[upstream]\nurl = \"http://127.0.0.1:1\"\n";
    for table in [
        "[server]",
        "[server.tls]",
        "[upstream]",
        "[upstream.tls]",
        "[upstream.health]",
        "[[routes]]",
        "[health]",
        "[log]",
        "[metrics]",
        "[identity]",
        "[identity.jwt]",
        "[compression]",
        "[etag]",
        "[cache]",
        "[[invalidate]]",
        "[rate_limit]",
        "[rate_limit.tiers.a]",
        "[redis]",
        "[tracing]",
    ] {
        let text = if table.starts_with("[upstream") {
            format!(
                "[upstream]\nurl = \"http://127.0.0.1:1\"\n{}zzzzzzzzzzzz = 1\n",
                if table == "[upstream]" { String::new() } else { format!("{table}\n") }
            )
        } else {
            format!("{base}{table}\nzzzzzzzzzzzz = 1\n")
        };
        let (fine, said) = check(&folder.write("pillion.toml", text));
        assert!(!fine);
        let line = said
            .lines()
            .find(|line| line.contains("known here: "))
            .unwrap_or_else(|| panic!("{table}: {said}"));
        for key in line.split("known here: ").nth(1).unwrap().split(", ") {
            // A key counts as listed at the start of a line, in a list within a comment, or as a table.
            let written = reference.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == key);
            assert!(written, "{table} {key} is not in the reference");
        }
    }
}
