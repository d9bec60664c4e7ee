//! The command line. Each command has a file of its own.

mod check;
mod compose;
mod config;
mod connections;
mod control;
mod convert;
mod demo;
mod diff;
mod explain;
mod generate;
mod health;
mod init;
mod inject;
mod keys;
mod man;
mod output;
mod run;
mod schema;
mod source;
mod tail;
mod test;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::app::VERSION;
use source::Where;

/// A reverse-proxy sidecar: one binary and one TOML file in front of any HTTP app.
#[derive(Debug, Parser)]
#[command(name = "pillion", version = VERSION, propagate_version = true, after_help = "Try it: pillion demo")]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Pillion in front of an app
    Run(Where),
    /// Check a configuration file and show every problem in it (exit 2 if there are any)
    Check(check::Options),
    /// Show the effective settings of a running Pillion, or of a file: each with its origin, secrets masked
    Config(config::Options),
    /// Show what another file would change: against a running Pillion, or against an older file (exit 1 if anything)
    Diff(diff::Options),
    /// Run test cases of a configuration: requests, canned responses and expectations (exit 1 if one fails)
    Test(test::Options),
    /// Write a small configuration file for an app, with comments
    Init(init::Options),
    /// Start a small sample app with Pillion in front of it
    Demo(demo::Options),
    /// Make a running Pillion reload its configuration
    Reload(control::Admin),
    /// Switch maintenance of a running Pillion; while it is on, requests for the app get 503
    Maintenance(control::Maintenance),
    /// Prepare a running Pillion for its stop: /ready responds with 503, connections are closed
    Drain(control::Admin),
    /// Stop a running Pillion, as SIGTERM does; for a sidecar that another container has to stop (Jobs)
    Quit(control::Admin),
    /// Show the health of a running Pillion; for probes that run a command (exit 1 if it is unhealthy)
    Health(health::Options),
    /// Show what Pillion would do with a request, and why, without sending the request
    Explain(Box<explain::Options>),
    /// Show live decisions of a running Pillion, one line for each completed request
    Tail(Box<tail::Options>),
    /// Show the figures of a running Pillion on a terminal: state, routes, upstream addresses, limited callers
    Top(top::Options),
    /// Make, list and hash API keys for limits
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Purge stored responses from a running Pillion's cache, by URL, prefix, tag or user
    Purge(control::Purge),
    /// Print the JSON Schema of the configuration file, for editors
    Schema(schema::Options),
    /// Put the sidecar into the workloads of a Kubernetes manifest on standard input
    Inject(inject::Options),
    /// Print an override file that puts Pillion in front of a service of Docker Compose
    Compose(compose::Options),
    /// Convert the configuration of another proxy to pillion.toml
    #[command(subcommand)]
    Convert(convert::Convert),
    /// Print completions for a shell
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

/// Parses the arguments of this process and runs the command.
pub fn main() -> ExitCode {
    let code = match Cli::parse().command {
        Command::Run(place) => run::run(place, &Cli::command()),
        Command::Check(options) => check::run(options),
        Command::Config(options) => config::run(options),
        Command::Diff(options) => diff::run(options),
        Command::Test(options) => test::run(options),
        Command::Init(options) => init::run(options),
        Command::Demo(options) => demo::run(options),
        Command::Reload(admin) => control::run("/reload", admin),
        Command::Maintenance(options) => control::maintenance(options),
        Command::Drain(admin) => control::run("/drain", admin),
        Command::Explain(options) => explain::run(*options),
        Command::Tail(options) => tail::run(*options),
        Command::Top(options) => top::run(options),
        Command::Keys(keys) => keys::run(keys),
        Command::Purge(options) => control::purge(options),
        Command::Quit(admin) => control::run("/quit", admin),
        Command::Health(options) => health::run(options),
        Command::Schema(options) => schema::run(options),
        Command::Inject(options) => inject::run(options),
        Command::Compose(options) => compose::run(options),
        Command::Convert(convert) => convert::run(convert),
        Command::Completions { shell } => generate::completions(Cli::command(), shell),
        Command::Man => generate::man(Cli::command()),
    };
    ExitCode::from(code)
}
