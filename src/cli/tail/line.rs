//! A live decision as one line for people: time, status, duration, method, path, what the cache did, the time of the
//! upstream, the request id, and why the response is not the usual one.

use std::fmt::Write as _;

use serde_json::Value;

use crate::log;

/// Columns of a path where the width of the output is not known.
const USUAL_PATH: usize = 40;
/// Limits of the columns of a path on a terminal.
const MIN_PATH: usize = 16;
const MAX_PATH: usize = 60;
/// Columns of a line but for its path and its reason: time, status, duration, method, cache, upstream, request id, and a
/// space behind each and behind the path.
const OTHERS: usize = 12 + 3 + 9 + 7 + 11 + 8 + 32 + 8;
/// Columns that most reasons fit.
const REASON: usize = 16;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub color: bool,
    /// Columns of the path.
    pub path: usize,
}

/// Returns the columns that a path gets.
pub(super) fn path_width(is_terminal: bool) -> usize {
    let size = is_terminal.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten();
    let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    let path = columns.map(|columns| columns.saturating_sub(OTHERS + REASON));
    path.map_or(USUAL_PATH, |path| path.clamp(MIN_PATH, MAX_PATH))
}

/// Returns the line of a document of the stream, with its line end.
pub(super) fn shown(document: &Value, style: Style) -> String {
    if let Some(count) = document.get("not_shown").and_then(Value::as_u64) {
        return format!("{} more not shown\n", grouped(count));
    }
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let status = document.get("status").and_then(Value::as_u64).unwrap_or_default();
    let (begin, end) = log::status_color(u16::try_from(status).unwrap_or_default(), style.color);
    let room = style.path;
    let mut line = format!(
        "{:<12} {begin}{status:<3}{end} {:>9} {:<7} {:<room$} {:<11} {:>8} {}",
        text("time").and_then(log::local_time).unwrap_or_else(|| "-".to_owned()),
        milliseconds(document.get("duration_ms")),
        text("method").unwrap_or("-"),
        log::cut(text("path").unwrap_or("-"), room),
        text("cache").unwrap_or("-"),
        milliseconds(document.get("upstream_ms")),
        text("request_id").unwrap_or("-"),
    );
    for reason in reasons(document) {
        // Writing to a string cannot fail.
        let _ = write!(line, " {reason}");
    }
    line.push('\n');
    line
}

/// Returns the words for why the response is not the usual one, the error last.
fn reasons(document: &Value) -> Vec<String> {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let mut reasons: Vec<String> = text("not_stored").map(str::to_owned).into_iter().collect();
    let limits = document.get("limits").and_then(Value::as_array);
    let limits: Vec<&str> = limits.into_iter().flatten().filter_map(Value::as_str).collect();
    if !limits.is_empty() {
        let (word, tier) = (text("limit").unwrap_or("limited"), text("tier").unwrap_or("-"));
        reasons.push(format!("{word} ({tier}: {})", limits.join(", ")));
    }
    if let (Some(fault), Some(error)) = (text("fault"), text("error")) {
        reasons.push(format!("{fault}: {}", log::printable(error)));
    }
    reasons.extend(text("client").map(|client| format!("from {client}")));
    reasons
}

/// Formats milliseconds as the access log for people does.
fn milliseconds(value: Option<&Value>) -> String {
    let Some(milliseconds) = value.and_then(Value::as_f64) else { return "-".to_owned() };
    log::duration(std::time::Duration::from_secs_f64((milliseconds / 1000.0).max(0.0)))
}

/// Formats a number with a comma between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn line_has_its_columns_and_then_the_reasons() {
        let id = "0123456789abcdef0123456789abcdef";
        let document = json!({
            "time": "2026-11-21T23:27:24.000Z", "status": 429, "duration_ms": 0.5, "method": "GET",
            "path": "/api/patients/7", "request_id": id, "limit": "limited", "tier": "free",
            "limits": ["minute", "day"], "fault": "pillion", "error": "too\u{202e}many", "client": "::1",
        });
        let time = log::local_time("2026-11-21T23:27:24.000Z").unwrap_or_default();
        let style = Style { color: false, path: 16 };
        assert_eq!(
            shown(&document, style),
            format!(
                "{time} 429     500us GET     /api/patients/7  -                  - {id} limited (free: minute, day) \
                 pillion: too\\u{{202e}}many from ::1\n"
            )
        );
        let path = shown(&document, Style { color: true, path: 8 });
        assert!(path.contains(" \u{1b}[33m429\u{1b}[0m ") && path.contains(" /api\u{2026}s/7 "), "{path}");
        let line = shown(&json!({ "request_id": id, "path": "/x" }), style);
        assert_eq!(line.trim_end().chars().count(), OTHERS - 1 + 16, "{line}");
        assert_eq!(shown(&json!({ "not_shown": 1_234_567 }), style), "1,234,567 more not shown\n");
        assert_eq!(shown(&json!({ "not_shown": 7 }), style), "7 more not shown\n");
    }
}
