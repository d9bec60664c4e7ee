//! Reports on the performance of routes, as JSON or as a text table.

use std::cmp::Reverse;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::control::Control;
use super::report::Report;
use crate::log;
use crate::metrics::{read_process, read_workers};
use crate::performance::histogram::Merged;
use crate::performance::window::{Figures, Window};
use crate::performance::{Noted, Performance};
use crate::runtime::clock;

/// Number of rows if the request does not say.
const USUALLY_SHOWN: usize = 50;
const MAX_SHOWN: usize = 1000;

type Parameters<'a> = &'a [(String, String)];

fn refused(detail: String) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, detail)
}

fn parameter<'a>(parameters: Parameters<'a>, name: &str) -> Option<&'a str> {
    parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn limit(parameters: Parameters<'_>) -> Result<usize, (StatusCode, String)> {
    let Some(given) = parameter(parameters, "limit") else { return Ok(USUALLY_SHOWN) };
    let number = given.parse().ok().filter(|number| (1..=MAX_SHOWN).contains(number));
    number.ok_or_else(|| refused(format!("limit is {given:?}; expected 1 to {MAX_SHOWN}")))
}

fn chosen<'a>(
    parameters: Parameters<'a>,
    name: &str,
    known: &[&'static str],
) -> Result<&'static str, (StatusCode, String)> {
    let Some(given) = parameter(parameters, name) else { return Ok(known[0]) };
    let found = known.iter().find(|word| **word == given);
    found
        .copied()
        .ok_or_else(|| refused(format!("{name} is {given:?}; expected one of {}", known.join(", "))))
}

/// Builds the report for a path.
pub(super) fn report(control: &Control, path: &str, parameters: Parameters<'_>) -> Report {
    chosen(parameters, "format", &["json", "text"])?;
    match path {
        "/performance/routes" => routes(control, parameters),
        "/performance/slow" => single(control.shared_state.performance.slow(), parameters),
        "/performance/errors" => single(control.shared_state.performance.failed(), parameters),
        "/performance/system" => Ok(system(control)),
        _ => Err((StatusCode::NOT_FOUND, format!("unknown report {path}"))),
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Returns a ratio rounded to a hundredth of a percent; `None` if the whole is zero.
pub(super) fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 1e4).round() / 1e4)
}

/// The columns that routes can be sorted by. The first is the default.
pub(super) const SORTS: [&str; 10] =
    ["count", "rate", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "error_rate", "hit_ratio", "bytes"];

/// The time windows of the report. The first is the default.
pub(super) const WINDOWS: [&str; 3] = ["5m", "1m", "1h"];

/// Renders the counts and percentiles of one time window as JSON.
pub(super) fn figures(figures: &Figures, merged: &Merged, over: Duration) -> Value {
    let Figures { count, bytes, failed, slow, asked, hits, max } = *figures;
    let rate = if over.is_zero() { 0.0 } else { (count as f64 / over.as_secs_f64() * 100.0).round() / 100.0 };
    // A quantile is the middle of a histogram bucket, which may lie beyond the longest duration measured.
    let quantile = |share: f64| (count > 0).then(|| milliseconds(merged.quantile(share).min(max)));
    json!({
        "seconds": over.as_secs(),
        "count": count,
        "rate": rate,
        "p50_ms": quantile(0.50),
        "p90_ms": quantile(0.90),
        "p95_ms": quantile(0.95),
        "p99_ms": quantile(0.99),
        "max_ms": (count > 0).then(|| milliseconds(max)),
        "error_rate": share(failed, count),
        "slow_rate": share(slow, count),
        "hit_ratio": share(hits, asked),
        "bytes": bytes,
    })
}

