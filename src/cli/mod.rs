//! The commands. Each file is one.

mod check;
mod control;
mod demo;
mod explain;
mod generate;
mod health;
mod keys;
mod run;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::VERSION;
use crate::config::Source;

/// Everything went well.
pub(crate) const OK: u8 = 0;
/// It did not start, or the running process said no.
pub(crate) const FAILED: u8 = 1;
/// The configuration has problems.
pub(crate) const PROBLEMS: u8 = 2;

/// Files looked for when none is named.
const DEFAULT_FILES: [&str; 2] = ["pillion.toml", "/etc/pillion/pillion.toml"];

/// A reverse-proxy sidecar: one binary and one TOML file in front of any HTTP app.
#[derive(Debug, Parser)]
#[command(name = "pillion", version = VERSION, propagate_version = true, after_help = "Try it: pillion demo")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put Pillion in front of an app
    Run(Where),
    /// Read a configuration file and show every problem in it (exit 2 if there are any)
    Check {
        /// The file [default: pillion.toml here, else /etc/pillion/pillion.toml]
        file: Option<PathBuf>,
    },
    /// Start a small sample app with Pillion in front of it
    Demo(demo::Options),
    /// Tell a running Pillion to read its configuration again
    Reload(control::Admin),
    /// Tell a running Pillion that it will be stopped: /ready turns 503, connections are handed back
    Drain(control::Admin),
    /// Stop a running Pillion, as SIGTERM does: where another container has to (a Job's sidecar)
    Quit(control::Admin),
    /// Ask a running Pillion how it is: for probes that run a command (exit 1 if it is unhealthy)
    Health(health::Options),
    /// Say what Pillion would do with a request, and why, without sending it anywhere
    Explain(Box<explain::Options>),
    /// API keys for limits: make one, list them, hash one
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Take answers out of a running Pillion's cache: by URL, prefix, tag or user
    Purge(control::Purge),
    /// Write completions for a shell to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man page to standard output
    Man,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Where {
    /// The file [default: pillion.toml here, else /etc/pillion/pillion.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The app, in place of upstream.url; with it no file is needed
    #[arg(short, long, value_name = "URL")]
    upstream: Option<String>,
    /// The address to listen on, in place of server.listen
    #[arg(short, long, value_name = "ADDR")]
    listen: Option<String>,
    /// The admin address, in place of server.admin; "" turns it off
    #[arg(short, long, value_name = "ADDR")]
    admin: Option<String>,
}

impl Where {
    /// The source; an error says what is missing.
    fn source(self) -> Result<Source, String> {
        let file =
            match (self.config, &self.upstream) {
                (Some(file), _) => Some(file),
                (None, Some(_)) => None,
                (None, None) => Some(default_file().ok_or(
                    "no configuration: give --config FILE, or --upstream URL for an app without one",
                )?),
            };
        Ok(Source { file, embedded: None, upstream: self.upstream, listen: self.listen, admin: self.admin })
    }
}

fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(place) => run::run(place),
        Command::Check { file } => check::run(file),
        Command::Demo(options) => demo::run(options),
        Command::Reload(admin) => control::run("/reload", admin),
        Command::Drain(admin) => control::run("/drain", admin),
        Command::Explain(options) => explain::run(*options),
        Command::Keys(keys) => keys::run(keys),
        Command::Purge(options) => control::purge(options),
        Command::Quit(admin) => control::run("/quit", admin),
        Command::Health(options) => health::run(options),
        Command::Completions { shell } => crate::cli::generate::completions(shell),
        Command::Man => crate::cli::generate::man(),
    };
    ExitCode::from(code)
}

/// Says something on standard output. Who reads may have seen enough and left, which is no failure.
fn say(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The same on standard error, where there may be no room for it: the code tells all the same.
fn complain(text: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says why, on one line where one is enough.
fn fail(code: u8, why: &dyn std::fmt::Display) -> u8 {
    complain(&format_args!("pillion: {why}"));
    code
}
