//! Every command that a document shows is run, as it stands but for addresses; those that are not are listed with the
//! reason. Blocks of shell that are not run have the fence `sh no-run`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use super::guides;
use super::markdown::Document;
use crate::harness::*;

/// Commands of `sh no-run`, by how they begin, and why they are not run here.
const NOT_RUN: [(&str, &str); 26] = [
    ("cargo run --release -- demo", "tests/e2e/demo.rs does"),
    ("cargo install --path .", "the same as the release build"),
    ("deploy/archive", "takes minutes; tests/run --all does"),
    ("tar ", "tests/archive unpacks what deploy/archive packed"),
    ("sha256sum ", "tests/archive does"),
    ("dpkg ", "writes into the system; tests/archive unpacks the package"),
    ("tests/run", "it runs this test"),
    ("pillion run --", "README.md has them in blocks that are run"),
    ("pillion check pillion.toml", "beside a command that is not run; README.md has it in a block that is"),
    ("pillion test", "needs a file of cases; tests/e2e/config/cases.rs runs those of examples"),
    ("benches/compare", "takes a quarter of an hour; tests/run --all makes a short one"),
    ("docker ", "tests/run --image does"),
    ("export ", "sets what the next command needs"),
    ("APP_IMAGE=", "tests/run --image brings the compose file up"),
    ("kubectl ", "needs a cluster; tests/manifests checks what is applied"),
    ("helm ", "needs a cluster; tests/manifests renders the chart"),
    ("pillion inject", "needs a manifest; tests/manifests runs it on tests/inject"),
    ("pillion compose", "needs a Compose file; src/cli/compose.rs tests it"),
    ("pillion convert", "needs nginx's files; tests/e2e/convert.rs runs it"),
    ("install -", "writes into the system"),
    ("systemctl ", "needs systemd; tests/e2e/deploy.rs checks the unit"),
    ("pillion quit", "ends what the others need"),
    ("pillion drain", "ends what the others need"),
    ("pillion explain --request-id", "needs the id of a request; tests/e2e/operations/decisions.rs has some"),
    ("pillion tail", "does not end; tests/e2e/operations/tail.rs runs it"),
    ("pillion top", "needs a terminal and a running process; tests/e2e/operations/top.rs runs it"),
];

/// In front of which commands are run: a route with tags, a rule, tiers and traces.
const CONFIGURATION: &str = r#"
[upstream]
url = "APP"
[[routes]]
match = "GET /api/patients/{id}"
cache = { ttl = "1m", scope = "user", tags = ["patient:{id}"] }
[[invalidate]]
on   = "* /api/patients/{id}/**"
tags = ["patient:{id}"]
[rate_limit]
keys = "keys.toml"
[rate_limit.tiers.free.limits]
requests = { rate = "1000/min" }
[rate_limit.tiers.pro.limits]
requests = { rate = "10000/min" }
daily    = { rate = "50000/d", burst = 5000 }
[tracing]
otlp_endpoint = "http://COLLECTOR"
[log]
access = "all"
"#;

/// The lines of blocks with this fence, without what is said of them.
fn commands(document: &Document, info: &str) -> Vec<String> {
    let blocks = document.blocks();
    let lines = blocks.iter().filter(|block| block.info == info).flat_map(|block| block.text.lines());
    let command = |line: &str| line.split(" # ").next().unwrap().trim().to_owned();
    lines.map(command).filter(|line| !line.is_empty()).collect()
}

fn shell(folder: &Path, line: &str) -> Output {
    let binaries = Path::new(binary()).parent().unwrap().display().to_string();
    let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());
    Command::new("sh").args(["-c", line]).current_dir(folder).env("PATH", path).output().unwrap()
}

/// Starts `pillion run ...` on free ports.
fn started(folder: &Arc<Folder>, line: &str, more: &[&str]) -> Pillion {
    let mut command = Command::new(binary());
    command.args(line.split(' ').skip(1)).args(more).current_dir(&folder.0);
    Pillion::start(folder.clone(), command)
}

fn app() -> Script {
    let said = |target: &str| ok(&format!("{{\"said\":\"{target}\"}}"));
    Script::answering(move |request| said(request.line.split(' ').nth(1).unwrap_or_default()))
}

#[test]
fn what_is_not_run_is_listed_with_the_reason() {
    let mut used = BTreeSet::new();
    for document in guides() {
        for line in commands(&document, "sh no-run") {
            let known = NOT_RUN.iter().find(|(begin, _)| line.starts_with(begin));
            let (begin, _) = known.unwrap_or_else(|| panic!("{}: why is it not run? {line}", document.name));
            used.insert(*begin);
        }
        for block in document.blocks().iter().filter(|block| block.info.starts_with("sh")) {
            assert!(matches!(&*block.info, "sh" | "sh no-run"), "{}: {:?}", block.place, block.info);
        }
    }
    // The last two are for guides to come that show how a process ends.
    for (begin, _) in NOT_RUN.iter().filter(|(begin, _)| !begin.starts_with("pillion ")) {
        assert!(used.contains(begin), "no document has {begin:?}");
    }
}

