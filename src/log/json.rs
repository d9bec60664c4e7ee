//! A line as JSON, written member by member: a tree of values would cost more than the rest of a hit.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;

use super::{Decision, Line, mask, time};
use crate::fields::fresh;
use crate::policy::LogPolicy;

/// A member's name with what stands around it, to be written in one go.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// The same, and the quote that begins a text.
macro_rules! quoted {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"")
    };
}

/// Most lines are shorter.
const USUAL: usize = 1024;

/// Appends `line` and the end of it.
pub fn write(out: &mut Vec<u8>, policy: &LogPolicy, line: &Line<'_>) {
    out.reserve(USUAL);
    let mut object = Object { out };
    object.begin(line.at);
    object.token(quoted!("request_id"), line.id);
    if let Some(trace) = line.trace {
        object.id(quoted!("trace_id"), None, trace);
    }
    object.address(quoted!("client"), line.client);
    object.word(quoted!("method"), line.method.as_str());
    object.text(quoted!("path"), &mask::masked(line.target, &policy.mask));
    object.word(quoted!("protocol"), line.protocol);
    object.text(quoted!("route"), line.route);
    object.number(name!("status"), u64::from(line.status.as_u16()));
    object.number(name!("bytes"), line.bytes);
    object.milliseconds(name!("duration_ms"), line.duration);
    object.number(name!("retries"), u64::from(line.retries));
    if let Some((coding, before)) = line.coded {
        object.word(quoted!("coding"), coding);
        object.number(name!("content_bytes"), before);
    }
    if let Some(time) = line.first_byte {
        object.milliseconds(name!("first_byte_ms"), time);
    }
    if let Some(cache) = line.cache {
        object.word(quoted!("cache"), cache);
    }
    if let Some(why) = line.not_stored {
        object.word(quoted!("not_stored"), why);
    }
    if let Some(Decision { caller: (kind, hash), tier, word, limits }) = &line.limited {
        // As /limits/status takes it.
        object.id(quoted!("caller"), Some(kind), *hash);
        object.text(quoted!("tier"), tier);
        object.word(quoted!("limit"), word);
        if !limits.is_empty() {
            object.texts(name!("limits"), limits);
        }
    }
    if let Some(upstream) = line.upstream {
        object.text(quoted!("upstream"), upstream);
    }
    if let Some(time) = line.upstream_time {
        object.milliseconds(name!("upstream_ms"), time);
    }
    if let Some((fault, error)) = line.error {
        object.word(quoted!("fault"), fault);
        object.text(quoted!("error"), error);
    }
    object.end();
}

