//! The command `pillion tail`: live decisions of a running Pillion, one line for each completed request. The process
//! filters them, so that only the wanted lines travel.

mod line;

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::control::{Admin, encoded};
use super::output::{FAILED, OK, complain, fail};
use crate::app;
use line::Style;

/// Maximum silence of the stream. The process sends an empty line after five seconds without a request.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// The requests to show, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Show only requests with this status, or of this class (404, 5xx)
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,
    /// Show only requests of this route, by its label; * stands for any text
    #[arg(long, value_name = "ROUTE")]
    route: Vec<String>,
    /// Show only requests with this method
    #[arg(long, value_name = "METHOD")]
    method: Vec<String>,
    /// Show only requests for this path, without its query; * stands for any text (/api/*)
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// Show only requests of this user: principal or caller, as the access log has them
    #[arg(long, value_name = "HASH")]
    user_hash: Vec<String>,
    /// Show only requests that took this long (200ms, 2s)
    #[arg(long, value_name = "DURATION")]
    slow: Option<String>,
    /// Show only requests that the cache handled in this way (hit, miss, bypass, ...)
    #[arg(long, value_name = "WORD")]
    cache: Vec<String>,
    /// Show only requests with this reason: not stored (no-lifetime, ...), limited, or at fault (upstream, ...)
    #[arg(long, value_name = "WORD")]
    reason: Vec<String>,
    /// Show the addresses of clients
    #[arg(long)]
    address: bool,
    /// Lines for people, or JSON objects as in the access log
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    admin: Admin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Options {
    /// Returns the path of the stream with its filter.
    fn path(&self) -> String {
        let lists = [
            ("status", &self.status),
            ("route", &self.route),
            ("method", &self.method),
            ("path", &self.path),
            ("user_hash", &self.user_hash),
            ("cache", &self.cache),
            ("reason", &self.reason),
        ];
        let listed =
            lists.into_iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let all = listed.chain(self.slow.iter().map(|slow| ("slow", slow)));
        let mut parameters: Vec<String> =
            all.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        if self.address {
            parameters.push("address=true".to_owned());
        }
        match parameters.is_empty() {
            true => "/tail".to_owned(),
            false => format!("/tail?{}", parameters.join("&")),
        }
    }
}

/// Shows live decisions until the process ends the stream or the reader of standard output leaves. The exit code is 0
/// in both cases; SIGINT ends the command as it ends any program.
pub(super) fn run(options: Options) -> u8 {
    let mut lines = match options.admin.stream(&options.path(), MAX_SILENCE) {
        Ok(lines) => lines,
        Err(why) => return fail(FAILED, &why),
    };
    let environment = app::environment();
    let style = Style { color: environment.color, path: line::path_width(environment.terminal) };
    let mut output = std::io::stdout();
    let mut text = String::new();
    loop {
        text.clear();
        match lines.read_line(&mut text) {
            Ok(0) => return fail(FAILED, &"the process has closed the stream; is it still running?"),
            Ok(_) if text.trim().is_empty() => continue,
            Ok(_) => {}
            Err(error) => return fail(FAILED, &format_args!("the stream broke off: {error}")),
        }
        let document: Value = serde_json::from_str(&text).unwrap_or_default();
        let shown = match options.format {
            Format::Json => output.write_all(text.as_bytes()),
            Format::Text if document.get("end").is_some() => Ok(()),
            Format::Text => output.write_all(line::shown(&document, style).as_bytes()),
        };
        // A reader such as `head` may have closed the pipe, which is no error.
        if shown.and_then(|()| output.flush()).is_err() {
            return OK;
        }
        if let Some(why) = document.get("end").and_then(Value::as_str) {
            complain(&format_args!("pillion: the process has ended the stream: {why}"));
            return OK;
        }
    }
}
