//! Formats an access log line for people: the most important values in columns, in at most 100 of them; with `--verbose`
//! then all others, with the names they have in JSON.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use super::line::{Decision, Line};
use super::mask::masked;
use super::time;

/// Columns of a line that is not verbose.
const COLUMNS: usize = 100;
/// Columns before the path: time, status, duration and a method of up to six letters.
const HEAD: usize = "03:03:03.123 200    12.3ms GET    ".len();
/// Columns behind the path: what the cache did, the time of the upstream, the size.
const TAIL: usize = " hit       11.0ms  12.3kB".len();
/// A path is not cut to less.
const MIN_PATH: usize = 16;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub color: bool,
    pub verbose: bool,
}

/// Appends `line` and a line end. Writing to a vector cannot fail.
#[inline(never)]
pub(super) fn write(out: &mut Vec<u8>, line: Line<'_>, style: Style) {
    let reason = reason(&line);
    let method = line.method.as_str();
    let beyond = method.chars().count().saturating_sub(6);
    // An address of a tier may be as long as its name; the path gives way, then the reason.
    let used = HEAD + beyond + TAIL + reason.chars().count();
    let room = COLUMNS.saturating_sub(used).max(MIN_PATH);
    let target = masked(line.target, line.secrets);
    let path = if style.verbose { target.into_owned() } else { cut(&target, room) };
    let reason = match style.verbose {
        true => reason,
        false => cut(&reason, COLUMNS.saturating_sub(HEAD + beyond + TAIL + room)),
    };
    let (begin, end) = color(line.status.as_u16(), style.color);
    let _ = write!(
        out,
        "{} {begin}{}{end} {:>9} {method:<6} {path:<room$} {:<8} {:>7} {:>7}{reason}",
        time::local(line.at),
        line.status.as_u16(),
        duration(line.duration),
        line.cache.unwrap_or("-"),
        line.upstream_time.map_or_else(|| "-".to_owned(), duration),
        size(line.bytes),
    );
    if style.verbose {
        rest(out, &line);
    }
    // A line of which the last columns are empty has no use for them.
    while out.last() == Some(&b' ') {
        out.pop();
    }
    out.push(b'\n');
}

/// Appends all values with their names in JSON.
fn rest(out: &mut Vec<u8>, line: &Line<'_>) {
    let _ = write!(out, " {} ({})", line.client, line.route);
    let mut put = |name: &str, value: &dyn Display| {
        let _ = write!(out, " {name}={value}");
    };
    put("bytes", &line.bytes);
    line.cache.inspect(|word| put("cache", word));
    line.not_stored.inspect(|word| put("not_stored", word));
    if let Some(Decision { caller: (kind, hash), tier, word, limits }) = line.limited {
        put("limit", &word);
        put("tier", tier);
        put("caller", &format_args!("{kind}:{hash:032x}"));
        if !limits.is_empty() {
            put("limits", &limits.join(","));
        }
    }
    if let Some((coding, before)) = line.coded {
        put("coding", &coding);
        put("content_bytes", &before);
    }
    line.upstream.inspect(|upstream| put("upstream", upstream));
    line.upstream_time.inspect(|time| put("upstream_ms", &milliseconds(*time)));
    line.first_byte.inspect(|time| put("first_byte_ms", &milliseconds(*time)));
    if line.retries > 0 {
        put("retries", &line.retries);
    }
    line.principal.inspect(|principal| put("principal", &format_args!("{principal:032x}")));
    put("protocol", &line.protocol);
    // The id was made by Pillion, or accepted because it needs no escaping.
    put("request_id", &line.id.to_str().unwrap_or("-"));
    line.trace.inspect(|trace| put("trace_id", &format_args!("{trace:032x}")));
    if let Some((fault, error)) = line.error {
        put("fault", &fault);
        put("error", &format_args!("{error:?}"));
    }
}

