//! The chunked transfer coding (RFC 9112 7.1), parsed strictly: every line ends with CRLF, sizes have no white space
//! around them, chunk extensions are dropped, and everything is bounded. Leniency here makes two parsers disagree about
//! the end of a request.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Maximum length of a chunk-size line in bytes, extensions included.
const MAX_SIZE_LINE: usize = 4096;
const MAX_TRAILERS: usize = 16 * 1024;
/// Maximum number of fields in a trailer section.
const MAX_TRAILER_FIELDS: usize = 64;

/// The result of one decoding step.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Content: all that was available.
    Data(Bytes),
    /// The end of the body, with the trailer fields if there were any.
    End(Option<HeaderMap>),
    NeedMore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// A decoder of one chunked body from a growing buffer.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { state: State::Size }
    }
}

impl Decoder {
    /// Decodes from the front of `input` and consumes what it used. The error names the malformed part.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, &'static str> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = take_line(input, MAX_SIZE_LINE, "chunk size line is too long")? else {
                        return Ok(Decoded::NeedMore);
                    };
                    let size = parse_size(&line)?;
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if input.is_empty() {
                        return Ok(Decoded::NeedMore);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(take).freeze();
                    let left = left - take as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Decoded::Data(data));
                }
                State::DataEnd => {
                    if input.len() < 2 {
                        return match input.first() {
                            Some(byte) if *byte != b'\r' => Err("chunk data is longer than its size"),
                            _ => Ok(Decoded::NeedMore),
                        };
                    }
                    if &input.split_to(2)[..] != b"\r\n" {
                        return Err("chunk data is longer than its size");
                    }
                    self.state = State::Size;
                }
                State::Trailers => {
                    let Some(trailers) = take_trailers(input)? else { return Ok(Decoded::NeedMore) };
                    self.state = State::Done;
                    return Ok(Decoded::End(trailers));
                }
                State::Done => return Ok(Decoded::End(None)),
            }
        }
    }
}

fn take_line(
    input: &mut BytesMut,
    max: usize,
    too_long: &'static str,
) -> Result<Option<BytesMut>, &'static str> {
    let window = &input[..input.len().min(max)];
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) if end > 0 && window[end - 1] == b'\r' => {
            let mut line = input.split_to(end + 1);
            line.truncate(end - 1);
            Ok(Some(line))
        }
        Some(_) => Err("a line of the chunked body ends without CR"),
        None if window.len() == max => Err(too_long),
        None => Ok(None),
    }
}

/// Parses `chunk-size [ chunk-ext ]`: hexadecimal digits, then the end or an extension.
fn parse_size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 16 {
        return Err("chunk size is not a hexadecimal number");
    }
    let extension = &line[digits..];
    match extension.first() {
        None | Some(b';') => {}
        // Bad white space (RFC 9112 7.1.1) is tolerated before an extension only.
        Some(b' ' | b'\t') if extension.trim_ascii_start().first() == Some(&b';') => {}
        Some(_) => return Err("chunk size is not a hexadecimal number"),
    }
    if extension.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
        return Err("control character in a chunk extension");
    }
    let mut size = 0u64;
    for digit in &line[..digits] {
        let value = (*digit as char).to_digit(16).ok_or("chunk size is not a hexadecimal number")?;
        size = size << 4 | u64::from(value);
    }
    // Two free bits keep later sums from overflowing.
    if size > u64::MAX >> 2 { Err("chunk size is too large") } else { Ok(size) }
}

#[allow(clippy::type_complexity, reason = "a result of an option of an option is what it is")]
fn take_trailers(input: &mut BytesMut) -> Result<Option<Option<HeaderMap>>, &'static str> {
    if input.starts_with(b"\r\n") {
        let _ = input.split_to(2);
        return Ok(Some(None));
    }
    let window = &input[..input.len().min(MAX_TRAILERS)];
    let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if window.len() == MAX_TRAILERS { Err("trailers are too long") } else { Ok(None) };
    };
    let section = input.split_to(end + 4).freeze();
    let mut storage = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let fields = match httparse::parse_headers(&section, &mut storage) {
        Ok(httparse::Status::Complete((length, fields))) if length == section.len() => fields,
        // The parser saw an end before the end: two bare LFs, which other parsers may accept as one.
        Ok(_) | Err(_) => return Err("malformed trailer fields"),
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "malformed trailer name")?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| "malformed trailer value")?;
        // RFC 9110 6.5.1: framing, routing and credentials never come from a trailer.
        if !super::head::forbidden_in_trailers(&name) {
            trailers.append(name, value);
        }
    }
    Ok(Some(Some(trailers)))
}
