//! Formats an access log line as JSON, member by member. Building a tree of JSON values would cost more than the rest
//! of a cache hit.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use super::line::{Decision, Line};
use super::members::Members;
use super::plain::{is_plain, plain};
use super::{mask, time};
use crate::fields::fresh;
use crate::rendering::append_buffer::{AppendBuffer, Fixed};
use crate::rendering::render_cache::DirectMappedCache;

/// A member's name with the quotes and separators around it.
type Name = Fixed<20>;

/// Formats the name of a member at compile time.
macro_rules! name {
    ($name:literal) => {
        const { &Name::new([b",\"", $name.as_bytes(), b"\":"]) }
    };
}

/// Formats the name of a member and the opening quote of its string value.
macro_rules! quoted {
    ($name:literal) => {
        const { &Name::new([b",\"", $name.as_bytes(), b"\":\""]) }
    };
}

/// Bytes that need no escape in a JSON string (RFC 8259 7). A text of only these bytes is written unchanged.
static PLAIN: [bool; 256] = plain(b"\"\\");

/// Appends `line` and a line end.
pub(super) fn write(out: &mut Vec<u8>, recurring: &mut DirectMappedCache<Members>, line: &Line<'_>) {
    AppendBuffer::with(out, |scratch| members::<true>(&mut Object(scratch), recurring, line));
}

/// Appends `line` without the client's address, and a line end.
pub(super) fn write_without_address(
    out: &mut Vec<u8>,
    recurring: &mut DirectMappedCache<Members>,
    line: &Line<'_>,
) {
    AppendBuffer::with(out, |scratch| members::<false>(&mut Object(scratch), recurring, line));
}

fn members<const ADDRESS: bool>(
    object: &mut Object<'_, '_>,
    recurring: &mut DirectMappedCache<Members>,
    line: &Line<'_>,
) {
    object.bytes(b"{\"time\":\"");
    object.bytes(&time::rfc3339(line.at));
    object.bytes(b"\"");
    object.bytes(Members::text(recurring, line).as_bytes());
    // The id was made by Pillion, or accepted because it needs no escaping.
    object.word(quoted!("request_id"), line.id.as_bytes());
    if let Some(trace) = line.trace {
        object.id(quoted!("trace_id"), None, trace);
    }
    if ADDRESS {
        object.address(quoted!("client"), line.client);
    }
    match mask::masked(line.target, line.secrets) {
        Cow::Borrowed(bare) => object.word(quoted!("path"), bare.as_bytes()),
        Cow::Owned(text) => object.text(quoted!("path"), &text),
    }
    object.number(name!("bytes"), line.bytes);
    object.milliseconds(name!("duration_ms"), line.duration);
    if let Some(time) = line.first_byte {
        object.milliseconds(name!("first_byte_ms"), time);
    }
    if let Some(time) = line.upstream_time {
        object.milliseconds(name!("upstream_ms"), time);
    }
    if line.retries > 0 {
        object.number(name!("retries"), u64::from(line.retries));
    }
    if let Some((_, before)) = line.coded {
        object.number(name!("content_bytes"), before);
    }
    if let Some(principal) = line.principal {
        object.id(quoted!("principal"), None, principal);
    }
    if let Some(Decision { caller: (kind, hash), limits, .. }) = line.limited {
        // The format is the one that `/limits/status` accepts.
        object.id(quoted!("caller"), Some(kind), hash);
        if !limits.is_empty() {
            object.texts(name!("limits"), limits);
        }
    }
    if let Some((fault, error)) = line.error {
        object.word(quoted!("fault"), fault.as_bytes());
        object.text(quoted!("error"), error);
    }
    object.bytes(b"}\n");
}

/// A writer of one JSON object. Its methods are not inlined, so that all members share one copy of each: between log
/// lines, request handling has replaced the instruction cache, so small code is faster here.
struct Object<'s, 'o>(&'s mut AppendBuffer<'o>);