/// The README's own: a process with a flag, and one with the file of three lines.
#[test]
fn the_readme_starts_it_as_it_says() {
    let (app, replica) = (app(), app());
    let in_reach = |text: &str| {
        text.replace("127.0.0.1:3000", &app.address.to_string())
            .replace("127.0.0.1:3001", &replica.address.to_string())
    };
    let readme = guides().into_iter().find(|document| document.name == "README.md").unwrap();
    let lines = commands(&readme, "sh");
    let runs: Vec<&String> = lines.iter().filter(|line| line.starts_with("pillion run ")).collect();
    let [with_a_flag, with_a_file] = &runs[..] else { panic!("{runs:#?}") };
    let folder = Arc::new(Folder::new());

    let pillion =
        started(&folder, &in_reach(with_a_flag), &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert_eq!(pillion.get("/").text(), "{\"said\":\"/\"}");
    drop(pillion);

    let shown: String =
        readme.blocks().iter().filter(|block| block.info == "toml").map(|block| &*block.text).collect();
    folder.write("pillion.toml", in_reach(&shown));
    let more = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let pillion = started(&folder, with_a_file, &more);
    assert_eq!(pillion.get("/").text(), "{\"said\":\"/\"}");
}

/// A part of the output of a command that is shown.
fn wanted(line: &str) -> &'static str {
    match line {
        line if line.starts_with("pillion check") => "pillion.toml",
        line if line.starts_with("pillion purge") => "\"names\":1",
        line if line.starts_with("pillion explain --live") => "stored",
        line if line.starts_with("pillion explain") => "route",
        line if line.starts_with("pillion reload") => "reloaded",
        line if line.contains("/cache/lookup") => "\"tags\":",
        line if line.contains("/cache/stats") => "bytes",
        line if line.contains("/limits/top") => "allowed",
        line if line.contains("/limits/status") => "acme",
        line if line.contains("/limits/reset") => "held",
        line if line.contains("/performance/routes") => "/api/patients/{id}",
        line if line.contains("/performance/slow") => "[",
        line if line.contains("/performance/errors") => "[",
        line if line.contains("/performance/system") => "memory",
        line if line.contains(":9900/metrics") => "pillion_http_requests_total",
        line if line.contains(":9900/ready") => "ready",
        other => panic!("nobody says here what {other} does"),
    }
}

#[test]
fn every_command_does_what_it_says() {
    let app = app();
    let folder = Arc::new(Folder::new());
    let (http, admin) = (free_address(), free_address());
    let server = format!("[server]\nlisten = [\"{http}\"]\nadmin = \"{admin}\"\n");
    let text = CONFIGURATION
        .replace("APP", &format!("http://{}", app.address))
        .replace("COLLECTOR", &absent_app().to_string());
    folder.write("pillion.toml", server + &text);

    let shown: BTreeSet<String> = guides().iter().flat_map(|document| commands(document, "sh")).collect();
    let starts = |line: &&String| !line.starts_with("pillion run ");
    // Keys are there before a request that has one.
    let (keys, others): (Vec<&String>, Vec<&String>) =
        shown.iter().filter(starts).partition(|line| line.starts_with("pillion keys add "));
    let [add] = &keys[..] else { panic!("{keys:#?}") };
    let added = shell(&folder.0, add);
    assert!(added.status.success() && added.stdout.starts_with(b"pk_"), "{added:?}");
    let key = printed(&added.stdout).trim().to_owned();

    let pillion = started(&folder, "pillion run --config pillion.toml", &[]);
    for line in others {
        // The fields that the text mentions exist.
        let fields =
            format!("host: here\r\nauthorization: Bearer somebody\r\nx-api-key: {key}\r\nconnection: close");
        let asked = exchange(pillion.http, &format!("GET /api/patients/7 HTTP/1.1\r\n{fields}\r\n\r\n"));
        assert_eq!(asked.status, 200);
        let wanted = wanted(line);
        let line = line.replace("localhost:9900", &admin.to_string()).replace("curl ", "curl -sSf ");
        // Some values are counted only every other second.
        eventually(&format!("{line}: {wanted}"), || {
            let output = shell(&folder.0, &line);
            assert!(output.status.success(), "{line}: {output:?}");
            printed(&output.stdout).contains(wanted).then_some(())
        });
    }
}
