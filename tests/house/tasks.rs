//! The tasks of `docs/tasks`: the table of docs/migration.md counts them, and the files of the other proxies are what
//! those proxies read. `tests/e2e/tasks.rs` does the tasks with Pillion.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use crate::docs::root;
use crate::harness::{Folder, free_address, printed, run};

/// Files that the packaged version of a program refuses, with what it says of them.
const NEWER: [(&str, &str); 1] = [("14-metrics/Caddyfile", "unrecognized global option: metrics")];

/// The files of this name in all tasks: the task, and the text.
fn files(name: &str) -> Vec<(String, String)> {
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root("docs/tasks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let text = |folder: &PathBuf| {
        let task = folder.file_name().unwrap().to_str().unwrap().to_owned();
        Some((task, std::fs::read_to_string(folder.join(name)).ok()?))
    };
    folders.iter().filter_map(text).collect()
}

/// A folder with the certificate that files name.
fn folder() -> Folder {
    let folder = Folder::new();
    let (cert, key) = (folder.path("cert.pem"), folder.path("key.pem"));
    let kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let names = ["-subj", "/CN=app", "-addext", "subjectAltName=DNS:app.example.com", "-days", "60"];
    let files = ["-keyout", key.to_str().unwrap(), "-out", cert.to_str().unwrap()];
    run("openssl", &[&kind[..], &names, &files].concat());
    folder
}

/// Runs a command that judges a file. Whether it is good, and what is said of it.
fn judge(command: &mut Command, place: &str) -> Option<String> {
    let name = command.get_program().to_str().unwrap().to_owned();
    let output = command.output().unwrap_or_else(|error| panic!("{name} (tests/run installs it): {error}"));
    let said = printed(&output.stderr);
    let newer = NEWER.iter().find(|(file, _)| *file == place);
    match newer {
        _ if output.status.success() => None,
        Some((_, why)) if said.contains(why) => None,
        _ => Some(format!("{place}: {said}")),
    }
}

/// `UPDATE=1` writes the table anew.
#[test]
fn the_table_of_tasks_is_up_to_date_and_no_peer_needs_less() {
    let mut command = Command::new("python3");
    command.arg(root("tests/tasks/count"));
    if std::env::var_os("UPDATE").is_some() {
        assert!(command.arg("--write").status().unwrap().success());
    } else {
        let output = command.arg("--check").output().unwrap();
        assert!(output.status.success(), "{}", printed(&output.stderr));
    }
}

#[test]
fn nginx_accepts_its_files() {
    let mut wrong = Vec::new();
    let found = files("nginx.conf");
    for (task, text) in &found {
        let folder = folder();
        let path = folder.0.display().to_string();
        let mut text = text.replace("/var/cache/nginx", &folder.path("cache").display().to_string());
        // A port that nothing holds and everybody may take.
        for port in ["80", "8080", "8443"] {
            for end in [";", " ssl;"] {
                let free = format!("listen {}{end}", free_address().port());
                text = text.replace(&format!("listen {port}{end}"), &free);
            }
        }
        let whole = format!(
            "pid {path}/pid; error_log {path}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path {path}/1; proxy_temp_path {path}/2; fastcgi_temp_path {path}/3;\n\
             uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;\n{text}}}\n"
        );
        let file = folder.write("whole.conf", whole);
        let mut command = Command::new("nginx");
        command.args(["-t", "-q", "-p", &path, "-c"]).arg(file);
        wrong.extend(judge(&mut command, &format!("{task}/nginx.conf")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found.len() > 10, "{} files", found.len());
}

#[test]
fn caddy_accepts_its_files() {
    let mut wrong = Vec::new();
    let found = files("Caddyfile");
    for (task, text) in &found {
        let folder = folder();
        folder.write("Caddyfile", text);
        let mut command = Command::new("caddy");
        command.args(["validate", "--config", "Caddyfile", "--adapter", "caddyfile"]).current_dir(&folder.0);
        for name in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(name, &folder.0);
        }
        wrong.extend(judge(&mut command, &format!("{task}/Caddyfile")));
        let formatted = Command::new("caddy").args(["fmt", "Caddyfile"]).current_dir(&folder.0).output();
        if printed(&formatted.unwrap().stdout).trim_end() != text.trim_end() {
            wrong.push(format!("{task}/Caddyfile: not as `caddy fmt` writes it"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found.len() >= 8, "{} files", found.len());
}

/// A file of TOML as JSON. Python reads TOML 1.0, as Traefik does; the reader of Pillion takes more.
fn json(task: &str, text: &str) -> serde_json::Value {
    const READ: &str = "import json, sys, tomllib; print(json.dumps(tomllib.loads(sys.argv[1])))";
    let output = Command::new("python3").args(["-c", READ, text]).output().unwrap();
    assert!(output.status.success(), "{task}/traefik.toml: {}", printed(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// There is no package of Traefik, and no command of it that checks a file: what can be said without it.
#[test]
fn files_of_traefik_are_toml_and_name_what_they_have() {
    let found = files("traefik.toml");
    for (task, text) in &found {
        let file = json(task, text);
        let http = &file["http"];
        let names = |section: &str| -> BTreeSet<&str> {
            http[section].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
        };
        let (mut services, mut middlewares) = (BTreeSet::new(), BTreeSet::new());
        for router in http["routers"].as_object().unwrap().values() {
            assert!(router["rule"].is_string(), "{task}: a router without a rule");
            services.insert(router["service"].as_str().unwrap());
            let used = router["middlewares"].as_array();
            middlewares.extend(used.into_iter().flatten().map(|name| name.as_str().unwrap()));
        }
        assert_eq!((services, middlewares), (names("services"), names("middlewares")), "{task}");
        let sections: Vec<&String> = file.as_object().unwrap().keys().collect();
        assert!(sections.iter().all(|name| ["http", "tls"].contains(&name.as_str())), "{task}: {sections:?}");
    }
    assert!(found.len() >= 10, "{} files", found.len());
}
