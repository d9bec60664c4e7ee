//! The documents: every command in them is run and every configuration loaded, every link leads somewhere, and every word
//! that users meet has an anchor.

mod commands;
mod configurations;
mod links;
mod markdown;
mod words;

use std::path::{Path, PathBuf};

use markdown::Document;

/// Returns the path of a file in the repository.
pub(crate) fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The README and the guides.
pub(crate) fn guides() -> Vec<Document> {
    let mut paths = vec![root("README.md")];
    walk(&root("docs"), &mut paths);
    paths.iter().map(|path| Document::read(path)).collect()
}

/// Every file of Markdown below a folder.
pub(crate) fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

#[test]
fn the_readme_is_short() {
    let readme = std::fs::read_to_string(root("README.md")).unwrap();
    let lines = readme.lines().count();
    let columns = readme.lines().map(|line| line.chars().count()).max().unwrap();
    let words = readme.split_whitespace().count();
    assert!(
        lines <= 150 && columns <= 120 && words <= 1500,
        "{lines} lines, {columns} columns, {words} words"
    );
}

#[test]
fn guides_are_of_a_length_to_be_read_and_speak_plainly() {
    for document in guides() {
        // Warnings are looked up one by one.
        let max = if document.name.ends_with("warnings.md") { 800 } else { 500 };
        assert!(document.text.lines().count() <= max, "{} is longer than {max} lines", document.name);
        for (number, line) in document.prose() {
            let place = format!("{}:{number}", document.name);
            // Marks around what is generated are not shown.
            let line = if line.starts_with("<!--") { "" } else { line.as_str() };
            assert!(!line.contains('\u{2014}') && !line.contains('\u{2013}'), "{place}: a dash");
            assert!(!line.contains('!') || line.contains("]("), "{place}: an exclamation mark: {line}");
        }
    }
}

/// mdBook shows what SUMMARY.md lists, and nothing else.
#[test]
fn the_summary_lists_every_guide() {
    let summary = std::fs::read_to_string(root("docs/SUMMARY.md")).unwrap();
    for document in guides() {
        let Some(name) = document.name.strip_prefix("docs/").filter(|name| *name != "SUMMARY.md") else {
            continue;
        };
        // Folders are listed by their first page.
        let listed = name.split('/').next().unwrap();
        assert!(summary.contains(&format!("({listed}")), "docs/SUMMARY.md does not list {name}");
    }
}