/// Returns the tier, and why the response is not the usual one, each with a space before it.
fn reason(line: &Line<'_>) -> String {
    let mut text = String::new();
    let mut put = |word: &str| {
        text.push(' ');
        text.push_str(word);
    };
    if let Some(Decision { tier, word, limits, .. }) = line.limited {
        put(tier.as_str());
        // The word of a request that passed says nothing new.
        if !limits.is_empty() {
            put(word);
        }
    }
    line.not_stored.inspect(|word| put(word));
    line.error.inspect(|(fault, _)| put(fault));
    text
}

/// Cuts a text in its middle to `room` columns.
pub(crate) fn cut(text: &str, room: usize) -> String {
    let count = text.chars().count();
    if count <= room {
        return text.to_owned();
    }
    let kept = room.saturating_sub(1);
    let (begin, end) = (kept.div_ceil(2), kept / 2);
    let first: String = text.chars().take(begin).collect();
    let last: String = text.chars().skip(count - end).collect();
    if room == 0 { String::new() } else { format!("{first}\u{2026}{last}") }
}

/// Returns what stands before and after a status of this class.
pub(crate) fn color(status: u16, color: bool) -> (&'static str, &'static str) {
    let begin = match (color, status) {
        (false, _) => return ("", ""),
        (true, 500..) => "\u{1b}[31m",
        (true, 400..) => "\u{1b}[33m",
        (true, 300..) => "\u{1b}[36m",
        (true, _) => "\u{1b}[32m",
    };
    (begin, "\u{1b}[0m")
}

/// Formats a duration in at most seven columns, below 28 hours.
pub(crate) fn duration(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..1_000 => format!("{micros}us"),
        1_000..1_000_000 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.1}s", duration.as_secs_f64()),
    }
}

/// Formats a number of bytes in at most seven columns, below a petabyte.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut shown = bytes as f64;
    let mut unit = 0;
    // Above this, one decimal would round to four digits.
    while shown >= 999.95 && unit + 1 < UNITS.len() {
        shown /= 1000.0;
        unit += 1;
    }
    format!("{shown:.1}{}", UNITS[unit])
}