fn routes(control: &Control, parameters: Parameters<'_>) -> Report {
    let sort = chosen(parameters, "sort", &SORTS)?;
    let wanted = chosen(parameters, "window", &WINDOWS)?;
    let limit = limit(parameters)?;
    let mut rows: Vec<(f64, Value)> = Vec::new();
    let (mut all, mut all_times, mut max_span) = (Figures::default(), Merged::default(), Duration::ZERO);
    for (label, route) in control.shared_state.performance.routes() {
        let mut of = |window: &Window| {
            let (counted, merged, over) = route.times.over(*window);
            if window.as_str() == wanted {
                all.add(&counted);
                all_times.join(&merged);
                max_span = max_span.max(over);
            }
            (window.as_str().to_owned(), figures(&counted, &merged, over))
        };
        let windows: Map<String, Value> = Window::ALL.iter().map(&mut of).collect();
        if windows.values().all(|figures| figures["count"] == 0) {
            continue;
        }
        let verdict = route.verdict();
        let by = windows[wanted][sort].as_f64().unwrap_or(-1.0);
        let row = json!({
            "route": label,
            "state": verdict.slowness.as_str(),
            "failing": verdict.failing,
            "windows": windows,
        });
        rows.push((by, row));
    }
    rows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let rows: Vec<Value> = rows.into_iter().take(limit).map(|(_, row)| row).collect();
    let total = figures(&all, &all_times, max_span);
    Ok(json!({ "sort": sort, "window": wanted, "total": total, "routes": rows }))
}

fn single(mut found: Vec<Noted>, parameters: Parameters<'_>) -> Report {
    let sort = chosen(parameters, "sort", &["time", "duration"])?;
    let limit = limit(parameters)?;
    match sort {
        "duration" => found.sort_by_key(|noted| Reverse(noted.duration)),
        _ => found.sort_by_key(|noted| Reverse(noted.at)),
    }
    let rows: Vec<Value> = found.iter().take(limit).map(noted).collect();
    Ok(json!({ "sort": sort, "requests": rows }))
}

fn noted(noted: &Noted) -> Value {
    let Noted { at, id, method, target, route, status, duration, upstream_time, upstream, cache, error } =
        noted;
    json!({
        "time": clock::unix_seconds(*at),
        "request_id": id,
        "method": method,
        "path": target,
        "route": route,
        "status": status,
        "duration_ms": milliseconds(*duration),
        "upstream_ms": upstream_time.map(milliseconds),
        "upstream": upstream,
        "cache": cache,
        "fault": error.as_ref().map(|(fault, _)| fault),
        "error": error.as_ref().map(|(_, error)| error),
    })
}

/// Lists the latest warnings, newest first.
pub(super) fn warnings(performance: &Performance) -> Vec<Value> {
    let warnings = performance.warnings();
    let shown = warnings.iter().rev().map(|warning| {
        let time = clock::unix_seconds(warning.at);
        json!({ "time": time, "text": warning.text, "recovered": warning.recovered })
    });
    shown.collect()
}

fn system(control: &Control) -> Value {
    let snapshot = control.live.load();
    let process = read_process();
    let shared_state = &control.shared_state;
    let now = clock::unix_seconds(clock::wall());
    let uptime = (now - process.start_seconds).max(0.0);
    let workers: Vec<Value> = read_workers()
        .into_iter()
        .map(|worker| json!({ "worker": worker.index, "cpu_seconds": worker.cpu_seconds }))
        .collect();
    let warnings = warnings(&shared_state.performance);
    json!({
        "version": shared_state.metrics.version(),
        "uptime_seconds": uptime.round(),
        "generation": snapshot.generation,
        "cpu_seconds": process.cpu_seconds,
        "cpu_share": (uptime > 0.0).then(|| (process.cpu_seconds / uptime * 1e4).round() / 1e4),
        "resident_bytes": process.resident_bytes,
        "memory_limit_bytes": snapshot.policy.health.memory_limit,
        "open_fds": process.open_fds,
        "max_fds": process.max_fds,
        "threads": process.threads,
        "workers": workers,
        "connections": shared_state.metrics.connections.get(),
        "requests_in_flight": shared_state.metrics.routes.in_flight.load(std::sync::atomic::Ordering::Relaxed),
        "cache_bytes": shared_state.cache.store.budget.get(),
        "cache_max_bytes": shared_state.cache.store.budget.max(),
        "limit_keys": shared_state.limiter.cells.held(),
        "warnings": warnings,
    })
}