/// Writes one object. Writing to a vector cannot fail.
struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl Object<'_> {
    fn begin(&mut self, at: Duration) {
        self.out.extend_from_slice(b"{\"time\":\"");
        time::rfc3339(self.out, at);
        self.out.extend_from_slice(b"\",\"kind\":\"access\"");
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// Where the length is known when this is compiled, the copy is a few moves; so for all who take a name.
    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    #[inline(always)]
    fn text(&mut self, quoted: &str, text: &str) {
        self.bytes(quoted.as_bytes());
        if is_plain(text.as_bytes()) {
            self.bytes(text.as_bytes());
            self.out.push(b'"');
        } else {
            self.escaped(text);
        }
    }

    /// What stands behind the first quote.
    #[cold]
    fn escaped(&mut self, text: &str) {
        self.out.pop();
        let _ = serde_json::to_writer(&mut *self.out, text);
    }

    /// A field's value; `-` where it is no text.
    #[inline(always)]
    fn token(&mut self, quoted: &str, value: &HeaderValue) {
        if is_plain(value.as_bytes()) {
            self.bytes(quoted.as_bytes());
            self.bytes(value.as_bytes());
            self.out.push(b'"');
        } else {
            self.text(quoted, value.to_str().unwrap_or("-"));
        }
    }

    /// What has nothing to escape: words of ours, and tokens (RFC 9110 5.6.2).
    #[inline(always)]
    fn word(&mut self, quoted: &str, word: &str) {
        self.bytes(quoted.as_bytes());
        self.bytes(word.as_bytes());
        self.out.push(b'"');
    }

    fn texts(&mut self, name: &str, texts: &[&str]) {
        self.bytes(name.as_bytes());
        let _ = serde_json::to_writer(&mut *self.out, texts);
    }

    /// What it is of, where that is said, and 128 bits in hexadecimal.
    #[inline(always)]
    fn id(&mut self, quoted: &str, kind: Option<&str>, id: u128) {
        self.bytes(quoted.as_bytes());
        if let Some(kind) = kind {
            self.bytes(kind.as_bytes());
            self.out.push(b':');
        }
        fresh::hex(self.out, id.to_be_bytes());
        self.out.push(b'"');
    }

    #[inline(always)]
    fn number(&mut self, name: &str, number: u64) {
        self.bytes(name.as_bytes());
        self.bytes(itoa::Buffer::new().format(number).as_bytes());
    }

    /// To the microsecond.
    #[inline(always)]
    fn milliseconds(&mut self, name: &str, duration: Duration) {
        self.bytes(name.as_bytes());
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(micros).as_bytes();
        let (whole, part) = digits.split_at(digits.len().saturating_sub(3));
        self.bytes(if whole.is_empty() { b"0" } else { whole });
        // The point, and as many zeros as there are digits missing.
        self.bytes(&b".00"[..4 - part.len()]);
        self.bytes(part);
    }

    #[inline(always)]
    fn address(&mut self, quoted: &str, address: IpAddr) {
        self.bytes(quoted.as_bytes());
        fresh::address(self.out, address);
        self.out.push(b'"');
    }
}

/// Whether a text is of printable ASCII and can stand between quotes as it is (RFC 8259 7). Eight bytes are looked at
/// together, all of them, which is quicker than to stop.
fn is_plain(text: &[u8]) -> bool {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = EACH << 7;
    // The high bit of each byte that is less than `least`, as long as that is at most 0x80; borrows of a byte that is
    // found may find its neighbour too, which changes nothing.
    let below = |bytes: u64, least: u64| bytes.wrapping_sub(EACH * least) & !bytes;
    let bad = |bytes: [u8; 8]| {
        let bytes = u64::from_le_bytes(bytes);
        let is = |byte: u8| below(bytes ^ (EACH * u64::from(byte)), 1);
        (bytes | below(bytes, 0x20) | is(b'"') | is(b'\\') | is(0x7f)) & HIGH
    };
    let (whole, rest) = text.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    whole.iter().fold(bad(last), |found, bytes| found | bad(*bytes)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_where_they_have_to_be() {
        for text in ["", "/a", "Zoë \u{7f}", "a\"b", "a\\b", "a\nb", "\u{0}"] {
            let mut out = Vec::new();
            Object { out: &mut out }.text("\"", text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn plain_is_what_needs_no_look() {
        for byte in 0..=u8::MAX {
            let expected = (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
            for (before, after) in [(0, 0), (3, 0), (7, 0), (8, 2), (15, 9)] {
                let text = [&[b'a'].repeat(before)[..], &[byte], &[b'z'].repeat(after)].concat();
                assert_eq!(is_plain(&text), expected, "{byte} behind {before}");
            }
        }
    }

    #[test]
    fn durations_are_to_the_microsecond() {
        for (micros, text) in
            [(0, "0.000"), (7, "0.007"), (70, "0.070"), (999, "0.999"), (1_000, "1.000"), (48_320, "48.320")]
        {
            let mut out = Vec::new();
            Object { out: &mut out }.milliseconds("", Duration::from_micros(micros));
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn ids_are_hexadecimal() {
        let mut out = Vec::new();
        Object { out: &mut out }.id("\"", Some("ip"), 0xab);
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"ip:{:032x}\"", 0xab));
    }
}
