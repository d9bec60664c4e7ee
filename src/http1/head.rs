//! Heads of requests and responses, parsed once and strictly (RFC 9112 2 to 5).
//!
//! Connection-level fields (RFC 9110 7.6.1) are removed here. Their meaning for this connection is in the parsed head,
//! and no code above ever sees or forwards them.

use std::cell::Cell;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::buffered;
use super::framing::{Framing, LengthFields};
use super::head_error::HeadError;
use crate::fields::hop_by_hop::{ConnectionFields, names_trailers, timeout_parameter, without_h2c};
use crate::fields::host;
use crate::fields::reason::ReasonPhrase;
use crate::fields::target::{self, Looks};

/// Maximum number of fields that any configuration may allow in one head.
pub(crate) const MAX_FIELDS: usize = 1024;
/// Fields that nearly every head fits in. Slots for [`MAX_FIELDS`] take 32 KiB of the stack, of which each page is touched.
const USUAL_FIELDS: usize = 64;

/// Limits on the size of one head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadLimits {
    /// Maximum bytes, request line and final empty line included.
    pub size: usize,
    pub fields: usize,
}

/// Returns the protocol of a server whose first bytes are no HTTP/1 response. HTTP/2 begins with SETTINGS (RFC 9113
/// 3.4) or, if it refuses at once, with GOAWAY, both on stream 0; TLS with an alert (RFC 8446 6).
fn other_protocol(input: &[u8]) -> Option<HeadError> {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    match input {
        [0, _, length, SETTINGS | GOAWAY, flags, 0, 0, 0, 0, ..]
            if input[3] == GOAWAY || (length % 6 == 0 && *flags <= 1) =>
        {
            Some(HeadError::Http2)
        }
        [21, 3, 0..=4, 0, 2, ..] => Some(HeadError::Tls),
        _ => None,
    }
}

/// A parsed request head, without connection-level fields.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target, version and the end-to-end fields.
    pub parts: http::request::Parts,
    /// Length in bytes as received.
    pub size: usize,
    pub framing: Framing,
    /// Whether the client would use the connection again.
    pub keep_alive: bool,
    /// The protocols of `Upgrade`, if `Connection` names it.
    pub upgrade: Option<HeaderValue>,
    /// Whether the client waits for 100 (Continue).
    pub expects_continue: bool,
    /// Whether the client accepts trailers (`TE: trailers`).
    pub takes_trailers: bool,
}

/// A parsed response head, without connection-level fields.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version and the end-to-end fields.
    pub parts: http::response::Parts,
    pub framing: Framing,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
    /// Seconds after which the upstream announced to close an idle connection.
    pub keep_alive_timeout: Option<u64>,
    /// The protocol of `Upgrade`, for a 101.
    pub upgrade: Option<HeaderValue>,
}

/// Returns whether a trailer field would change framing, routing, credentials or the meaning of the message (RFC 9110
/// 6.5.1), because some upstreams merge trailers into the head.
pub(crate) fn forbidden_in_trailers(name: &HeaderName) -> bool {
    const FORBIDDEN: [&str; 34] = [
        "accept-encoding",
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "proxy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "x-real-ip",
        "x-request-id",
    ];
    let name = name.as_str();
    // CGI and WSGI programs cannot tell an underscore from a hyphen.
    let spelt = name.contains('_').then(|| name.replace('_', "-"));
    let name = spelt.as_deref().unwrap_or(name);
    name.starts_with("x-forwarded-") || name.starts_with("if-") || FORBIDDEN.contains(&name)
}

struct Line {
    name: (usize, usize),
    value: (usize, usize),
}

fn offsets(base: &[u8], part: &[u8]) -> (usize, usize) {
    let start = part.as_ptr() as usize - base.as_ptr() as usize;
    (start, start + part.len())
}

fn malformed(error: httparse::Error) -> HeadError {
    HeadError::Malformed(match error {
        httparse::Error::HeaderName => "a field name is malformed",
        httparse::Error::HeaderValue => "a field value holds a control character",
        httparse::Error::NewLine => "a line does not end in LF, or holds a bare CR",
        httparse::Error::Status => "the status line is malformed",
        httparse::Error::Token => "the request line is malformed",
        httparse::Error::TooManyHeaders => return HeadError::TooManyFields,
        httparse::Error::Version => "the protocol version is malformed",
    })
}

/// Classifies an unknown version: another HTTP version (RFC 9110 15.6.6), or a target with a space. A request line has
/// two spaces, and no recipient may guess which they are (RFC 9112 3).
fn unknown_version(input: &[u8]) -> HeadError {
    let line = input.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).find(|line| !line.is_empty());
    let mut parts = line.unwrap_or_default().split(|byte| *byte == b' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some([b'H', b'T', b'T', b'P', b'/', major, rest @ ..]), None)
            if major.is_ascii_digit()
                && (rest.is_empty() || matches!(rest, [b'.', minor] if minor.is_ascii_digit())) =>
        {
            HeadError::Version
        }
        _ => HeadError::Malformed("the request line is malformed"),
    }
}

