//! Tests of the repository itself: the form of the changelog, the steps of CI, and the compiler that dependencies
//! require.

use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Keep a Changelog 1.1.0: versions with dates, and changes grouped by kind.
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

/// A check that passes locally passes in CI: the workflow has no checks of its own.
#[test]
fn ci_runs_the_scripts_of_the_house_and_nothing_else() {
    let workflow = read(".github/workflows/ci.yml");
    let ours = ["tests/run check", ".ci/run"];
    let mut seen: Vec<&str> = Vec::new();
    for line in workflow.lines() {
        let Some(command) = line.trim().strip_prefix("- run: ") else { continue };
        let found = ours.iter().copied().find(|script| command.ends_with(*script));
        assert!(found.is_some() || command.starts_with("rustup "), "{command}");
        seen.extend(found);
    }
    assert_eq!(seen.len(), ours.len(), "{seen:?}");
    assert!(read(".ci/run").contains("tests/run"));
}

/// `rust-version` is a promise. Clippy checks this code (`incompatible_msrv`), and this test checks the packages in the
/// lock file.
#[test]
fn locked_packages_build_with_the_compiler_that_is_promised() {
    // Packages for other systems are not downloaded here.
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let told = String::from_utf8(rustc.stdout).unwrap();
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", host])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |package: &serde_json::Value| -> Option<Vec<u32>> {
        let mut parts: Vec<u32> =
            package["rust_version"].as_str()?.split('.').map(|part| part.parse().unwrap()).collect();
        parts.resize(3, 0);
        Some(parts)
    };
    let promised = packages.iter().find(|package| package["name"] == "pillion").and_then(version).unwrap();
    let newer: Vec<String> = packages
        .iter()
        .filter(|package| version(package).is_some_and(|asked| asked > promised))
        .map(|package| {
            format!("{} {} asks for {}", package["name"], package["version"], package["rust_version"])
        })
        .collect();
    assert!(newer.is_empty(), "newer than {promised:?}: {newer:#?}");
    let clippy = read("Cargo.toml");
    assert!(clippy.contains("\nincompatible_msrv = \"deny\"\n"), "clippy does not hold the code to it");
}

/// `benches/compare --keep` writes the results, and `benches/table --write` writes the table from them.
#[test]
fn performance_page_has_the_table_of_the_kept_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3").arg(root.join("benches/table")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
