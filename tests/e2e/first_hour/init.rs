//! `pillion init`: the first file.

use std::sync::Arc;

use super::pillion;
use crate::harness::{Folder, Pillion, Script, printed};

#[test]
fn init_takes_the_port_from_an_option_or_a_pipe() {
    for (args, input) in [
        (&["init", "--upstream", "4321"][..], ""),
        (&["init", "-u", "http://localhost:4321"], ""),
        (&["init"], "4321\n"),
        (&["init", "pillion.toml"], " :4321 \n"),
    ] {
        let folder = Folder::new();
        let output = pillion(&folder, args, &[], input);
        assert!(output.status.success(), "{args:?}: {output:?}");
        let file = std::fs::read_to_string(folder.path("pillion.toml")).unwrap();
        assert!(file.contains("\nurl = \"http://localhost:4321\"\n"), "{file}");
        let checked = pillion(&folder, &["check", "--strict"], &[], "");
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[test]
fn init_overwrites_nothing() {
    let folder = Folder::new();
    folder.write("pillion.toml", "mine");
    let output = pillion(&folder, &["init", "--upstream", "4321"], &[], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output.stderr).contains("pillion.toml exists and is left alone"), "{output:?}");
    assert_eq!(std::fs::read_to_string(folder.path("pillion.toml")).unwrap(), "mine");
}

#[test]
fn init_without_a_port_or_with_a_wrong_one_writes_nothing() {
    for (args, code, said) in [
        (&["init"][..], 1, "no port was given: give --upstream PORT"),
        (&["init", "--upstream", "ftp://a"], 2, "is not a URL of an upstream"),
    ] {
        let folder = Folder::new();
        let output = pillion(&folder, args, &[], "");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(printed(&output.stderr).contains(said), "{output:?}");
        assert!(!folder.path("pillion.toml").exists());
    }
}

#[test]
fn every_part_of_the_first_file_is_right() {
    // Lines behind a hash sign are for people to uncomment, section by section.
    let (app, folder) = (Script::echo(), Arc::new(Folder::new()));
    let upstream = app.address.to_string();
    assert!(pillion(&folder, &["init", "--upstream", &upstream], &[], "").status.success());
    let file = std::fs::read_to_string(folder.path("pillion.toml")).unwrap();
    for part in file.split("\n\n").filter(|part| part.contains("\n# [")) {
        let lines = part.lines().skip_while(|line| !line.starts_with("# ["));
        let text: String = lines.map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
        let rest = if text.contains("[[invalidate]]") {
            "[[routes]]\nmatch = \"GET /p\"\ncache = { ttl = \"1m\", scope = \"shared\", tags = [\"products\"] }\n"
        } else {
            ""
        };
        folder.write("part.toml", format!("[upstream]\nurl = \"http://10.0.0.1:80\"\n{text}{rest}"));
        let checked = pillion(&folder, &["check", "--strict", "part.toml"], &[], "");
        assert!(checked.status.success(), "{text}: {checked:?}");
    }
    let server = "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";
    folder.write("pillion.toml", format!("{server}{file}"));
    let running = Pillion::from_file(folder.clone(), &folder.path("pillion.toml"));
    assert_eq!(running.get("/").status, 200);
}
