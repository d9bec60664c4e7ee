//! Checks the map in `src/lib.rs` against the sources: which room may import which, and the three absences.

mod circles;
mod source;
mod vocabulary;

use std::path::PathBuf;

use source::all;

/// The rooms from top to bottom. Rooms in one row do not import each other.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["internals"],
    &["cli"],
    &["app"],
    &["reload"],
    &["server", "admin", "config"],
    &["layer"],
    &["state"],
    &["trace"],
    &["upstream"],
    &["log"],
    &["fleet"],
    &["policy"],
    &["cache", "identity", "limit", "performance", "represent"],
    &["metrics"],
    &["http1", "http2", "redis"],
    &["connection"],
    &["message"],
    &["fields"],
    &["memory", "rendering", "runtime", "yaml"],
];

fn row(room: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&room))
        .unwrap_or_else(|| panic!("{room} is on no row of the map"))
}

/// Every `crate::room` that code mentions.
fn mentioned(code: &str) -> Vec<String> {
    code.lines()
        .flat_map(|line| {
            line.split("crate::")
                .skip(1)
                .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
                .filter(|room| !room.is_empty())
        })
        .collect()
}

#[test]
fn rooms_import_only_downwards() {
    // Imports grouped in braces are not recognized here. `internals` may import anything.
    let grouped: Vec<PathBuf> = all()
        .into_iter()
        .filter(|source| source.room() != "internals" && source.code.contains("crate::{"))
        .map(|source| source.path)
        .collect();
    assert!(grouped.is_empty(), "write crate::room for each: {grouped:?}");
    let mut wrong = Vec::new();
    // Tests of a room may start from a configuration file, like the program.
    for source in circles::without_test_files(&all()).iter().filter(|source| source.room() != "lib") {
        for other in mentioned(&circles::without_tests(&source.code)) {
            if other == source.room() || other.starts_with(char::is_uppercase) {
                continue;
            }
            if row(&other) <= row(source.room()) {
                wrong.push(format!("{} imports {other}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_map_in_lib_rs_is_this_one() {
    let lib = std::fs::read_to_string(source::root().join("lib.rs")).unwrap();
    for room in ROWS.iter().flat_map(|row| row.iter()).filter(|room| **room != "main") {
        assert!(lib.contains(&format!("`{room}`")), "lib.rs does not mention {room}");
    }
}

#[test]
fn the_three_absences() {
    for source in all() {
        let (room, shown, code) = (source.room(), source.path.display(), &source.code);
        if !["config"].contains(&room) {
            assert!(!code.contains("toml::"), "{shown} knows TOML");
            assert!(
                !code.contains("config::file") && !code.contains("config::value"),
                "{shown} sees the raw file"
            );
        }
        if ["policy", "represent", "metrics", "fields", "connection", "message", "runtime", "log"]
            .contains(&room)
        {
            assert!(!code.contains("tower::"), "{shown} knows tower");
        }
        // `app` sets the policy once; afterwards only the reloader may.
        if room != "reload" {
            assert!(!code.contains("live.store(") && !code.contains(".swap(Arc"), "{shown} swaps the policy");
        }
    }
}

/// `Instant::elapsed` reads the clock too; the lint knows only `now`.
#[test]
fn time_is_read_in_the_clock_alone() {
    let sources = all();
    let reads = |source: &&&source::Source| circles::without_tests(&source.code).contains(".elapsed()");
    let files = circles::without_test_files(&sources);
    let found: Vec<_> = files.iter().filter(reads).map(|source| source.path.display().to_string()).collect();
    assert!(found.is_empty(), "call clock::now and saturating_duration_since: {found:?}");
}

#[test]
fn files_open_with_what_they_are_for_and_stay_readable() {
    for source in all() {
        let (shown, text) = (source.path.display(), &source.text);
        assert!(text.starts_with("//!"), "{shown} does not say what it is for");
        let lines = text.lines().count();
        assert!(lines <= 500, "{shown} has {lines} lines; several rooms?");
        for mark in ["TODO", "FIXME", "XXX"] {
            assert!(!text.contains(mark), "{shown} leaves a {mark}");
        }
    }
}

#[test]
fn tests_open_with_what_they_are_for_and_stay_readable() {
    let tests = source::root().with_file_name("tests");
    let mut paths = Vec::new();
    source::find(&tests, &mut paths);
    for path in paths {
        let (shown, text) = (path.strip_prefix(&tests).unwrap(), std::fs::read_to_string(&path).unwrap());
        assert!(text.starts_with("//!"), "tests/{} does not say what it is for", shown.display());
        let lines = text.lines().count();
        assert!(lines <= 500, "tests/{} has {lines} lines; several subjects?", shown.display());
    }
}