fn milliseconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_millis(), duration.subsec_micros() % 1000)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use http::{HeaderValue, Method, StatusCode};
    use serde_json::Value;

    use super::*;
    use crate::log::json;
    use crate::log::mask::Secrets;
    use crate::log::members::Members;
    use crate::policy::secrets::NO_SECRET_SEGMENTS;
    use crate::rendering::json_text::EscapedText;
    use crate::rendering::render_cache::DirectMappedCache;

    const BRIEF: Style = Style { color: false, verbose: false };
    const VERBOSE: Style = Style { color: false, verbose: true };

    fn said(line: Line<'_>, style: Style) -> String {
        let mut text = Vec::new();
        write(&mut text, line, style);
        String::from_utf8(text).unwrap()
    }

    /// Calls `each` with a line of every value and one of none.
    fn lines(each: impl Fn(Line<'_>, Line<'_>)) {
        let (id, route, upstream, tier) = (
            HeaderValue::from_static("an-id"),
            EscapedText::new("/{a}"),
            EscapedText::new("[::1]:80"),
            EscapedText::new("free"),
        );
        let names = ["token".to_owned()];
        let full = Line {
            trace: Some(0xabc),
            target: "/7?token=S3CRET",
            secrets: Secrets { names: &names, segments: &NO_SECRET_SEGMENTS },
            status: StatusCode::BAD_GATEWAY,
            bytes: 12,
            coded: Some(("br", 34)),
            duration: Duration::from_micros(12_345),
            upstream_time: Some(Duration::from_micros(11_001)),
            upstream: Some(&upstream),
            retries: 2,
            first_byte: Some(Duration::from_micros(12_000_000)),
            cache: Some("miss"),
            not_stored: Some("private"),
            principal: Some(0xdef),
            limited: Some(Decision { caller: ("ip", 1), tier: &tier, word: "limited", limits: &["a", "b"] }),
            error: Some(("upstream", "it broke\noff")),
            ..Line::bare(&id, &Method::GET, &route)
        };
        each(full, Line::bare(&id, &Method::GET, &route));
    }

    #[test]
    fn line_is_in_columns_and_verbose_says_what_json_says() {
        lines(|full, bare| {
            let time = time::local(full.at);
            let columns = |reason: &str| {
                format!("{time} 502    12.3ms GET    /7?token=***     miss      11.0ms     12B{reason}")
            };
            let brief = columns(" free limite\u{2026}ate upstream");
            assert_eq!((said(full, BRIEF), brief.chars().count()), (format!("{brief}\n"), COLUMNS));
            let columns = columns(" free limited private upstream");
            let others = format!(
                " 127.0.0.1 (/{{a}}) bytes=12 cache=miss not_stored=private limit=limited tier=free caller=ip:{:032x} \
                 limits=a,b coding=br content_bytes=34 upstream=[::1]:80 upstream_ms=11.001 first_byte_ms=12000.000 \
                 retries=2 principal={:032x} protocol=HTTP/1.1 request_id=an-id trace_id={:032x} fault=upstream \
                 error=\"it broke\\noff\"\n",
                1, 0xdef, 0xabc
            );
            assert_eq!(said(full, VERBOSE), format!("{columns}{others}"));
            for line in [full, bare] {
                let (mut out, mut recurring) = (Vec::new(), DirectMappedCache::<Members>::NONE);
                json::write(&mut out, &mut recurring, &line);
                let members: BTreeMap<String, Value> = serde_json::from_slice(&out).unwrap();
                let text = said(line, VERBOSE);
                let named =
                    text.split_once(") ").unwrap().1.split(' ').filter_map(|word| word.split_once('='));
                let first = [
                    "kind",
                    "time",
                    "level",
                    "message",
                    "status",
                    "duration_ms",
                    "method",
                    "path",
                    "client",
                    "route",
                ];
                let names: BTreeSet<&str> = named.map(|(name, _)| name).chain(first).collect();
                assert_eq!(names, members.keys().map(String::as_str).collect(), "{text}");
            }
        });
    }

    #[test]
    fn line_fits_its_columns_whatever_it_says() {
        lines(|full, bare| {
            let long = "/a".repeat(200);
            let (method, tier) =
                (Method::from_bytes(b"PROPPATCH").unwrap(), EscapedText::new(&"t".repeat(64)));
            let limited = full.limited.map(|limited| Decision { tier: &tier, ..limited });
            let (short, brief) = (Duration::from_secs(86_400), full.duration);
            for line in [
                Line { target: &long, ..full },
                Line { target: &long, ..bare },
                Line { method: &method, target: &long, bytes: u64::MAX / 100_000, duration: short, ..full },
                Line { limited, target: &long, duration: brief, ..full },
            ] {
                let text = said(line, BRIEF);
                let width = text.trim_end_matches('\n').chars().count();
                assert!(width <= COLUMNS, "{width}: {text}");
                assert!(text.contains("/a/a") && text.contains('\u{2026}'), "{text}");
            }
        });
    }

    #[test]
    fn values_are_short_and_rounded() {
        for (micros, text) in
            [(0, "0us"), (999, "999us"), (1_000, "1.0ms"), (48_320, "48.3ms"), (61_250_000, "61.2s")]
        {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1_000, "1.0kB"), (12_345, "12.3kB"), (999_960, "1.0MB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (text, room, cut_to) in [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 5, "ab\u{2026}ef"),
            ("abcdef", 4, "ab\u{2026}f"),
            ("ab", 0, ""),
        ] {
            assert_eq!(cut(text, room), cut_to);
        }
        let style = Style { color: true, verbose: false };
        lines(|full, _| assert!(said(full, style).contains(" \u{1b}[31m502\u{1b}[0m ")));
    }
}