/// Parses a request head from the front of `input`. Returns `Ok(None)` while it is incomplete.
pub fn parse_request(
    input: &mut BytesMut,
    limits: HeadLimits,
) -> Result<Option<Box<RequestHead>>, HeadError> {
    match request::<USUAL_FIELDS>(input, limits) {
        Err(HeadError::TooManyFields) if limits.fields > USUAL_FIELDS => long_request(input, limits),
        parsed => parsed,
    }
}

#[cold]
#[inline(never)]
fn long_request(input: &mut BytesMut, limits: HeadLimits) -> Result<Option<Box<RequestHead>>, HeadError> {
    request::<MAX_FIELDS>(input, limits)
}

fn request<const SLOTS: usize>(
    input: &mut BytesMut,
    limits: HeadLimits,
) -> Result<Option<Box<RequestHead>>, HeadError> {
    let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; SLOTS];
    let slots = &mut storage[..limits.fields.min(SLOTS)];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(input, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() >= limits.size => return Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) => return Err(unknown_version(input)),
        Err(error) => return Err(malformed(error)),
    };
    if length > limits.size {
        return Err(HeadError::TooLarge);
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed("the request line is malformed"));
    };
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadError::Malformed("the request line is malformed"))?;
    let target = offsets(input, target.as_bytes());
    let lines = gather(input, request.headers);
    let block = buffered::take(input, length);

    let mut fields = ConnectionFields::default();
    let mut lengths = LengthFields::default();
    let headers = read_fields(&block, lines, &mut fields, &mut lengths)?;

    let target = block.slice(target.0..target.1);
    let target = match Looks::inspect(&target) {
        Looks::Plain => target,
        Looks::Raw => Bytes::from(target::encoded(&target)),
        Looks::Fragment => {
            return Err(HeadError::Malformed("a fragment does not belong in the request target"));
        }
    };
    if target.len() > usize::from(u16::MAX) - 1 {
        return Err(HeadError::TargetTooLong);
    }
    let connect = method == Method::CONNECT;
    let uri = Uri::from_maybe_shared(target)
        .map_err(|_| HeadError::Malformed("the request target is malformed"))?;
    check_target(&method, &uri)?;
    check_hosts(fields.hosts, fields.host_is_valid, version)?;

    let framing = lengths.of_request(version == Version::HTTP_11)?;
    let expects_continue = version == Version::HTTP_11 && fields.expects_continue == Some(true);

    let keep_alive = fields.persistent(version) && !connect;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = headers;
    Ok(Some(Box::new(RequestHead {
        parts,
        size: length,
        framing,
        keep_alive,
        // RFC 9110 7.8: Upgrade counts only in HTTP/1.1 and if Connection names it. Upgrades to h2c are not offered;
        // HTTP/2 starts with prior knowledge instead.
        upgrade: fields
            .upgrade_to
            .filter(|_| fields.upgrade && version == Version::HTTP_11)
            .and_then(|protocols| without_h2c(&protocols)),
        expects_continue,
        takes_trailers: fields.trailers,
    })))
}

/// Parses the head of a response to `method` from the front of `input`. Returns `Ok(None)` while it is incomplete.
pub fn parse_response(
    input: &mut BytesMut,
    method: &Method,
    limits: HeadLimits,
) -> Result<Option<ResponseHead>, HeadError> {
    match response::<USUAL_FIELDS>(input, method, limits) {
        Err(HeadError::TooManyFields) if limits.fields > USUAL_FIELDS => long_response(input, method, limits),
        parsed => parsed,
    }
}

#[cold]
#[inline(never)]
fn long_response(
    input: &mut BytesMut,
    method: &Method,
    limits: HeadLimits,
) -> Result<Option<ResponseHead>, HeadError> {
    response::<MAX_FIELDS>(input, method, limits)
}

fn response<const SLOTS: usize>(
    input: &mut BytesMut,
    method: &Method,
    limits: HeadLimits,
) -> Result<Option<ResponseHead>, HeadError> {
    let mut storage = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; SLOTS];
    let slots = &mut storage[..limits.fields.min(SLOTS)];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, input, slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() >= limits.size => return Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(other_protocol(input).unwrap_or_else(|| malformed(error))),
    };
    let (Some(code), Some(version)) = (response.code, response.version) else {
        return Err(HeadError::Malformed("the status line is malformed"));
    };
    let status =
        StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("the status code is malformed"))?;
    let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let lines = gather(input, response.headers);
    let block = buffered::take(input, length);

    let mut fields = ConnectionFields::default();
    let mut lengths = LengthFields::default();
    let headers = read_fields(&block, lines, &mut fields, &mut lengths)?;
    let (framing, reusable) = lengths.of_response(method, status)?;

    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.version = version;
    parts.headers = headers;
    if let Some(phrase) = ReasonPhrase::from_status_line(status_line(&block), status) {
        parts.extensions.insert(phrase);
    }
    if framing != Framing::Length(0) && lengths.declared().is_some() && !reusable {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    Ok(Some(ResponseHead {
        parts,
        framing,
        keep_alive: reusable && fields.persistent(version),
        keep_alive_timeout: fields.keep_alive_timeout,
        upgrade: fields.upgrade_to,
    }))
}

