//! The messages of OTLP 1 (opentelemetry-proto `trace/v1`), as far as they are told; names and values of
//! attributes by OpenTelemetry's conventions for HTTP.
//!
//! Attributes, of which there are thirty to a request, and what is around spans are written as they come: as messages
//! of their own the length of each would be counted again by all that is around it.

use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use http::Method;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{Asked, Told, span_id};
use crate::clock::nanoseconds;
use crate::error::Fault;
use crate::fields::fresh;
use crate::scratch::{Fixed, Scratch};
use crate::upstream::Target;

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

/// Of 64 bits, seven to a byte.
const LONGEST_VARINT: usize = 10;

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
    name: (&'a str, Option<&'a str>),
    kind: Kind,
    began: u64,
    ended: u64,
    failed: bool,
}

impl Span<'_> {
    /// Writes its fields but for the attributes.
    fn write(&self, told: &Told<'_>, out: &mut Scratch<'_>) {
        put(out, TRACE_ID, &told.trace.id.to_be_bytes());
        put(out, SPAN_ID, &self.id.to_be_bytes());
        if let Some(parent) = self.parent {
            put(out, PARENT_SPAN_ID, &parent.to_be_bytes());
        }
        let (method, route) = self.name;
        let (between, route) = route.map_or(("", ""), |route| (" ", route));
        begin(out, SPAN_NAME, method.len() + between.len() + route.len());
        [method, between, route].iter().for_each(|part| out.bytes(part.as_bytes()));
        number(out, KIND, self.kind as u64);
        out.bytes(&[tag(START_TIME, WireType::SixtyFourBit)]);
        out.bytes(&self.began.to_le_bytes());
        out.bytes(&[tag(END_TIME, WireType::SixtyFourBit)]);
        out.bytes(&self.ended.to_le_bytes());
        if self.failed {
            let message = told.error.map_or("", |(_, error)| error);
            begin(out, STATUS, size(message.len()) + 1 + encoded_len_varint(ERROR));
            put(out, MESSAGE, message.as_bytes());
            number(out, CODE, ERROR);
        }
        // Of two bytes, as its number is above 15.
        encode_key(FLAGS, WireType::ThirtyTwoBit, out.vector());
        out.bytes(&u32::from(told.trace.flags).to_le_bytes());
    }
}

