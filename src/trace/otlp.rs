//! The messages of OTLP 1 (opentelemetry-proto `trace/v1`), as far as they are told; names and values of
//! attributes by OpenTelemetry's conventions for HTTP.
//!
//! Attributes, of which there are thirty to a request, and what is around spans are written as they come: as messages
//! of their own the length of each would be counted again by all that is around it.

use std::cell::RefCell;

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{Asked, Told, span_id};
use crate::clock::nanoseconds;
use crate::fields::fresh;

/// `ExportTraceServiceRequest.resource_spans`.
const RESOURCE_SPANS: u32 = 1;
/// `ResourceSpans.resource`.
const RESOURCE: u32 = 1;
/// `ResourceSpans.scope_spans`.
const SCOPE_SPANS: u32 = 2;
/// `ScopeSpans.scope`.
const SCOPE: u32 = 1;
/// `ScopeSpans.spans`.
const SPANS: u32 = 2;
/// `Resource.attributes`.
const OF_RESOURCE: u32 = 1;
/// `Span.trace_id`, and the numbers of its other fields.
const TRACE_ID: u32 = 1;
const SPAN_ID: u32 = 2;
const PARENT_SPAN_ID: u32 = 4;
const SPAN_NAME: u32 = 5;
const KIND: u32 = 6;
const START_TIME: u32 = 7;
const END_TIME: u32 = 8;
const STATUS: u32 = 15;
const FLAGS: u32 = 16;
/// `Span.attributes`.
const OF_SPAN: u32 = 9;
/// `KeyValue.key`.
const KEY: u32 = 1;
/// `KeyValue.value`.
const VALUE: u32 = 2;
/// `AnyValue.string_value`.
const TEXT: u32 = 1;
/// `AnyValue.int_value`.
const NUMBER: u32 = 3;

/// `InstrumentationScope.name`.
const NAME: u32 = 1;
/// `InstrumentationScope.version`.
const VERSION: u32 = 2;
/// `Status.message`.
const MESSAGE: u32 = 2;
/// `Status.code`.
const CODE: u32 = 3;
/// `Status.StatusCode.STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// `Span.SpanKind`.
#[derive(Clone, Copy)]
enum Kind {
    Server = 2,
    Client = 3,
}

/// Who a span is, and when it was.
struct Span<'a> {
    id: u64,
    parent: Option<u64>,
    name: [&'a str; 2],
    kind: Kind,
    began: u64,
    ended: u64,
    failed: bool,
}

impl Span<'_> {
    /// Writes its fields but for the attributes.
    fn write(&self, told: &Told<'_>, out: &mut Vec<u8>) {
        put(out, TRACE_ID, &told.trace.id.to_be_bytes());
        put(out, SPAN_ID, &self.id.to_be_bytes());
        if let Some(parent) = self.parent {
            put(out, PARENT_SPAN_ID, &parent.to_be_bytes());
        }
        let [method, route] = self.name;
        let between = if route.is_empty() { "" } else { " " };
        begin(out, SPAN_NAME, method.len() + between.len() + route.len());
        [method, between, route].iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        number(out, KIND, self.kind as u64);
        encode_key(START_TIME, WireType::SixtyFourBit, out);
        out.extend_from_slice(&self.began.to_le_bytes());
        encode_key(END_TIME, WireType::SixtyFourBit, out);
        out.extend_from_slice(&self.ended.to_le_bytes());
        if self.failed {
            let message = told.error.map_or("", |(_, error)| error);
            begin(out, STATUS, size(message.len()) + 1 + encoded_len_varint(ERROR));
            put(out, MESSAGE, message.as_bytes());
            number(out, CODE, ERROR);
        }
        encode_key(FLAGS, WireType::ThirtyTwoBit, out);
        out.extend_from_slice(&u32::from(told.trace.flags).to_le_bytes());
    }
}

/// The bytes of a field with a length, which are those of its number (below 16), of the length, and so many.
fn size(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Nearly all of them are a byte.
#[inline(always)]
fn varint(out: &mut Vec<u8>, number: u64) {
    match u8::try_from(number) {
        Ok(byte @ ..0x80) => out.push(byte),
        _ => encode_varint(number, out),
    }
}

/// Writes all of a field with a length but its bytes.
#[inline(always)]
fn begin(out: &mut Vec<u8>, field: u32, length: usize) {
    varint(out, u64::from(field << 3 | WireType::LengthDelimited as u32));
    varint(out, length as u64);
}

#[inline(always)]
fn put(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    begin(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, field: u32, number: u64) {
    varint(out, u64::from(field << 3 | WireType::Varint as u32));
    varint(out, number);
}

/// Attributes of whatever has them under this number.
struct Attributes<'o> {
    field: u32,
    out: &'o mut Vec<u8>,
}

impl Attributes<'_> {
    #[inline(always)]
    fn key(&mut self, key: &str, value: usize) {
        begin(self.out, self.field, size(key.len()) + size(value));
        put(self.out, KEY, key.as_bytes());
        begin(self.out, VALUE, value);
    }

    #[inline(never)]
    fn text(&mut self, key: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.key(key, size(value.len()));
        put(self.out, TEXT, value);
    }

    fn joined(&mut self, key: &str, parts: [&str; 2]) {
        let length = parts.iter().map(|part| part.len()).sum();
        self.key(key, size(length));
        begin(self.out, TEXT, length);
        parts.iter().for_each(|part| self.out.extend_from_slice(part.as_bytes()));
    }

    #[inline(never)]
    fn number(&mut self, key: &str, value: u64) {
        // Negative ones would be no such number.
        let value = value & u64::MAX >> 1;
        self.key(key, 1 + encoded_len_varint(value));
        number(self.out, NUMBER, value);
    }
}