/// The columns of the text tables, in the order in which people read them. Columns that a report lacks are left out.
const COLUMNS: [&str; 25] = [
    "time",
    "status",
    "method",
    "path",
    "route",
    "duration_ms",
    "upstream_ms",
    "upstream",
    "cache",
    "count",
    "rate",
    "error_rate",
    "p50_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
    "max_ms",
    "slow_rate",
    "hit_ratio",
    "bytes",
    "state",
    "failing",
    "request_id",
    "fault",
    "error",
];

/// Returns the head of a column with its unit, where the name has none.
fn head(name: &str) -> &str {
    match name {
        "rate" => "requests/s",
        "error_rate" => "errors_%",
        "slow_rate" => "slow_%",
        "hit_ratio" => "hits_%",
        other => other,
    }
}

/// Renders a report as text: a list becomes an aligned table with one row a line, its first line the window and the
/// order; anything else becomes one value a line.
pub(super) fn as_text(report: &Value) -> String {
    let window = report["window"].as_str();
    let rows: Option<Vec<Map<String, Value>>> =
        report["routes"].as_array().or(report["requests"].as_array()).map(|rows| {
            let flat = |row: &Value| {
                let mut flat = row.as_object().cloned().unwrap_or_default();
                if let (Some(Value::Object(windows)), Some(window)) = (flat.remove("windows"), window) {
                    flat.extend(windows.get(window).and_then(Value::as_object).cloned().unwrap_or_default());
                }
                flat
            };
            rows.iter().map(flat).collect()
        });
    let Some(rows) = rows else {
        let lines = report.as_object().into_iter().flatten();
        return lines.map(|(name, value)| table_lines(name, value)).collect();
    };
    let Some(first) = rows.first() else { return "no requests yet\n".to_owned() };
    let names: Vec<&str> = COLUMNS.into_iter().filter(|name| first.contains_key(*name)).collect();
    let mut table: Vec<Vec<String>> = vec![names.iter().map(|name| head(name).to_owned()).collect()];
    table
        .extend(rows.iter().map(|row| names.iter().map(|name| shown(name, &row[*name])).collect::<Vec<_>>()));
    let widths: Vec<usize> = (0..names.len())
        .map(|column| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let sort = report["sort"].as_str().unwrap_or("-");
    let title = match window {
        Some(window) => format!("routes over the last {window}, sorted by {sort}\n"),
        None => format!("latest requests, sorted by {sort}\n"),
    };
    std::iter::once(title).chain(table.iter().map(line)).collect()
}

/// Renders a value on one line, and a list with one line for each member.
fn table_lines(name: &str, value: &Value) -> String {
    let line = |text: &str| format!("{name:<20} {text}\n");
    let Value::Array(members) = value else { return line(&shown(name, value)) };
    if members.is_empty() {
        return line("-");
    }
    let member = |member: &Value| {
        let parts = member.as_object().into_iter().flatten();
        line(
            &parts
                .map(|(name, value)| format!("{name}={}", shown(name, value)))
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    members.iter().map(member).collect()
}

fn shown(name: &str, value: &Value) -> String {
    match (name, value) {
        ("time", Value::Number(seconds)) => {
            log::rfc3339(Duration::from_secs_f64(seconds.as_f64().unwrap_or(0.0).max(0.0)))
        }
        ("error_rate" | "slow_rate" | "hit_ratio", Value::Number(share)) => {
            format!("{:.2}", share.as_f64().unwrap_or(0.0) * 100.0)
        }
        (_, Value::String(text)) => text.clone(),
        (_, Value::Null) => "-".to_owned(),
        (_, other) => other.to_string(),
    }
}
