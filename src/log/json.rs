//! A line as JSON, written member by member: a tree of values would cost more than the rest of a hit.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::{Decision, Line, mask, time};
use crate::fields::fresh;
use crate::policy::LogPolicy;

/// A member's name with what stands around it, to be written in one go.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// Most lines are shorter.
const USUAL: usize = 1024;

/// Appends `line` and the end of it.
pub fn write(out: &mut Vec<u8>, policy: &LogPolicy, line: &Line<'_>) {
    out.reserve(USUAL);
    let mut object = Object { out };
    object.begin(line.at);
    object.text(name!("request_id"), line.id.to_str().unwrap_or("-"));
    if let Some(trace) = line.trace {
        object.id(name!("trace_id"), None, trace);
    }
    object.address(name!("client"), line.client);
    object.word(name!("method"), line.method.as_str());
    object.text(name!("path"), &mask::masked(line.target, &policy.mask));
    object.word(name!("protocol"), line.protocol);
    object.text(name!("route"), line.route);
    object.number(name!("status"), u64::from(line.status.as_u16()));
    object.number(name!("bytes"), line.bytes);
    object.milliseconds(name!("duration_ms"), line.duration);
    object.number(name!("retries"), u64::from(line.retries));
    if let Some((coding, before)) = line.coded {
        object.word(name!("coding"), coding);
        object.number(name!("content_bytes"), before);
    }
    if let Some(time) = line.first_byte {
        object.milliseconds(name!("first_byte_ms"), time);
    }
    if let Some(cache) = line.cache {
        object.word(name!("cache"), cache);
    }
    if let Some(why) = line.not_stored {
        object.word(name!("not_stored"), why);
    }
    if let Some(Decision { caller: (kind, hash), tier, word, limits }) = &line.limited {
        // As /limits/status takes it.
        object.id(name!("caller"), Some(kind), *hash);
        object.text(name!("tier"), tier);
        object.word(name!("limit"), word);
        if !limits.is_empty() {
            object.texts(name!("limits"), limits);
        }
    }
    if let Some(upstream) = line.upstream {
        object.text(name!("upstream"), upstream);
    }
    if let Some(time) = line.upstream_time {
        object.milliseconds(name!("upstream_ms"), time);
    }
    if let Some((fault, error)) = line.error {
        object.word(name!("fault"), fault);
        object.text(name!("error"), error);
    }
    object.end();
}

/// Writes one object. Writing to a vector cannot fail.
struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl Object<'_> {
    fn begin(&mut self, at: SystemTime) {
        self.out.extend_from_slice(b"{\"time\":\"");
        time::rfc3339(self.out, at);
        self.out.extend_from_slice(b"\",\"kind\":\"access\"");
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn text(&mut self, name: &str, text: &str) {
        if !has_escapes(text) {
            return self.word(name, text);
        }
        self.bytes(name.as_bytes());
        let _ = serde_json::to_writer(&mut *self.out, text);
    }

    /// What has nothing to escape: words of ours, and tokens (RFC 9110 5.6.2).
    fn word(&mut self, name: &str, word: &str) {
        self.bytes(name.as_bytes());
        self.out.push(b'"');
        self.bytes(word.as_bytes());
        self.out.push(b'"');
    }

    fn texts(&mut self, name: &str, texts: &[&str]) {
        self.bytes(name.as_bytes());
        let _ = serde_json::to_writer(&mut *self.out, texts);
    }

    /// What it is of, where that is said, and 128 bits in hexadecimal.
    fn id(&mut self, name: &str, kind: Option<&str>, id: u128) {
        self.bytes(name.as_bytes());
        self.out.push(b'"');
        if let Some(kind) = kind {
            self.bytes(kind.as_bytes());
            self.out.push(b':');
        }
        fresh::hex(self.out, id.to_be_bytes());
        self.out.push(b'"');
    }

    fn number(&mut self, name: &str, number: u64) {
        self.bytes(name.as_bytes());
        self.bytes(itoa::Buffer::new().format(number).as_bytes());
    }

    /// To the microsecond.
    fn milliseconds(&mut self, name: &str, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut text = [b'.'; 4];
        text[1..].copy_from_slice(&time::thousandths(micros % 1000));
        self.number(name, micros / 1000);
        self.bytes(&text);
    }

    fn address(&mut self, name: &str, address: IpAddr) {
        self.bytes(name.as_bytes());
        self.out.push(b'"');
        fresh::address(self.out, address);
        self.out.push(b'"');
    }
}

/// Whether a text cannot stand between quotes as it is (RFC 8259 7). All of it is looked at, which is quicker than to
/// stop.
fn has_escapes(text: &str) -> bool {
    text.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'"') | (byte == b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_where_they_have_to_be() {
        for text in ["", "/a", "Zoë \u{7f}", "a\"b", "a\\b", "a\nb", "\u{0}"] {
            let mut out = Vec::new();
            Object { out: &mut out }.text("", text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn ids_are_hexadecimal() {
        let mut out = Vec::new();
        Object { out: &mut out }.id("", Some("ip"), 0xab);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"ip:{:032x}\"", 0xab));
    }
}