/// One message of these spans, by a `service` of that name.
pub fn message(service: &str, spans: &[u8]) -> Bytes {
    let version = env!("CARGO_PKG_VERSION");
    let mut resource = Vec::new();
    let mut attributes = Attributes { field: OF_RESOURCE, out: &mut resource };
    attributes.text("service.name", service);
    attributes.text("service.version", version);
    attributes.number("process.pid", std::process::id().into());
    let mut scope = Vec::new();
    put(&mut scope, NAME, b"pillion");
    put(&mut scope, VERSION, version.as_bytes());

    let of_scope = size(scope.len()) + spans.len();
    let of_resource = size(resource.len()) + size(of_scope);
    let mut message = Vec::with_capacity(size(of_resource));
    begin(&mut message, RESOURCE_SPANS, of_resource);
    put(&mut message, RESOURCE, &resource);
    begin(&mut message, SCOPE_SPANS, of_scope);
    put(&mut message, SCOPE, &scope);
    message.extend_from_slice(spans);
    message.into()
}

thread_local! {
    /// Where a span is written before its length is known.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Appends the spans of one request, for [`message`].
pub fn spans(told: &Told<'_>, out: &mut Vec<u8>) {
    let Some(client) = told.trace.span else { return };
    // Nobody else knows of it.
    let server = span_id();
    let started = nanoseconds(told.started);
    let ended = started.saturating_add(nanoseconds(told.duration));
    if let Some(asked) = &told.asked {
        let began = started.saturating_add(nanoseconds(asked.after));
        let span = Span {
            id: client,
            parent: Some(server),
            name: [told.method, ""],
            kind: Kind::Client,
            began,
            ended: asked.duration.map_or(ended, |duration| began.saturating_add(nanoseconds(duration))),
            failed: !asked.answered,
        };
        push(&span, told, out, |out| of_client(told, asked, out));
    }
    let span = Span {
        id: server,
        parent: told.trace.parent,
        name: [told.method, told.route],
        kind: Kind::Server,
        began: started,
        ended,
        failed: has_failed(told),
    };
    push(&span, told, out, |out| of_server(told, out));
}

fn push(span: &Span<'_>, told: &Told<'_>, out: &mut Vec<u8>, attributes: impl FnOnce(&mut Vec<u8>)) {
    ROOM.with_borrow_mut(|room| {
        room.clear();
        span.write(told, room);
        // Fields may come in any order.
        attributes(room);
        put(out, SPANS, room);
    });
}

/// The conventions: an error of a server's span is a 5xx, whatever the client did.
fn has_failed(told: &Told<'_>) -> bool {
    told.status >= 500
}

fn of_client(told: &Told<'_>, asked: &Asked<'_>, out: &mut Vec<u8>) {
    let mut attributes = Attributes { field: OF_SPAN, out };
    attributes.text("http.request.method", told.method);
    let (server, port) = authority(asked.url);
    attributes.text("server.address", server);
    if let Some(port) = port {
        attributes.number("server.port", port.into());
        attributes.joined("url.full", [asked.url, told.target]);
    }
    if let Some(peer) = asked.peer {
        fresh::with_address(peer.ip(), |text| attributes.text("network.peer.address", text));
        attributes.number("network.peer.port", peer.port().into());
    }
    if asked.retries > 0 {
        attributes.number("http.request.resend_count", asked.retries.into());
    }
    if !asked.answered {
        attributes.text("error.type", told.error.map_or("upstream", |(fault, _)| fault));
    }
}

fn of_server(told: &Told<'_>, out: &mut Vec<u8>) {
    let mut attributes = Attributes { field: OF_SPAN, out };
    let (path, query) = path_and_query(told);
    attributes.text("http.request.method", told.method);
    attributes.text("url.scheme", told.scheme);
    attributes.text("url.path", path);
    attributes.text("http.route", told.route);
    attributes.number("http.response.status_code", told.status.into());
    attributes.number("http.response.body.size", told.bytes);
    fresh::with_address(told.client, |text| attributes.text("client.address", text));
    attributes.text("network.protocol.name", "http");
    attributes.text("network.protocol.version", told.protocol);
    attributes.text("pillion.request_id", told.id);
    if let Some(query) = query {
        attributes.text("url.query", query);
    }
    if let Some(word) = told.cache {
        attributes.text("pillion.cache", word);
    }
    if let Some(word) = told.limit {
        attributes.text("pillion.limit", word);
    }
    if has_failed(told) {
        match told.error {
            Some((fault, _)) => attributes.text("error.type", fault),
            None => attributes.text("error.type", told.status.to_string()),
        }
    }
}

/// The host and the port of an app's URL; a Unix socket has none.
fn authority(url: &str) -> (&str, Option<u16>) {
    let parts = url.split_once(':').and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("//")?)));
    let Some((scheme, rest)) = parts else { return (url, None) };
    let authority = rest.split('/').next().unwrap_or(rest);
    let usual = if scheme == "https" { 443 } else { 80 };
    match authority.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (authority, Some(usual)),
    }
}

fn path_and_query<'t>(told: &'t Told<'_>) -> (&'t str, Option<&'t str>) {
    told.target.split_once('?').map_or((told.target, None), |(path, query)| (path, Some(query)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for (url, expected) in [
            ("http://app:3000", ("app", Some(3000))),
            ("https://app", ("app", Some(443))),
            ("http://app/", ("app", Some(80))),
            ("h2c://[::1]:50051", ("[::1]", Some(50051))),
            ("http://[::1]", ("[::1]", Some(80))),
            ("unix:/run/app.sock", ("unix:/run/app.sock", None)),
        ] {
            assert_eq!(authority(url), expected, "{url}");
        }
    }
}