impl Object<'_, '_> {
    #[inline(always)]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.bytes(bytes);
    }

    #[inline(always)]
    fn name(&mut self, name: &Name) {
        self.0.fixed(name);
    }

    #[inline(never)]
    fn text(&mut self, quoted: &Name, text: &str) {
        self.name(quoted);
        if is_plain(text.as_bytes(), &PLAIN) {
            self.bytes(text.as_bytes());
            self.bytes(b"\"");
        } else {
            self.escaped(text);
        }
    }

    /// Writes a text that needs escapes, after its opening quote was written.
    #[cold]
    fn escaped(&mut self, text: &str) {
        let out = self.0.vector();
        out.pop();
        let _ = serde_json::to_writer(out, text);
    }

    /// Writes a text that needs no escapes: a fixed word, a token (RFC 9110 5.6.2), or text that was escaped before.
    #[inline(never)]
    fn word(&mut self, quoted: &Name, word: &[u8]) {
        self.name(quoted);
        self.bytes(word);
        self.bytes(b"\"");
    }

    fn texts(&mut self, name: &Name, texts: &[&str]) {
        self.name(name);
        let _ = serde_json::to_writer(self.0.vector(), texts);
    }

    /// Writes 128 bits in hexadecimal, after the kind of id if there is one.
    #[inline(never)]
    fn id(&mut self, quoted: &Name, kind: Option<&str>, id: u128) {
        self.name(quoted);
        if let Some(kind) = kind {
            self.bytes(kind.as_bytes());
            self.bytes(b":");
        }
        self.bytes(&fresh::hex(id));
        self.bytes(b"\"");
    }

    #[inline(never)]
    fn number(&mut self, name: &Name, number: u64) {
        self.name(name);
        match u32::try_from(number).ok().filter(|number| *number < fresh::DECIMAL) {
            Some(number) => {
                let digits = fresh::decimal(number);
                // Removes leading zeros, but never the last digit.
                let noughts = (digits.trailing_zeros() / 8).min(7);
                let text = (digits | u64::from_le_bytes([b'0'; 8])) >> (8 * noughts);
                self.0.first(&text.to_le_bytes(), (8 - noughts) as usize);
            }
            None => self.bytes(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    #[inline(never)]
    fn milliseconds(&mut self, name: &Name, duration: Duration) {
        self.name(name);
        if duration.as_secs() >= 10 {
            return self.longer(duration);
        }
        // At most seven digits: four, a dot, three.
        let digits = fresh::decimal(duration.as_secs() as u32 * 1_000_000 + duration.subsec_micros()) >> 8;
        let (whole, rest) = (digits as u32, digits >> 32);
        let noughts = (whole.trailing_zeros() / 8).min(3);
        let text = u64::from(whole) | rest << 40 | u64::from_le_bytes(*b"0000.000");
        self.0.first(&(text >> (8 * noughts)).to_le_bytes(), (8 - noughts) as usize);
    }

    #[cold]
    fn longer(&mut self, duration: Duration) {
        // Writing to a vector cannot fail.
        let _ = write!(self.0.vector(), "{}.{:03}", duration.as_millis(), duration.subsec_micros() % 1000);
    }

    #[inline(never)]
    fn address(&mut self, quoted: &Name, address: IpAddr) {
        fresh::with_address(address, |text| self.word(quoted, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &Name = &Name::new([b"\""]);

    fn written(write: impl FnOnce(&mut Object<'_, '_>)) -> Vec<u8> {
        let mut out = Vec::new();
        AppendBuffer::with(&mut out, |scratch| write(&mut Object(scratch)));
        out
    }

    /// More bytes than one append can buffer.
    const ROOM: usize = 1024;

    #[test]
    fn what_is_longer_than_the_room_is_written_too() {
        let pieces =
            ["a".repeat(ROOM - 1), "b".repeat(2), "c".repeat(3 * ROOM), "d\n".repeat(ROOM), "e".to_owned()];
        let out = written(|object| pieces.iter().for_each(|piece| object.text(BARE, piece)));
        let values = serde_json::Deserializer::from_slice(&out).into_iter::<String>();
        assert_eq!(values.collect::<Result<Vec<_>, _>>().unwrap(), pieces);
    }

    #[test]
    fn texts_are_escaped_where_they_have_to_be() {
        for text in ["", "/a", "Zoë \u{7f}", "a\"b", "a\\b", "a\nb", "\u{0}"] {
            let out = written(|object| object.text(BARE, text));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }

    #[test]
    fn durations_are_to_the_microsecond() {
        for (micros, text) in [
            (0, "0.000"),
            (7, "0.007"),
            (70, "0.070"),
            (999, "0.999"),
            (1_000, "1.000"),
            (48_320, "48.320"),
            (9_999_999, "9999.999"),
            (10_000_000, "10000.000"),
            (u64::from(u32::MAX) * 3, "12884901.885"),
        ] {
            let out = written(|object| {
                object.milliseconds(const { &Name::new([]) }, Duration::from_micros(micros))
            });
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }

    #[test]
    fn ids_are_hexadecimal() {
        let out = written(|object| object.id(BARE, Some("ip"), 0xab));
        assert_eq!(String::from_utf8(out).unwrap(), format!("\"ip:{:032x}\"", 0xab));
    }
}
