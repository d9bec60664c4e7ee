//! The README: every command in it is run and every configuration loaded, as they stand but for addresses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use harness::*;

const README: &str = include_str!("../README.md");

/// Commands that are tried elsewhere.
const ELSEWHERE: [&str; 3] = [
    // tests/demo.rs
    "cargo run --release -- demo",
    // Whoever runs this.
    "tests/run",
    // The same as the release build.
    "cargo install --path .",
];

/// The code blocks of a language, one after the other.
fn blocks(language: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in README.lines() {
        match line.strip_prefix("```") {
            Some(tag) => inside = !inside && tag == language,
            None if inside => text.extend([line, "\n"]),
            None => {}
        }
    }
    text
}

/// The commands, without what is said of them.
fn commands() -> Vec<String> {
    let text = blocks("sh");
    let command = |line: &str| line.split(" # ").next().unwrap().trim().to_owned();
    text.lines().map(command).filter(|line| !ELSEWHERE.contains(&line.as_str())).collect()
}

fn shell(folder: &Path, line: &str) -> Output {
    let binaries = Path::new(binary()).parent().unwrap().display().to_string();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());
    Command::new("sh").args(["-c", line]).current_dir(folder).env("PATH", path).output().unwrap()
}

/// `pillion run ...`, on free ports.
fn started(folder: &Arc<Folder>, line: &str, more: &[&str]) -> Pillion {
    let mut command = Command::new(binary());
    command.args(line.split(' ').skip(1)).args(more).current_dir(&folder.0);
    Pillion::start(folder.clone(), command)
}

#[test]
fn every_command_does_what_it_says() {
    let app = || {
        let said = |target: &str| ok(&format!("{{\"said\":\"{target}\"}}"));
        Script::answering(move |request| said(request.line.split(' ').nth(1).unwrap_or_default()))
    };
    let (app, replica) = (app(), app());
    let in_reach = |text: &str| {
        text.replace("127.0.0.1:3000", &app.address.to_string())
            .replace("127.0.0.1:3001", &replica.address.to_string())
            .replace("collector:4318", &absent_app().to_string())
    };
    let folder = Arc::new(Folder::new());
    let (runs, others): (Vec<_>, Vec<_>) =
        commands().into_iter().partition(|line| line.starts_with("pillion run "));
    let [with_a_flag, with_a_file] = &runs[..] else { panic!("{runs:#?}") };

    let pillion =
        started(&folder, &in_reach(with_a_flag), &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(pillion.get("/").text(), "{\"said\":\"/\"}");
    drop(pillion);

    // All that is shown of configurations is one.
    let (http, admin) = (free_address(), free_address());
    let server = format!("[server]\nlisten = [\"{http}\"]\nadmin = \"{admin}\"\n[log]\naccess = \"all\"\n");
    folder.write("pillion.toml", server + &in_reach(&blocks("toml")));
    // Keys are there before who asks for them.
    let (keys, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|line| line.starts_with("pillion keys add "));
    let [add] = &keys[..] else { panic!("{keys:#?}") };
    let added = shell(&folder.0, add);
    assert!(added.status.success() && added.stdout.starts_with(b"pk_"), "{added:?}");
    let key = printed(&added.stdout).trim().to_owned();

    let pillion = started(&folder, with_a_file, &[]);
    for line in &others {
        // What it speaks of is there.
        let fields =
            format!("host: here\r\nauthorization: Bearer somebody\r\nx-api-key: {key}\r\nconnection: close");
        let asked = exchange(pillion.http, &format!("GET /api/patients/7 HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(asked.status, 200);
        let line = line.replace("localhost:9900", &admin.to_string()).replace("curl ", "curl -sSf ");
        let wanted = match &line {
            line if line.contains("check") => "pillion.toml",
            line if line.contains("purge") => "\"names\":1",
            line if line.contains("explain") => "route",
            line if line.contains("/cache/lookup") => "\"tags\":",
            line if line.contains("/cache/stats") => "bytes",
            line if line.contains("/limits/top") => "allowed",
            line if line.contains("/limits/status") => "acme",
            line if line.contains("/performance/routes") => "/api/patients/{id}",
            line if line.contains("/performance/slow") => "[",
            line if line.contains("/performance/errors") => "[",
            line if line.contains("/performance/system") => "memory",
            other => panic!("nobody says here what {other} does"),
        };
        // Some of it is counted every other second.
        eventually(&format!("{line}: {wanted}"), || {
            let output = shell(&folder.0, &line);
            assert!(output.status.success(), "{line}: {output:?}");
            printed(&output.stdout).contains(wanted).then_some(())
        });
    }
}