/// The bytes of a field with a length, which are those of its number (below 16), of the length, and so many.
fn size(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// The first byte of a field whose number is below 16.
const fn tag(field: u32, kind: WireType) -> u8 {
    (field << 3 | kind as u32) as u8
}

/// The same of one with a length.
const fn tag_of_bytes(field: u32) -> u8 {
    tag(field, WireType::LengthDelimited)
}

/// Nearly all of them are a byte.
#[inline(always)]
fn varint(out: &mut Scratch<'_>, number: u64) {
    match u8::try_from(number) {
        Ok(byte @ ..0x80) => out.bytes(&[byte]),
        _ => longer_varint(out, number),
    }
}

#[inline(never)]
fn longer_varint(out: &mut Scratch<'_>, number: u64) {
    let mut text = [0; LONGEST_VARINT];
    let mut rest = &mut text[..];
    encode_varint(number, &mut rest);
    let length = LONGEST_VARINT - rest.len();
    out.first(&text, length);
}

/// Writes all of a field with a length but its bytes.
#[inline(always)]
fn begin(out: &mut Scratch<'_>, field: u32, length: usize) {
    out.bytes(&[tag_of_bytes(field)]);
    varint(out, length as u64);
}

fn put(out: &mut Scratch<'_>, field: u32, bytes: &[u8]) {
    begin(out, field, bytes.len());
    out.bytes(bytes);
}

fn number(out: &mut Scratch<'_>, field: u32, number: u64) {
    out.bytes(&[tag(field, WireType::Varint)]);
    varint(out, number);
}

/// An attribute's name as it is written: `KeyValue.key`, and where `KeyValue.value` begins.
type Key = Fixed<36>;

macro_rules! key {
    ($key:literal) => {
        const { &Key::new([&[tag_of_bytes(KEY), $key.len() as u8], $key.as_bytes(), &[tag_of_bytes(VALUE)]]) }
    };
}

/// Attributes of whatever has them under this number.
struct Attributes<'s, 'o> {
    field: u32,
    out: &'s mut Scratch<'o>,
}

impl Attributes<'_, '_> {
    /// Writes all of one but its value, which has this length.
    #[inline(always)]
    fn begin(&mut self, key: &Key, value: usize) {
        begin(self.out, self.field, key.length() + encoded_len_varint(value as u64) + value);
        self.out.fixed(key);
        varint(self.out, value as u64);
    }

    #[inline(never)]
    fn text(&mut self, key: &Key, value: &[u8]) {
        self.begin(key, size(value.len()));
        put(self.out, TEXT, value);
    }

    fn joined(&mut self, key: &Key, parts: [&str; 2]) {
        let length = parts.iter().map(|part| part.len()).sum();
        self.begin(key, size(length));
        begin(self.out, TEXT, length);
        parts.iter().for_each(|part| self.out.bytes(part.as_bytes()));
    }

    #[inline(never)]
    fn number(&mut self, key: &Key, value: u64) {
        // Negative ones would be no such number.
        let value = value & u64::MAX >> 1;
        self.begin(key, 1 + encoded_len_varint(value));
        number(self.out, NUMBER, value);
    }
}

/// One message of these spans, by a `service` of that name.
pub fn message(service: &str, spans: &[u8]) -> Bytes {
    let version = env!("CARGO_PKG_VERSION");
    let resource = written(|out| {
        let mut attributes = Attributes { field: OF_RESOURCE, out };
        attributes.text(key!("service.name"), service.as_bytes());
        attributes.text(key!("service.version"), version.as_bytes());
        attributes.number(key!("process.pid"), std::process::id().into());
    });
    let scope = written(|out| {
        put(out, NAME, b"pillion");
        put(out, VERSION, version.as_bytes());
    });
    let of_scope = size(scope.len()) + spans.len();
    let of_resource = size(resource.len()) + size(of_scope);
    let mut message = Vec::with_capacity(size(of_resource));
    Scratch::with(&mut message, |out| {
        begin(out, RESOURCE_SPANS, of_resource);
        put(out, RESOURCE, &resource);
        begin(out, SCOPE_SPANS, of_scope);
        put(out, SCOPE, &scope);
        out.bytes(spans);
    });
    message.into()
}

fn written(write: impl FnOnce(&mut Scratch<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    Scratch::with(&mut out, write);
    out
}

thread_local! {
    /// Where a span is written before its length is known.
    static SPAN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
            name: (named(told.method), None),
            kind: Kind::Client,
            began,
            ended: asked.duration.map_or(ended, |duration| began.saturating_add(nanoseconds(duration))),
            failed: error_of(told, asked).is_some(),
        };
        push(&span, told, out, |out| of_client(told, asked, out));
    }
    let span = Span {
        id: server,
        parent: told.trace.parent,
        name: (named(told.method), told.route),
        kind: Kind::Server,
        began: started,
        ended,
        failed: has_failed(told),
    };
    push(&span, told, out, |out| of_server(told, out));
}

