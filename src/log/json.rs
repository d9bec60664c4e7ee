//! A line as JSON, written member by member: a tree of values would cost more than the rest of a hit.

use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::{Decision, Line, mask, time};
use crate::clock;
use crate::policy::LogPolicy;

/// Appends `line` and the end of it.
pub fn write(out: &mut Vec<u8>, policy: &LogPolicy, line: &Line<'_>) {
    let mut object = Object { out };
    object.begin();
    object.text("request_id", line.id.to_str().unwrap_or("-"));
    if let Some(trace) = line.trace {
        object.plain("trace_id", format_args!("{trace:032x}"));
    }
    object.address("client", line.client);
    object.text("method", line.method.as_str());
    object.text("path", &mask::masked(line.target, &policy.mask));
    object.text("protocol", line.protocol);
    object.text("route", line.route);
    object.number("status", u64::from(line.status.as_u16()));
    object.number("bytes", line.bytes);
    object.milliseconds("duration_ms", line.duration);
    object.number("retries", u64::from(line.retries));
    if let Some((coding, before)) = line.coded {
        object.text("coding", coding);
        object.number("content_bytes", before);
    }
    if let Some(time) = line.first_byte {
        object.milliseconds("first_byte_ms", time);
    }
    if let Some(cache) = line.cache {
        object.text("cache", cache);
    }
    if let Some(why) = line.not_stored {
        object.text("not_stored", why);
    }
    if let Some(Decision { caller: (kind, hash), tier, word, limits }) = &line.limited {
        // As /limits/status takes it.
        object.plain("caller", format_args!("{kind}:{hash:032x}"));
        object.text("tier", tier);
        object.text("limit", word);
        if !limits.is_empty() {
            object.texts("limits", limits);
        }
    }
    if let Some(upstream) = line.upstream {
        object.plain("upstream", upstream);
    }
    if let Some(time) = line.upstream_time {
        object.milliseconds("upstream_ms", time);
    }
    if let Some((fault, error)) = line.error {
        object.text("fault", fault);
        object.text("error", error);
    }
    object.end();
}

/// Writes one object. Writing to a vector cannot fail.
struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl Object<'_> {
    fn begin(&mut self) {
        self.out.extend_from_slice(b"{\"time\":\"");
        time::rfc3339(self.out, clock::wall());
        self.out.extend_from_slice(b"\",\"kind\":\"access\"");
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.out, text);
    }

    fn texts(&mut self, name: &str, texts: &[&str]) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.out, texts);
    }

    /// What has nothing to escape: addresses and digits.
    fn plain(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.out, "\"{value}\"");
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// To the microsecond.
    fn milliseconds(&mut self, name: &str, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.number(name, micros / 1000);
        self.out.push(b'.');
        time::thousandths(self.out, micros % 1000);
    }

    /// Four octets without the machinery of formatting; nearly every client has them.
    fn address(&mut self, name: &str, address: IpAddr) {
        let IpAddr::V4(address) = address else { return self.plain(name, address) };
        self.name(name);
        let mut before = b'"';
        for octet in address.octets() {
            self.out.push(before);
            self.out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            before = b'.';
        }
        self.out.push(b'"');
    }
}
