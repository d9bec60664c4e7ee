//! The commands, their options and their exit codes.

use std::process::{Command, Output};

use super::Facts;
use crate::harness::{Folder, Pillion, Script, absent_app, binary};

/// An entry in the output of `--help`, with its continuation lines.
pub(crate) struct Entry {
    /// The heading above the entry: `Commands`, `Arguments` or `Options`.
    pub group: String,
    /// The term, for example `-c, --config <FILE>`.
    pub term: String,
    pub about: String,
}

/// A command and its help text.
pub(crate) struct Help {
    /// The full name, for example `pillion keys add`.
    pub name: String,
    /// The paragraphs that are not entries.
    pub about: Vec<String>,
    pub entries: Vec<Entry>,
}

/// Returns the help of every command.
pub(crate) fn helps() -> Vec<Help> {
    let mut helps = Vec::new();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let help = help(&path);
        let commands = help.entries.iter().filter(|entry| entry.group == "Commands");
        waiting.extend(commands.filter(|entry| entry.term != "help").map(|entry| {
            let mut below = path.clone();
            below.push(entry.term.clone());
            below
        }));
        helps.push(help);
    }
    helps
}

fn help(path: &[String]) -> Help {
    let output = Command::new(binary()).args(path).arg("--help").output().unwrap();
    assert!(output.status.success(), "{path:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let name = [&["pillion".to_owned()], path].concat().join(" ");
    let (mut about, mut entries, mut group) = (Vec::new(), Vec::<Entry>::new(), String::new());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (line.strip_suffix(':'), indent) {
            (Some(heading), 0) => heading.clone_into(&mut group),
            (None, 0) if line.starts_with("Usage:") || line.is_empty() => {}
            (None, 0) => about.push(line.to_owned()),
            // If an entry has no room on its line, its text is below, indented more than any entry.
            (_, 10..) if !entries.is_empty() => {
                let about = &mut entries.last_mut().unwrap().about;
                let space = if about.is_empty() { "" } else { " " };
                *about += &format!("{space}{}", line.trim());
            }
            _ => {
                let (term, about) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
                entries.push(Entry {
                    group: group.clone(),
                    term: term.to_owned(),
                    about: about.trim().to_owned(),
                });
            }
        }
    }
    Help { name, about, entries }
}

pub(crate) fn gather(facts: &mut Facts) {
    for help in helps() {
        facts.add("commands", &help.name);
        for entry in help.entries.iter().filter(|entry| entry.group != "Commands") {
            facts.add("commands", format!("{} {}", help.name, entry.term));
            if let Some((_, rest)) = entry.about.split_once("[env: ") {
                let variable = rest.split([']', '=']).next().unwrap();
                facts.add("environment", format!("{} {variable}", help.name));
            }
        }
    }
    exit_codes(facts);
}

/// Runs a command to its end, in a folder of its own.
fn ended(folder: &Folder, args: &[&str]) -> Output {
    Command::new(binary()).args(args).current_dir(&folder.0).output().unwrap()
}

fn exit_codes(facts: &mut Facts) {
    let app = Script::echo();
    let running = Pillion::in_front_of(app.address);
    let (admin, absent, taken) =
        (running.admin.to_string(), absent_app().to_string(), running.http.to_string());
    running.wait_until_ready();
    let folder = Folder::new();
    folder.write("good.toml", "[upstream]\nurl = \"http://127.0.0.1:1\"\n");
    folder.write("wrong.toml", "[upstream]\nurl = true\n");
    folder.write("keys.toml", "[[keys]]\nnothing = 1\n");
    let case = "config = \"good.toml\"\n[[case]]\nname = \"a\"\nrequest = \"GET /\"\n[case.expect]\n";
    folder.write("passes.toml", format!("{case}status = 200\n"));
    folder.write("fails.toml", format!("{case}status = 404\n"));
    folder.write("typo.toml", format!("{case}statsu = 200\n"));
    let cases: &[(&str, &[&str])] = &[
        ("check, of a good file", &["check", "good.toml"]),
        ("check, of a wrong file", &["check", "wrong.toml"]),
        ("check, of no file", &["check", "none.toml"]),
        ("test, of a case that passes", &["test", "passes.toml"]),
        ("test, of a case that fails", &["test", "fails.toml"]),
        ("test, of a wrong file of cases", &["test", "typo.toml"]),
        ("test, of a wrong file", &["test", "passes.toml", "--config", "wrong.toml"]),
        ("run, with a wrong file", &["run", "--config", "wrong.toml"]),
        ("run, with no file", &["run", "--config", "none.toml"]),
        (
            "run, on an address that is taken",
            &["run", "--config", "good.toml", "--listen", &taken, "--admin", ""],
        ),
        ("reload, of a running one", &["reload", "--admin", &admin]),
        ("reload, of none", &["reload", "--admin", &absent]),
        ("health, of a healthy one", &["health", "--admin", &admin]),
        ("health, of none", &["health", "--admin", &absent]),
        ("health, of a check there is not", &["health", "none", "--admin", &admin]),
        ("purge, of a running one", &["purge", "--everything", "--admin", &admin]),
        ("purge, of nothing", &["purge", "--admin", &admin]),
        ("explain, with a good file", &["explain", "GET", "/", "--config", "good.toml"]),
        ("explain, with a wrong file", &["explain", "GET", "/", "--config", "wrong.toml"]),
        ("keys list, of a wrong file", &["keys", "list", "--file", "keys.toml"]),
        ("keys add, to a new file", &["keys", "add", "--tier", "a", "--file", "new.toml"]),
        ("keys remove, of a key there is not", &["keys", "remove", "nobody", "--file", "new.toml"]),
        ("completions", &["completions", "bash"]),
        ("man", &["man"]),
        ("schema", &["schema"]),
        ("schema, in a form there is not", &["schema", "--format", "none"]),
        ("a command there is not", &["nothing"]),
        ("no command", &[]),
        ("a flag there is not", &["run", "--nothing"]),
        ("--version", &["--version"]),
        ("--help", &["--help"]),
    ];
    for (case, args) in cases {
        let code = ended(&folder, args).status.code().unwrap();
        facts.add("exit codes", format!("{code} {case}"));
    }
    let drained = ended(&folder, &["drain", "--admin", &admin]).status.code().unwrap();
    facts.add("exit codes", format!("{drained} drain, of a running one"));
    let unready = ended(&folder, &["health", "--ready", "--admin", &admin]).status.code().unwrap();
    facts.add("exit codes", format!("{unready} health --ready, of one that drains"));
    let stopped = running.stop().code().unwrap();
    facts.add("exit codes", format!("{stopped} run, after SIGTERM"));
}
