//! Holds the map of `src/lib.rs`: who may import whom, and the three absences. Reads the sources.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// From the top down; rooms on one row do not import each other.
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
    &["policy"],
    &["cache", "identity", "limit", "performance", "represent"],
    &["metrics"],
    &["http1", "http2"],
    &["connection"],
    &["message"],
    &["fields"],
    &["memory", "rendering", "runtime"],
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn all() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths
        .into_iter()
        .filter_map(|path| {
            let inside = path.strip_prefix(&root).unwrap().to_path_buf();
            let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            (room != "lib").then_some((room, inside, text))
        })
        .collect()
}

fn row(room: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&room))
        .unwrap_or_else(|| panic!("{room} is on no row of the map"))
}

/// Every `crate::room` a file mentions outside comments.
fn mentioned(text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    code.flat_map(|line| {
        line.split("crate::")
            .skip(1)
            .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
            .filter(|room| !room.is_empty())
    })
    .collect()
}

#[test]
fn rooms_import_only_downwards() {
    // What stands in braces is not seen here; internals may import anything.
    let grouped: Vec<PathBuf> = all()
        .into_iter()
        .filter(|(room, _, text)| room != "internals" && text.contains("crate::{"))
        .map(|(_, path, _)| path)
        .collect();
    assert!(grouped.is_empty(), "write crate::room for each: {grouped:?}");
    let mut wrong = Vec::new();
    for (room, path, text) in all() {
        for other in mentioned(&text) {
            if other == room || other.starts_with(char::is_uppercase) {
                continue;
            }
            if row(&other) <= row(&room) {
                wrong.push(format!("{} imports {other}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_map_in_lib_rs_is_this_one() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for room in ROWS.iter().flat_map(|row| row.iter()).filter(|room| **room != "main") {
        assert!(lib.contains(&format!("`{room}`")), "lib.rs does not mention {room}");
    }
}

#[test]
fn the_three_absences() {
    for (room, path, text) in all() {
        let shown = path.display();
        let code: String =
            text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
        if !["config"].contains(&room.as_str()) {
            assert!(!code.contains("toml::"), "{shown} knows TOML");
            assert!(
                !code.contains("config::file") && !code.contains("config::value"),
                "{shown} sees the raw file"
            );
        }
        if ["policy", "represent", "metrics", "fields", "connection", "message", "runtime", "log"]
            .contains(&room.as_str())
        {
            assert!(!code.contains("tower::"), "{shown} knows tower");
        }
        // app fills it once; from then on it is the reloader's.
        if room != "reload" {
            assert!(!code.contains("live.store(") && !code.contains(".swap(Arc"), "{shown} swaps the policy");
        }
    }
}

#[test]
fn files_open_with_what_they_are_for_and_stay_readable() {
    for (_, path, text) in all() {
        let shown = path.display();
        assert!(text.starts_with("//!"), "{shown} does not say what it is for");
        let lines = text.lines().count();
        assert!(lines <= 600, "{shown} has {lines} lines; several rooms?");
        for mark in ["TODO", "FIXME", "XXX"] {
            assert!(!text.contains(mark), "{shown} leaves a {mark}");
        }
    }
}
