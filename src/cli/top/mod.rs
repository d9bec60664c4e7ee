//! The command `pillion top`: the figures of a running Pillion, once as a table or repainted on a terminal.

mod layout;
mod screen;
mod snapshot;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;

use super::control::Admin;
use super::output::{FAILED, OK, fail, say};
use crate::config::units;
use layout::{Sort, View};
use snapshot::Snapshot;

/// Timeout of each request of a poll.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Limits of the interval: a poll costs the process a few milliseconds.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
/// Columns of the table where standard output is not a terminal.
const PIPE_COLUMNS: usize = 160;

/// The figures to show, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Print one table and exit
    #[arg(long)]
    once: bool,
    /// Order of the routes
    #[arg(long, value_enum, default_value_t = Sort::Load)]
    sort: Sort,
    /// Show only routes whose label has this text in it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Time between two polls of the process (200ms to 1h)
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    admin: Admin,
}

fn interval(text: &str) -> Result<Duration, String> {
    units::duration(text)
        .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
        .ok_or_else(|| "expected a duration from 200ms to 1h, like 1s".to_owned())
}

impl Options {
    fn poll(&self) -> Result<Snapshot, String> {
        Snapshot::read(|path| self.admin.get(path, TIMEOUT))
    }
}

/// Shows the figures. The exit code is 0, or 1 if the process cannot be reached at the start.
pub(super) fn run(options: Options) -> u8 {
    let snapshot = match options.poll() {
        Ok(snapshot) => snapshot,
        Err(why) => return fail(FAILED, &why),
    };
    if options.once {
        let size = std::io::stdout().is_terminal().then(screen::size).flatten();
        let columns = size.map_or(PIPE_COLUMNS, |(columns, _)| columns);
        say(&layout::whole(&snapshot, options.sort, &options.filter, columns).join("\n"));
        return OK;
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return fail(
            FAILED,
            &"standard input and output are not a terminal; pillion top --once prints a table",
        );
    }
    let view = View { sort: options.sort, filter: options.filter.clone(), ..View::default() };
    match screen::show(snapshot, view, options.interval, || options.poll()) {
        Ok(()) => OK,
        Err(error) => fail(FAILED, &format_args!("the terminal: {error}")),
    }
}
