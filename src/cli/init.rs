//! The command `pillion init`, which writes a small configuration file after asking where the app listens.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{FAILED, OK, PROBLEMS, complain, fail, say};
use crate::app;
use crate::config::{self, Source};

/// The port that is proposed: many frameworks use it.
const USUAL_PORT: &str = "3000";

/// Where the app is, and where the file goes.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Port or URL of the app; without it, `init` asks
    #[arg(short, long, value_name = "URL")]
    upstream: Option<String>,
    /// File to write; one that exists is left alone
    #[arg(value_name = "FILE", default_value = "pillion.toml")]
    file: PathBuf,
}

/// Writes the file; returns the exit code.
pub(super) fn run(options: Options) -> u8 {
    let file = options.file;
    if file.symlink_metadata().is_ok() {
        return fail(FAILED, &exists(&file));
    }
    let upstream = match options.upstream.map_or_else(ask, Ok) {
        Ok(upstream) => upstream,
        Err(why) => return fail(FAILED, &why),
    };
    let source = Source { upstream: Some(upstream.clone()), ..Source::default() };
    let policy = match config::load(&source, &app::environment()) {
        Ok(policy) => policy,
        Err(problems) => {
            complain(&problems);
            return PROBLEMS;
        }
    };
    let Some(url) = policy.upstreams.first().and_then(|upstream| upstream.endpoints.first()) else {
        return fail(FAILED, &"no upstream");
    };
    if let Err(error) = write(&file, &content(&url.url)) {
        return match error.kind() {
            io::ErrorKind::AlreadyExists => fail(FAILED, &exists(&file)),
            _ => fail(FAILED, &format_args!("cannot write {}: {error}", file.display())),
        };
    }
    let shown = file.display();
    say(&format_args!(
        "{shown} is written. Next:\n\n  pillion check {shown}\n  pillion run --config {shown}\n  curl -si http://localhost:8080/"
    ));
    OK
}

fn exists(file: &Path) -> String {
    format!("{} exists and is left alone: name another file, or remove it first", file.display())
}

/// Never overwrites, also not a file that appeared meanwhile.
fn write(file: &Path, content: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(file)?.write_all(content.as_bytes())
}

/// Asks for the port on the terminal, or takes it from a pipe.
fn ask() -> Result<String, String> {
    let is_terminal = io::stdin().is_terminal();
    if is_terminal {
        let _ = write!(io::stderr(), "Which port does your app listen on? [{USUAL_PORT}] ");
        let _ = io::stderr().flush();
    }
    let mut line = String::new();
    let read =
        io::stdin().lock().read_line(&mut line).map_err(|error| format!("cannot read the port: {error}"))?;
    match line.trim() {
        "" if is_terminal && read > 0 => Ok(USUAL_PORT.to_owned()),
        "" => Err("no port was given: give --upstream PORT".to_owned()),
        port => Ok(port.to_owned()),
    }
}

/// The file for an app at `url`, as TOML has it.
fn content(url: &str) -> String {
    let url = serde_json::Value::from(url);
    format!(
        r#"# Configuration of Pillion. `pillion check` shows mistakes, `pillion test` runs test cases, `pillion reload` applies
# changes.

[upstream]
url = {url}

# Pillion listens on port 8080 of all interfaces:
# [server]
# listen = "8080"

# The app's Cache-Control is obeyed without any route. A route says more, for example that a list
# which all users share may be a minute old:
# [[routes]]
# match = "GET /api/products/**"
# cache = {{ ttl = "1m", scope = "shared", tags = ["products"] }}

# A write takes the stored list away at once:
# [[invalidate]]
# on   = "* /api/products/**"
# tags = ["products"]

# A health check says when the app is ready:
# [upstream.health]
# path = "/healthz"

# Behind a load balancer or an ingress, so that client addresses are right:
# [server]
# trusted_proxies = ["private"]
"#
    )
}
