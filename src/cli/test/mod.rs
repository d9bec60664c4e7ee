//! The command `pillion test`: unit tests of a configuration. Each case is a request, the upstream's response and
//! expectations; nothing is sent.

mod compare;
mod report;
mod result;
mod sample;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::check::{Format, notices};
use super::output::{FAILED, OK, PROBLEMS, complain, fail};
use super::source::default_file;
use crate::app;
use crate::config::cases::{Case, CaseFile};
use crate::config::{self, Diagnostics, Environment, LoadError, Source, cases};
use crate::layer::rehearsal;
use crate::layer::rehearsal::course::StandInResponse;
use crate::policy::notice::Notice;
use crate::runtime::file_access;
use clap::{Args, ValueHint};
use result::{CaseResult, FileResult, Rehearsed};

/// The end of the name of a file of cases. The file `NAME.test.toml` is about `NAME.toml`.
const SUFFIX: &str = ".test.toml";

/// The file of cases where none is named.
const DEFAULT_CASES: &str = "pillion.test.toml";

/// The arguments of `pillion test`.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Files of test cases [default: ./pillion.test.toml]
    #[arg(value_name = "CASES", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Configuration file [default: the one that the cases name, else NAME.toml beside NAME.test.toml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Run only the cases whose names contain this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// The reason why the cases of a file were not run.
enum Broken {
    /// Nothing can be read, or nothing can be rehearsed.
    Failed(String),
    Problems(Box<Diagnostics>),
    Config(LoadError),
}

/// Runs the cases of all files; returns the exit code.
pub(super) fn run(options: Options) -> u8 {
    let environment = Environment { without_certificates: true, ..app::environment() };
    let mut results = Vec::new();
    let mut broken: Vec<Notice> = Vec::new();
    let mut files = options.files.clone();
    if files.is_empty() {
        files.push(PathBuf::from(DEFAULT_CASES));
    }
    for file in &files {
        match run_file(file, &options, &environment) {
            Ok(result) => results.push(result),
            Err(why) => {
                if options.format == Format::Text {
                    say_broken(&why);
                }
                broken.extend(why.notices(file));
            }
        }
    }
    let ran: usize = results.iter().map(|result| result.cases.len()).sum();
    report::print(options.format, &results, &broken);
    if !broken.is_empty() {
        return PROBLEMS;
    }
    if let Some(only) = options.only.filter(|_| ran == 0) {
        return fail(PROBLEMS, &format_args!("no case has a name that contains {only:?}"));
    }
    let failed = results.iter().flat_map(|result| &result.cases).any(|case| !case.failures.is_empty());
    if failed { FAILED } else { OK }
}

fn say_broken(why: &Broken) {
    match why {
        Broken::Failed(why) => {
            fail(PROBLEMS, why);
        }
        Broken::Problems(problems) => complain(problems),
        Broken::Config(error) => complain(error),
    }
}

impl Broken {
    fn notices(&self, file: &Path) -> Vec<Notice> {
        match self {
            Broken::Failed(why) => vec![Notice::error(file, why.clone())],
            Broken::Problems(problems) => problems.errors(),
            Broken::Config(error) => notices(error),
        }
    }
}

fn run_file(file: &Path, options: &Options, environment: &Environment) -> Result<FileResult, Broken> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let remedy = file_access::after(file, &error);
        Broken::Failed(format!("cannot read {}: {error}{remedy}", file.display()))
    })?;
    let read = cases::read(file, &text, &environment.variables);
    let cases = read.map_err(|problems| Broken::Problems(Box::new(problems)))?;
    let config = config_file(&cases, options)?;
    let mut environment = environment.clone();
    environment.variables.extend(cases.variables.clone());
    let mut rehearsed = HashMap::new();
    for case in &cases.cases {
        rehearsed.insert(case.name.as_str(), rehearse(&cases, case, &config, &environment)?);
    }
    let is_chosen = |case: &&Case| options.only.as_ref().is_none_or(|only| case.name.contains(only.as_str()));
    let result = |case: &Case| {
        let failures = match rehearsed.get(case.name.as_str()) {
            Some(this) => compare::failures(&cases, case, this, &rehearsed),
            None => Vec::new(),
        };
        CaseResult { name: case.name.clone(), line: cases.place(&case.span).line, failures }
    };
    let results = cases.cases.iter().filter(is_chosen).map(result).collect();
    Ok(FileResult { file: file.to_path_buf(), config, cases: results })
}

/// Returns the configuration file that cases are about.
fn config_file(cases: &CaseFile, options: &Options) -> Result<PathBuf, Broken> {
    let folder = cases.path.parent().unwrap_or(Path::new(""));
    let beside = || {
        let name = cases.path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
        Some(folder.join(format!("{name}.toml"))).filter(|path| path.is_file())
    };
    let named = cases.config.as_ref().map(|config| folder.join(config));
    options.config.clone().or(named).or_else(beside).or_else(default_file).ok_or_else(|| {
        Broken::Failed(format!(
            "{} names no configuration: write config = \"pillion.toml\" in it, or give --config FILE",
            cases.path.display()
        ))
    })
}

/// Rehearses a case with a cache and limits of its own, so that cases do not depend on each other.
fn rehearse(
    cases: &CaseFile,
    case: &Case,
    config: &Path,
    environment: &Environment,
) -> Result<Rehearsed, Broken> {
    let source = Source { file: Some(config.to_path_buf()), ..Source::default() };
    let policy = config::load(&source, environment).map_err(Broken::Config)?;
    let sample = sample::sample(case, &policy)
        .map_err(|(span, message, help)| Broken::Problems(Box::new(cases.refuse(&span, message, help))))?;
    let failed = |error| Broken::Failed(format!("cannot run {:?}: {error}", case.name));
    let (snapshot, sink) = app::rehearse(policy, case.now).map_err(failed)?;
    let response =
        StandInResponse { status: case.status, fields: case.fields.clone(), content: case.content.clone() };
    let rehearsal =
        rehearsal::rehearse(&sample, &response, case.times, (&snapshot, &sink)).map_err(failed)?;
    Ok(Rehearsed { rehearsal, snapshot })
}