fn push(span: &Span<'_>, told: &Told<'_>, out: &mut Vec<u8>, attributes: impl FnOnce(&mut Scratch<'_>)) {
    SPAN.with_borrow_mut(|room| {
        room.clear();
        Scratch::with(room, |out| {
            span.write(told, out);
            // Fields may come in any order.
            attributes(out);
        });
        Scratch::with(out, |out| {
            begin(out, SPANS, room.len());
            out.vector().extend_from_slice(room);
        });
    });
}

/// What a span is called by: other methods are any text a client likes.
fn named(method: &Method) -> &str {
    if is_known(method) { method.as_str() } else { "HTTP" }
}

/// Methods that are told as they are (RFC 9110 9, RFC 5789, and QUERY).
fn is_known(method: &Method) -> bool {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    known.contains(method) || method.as_str() == "QUERY"
}

fn of_method(method: &Method, attributes: &mut Attributes<'_, '_>) {
    let known = is_known(method);
    let told = if known { method.as_str() } else { "_OTHER" };
    attributes.text(key!("http.request.method"), told.as_bytes());
    if !known {
        attributes.text(key!("http.request.method_original"), method.as_str().as_bytes());
    }
}

/// The conventions: an error of a server's span is a 5xx, whatever the client did.
fn has_failed(told: &Told<'_>) -> bool {
    told.status >= 500
}

fn of_client(told: &Told<'_>, asked: &Asked<'_>, out: &mut Scratch<'_>) {
    let mut attributes = Attributes { field: OF_SPAN, out };
    of_method(told.method, &mut attributes);
    let address = asked.address;
    attributes.text(key!("server.address"), address.host.as_bytes());
    if let Some(port) = address.port {
        attributes.number(key!("server.port"), port.into());
        attributes.joined(key!("url.full"), [&address.url, told.target]);
    }
    if let Target::Tcp(peer) = address.target {
        fresh::with_address(peer.ip(), |text| attributes.text(key!("network.peer.address"), text));
        attributes.number(key!("network.peer.port"), peer.port().into());
    }
    if asked.retries > 0 {
        attributes.number(key!("http.request.resend_count"), asked.retries.into());
    }
    if let Some(status) = asked.status {
        attributes.number(key!("http.response.status_code"), status.into());
    }
    if let Some(error) = error_of(told, asked) {
        attributes.text(key!("error.type"), error.as_bytes());
    }
}

/// What went wrong with an app: it gave no answer, or not all of it, or said so (4xx and 5xx, by the conventions).
fn error_of(told: &Told<'_>, asked: &Asked<'_>) -> Option<Cow<'static, str>> {
    let upstream = Fault::Upstream.as_str();
    match (told.error, asked.status) {
        (Some((fault, _)), _) if fault == upstream => Some(upstream.into()),
        (error, None) => Some(error.map_or(upstream, |(fault, _)| fault).into()),
        (_, Some(status)) => (status >= 400).then(|| status.to_string().into()),
    }
}

fn of_server(told: &Told<'_>, out: &mut Scratch<'_>) {
    let mut attributes = Attributes { field: OF_SPAN, out };
    let (path, query) = path_and_query(told);
    of_method(told.method, &mut attributes);
    attributes.text(key!("url.scheme"), told.scheme.as_bytes());
    attributes.text(key!("url.path"), path.as_bytes());
    if let Some(route) = told.route {
        attributes.text(key!("http.route"), route.as_bytes());
    }
    attributes.number(key!("http.response.status_code"), told.status.into());
    attributes.number(key!("http.response.body.size"), told.bytes);
    fresh::with_address(told.client, |text| attributes.text(key!("client.address"), text));
    attributes.text(key!("network.protocol.name"), b"http");
    attributes.text(key!("network.protocol.version"), told.protocol.as_bytes());
    attributes.text(key!("pillion.request_id"), told.id.as_bytes());
    if let Some(query) = query {
        attributes.text(key!("url.query"), query.as_bytes());
    }
    if let Some(word) = told.cache {
        attributes.text(key!("pillion.cache"), word.as_bytes());
    }
    if let Some(word) = told.limit {
        attributes.text(key!("pillion.limit"), word.as_bytes());
    }
    if has_failed(told) {
        match told.error {
            Some((fault, _)) => attributes.text(key!("error.type"), fault.as_bytes()),
            None => attributes.text(key!("error.type"), told.status.to_string().as_bytes()),
        }
    }
}

fn path_and_query<'t>(told: &'t Told<'_>) -> (&'t str, Option<&'t str>) {
    told.target.split_once('?').map_or((told.target, None), |(path, query)| (path, Some(query)))
}