/// Returns the status line of a parsed head; empty lines may stand before it (RFC 9112 2.2).
fn status_line(block: &[u8]) -> &[u8] {
    let start = block.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(block.len());
    let line = &block[start..];
    &line[..line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len())]
}

thread_local! {
    /// Offsets of one head's fields; the allocation is reused for the next head.
    static LINES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

fn gather(input: &[u8], headers: &[httparse::Header<'_>]) -> Vec<Line> {
    let mut lines = LINES.take();
    lines.clear();
    lines.extend(headers.iter().map(|field| Line {
        name: offsets(input, field.name.as_bytes()),
        value: offsets(input, field.value),
    }));
    lines
}

fn read_fields(
    block: &Bytes,
    lines: Vec<Line>,
    fields: &mut ConnectionFields,
    lengths: &mut LengthFields,
) -> Result<HeaderMap, HeadError> {
    // Room for the fields that a proxy adds, so that the map is not grown and rehashed later. For few fields it is
    // small enough to allocate quickly.
    let mut headers = HeaderMap::with_capacity(lines.len() + 4);
    for line in &lines {
        let name = HeaderName::from_bytes(&block[line.name.0..line.name.1])
            .map_err(|_| HeadError::Malformed("a field name is malformed"))?;
        let value = block.slice(line.value.0..line.value.1);
        match name {
            header::CONNECTION => fields.connection(&value),
            header::TRANSFER_ENCODING => lengths.transfer_encoding(&value),
            header::CONTENT_LENGTH => {
                let first = lengths.declared().is_none();
                lengths.content_length(&value)?;
                // Several equal values are forwarded as a single value in the usual notation.
                if let (true, Some(length)) = (first, lengths.declared()) {
                    let usual = itoa::Buffer::new().format(length).as_bytes() == value;
                    let shared = if usual { HeaderValue::from_maybe_shared(value).ok() } else { None };
                    headers.insert(name, shared.unwrap_or_else(|| HeaderValue::from(length)));
                }
            }
            header::TE => fields.trailers |= names_trailers(&value),
            header::UPGRADE => {
                fields.upgrade_to = HeaderValue::from_maybe_shared(value).ok();
            }
            header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => {}
            _ if name == "keep-alive" => fields.keep_alive_timeout = timeout_parameter(&value),
            _ if name == "proxy-connection" || name == "http2-settings" => {}
            _ => {
                fields.note(&name, &value);
                let value = HeaderValue::from_maybe_shared(value)
                    .map_err(|_| HeadError::Malformed("a field value holds a control character"))?;
                headers.try_append(name, value).map_err(|_| HeadError::TooManyFields)?;
            }
        }
    }
    fields.remove_named(&mut headers);
    LINES.set(lines);
    Ok(headers)
}

/// Checks the four forms of a target (RFC 9112 3.2) and which methods may use them; userinfo is never allowed (RFC 9110
/// 4.2.4).
pub(crate) fn check_target(method: &Method, uri: &Uri) -> Result<(), HeadError> {
    let fine = if *method == Method::CONNECT {
        uri.authority().is_some() && uri.scheme().is_none()
    } else if uri.path() == "*" {
        *method == Method::OPTIONS
    } else if uri.scheme().is_some() {
        uri.authority().is_some_and(|authority| host::is_host(authority.as_str().as_bytes()))
            && uri.scheme_str().is_some_and(|scheme| {
                scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
            })
    } else {
        uri.authority().is_none() && uri.path().starts_with('/')
    };
    if fine { Ok(()) } else { Err(HeadError::Malformed("the request target is malformed")) }
}

/// See [`check_hosts`].
pub(crate) fn check_host(headers: &HeaderMap, version: Version) -> Result<(), HeadError> {
    let hosts = headers.get_all(header::HOST);
    let valid = hosts.iter().all(|host| host::is_host(host.as_bytes()));
    check_hosts(hosts.iter().count(), valid, version)
}

/// Checks for exactly one Host in HTTP/1.1, and never a malformed one (RFC 9112 3.2).
fn check_hosts(count: usize, valid: bool, version: Version) -> Result<(), HeadError> {
    match count {
        1 if valid => Ok(()),
        0 if version == Version::HTTP_10 => Ok(()),
        _ => Err(HeadError::Host),
    }
}
