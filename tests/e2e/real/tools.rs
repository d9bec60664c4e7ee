//! Helpers that several of these tests use.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::harness::{Folder, Pillion, Process};

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools");
const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real");

/// Runs `tests/real/SCRIPT`: `.cjs` with the packages of `package.json`, `.py` with those of `VENV.txt`.
pub(crate) fn script(venv: &str, script: &str, args: &[&str]) -> Command {
    let mut command = if script.ends_with(".cjs") {
        Command::new("node")
    } else {
        Command::new(format!("{TOOLS}/{venv}/bin/python"))
    };
    command.arg(format!("{APPS}/{script}")).args(args);
    command.env("NODE_PATH", format!("{TOOLS}/node/node_modules"));
    command
}

/// Starts an app that prints one line once it listens, which starts with its address. Returns the app and that line.
pub(crate) fn app(venv: &str, name: &str, args: &[&str]) -> (Process, String) {
    let mut command = script(venv, name, args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process(command.spawn().expect("tests/run installs it"));
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(':'), "{name} does not start: {line:?}");
    (process, line.trim().to_owned())
}

/// Returns the output of a client. Fails the test if the client fails.
#[track_caller]
pub(crate) fn printed(mut command: Command) -> String {
    let output = command.output().expect("tests/run installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    text
}

/// Starts Pillion with TLS too, with a certificate of its own: `tls.crt` in its folder.
pub(crate) fn with_tls(config: &str) -> Pillion {
    let folder = Arc::new(Folder::new());
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    folder.write("tls.crt", key.cert.pem());
    folder.write("tls.key", key.signing_key.serialize_pem());
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
                  certificates = [{ cert = \"tls.crt\", key = \"tls.key\" }]\n";
    Pillion::in_folder(folder, &format!("{server}{config}"))
}

/// Returns whether scenarios run at full length, as with `PILLION_ACCEPTANCE=1`.
pub(crate) fn acceptance() -> bool {
    std::env::var_os("PILLION_ACCEPTANCE").is_some()
}
