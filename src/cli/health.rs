//! The command `pillion health`: whether a running Pillion is healthy, for probes that run a command in its container,
//! which has no shell and no curl.

use std::ffi::OsStr;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use serde_json::Value;

use super::control::Admin;
use super::output::{FAILED, OK, fail, say};
use crate::policy::Check;

/// Timeout of the request. Most orchestrators wait longer for a probe.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The checks to ask for.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Show only this check (upstream, memory, ...)
    #[arg(value_name = "CHECK", conflicts_with_all = ["live", "ready"], value_parser = CheckName, hide_possible_values = true)]
    check: Option<String>,
    /// Ask only whether the process responds (liveness)
    #[arg(long, conflicts_with = "ready")]
    live: bool,
    /// Ask only whether it should get requests (readiness)
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    admin: Admin,
}

/// The name of a check. Completions offer the names; the running Pillion decides which names there are.
#[derive(Clone)]
struct CheckName;

impl TypedValueParser for CheckName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Check::ALL.iter().map(|check| PossibleValue::new(check.as_str()))))
    }
}

/// Asks a running Pillion for its health. The exit code is 0 if the state is degraded, because the process can still
/// serve; it is nonzero only if the state is unhealthy.
pub(super) fn run(options: Options) -> u8 {
    let path = match (&options.check, options.live, options.ready) {
        (Some(check), ..) => format!("/health/{check}"),
        (None, true, _) => "/live".to_owned(),
        (None, _, true) => "/ready".to_owned(),
        (None, false, false) => "/health".to_owned(),
    };
    match options.admin.get(&path, TIMEOUT) {
        Ok((true, response)) => {
            say(&shown(&response));
            OK
        }
        Ok((false, response)) => fail(FAILED, &shown(&response)),
        Err(why) => fail(FAILED, &why),
    }
}

/// Renders the overall state, and each check that is not healthy.
fn shown(response: &str) -> String {
    let Ok(document) = serde_json::from_str::<Value>(response) else { return response.to_owned() };
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let Some(status) = text(&document, "status") else {
        return text(&document, "detail").unwrap_or_else(|| response.to_owned());
    };
    let of = |name: &str, check: &Value| {
        let found = text(check, "status").filter(|status| status != "healthy")?;
        Some(format!("{name} {found}: {}", text(check, "detail").unwrap_or_default()))
    };
    let checks = document.get("checks").and_then(Value::as_object).into_iter().flatten();
    let lines = checks.filter_map(|(name, check)| of(name, check));
    let alone = text(&document, "detail").map(|detail| format!("{status}: {detail}"));
    std::iter::once(alone.unwrap_or(status)).chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown() {
        for (response, expected) in [
            ("live", "live"),
            (r#"{"status":"healthy","checks":{"memory":{"status":"healthy","detail":"x"}}}"#, "healthy"),
            (
                r#"{"status":"degraded","checks":{"memory":{"status":"healthy","detail":"x"},"upstream":{"status":"degraded","detail":"one is down"}}}"#,
                "degraded\nupstream degraded: one is down",
            ),
            (r#"{"check":"memory","status":"healthy","detail":"3 MiB"}"#, "healthy: 3 MiB"),
            (r#"{"type":"about:blank","title":"x","detail":"no such check"}"#, "no such check"),
        ] {
            assert_eq!(shown(response), expected);
        }
    }
}
