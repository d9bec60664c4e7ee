//! Prints the results of test cases.

use serde_json::{Value, json};

use super::super::check::{Format, annotation, remark};
use super::super::output::say;
use super::result::{CaseResult, Failure, FileResult};
use crate::policy::notice::{Notice, Severity};

/// Prints the results on standard output. `broken` are the problems of files whose cases were not run.
pub(super) fn print(format: Format, results: &[FileResult], broken: &[Notice]) {
    match format {
        Format::Text => text(results),
        Format::Json => say(&document(results, broken)),
        Format::Github => {
            broken.iter().for_each(|notice| say(&annotation(notice)));
            let cases = results.iter().flat_map(|result| result.cases.iter().map(move |case| (result, case)));
            for (result, case) in cases {
                case.failures.iter().for_each(|failure| say(&annotation(&notice(result, case, failure))));
            }
        }
    }
}

/// Returns the numbers of cases that passed and failed.
fn counts(results: &[FileResult]) -> (usize, usize) {
    let all = results.iter().flat_map(|result| &result.cases);
    let (passed, failed): (Vec<_>, Vec<_>) = all.partition(|case| case.failures.is_empty());
    (passed.len(), failed.len())
}

fn text(results: &[FileResult]) {
    for result in results {
        let file = result.file.display();
        say(&file);
        for case in &result.cases {
            let word = if case.failures.is_empty() { "ok  " } else { "FAIL" };
            say(&format_args!("  {word}  {}", case.name));
            for Failure { key, place, expected, got, because } in &case.failures {
                say(&format_args!("        {file}:{}:{}: {}", place.line, place.column, key.as_str()));
                say(&format_args!("          expected  {expected}"));
                say(&format_args!("          got       {got}"));
                for (at, line) in because.iter().enumerate() {
                    say(&format_args!("          {:<9} {line}", if at == 0 { "because" } else { "" }));
                }
            }
        }
    }
    if !results.is_empty() {
        let (passed, failed) = counts(results);
        say(&format_args!("\n{passed} passed, {failed} failed"));
    }
}

fn document(results: &[FileResult], broken: &[Notice]) -> Value {
    let failure = |failure: &Failure| {
        json!({
            "key": failure.key.as_str(),
            "line": failure.place.line,
            "column": failure.place.column,
            "expected": failure.expected,
            "got": failure.got,
            "because": failure.because,
        })
    };
    let case = |case: &CaseResult| {
        let failures: Vec<Value> = case.failures.iter().map(failure).collect();
        json!({
            "name": case.name,
            "line": case.line,
            "passed": failures.is_empty(),
            "failures": failures,
        })
    };
    let file = |result: &FileResult| {
        json!({
            "file": result.file.display().to_string(),
            "config": result.config.display().to_string(),
            "cases": result.cases.iter().map(case).collect::<Vec<_>>(),
        })
    };
    let (passed, failed) = counts(results);
    json!({
        "files": results.iter().map(file).collect::<Vec<_>>(),
        "passed": passed,
        "failed": failed,
        "diagnostics": broken.iter().map(remark).collect::<Vec<_>>(),
    })
}

/// Returns a failure as a remark at its place in the file.
fn notice(result: &FileResult, case: &CaseResult, failure: &Failure) -> Notice {
    let Failure { key, place, expected, got, because } = failure;
    Notice {
        severity: Severity::Error,
        message: format!("{}: {}: expected {expected}, got {got}", case.name, key.as_str()),
        help: because.first().cloned(),
        file: result.file.clone(),
        place: Some(place.clone()),
        shown: String::new(),
    }
}
