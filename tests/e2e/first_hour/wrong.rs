//! Wrong configurations, as newcomers write them: `tests/e2e/config/wrong/rows.txt` has each with the place, the message and
//! the remedy that `pillion check` says.
//!
//! A row begins with `=== ` and its name. Its file stands before `---`; a file without an upstream gets one at its end.
//! Then come two lines for each remark: severity, `line:column` (`-` for none) and message; and, indented, the remedy.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::pillion;
use crate::harness::{Folder, printed};

/// The fewest rows: that many wrong configurations were written by people who tried Pillion.
const MIN_ROWS: usize = 104;

/// The remarks on a file, in the form of the rows.
fn remarks(folder: &Folder, text: &str) -> String {
    let upstream = "\n[upstream]\nurl = \"http://127.0.0.1:3000\"\n";
    let has_upstream = text.contains("upstream]") || text.starts_with("upstream");
    folder.write("pillion.toml", format!("{text}{}", if has_upstream { "" } else { upstream }));
    let output = pillion(folder, &["check", "--format", "json", "pillion.toml"], &[], "");
    let document: serde_json::Value = serde_json::from_str(&printed(&output.stdout)).unwrap();
    let mut said = String::new();
    // A hint depends on where the test runs.
    let remarks = document["diagnostics"].as_array().unwrap().iter();
    for remark in remarks.filter(|remark| remark["severity"] != "hint") {
        let place = match (&remark["line"], &remark["column"]) {
            (serde_json::Value::Null, _) => "-".to_owned(),
            (line, column) => format!("{line}:{column}"),
        };
        let (severity, message) = (remark["severity"].as_str().unwrap(), remark["message"].as_str().unwrap());
        let help = remark["help"].as_str().unwrap_or("");
        write!(said, "{severity} {place} {message}\n  {help}\n").unwrap();
    }
    said
}

#[test]
fn wrong_file_is_told_with_its_place_and_its_remedy() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/config/wrong/rows.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let updates = std::env::var_os("UPDATE").is_some();
    let folder = Folder::new();
    let (mut names, mut differ, mut anew) = (BTreeSet::new(), String::new(), String::new());
    for row in text.split("=== ").skip(1) {
        let (name, rest) = row.split_once('\n').unwrap();
        let (file, expected) = rest.split_once("---\n").unwrap();
        assert!(names.insert(name), "{name} is there twice");
        let said = remarks(&folder, file);
        write!(anew, "=== {name}\n{file}---\n{said}").unwrap();
        // Some warnings have their remedy in the message.
        let lines: Vec<&str> = said.lines().collect();
        let is_helpful = |pair: &[&str]| pair[0].starts_with("warning") || pair[1].trim().len() > 3;
        assert!(!said.is_empty() && lines.chunks(2).all(is_helpful), "{name} has no remedy: {said}");
        if said != expected && !updates {
            write!(differ, "{name}: expected\n{expected}but check says\n{said}\n").unwrap();
        }
    }
    if updates {
        std::fs::write(&path, &anew).unwrap();
    }
    assert!(names.len() >= MIN_ROWS, "{} rows", names.len());
    assert!(differ.is_empty(), "{differ}");
}
