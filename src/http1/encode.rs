//! Writes heads and chunks. Field names are written in lower case, as in HTTP/2.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use crate::fields::reason::ReasonPhrase;
use crate::fields::request_id::Identified;
use crate::message::body::OwnFields;
use crate::rendering::rendered_head::HeadLines;
use crate::runtime::clock;

/// The framing of the body that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// No body and no length field.
    None,
    Length(u64),
    /// Chunks, because the length is not known.
    Chunked,
    /// The body ends when the connection closes (for HTTP/1.0 clients).
    Close,
}

/// The Connection field of the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    Implied,
    /// `keep-alive`, for clients that speak HTTP/1.0.
    KeepAlive,
    /// `close`: the connection ends with this message.
    Close,
    /// `te`, together with the field `TE: trailers`.
    Trailers,
    /// `upgrade`, together with the field that names the protocol.
    Upgrade(HeaderValue),
}

/// Fields seen while writing: comparing each name is faster than a lookup.
#[derive(Default)]
struct Seen {
    date: bool,
    length: bool,
}

/// Writes fields. A Content-Length among them is skipped unless `said` is set.
fn fields(out: &mut BytesMut, headers: &HeaderMap, said: bool) -> Seen {
    let mut seen = Seen::default();
    for (name, value) in headers {
        if *name == header::CONTENT_LENGTH {
            seen.length = said;
            if !said {
                continue;
            }
        }
        seen.date |= *name == header::DATE;
        line(out, name, value);
    }
    seen
}

fn line(out: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

/// Returns the fields as lines of a head.
pub(crate) fn lines(headers: &HeaderMap) -> Bytes {
    let length = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut out = BytesMut::with_capacity(length);
    fields(&mut out, headers, true);
    out.freeze()
}

fn trailing(out: &mut BytesMut, seen: &Seen, framing: Outgoing, connection: &Connection) {
    match framing {
        Outgoing::Length(length) if !seen.length => {
            out.put_slice(b"content-length: ");
            out.put_slice(itoa::Buffer::new().format(length).as_bytes());
            out.put_slice(b"\r\n");
        }
        Outgoing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
        Outgoing::None | Outgoing::Close | Outgoing::Length(_) => {}
    }
    match connection {
        Connection::Implied => {}
        Connection::KeepAlive => out.put_slice(b"connection: keep-alive\r\n"),
        Connection::Close => out.put_slice(b"connection: close\r\n"),
        Connection::Trailers => out.put_slice(b"connection: te\r\nte: trailers\r\n"),
        Connection::Upgrade(protocol) => {
            out.put_slice(b"connection: upgrade\r\nupgrade: ");
            out.put_slice(protocol.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
    out.put_slice(b"\r\n");
}

/// Parts of a request head beside its map.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'a> {
    /// Complete lines, each with its CRLF.
    pub lines: &'a [u8],
    pub identified: Option<Identified<'a>>,
}

/// Writes a request head. The target is written as given, so it must be valid already.
pub fn request_head(
    out: &mut BytesMut,
    method: &Method,
    target: &[u8],
    headers: &HeaderMap,
    beside: Beside<'_>,
    framing: Outgoing,
    connection: &Connection,
) {
    out.reserve(512 + headers.len() * 48 + beside.lines.len());
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
    let seen = fields(out, headers, true);
    out.put_slice(beside.lines);
    if let Some(identified) = &beside.identified {
        identified.write(out);
    }
    trailing(out, &seen, framing, connection);
}

/// Writes a response head. A Content-Length among the fields is kept if `framing` is `None`, otherwise `framing`
/// decides. Adds `Date` if the response has none (RFC 9110 6.6.1).
#[allow(clippy::too_many_arguments, reason = "the parts of one head, borrowed apart")]
pub fn response_head(
    out: &mut BytesMut,
    status: StatusCode,
    phrase: Option<&ReasonPhrase>,
    headers: &HeaderMap,
    lines: Option<&HeadLines>,
    own: Option<&dyn OwnFields>,
    framing: Outgoing,
    connection: &Connection,
) {
    out.reserve(256 + headers.len() * 48);
    // The version is ours, not the client's (RFC 9112 2.3): only the framing adapts to HTTP/1.0.
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    let phrase = phrase.and_then(|phrase| phrase.for_status(status));
    out.put_slice(phrase.unwrap_or(status.canonical_reason().unwrap_or("").as_bytes()));
    out.put_slice(b"\r\n");
    let seen = fields(out, headers, framing == Outgoing::None);
    let mut dated = status.is_informational() || seen.date;
    if let Some(lines) = lines {
        lines.parts().iter().for_each(|part| out.put_slice(part));
        dated |= lines.head.dated;
    }
    if let Some(own) = own {
        own.write(out);
    }
    if !dated {
        clock::with_date(|date| {
            out.put_slice(b"date: ");
            out.put_slice(date.as_bytes());
            out.put_slice(b"\r\n");
        });
    }
    trailing(out, &seen, framing, connection);
}

/// Writes an interim response (RFC 9110 15.2), which has neither content nor a length (8.6).
pub(crate) fn interim_head(out: &mut BytesMut, parts: &http::response::Parts) {
    let phrase: Option<&ReasonPhrase> = parts.extensions.get();
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(parts.status.as_str().as_bytes());
    out.put_u8(b' ');
    let usual = parts.status.canonical_reason().unwrap_or("").as_bytes();
    out.put_slice(phrase.and_then(|phrase| phrase.for_status(parts.status)).unwrap_or(usual));
    out.put_slice(b"\r\n");
    fields(out, &parts.headers, false);
    out.put_slice(b"\r\n");
}

/// Maximum length in bytes of a chunk's size line and its two CRLFs.
const CHUNK_OVERHEAD: usize = 20;

/// Writes the size line of a chunk; the data and a CRLF follow.
pub(crate) fn chunk_size(out: &mut BytesMut, length: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0u8; CHUNK_OVERHEAD];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = HEX[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Writes the last chunk and the trailer section.
pub(crate) fn last_chunk(out: &mut BytesMut, trailers: Option<&HeaderMap>) {
    out.put_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        for (name, value) in trailers {
            if !super::head::forbidden_in_trailers(name) {
                line(out, name, value);
            }
        }
    }
    out.put_slice(b"\r\n");
}
