//! The access log: one line a request, JSON or for people. Secrets are masked by the names the
//! configuration lists. How lines leave the process is in `writer`.

mod writer;

use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use crate::clock;
use crate::fields::query;
use crate::policy::{AccessLog as Which, LogFormat, LogPolicy};

pub use writer::{Lines, Target, Writer};

/// What stands in place of a masked value.
const MASKED: &str = "***";

/// What a line says.
pub struct Line<'a> {
    /// The request's id.
    pub id: &'a HeaderValue,
    /// The client.
    pub client: IpAddr,
    /// The method.
    pub method: &'a Method,
    /// Path and query as they came.
    pub target: &'a str,
    /// The protocol.
    pub protocol: &'static str,
    /// The route's template.
    pub route: &'a str,
    /// The status.
    pub status: StatusCode,
    /// Bytes of content sent.
    pub bytes: u64,
    /// The coding Pillion put on it, and bytes of content before that.
    pub coded: Option<(&'static str, u64)>,
    /// Until the last byte.
    pub duration: Duration,
    /// Until the head of the app's answer.
    pub upstream_time: Option<Duration>,
    /// The app's address.
    pub upstream: Option<&'a dyn Display>,
    /// Tries after the first.
    pub retries: u32,
    /// What the cache did.
    pub cache: Option<&'static str>,
    /// Whose fault, and what.
    pub error: Option<(&'static str, &'a str)>,
}

/// One worker's end of the access log.
#[derive(Clone)]
pub struct AccessLog(Lines);

impl AccessLog {
    /// Into `lines`.
    pub fn new(lines: Lines) -> AccessLog {
        AccessLog(lines)
    }

    /// Whether a request is logged.
    pub fn wants(&self, policy: &LogPolicy, status: StatusCode, failed: bool, duration: Duration) -> bool {
        let error = failed || status.is_server_error();
        let slow = duration >= policy.slow;
        match policy.access {
            Which::Off => false,
            Which::Errors => error,
            Which::Slow => error || slow,
            Which::All => error || slow || policy.sample >= 1.0 || fastrand::f64() < policy.sample,
        }
    }

    /// Appends a line, or drops and counts it.
    pub fn write(&self, policy: &LogPolicy, line: &Line<'_>) {
        let text = match policy.format {
            LogFormat::Json => json(policy, line),
            LogFormat::Pretty => pretty(policy, line),
        };
        self.0.append(text.as_bytes());
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn json(policy: &LogPolicy, line: &Line<'_>) -> String {
    let mut value = serde_json::json!({
        "time": timestamp(),
        "kind": "access",
        "request_id": line.id.to_str().unwrap_or("-"),
        "client": line.client.to_string(),
        "method": line.method.as_str(),
        "path": masked(line.target, &policy.mask),
        "protocol": line.protocol,
        "route": line.route,
        "status": line.status.as_u16(),
        "bytes": line.bytes,
        "duration_ms": milliseconds(line.duration),
        "retries": line.retries,
    });
    if let Some((coding, before)) = line.coded {
        value["coding"] = coding.into();
        value["content_bytes"] = before.into();
    }
    if let Some(cache) = line.cache {
        value["cache"] = cache.into();
    }
    if let Some(upstream) = line.upstream {
        value["upstream"] = upstream.to_string().into();
    }
    if let Some(time) = line.upstream_time {
        value["upstream_ms"] = milliseconds(time).into();
    }
    if let Some((fault, error)) = line.error {
        value["fault"] = fault.into();
        value["error"] = error.into();
    }
    format!("{value}\n")
}

fn pretty(policy: &LogPolicy, line: &Line<'_>) -> String {
    let mut text = format!(
        "{} {:>3} {:>9.3}ms {:<6} {} {} ({})",
        timestamp(),
        line.status.as_u16(),
        milliseconds(line.duration),
        line.method.as_str(),
        masked(line.target, &policy.mask),
        line.client,
        line.route,
    );
    if let Some(cache) = line.cache {
        let _ = write!(text, " {cache}");
    }
    if let Some((fault, error)) = line.error {
        // Writing to a string cannot fail.
        let _ = write!(text, " {fault}: {error}");
    }
    text.push('\n');
    text
}

/// RFC 3339 with milliseconds, UTC.
fn timestamp() -> String {
    let wall = clock::wall();
    let since = wall.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let date = httpdate::HttpDate::from(wall).to_string();
    // "Sun, 06 Nov 1994 08:49:37 GMT": fixed columns.
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let part = |range: std::ops::Range<usize>| date.get(range).unwrap_or("");
    let month = MONTHS.find(part(8..11)).map_or(0, |at| at / 3 + 1);
    format!("{}-{month:02}-{}T{}.{:03}Z", part(12..16), part(5..7), part(17..25), since.subsec_millis())
}

/// Control characters percent-encoded: a target may hold C1 ones, which terminals obey.
fn printable(target: &str) -> String {
    let mut text = String::with_capacity(target.len());
    for c in target.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = c.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| write!(text, "%{byte:02X}"));
        } else {
            text.push(c);
        }
    }
    text
}

/// A target with the values of secret query parameters taken out. Names are compared decoded; a name
/// that ends in a listed one (`access_token` in `token`) is as secret.
pub fn masked(target: &str, names: &[String]) -> String {
    let target = &printable(target);
    let Some((path, query)) = target.split_once('?') else { return target.clone() };
    let mut text = String::with_capacity(target.len());
    text.push_str(path);
    for (at, pair) in query.split('&').enumerate() {
        text.push(if at == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name, names) => {
                text.push_str(name);
                text.push('=');
                text.push_str(MASKED);
            }
            _ => text.push_str(pair),
        }
    }
    text
}

fn is_secret(name: &str, names: &[String]) -> bool {
    let mut decoded = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte.to_ascii_lowercase());
            continue;
        }
        let digits = [bytes.next().unwrap_or(b'x'), bytes.next().unwrap_or(b'x')];
        decoded.push(query::octet(&digits).unwrap_or(b'%').to_ascii_lowercase());
    }
    names.iter().any(|secret| {
        let before = decoded.strip_suffix(secret.as_bytes());
        before.is_some_and(|before| before.is_empty() || before.ends_with(b"_") || before.ends_with(b"-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_query_are_masked_however_they_are_spelt() {
        let names = ["token".to_owned(), "api_key".to_owned()];
        for (target, shown) in [
            ("/a", "/a"),
            ("/a?x=1", "/a?x=1"),
            ("/a?token=s3cret&x=1", "/a?token=***&x=1"),
            ("/a?x=1&TOKEN=s3cret", "/a?x=1&TOKEN=***"),
            ("/a?%74oken=s3cret", "/a?%74oken=***"),
            ("/a?api%5fkey=s3cret=more", "/a?api%5fkey=***"),
            ("/a?token", "/a?token"),
            ("/a?access_token=x&tokens=3", "/a?access_token=***&tokens=3"),
            ("/\u{9b}31mx", "/%C2%9B31mx"),
        ] {
            assert_eq!(masked(target, &names), shown);
        }
    }

    #[test]
    fn the_time_is_rfc_3339() {
        let text = timestamp();
        assert_eq!(text.len(), "2026-11-21T23:27:24.000Z".len(), "{text}");
        assert!(text.starts_with("20") && text.ends_with('Z'), "{text}");
    }
}
