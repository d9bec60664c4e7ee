//! Tests of `pillion diff`: what another file changes, against a process and against a file.

use std::process::Command;

use serde_json::Value;

use crate::harness::script::upstream;
use crate::harness::{Folder, Pillion, Script, binary, printed, wire};

const TOKEN: &str = "S3CRET-of-the-operator";

/// The exit code and the whole output of a command that starts with `pillion diff`.
fn diff(args: &[&str]) -> (i32, String) {
    let output = Command::new(binary()).arg("diff").args(args).env_clear().output().unwrap();
    (output.status.code().unwrap(), printed(&[output.stdout, output.stderr].concat()))
}

fn configuration(app: &Script) -> String {
    format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nadmin_token = \"{TOKEN}\"\n{}\
         [[routes]]\nmatch = \"GET /items/{{id}}\"\ncache = {{ ttl = \"30s\" }}\n\
         set_request = {{ authorization = \"S3CRET-one\" }}\n",
        upstream(app)
    )
}

#[test]
fn diff_against_a_process_names_what_a_reload_would_change() {
    let app = Script::echo();
    let pillion = Pillion::with(&configuration(&app));
    let admin = pillion.admin.to_string();
    let running = std::fs::read_to_string(pillion.folder.path("pillion.toml")).unwrap();
    let folder = Folder::new();
    let against = |text: &str, more: &[&str]| {
        let file = folder.write("new.toml", text);
        let args = [&[file.to_str().unwrap(), "--admin", &admin, "--token", TOKEN], more].concat();
        diff(&args)
    };
    assert_eq!(against(&running, &[]), (0, "nothing changes\n".to_owned()));
    let changed = running
        .replace("ttl = \"30s\"", "ttl = \"1m\"")
        .replace("S3CRET-one", "S3CRET-two")
        .replace("admin_token = \"", "workers = 1\nadmin_token = \"another-");
    let (code, said) = against(&changed, &[]);
    assert_eq!(code, 1, "{said}");
    for wanted in [
        "server.workers is 1, was ",
        "server.admin_token is another secret\n",
        "route GET /items/{id}: cache.ttl is \"1m\", was \"30s\"\n",
        "route GET /items/{id}: set_request.authorization is another secret\n    its stored responses are not found any more\n",
        "4 changes; 1 needs a restart, and a reload refuses the file\n",
    ] {
        assert!(said.contains(wanted), "no {wanted:?} in\n{said}");
    }
    assert!(!said.contains("S3CRET"), "{said}");
    let (code, said) = against(&changed, &["--format", "json"]);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, document["changes"].as_array().unwrap().len()), (1, 4), "{said}");
    assert_eq!(document["changes"][1]["effects"][0], "restart", "{said}");
    let (code, said) = against("[upstream]\nurl = true\n", &[]);
    assert!(code == 2 && said.contains("new.toml:2:7") && said.contains("cannot be compared"), "{said}");
}

#[test]
fn diff_of_two_files_asks_no_process() {
    let folder = Folder::new();
    let text = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n[rate_limit]\nkeys = \"keys.toml\"\n\
                [rate_limit.tiers.free.limits.minute]\nrate = \"60/min\"\n";
    let keys = format!("[[keys]]\nname = \"a\"\nsha256 = \"{}\"\ntier = \"free\"\n", "ab".repeat(32));
    let write = |name: &str, text: &str, keys: &str| {
        std::fs::create_dir_all(folder.path(name)).unwrap();
        folder.write(&format!("{name}/keys.toml"), keys);
        folder.write(&format!("{name}/pillion.toml"), text).to_str().unwrap().to_owned()
    };
    let old = write("old", text, &keys);
    assert_eq!(diff(&[&old, &write("same", text, &keys)]).0, 0);
    let new = write("new", &text.replace("60/min", "30/min"), &keys.replace("abab", "cdcd"));
    let (code, said) = diff(&[&old, &new]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(
        said,
        "rate_limit.tiers.free.limits.minute.rate is \"30/min\", was \"60/min\"\n    each client of the limit begins with a \
         full burst\nthe file keys.toml has other content\n\n2 changes; a reload applies them\n"
    );
    assert_eq!(diff(&[&old, folder.path("none.toml").to_str().unwrap()]).0, 2);
    assert_eq!(diff(&[]).0, 2);
}

#[test]
fn comparison_needs_the_token_and_proper_marks() {
    let app = Script::echo();
    let pillion = Pillion::with(&configuration(&app));
    let post = |token: &str, content: &str| {
        let fields = format!("authorization: Bearer {token}\r\ncontent-length: {}\r\n", content.len());
        let head = format!("POST /config/compare HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n");
        wire::exchange(pillion.admin, &format!("{head}{content}"))
    };
    let marks = |key: &str, more: &str| {
        format!("{{\"key\":\"{key}\",\"secrets\":{{}},\"files\":{{}},\"routes\":[]{more}}}")
    };
    let key = "0".repeat(64);
    assert_eq!(post("wrong", &marks(&key, "")).status, 401);
    for wrong in ["", "{}", "[]", &marks("00", ""), &marks(&key, ",\"more\":1")] {
        assert_eq!(post(TOKEN, wrong).status, 400, "{wrong}");
    }
    let answer = post(TOKEN, &marks(&key, ""));
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.contains("\"secrets\":[]") && text.contains("\"routes\":[]"), "{text}");
    assert_eq!(wire::ask(pillion.admin, "GET /config/compare", "").status, 405);
}
