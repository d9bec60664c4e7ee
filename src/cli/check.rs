//! The command `pillion check`, which validates a configuration file.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::connections::{self, Attempt};
use super::output::{FAILED, OK, PROBLEMS, complain, fail, say};
use super::source::{NO_FILE, default_or_hidden_file};
use crate::app;
use crate::config::{self, LoadError, Source};
use crate::policy::Policy;
use crate::policy::notice::{Notice, Place, Severity};

/// The arguments of `pillion check`.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Configuration file [default: ./pillion.toml, else /etc/pillion/pillion.toml]
    file: Option<PathBuf>,
    /// The same, as `pillion run` takes it
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Exit 2 for warnings too
    #[arg(long)]
    strict: bool,
    /// How problems and warnings are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Connect to the upstreams and to Redis, too
    #[arg(long)]
    connect: bool,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people: line, caret and remedy
    Text,
    /// One JSON document
    Json,
    /// Annotations of a workflow on GitHub
    Github,
}

/// Reads and compiles a configuration file, and prints every problem and warning in it.
pub(super) fn run(options: Options) -> u8 {
    let Options { file, config, strict, format, connect } = options;
    let Some(file) = file.or(config).or_else(default_or_hidden_file) else {
        return fail(FAILED, &format_args!("{NO_FILE}: give a FILE, or make one with `pillion init`"));
    };
    let source = Source { file: Some(file.clone()), ..Source::default() };
    let loaded = config::load(&source, &app::environment());
    let warnings = loaded.as_ref().map_or(0, |policy| {
        policy.notices.iter().filter(|notice| notice.severity == Severity::Warning).count()
    });
    let attempts = match &loaded {
        Ok(policy) if connect => connections::attempts(policy),
        _ => Vec::new(),
    };
    match format {
        Format::Text => text(&file, &loaded, &attempts),
        Format::Json => say(&document(&file, &loaded, &attempts, connect)),
        Format::Github => {
            let failed = attempts.iter().filter_map(|attempt| attempt.notice(&file));
            remarks(&loaded).into_iter().chain(failed).for_each(|notice| say(&annotation(&notice)));
        }
    }
    let has_failed = attempts.iter().any(|attempt| attempt.result.is_err());
    match &loaded {
        Ok(_) if has_failed => PROBLEMS,
        Ok(_) if strict && warnings > 0 => {
            if format == Format::Text {
                let plural = if warnings == 1 { "" } else { "s" };
                complain(&format_args!("{warnings} warning{plural} in {} (--strict)", file.display()));
            }
            PROBLEMS
        }
        Ok(_) => OK,
        Err(_) => PROBLEMS,
    }
}

fn text(file: &Path, loaded: &Result<Policy, LoadError>, attempts: &[Attempt]) {
    match loaded {
        Ok(policy) => {
            for notice in &policy.notices {
                say(&notice.shown);
            }
            for attempt in attempts {
                match &attempt.result {
                    Ok(detail) => say(&format_args!("{}: {detail}", attempt.target)),
                    Err(error) => complain(&format_args!("error: {}: {error}", attempt.target)),
                }
            }
            if counts_alone(policy) {
                say(&ALONE);
            }
            let routes = policy.routes.routes.len() - 1;
            let upstreams = policy.upstreams.len();
            say(&format_args!("{}: fine (routes: {routes}, upstreams: {upstreams})", file.display()));
        }
        Err(problems) => complain(problems),
    }
}

/// A fact that nobody sees in a file.
const ALONE: &str = "limits count in each replica by itself; with [redis] the replicas count together";

/// Whether there are limits that other replicas do not know of.
fn counts_alone(policy: &Policy) -> bool {
    let is_shared = policy.fleet.as_ref().is_some_and(|fleet| fleet.limits.is_some());
    let is_limited = policy.limits.enabled && policy.limits.tiers.iter().any(|tier| !tier.limits.is_empty());
    is_limited && !is_shared
}

/// All remarks on a file.
fn remarks(loaded: &Result<Policy, LoadError>) -> Vec<Notice> {
    match loaded {
        Ok(policy) => policy.notices.clone(),
        Err(error) => notices(error),
    }
}

/// Returns the problems of a file; one that cannot be read has one without a place.
pub(super) fn notices(error: &LoadError) -> Vec<Notice> {
    match error {
        LoadError::Problems(problems) => problems.errors(),
        LoadError::Unreadable(path, _) => vec![Notice::error(path, error.to_string())],
    }
}

fn document(file: &Path, loaded: &Result<Policy, LoadError>, attempts: &[Attempt], connect: bool) -> Value {
    let remarks: Vec<Value> = remarks(loaded).iter().map(remark).collect();
    let mut document =
        json!({ "file": file.display().to_string(), "fine": loaded.is_ok(), "diagnostics": remarks });
    if connect {
        let attempts = attempts.iter().map(|attempt| {
            let (fine, detail) = match &attempt.result {
                Ok(detail) => (true, detail),
                Err(error) => (false, error),
            };
            json!({ "target": attempt.target, "fine": fine, "detail": detail })
        });
        document["connections"] = attempts.collect();
    }
    document
}

/// Returns a remark as JSON.
pub(super) fn remark(notice: &Notice) -> Value {
    let mut remark = json!({
        "severity": notice.severity.as_str(),
        "message": notice.message,
        "help": notice.help,
        "file": notice.file.display().to_string(),
    });
    if let Some(Place { line, column, width }) = notice.place {
        remark["line"] = line.into();
        remark["column"] = column.into();
        remark["end_column"] = (column + width).into();
    }
    remark
}

/// A workflow command, as GitHub's runner reads it from standard output.
pub(super) fn annotation(notice: &Notice) -> String {
    let command = match notice.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Hint => "notice",
    };
    let property = |text: &str| escaped(text).replace(':', "%3A").replace(',', "%2C");
    let file = property(&notice.file.display().to_string());
    let place = match &notice.place {
        Some(Place { line, column, width }) => {
            format!(",line={line},col={column},endColumn={}", column + width)
        }
        None => String::new(),
    };
    format!("::{command} file={file}{place}::{}", escaped(&notice.line()))
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotation_escapes_what_ends_a_workflow_command() {
        let notice = Notice {
            severity: Severity::Error,
            message: "100 %\nof it".to_owned(),
            help: Some("write a,b:c".to_owned()),
            file: "a,b.toml".into(),
            place: Some(Place { line: 3, column: 7, width: 2 }),
            shown: String::new(),
        };
        let line = "::error file=a%2Cb.toml,line=3,col=7,endColumn=9::100 %25%0Aof it; write a,b:c";
        assert_eq!(annotation(&notice), line);
        let nowhere = Notice { severity: Severity::Hint, help: None, place: None, ..notice };
        assert_eq!(annotation(&nowhere), "::notice file=a%2Cb.toml::100 %25%0Aof it");
    }
}
