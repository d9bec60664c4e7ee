//! The messages of OTLP 1 (opentelemetry-proto `trace/v1`), as far as Pillion sends them. Attributes and the envelope
//! of spans are encoded directly. With nested message types, every level would compute the length of everything inside
//! it again.

use std::cell::RefCell;

use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_varint, encoded_len_varint};

use crate::rendering::append_buffer::{AppendBuffer, Fixed};

/// The field number of `ExportTraceServiceRequest.resource_spans`.
const RESOURCE_SPANS: u32 = 1;
/// The field number of `ResourceSpans.resource`.
const RESOURCE: u32 = 1;
/// The field number of `ResourceSpans.scope_spans`.
const SCOPE_SPANS: u32 = 2;
/// The field number of `ScopeSpans.scope`.
const SCOPE: u32 = 1;
/// The field number of `ScopeSpans.spans`.
const SPANS: u32 = 2;
/// The field number of `Resource.attributes`.
const OF_RESOURCE: u32 = 1;
/// The field number of `Span.trace_id`; those of other fields of `Span` follow.
const TRACE_ID: u32 = 1;
const SPAN_ID: u32 = 2;
const TRACE_STATE: u32 = 3;
const PARENT_SPAN_ID: u32 = 4;
const SPAN_NAME: u32 = 5;
const KIND: u32 = 6;
const START_TIME: u32 = 7;
const END_TIME: u32 = 8;
const STATUS: u32 = 15;
const FLAGS: u32 = 16;
/// The field number of `Span.attributes`.
const OF_SPAN: u32 = 9;
/// The field number of `KeyValue.key`.
const KEY: u32 = 1;
/// The field number of `KeyValue.value`.
const VALUE: u32 = 2;
/// The field number of `AnyValue.string_value`.
const TEXT: u32 = 1;
/// The field number of `AnyValue.int_value`.
const NUMBER: u32 = 3;

/// The field number of `InstrumentationScope.name`.
const NAME: u32 = 1;
/// The field number of `InstrumentationScope.version`.
const VERSION: u32 = 2;
/// The field number of `Status.message`.
const MESSAGE: u32 = 2;
/// The field number of `Status.code`.
const CODE: u32 = 3;
/// The value of `Status.StatusCode.STATUS_CODE_ERROR`.
const ERROR: u64 = 2;

/// The tag of `Span.flags`, which has two bytes because its field number is above 15.
const FLAGS_TAG: [u8; 2] = [tag(FLAGS & 0xf, WireType::ThirtyTwoBit) | 0x80, (FLAGS >> 4) as u8];
/// Maximum bytes of a varint: 64 bits, with seven in each byte.
const MAX_VARINT_LENGTH: usize = 10;

/// The kind of a span, `Span.SpanKind`.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Server = 2,
    Client = 3,
}

/// The identity, the times and the outcome of a span.
pub(super) struct Span<'a> {
    pub trace: u128,
    pub id: u64,
    /// The `tracestate` of the trace (W3C Trace Context 3.3).
    pub state: Option<&'a str>,
    pub parent: Option<u64>,
    /// The start, in nanoseconds since the Unix epoch.
    pub began: u64,
    /// The end, in nanoseconds since the Unix epoch.
    pub ended: u64,
    /// The flags of the trace.
    pub flags: u8,
    /// The reason of a failure, which may be empty; `None` if the span succeeded.
    pub failure: Option<&'a str>,
}

impl Span<'_> {
    fn write(&self, out: &mut AppendBuffer<'_>) {
        put(out, TRACE_ID, &self.trace.to_be_bytes());
        put(out, SPAN_ID, &self.id.to_be_bytes());
        if let Some(state) = self.state {
            put(out, TRACE_STATE, state.as_bytes());
        }
        if let Some(parent) = self.parent {
            put(out, PARENT_SPAN_ID, &parent.to_be_bytes());
        }
        out.bytes(&[tag(START_TIME, WireType::SixtyFourBit)]);
        out.bytes(&self.began.to_le_bytes());
        out.bytes(&[tag(END_TIME, WireType::SixtyFourBit)]);
        out.bytes(&self.ended.to_le_bytes());
        if let Some(message) = self.failure {
            begin(out, STATUS, size(message.len()) + 1 + encoded_len_varint(ERROR));
            put(out, MESSAGE, message.as_bytes());
            number(out, CODE, ERROR);
        }
        out.bytes(&FLAGS_TAG);
        out.bytes(&u32::from(self.flags).to_le_bytes());
    }
}

/// Encodes a span's name, its kind, and some of its attributes.
pub(super) fn beginning(name: &str, kind: Kind, attributes: impl FnOnce(&mut Attributes<'_, '_>)) -> Vec<u8> {
    written(|out| {
        put(out, SPAN_NAME, name.as_bytes());
        number(out, KIND, kind as u64);
        attributes(&mut Attributes { field: OF_SPAN, out });
    })
}

/// Returns the bytes of a length-delimited field: its tag (for field numbers below 16), its length, and its content.
fn size(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Returns the tag of a field whose number is below 16.
const fn tag(field: u32, kind: WireType) -> u8 {
    (field << 3 | kind as u32) as u8
}

/// Returns the tag of a length-delimited field whose number is below 16.
const fn tag_of_bytes(field: u32) -> u8 {
    tag(field, WireType::LengthDelimited)
}

/// Writes a varint. Nearly all of them have a single byte.
#[inline(always)]
fn varint(out: &mut AppendBuffer<'_>, number: u64) {
    match u8::try_from(number) {
        Ok(byte @ ..0x80) => out.bytes(&[byte]),
        _ => longer_varint(out, number),
    }
}

#[inline(never)]
fn longer_varint(out: &mut AppendBuffer<'_>, number: u64) {
    let mut text = [0; MAX_VARINT_LENGTH];
    let mut rest = &mut text[..];
    encode_varint(number, &mut rest);
    let length = MAX_VARINT_LENGTH - rest.len();
    out.first(&text, length);
}

/// Writes the tag and the length of a length-delimited field.
#[inline(always)]
fn begin(out: &mut AppendBuffer<'_>, field: u32, length: usize) {
    out.bytes(&[tag_of_bytes(field)]);
    varint(out, length as u64);
}

fn put(out: &mut AppendBuffer<'_>, field: u32, bytes: &[u8]) {
    begin(out, field, bytes.len());
    out.bytes(bytes);
}

fn number(out: &mut AppendBuffer<'_>, field: u32, number: u64) {
    out.bytes(&[tag(field, WireType::Varint)]);
    varint(out, number);
}

/// An encoded attribute name: `KeyValue.key`, and the tag of `KeyValue.value`.
pub(super) type Key = Fixed<36>;

/// Encodes an attribute name of less than 32 bytes.
pub(super) const fn attribute(name: &str) -> Key {
    Key::new([&[tag_of_bytes(KEY), name.len() as u8], name.as_bytes(), &[tag_of_bytes(VALUE)]])
}

/// Encodes an attribute name at compile time.
macro_rules! key {
    ($name:literal) => {
        const { &$crate::trace::otlp::attribute($name) }
    };
}
pub(super) use key;

/// A writer of attributes for the message that has them in field `field`.
pub(super) struct Attributes<'s, 'o> {
    field: u32,
    out: &'s mut AppendBuffer<'o>,
}

impl Attributes<'_, '_> {
    /// Writes an attribute up to its value, which has this length.
    #[inline(always)]
    fn begin(&mut self, key: &Key, value: usize) {
        begin(self.out, self.field, key.length() + encoded_len_varint(value as u64) + value);
        self.out.fixed(key);
        varint(self.out, value as u64);
    }

    /// Writes an attribute with a string value.
    #[inline(never)]
    pub(super) fn text(&mut self, key: &Key, value: &[u8]) {
        self.begin(key, size(value.len()));
        put(self.out, TEXT, value);
    }

    /// Writes an attribute whose name is known only at run time.
    fn named(&mut self, name: &str, value: &str) {
        let value_length = size(value.len());
        begin(self.out, self.field, size(name.len()) + size(value_length));
        put(self.out, KEY, name.as_bytes());
        begin(self.out, VALUE, value_length);
        put(self.out, TEXT, value.as_bytes());
    }

    /// Writes an attribute with a string value of two parts.
    pub(super) fn joined(&mut self, key: &Key, parts: [&str; 2]) {
        let length = parts.iter().map(|part| part.len()).sum();
        self.begin(key, size(length));
        begin(self.out, TEXT, length);
        parts.iter().for_each(|part| self.out.bytes(part.as_bytes()));
    }

    /// Writes an attribute with an integer value.
    #[inline(never)]
    pub(super) fn number(&mut self, key: &Key, value: u64) {
        // Clears the sign bit, because none of these numbers is negative.
        let value = value & u64::MAX >> 1;
        self.begin(key, 1 + encoded_len_varint(value));
        number(self.out, NUMBER, value);
    }
}

/// Offset of the spans in a message. Before them is room for the tags and lengths of two enclosing fields.
const BEFORE_SPANS: usize = 2 * (1 + LENGTH_ROOM);
/// Bytes reserved for a length that is known only later. A varint may be longer than necessary (Protocol Buffers, "Base
/// 128 Varints").
const LENGTH_ROOM: usize = 4;
/// Upper bound of the lengths that fit into [`LENGTH_ROOM`].
pub(super) const MAX_MESSAGE_LENGTH: usize = 1 << (7 * LENGTH_ROOM);

/// A message whose spans are written to their final position.
#[derive(Debug)]
pub(super) struct Message(BytesMut);

impl Message {
    /// Creates a message without spans in the memory of `room`, whose content is discarded.
    pub(super) fn new(mut room: BytesMut) -> Message {
        room.clear();
        room.put_bytes(0, BEFORE_SPANS);
        Message(room)
    }

    pub(super) fn length(&self) -> usize {
        self.0.len()
    }

    /// Appends spans encoded with [`push`].
    pub(super) fn append(&mut self, spans: &[u8]) {
        self.0.extend_from_slice(spans);
    }

    /// Completes the message for a resource with these attributes. The resource comes last, because fields may come in
    /// any order.
    pub(super) fn whole(self, resource: &[(String, String)]) -> BytesMut {
        let Message(mut text) = self;
        let version = env!("CARGO_PKG_VERSION");
        let scope = written(|out| {
            put(out, NAME, b"pillion");
            put(out, VERSION, version.as_bytes());
        });
        let resource = written(|out| {
            let mut attributes = Attributes { field: OF_RESOURCE, out };
            resource.iter().for_each(|(name, value)| attributes.named(name, value));
            if !resource.iter().any(|(name, _)| name == "process.pid") {
                attributes.number(key!("process.pid"), std::process::id().into());
            }
        });
        text.extend_from_slice(&written(|out| put(out, SCOPE, &scope)));
        let of_scope = later(SCOPE_SPANS, text.len() - BEFORE_SPANS);
        text.extend_from_slice(&written(|out| put(out, RESOURCE, &resource)));
        let of_resource = later(RESOURCE_SPANS, text.len() - BEFORE_SPANS / 2);
        text[..BEFORE_SPANS].copy_from_slice([of_resource, of_scope].as_flattened());
        text
    }
}

/// Encodes the tag and the length of a field in the reserved room.
fn later(field: u32, length: usize) -> [u8; BEFORE_SPANS / 2] {
    let mut text = [tag_of_bytes(field); BEFORE_SPANS / 2];
    for (at, byte) in text[1..].iter_mut().enumerate() {
        let more = if at + 1 < LENGTH_ROOM { 0x80 } else { 0 };
        *byte = (length >> (7 * at)) as u8 & 0x7f | more;
    }
    text
}

fn written(write: impl FnOnce(&mut AppendBuffer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    AppendBuffer::with(&mut out, write);
    out
}

thread_local! {
    /// Reused memory for a span, until its length is known.
    static SPAN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Appends a span for a [`Message`], from its encoded [`beginning`] and the rest of its attributes.
#[inline(always)]
pub(super) fn push(
    out: &mut Vec<u8>,
    span: &Span<'_>,
    beginning: &[u8],
    attributes: impl FnOnce(&mut Attributes<'_, '_>),
) {
    SPAN.with_borrow_mut(|room| {
        room.clear();
        AppendBuffer::with(room, |out| {
            span.write(out);
            // Fields may come in any order.
            out.bytes(beginning);
            attributes(&mut Attributes { field: OF_SPAN, out });
        });
        AppendBuffer::with(out, |out| {
            begin(out, SPANS, room.len());
            out.vector().extend_from_slice(room);
        });
    });
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value;
    use prost::Message as _;

    use super::*;

    #[test]
    fn messages_of_any_length_are_read_by_the_official_definitions() {
        let mut room = BytesMut::new();
        for count in [0, 1, 3, 2_000, 1] {
            let mut message = Message::new(room);
            let begun = beginning("GET /a", Kind::Server, |attributes| attributes.number(key!("a"), 1 << 40));
            for id in 1..=count {
                let (parent, failure) = (Some(7), (id % 2 == 0).then_some("no"));
                let state = Some("a=1");
                let span = Span { trace: 1, id, state, parent, began: 1, ended: 2, flags: 1, failure };
                let mut spans = Vec::new();
                push(&mut spans, &span, &begun, |attributes| attributes.text(key!("b"), b"Zoe"));
                message.append(&spans);
            }
            let resource = [("service.name", "clinic"), ("long", &*"é".repeat(300))];
            let resource = resource.map(|(name, value)| (name.to_owned(), value.to_owned()));
            room = message.whole(&resource);
            let read = ExportTraceServiceRequest::decode(&*room).unwrap();
            let [resource] = &*read.resource_spans else { panic!("{read:?}") };
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            let names: Vec<&str> = attributes.iter().map(|attribute| &*attribute.key).collect();
            assert_eq!(names, ["service.name", "long", "process.pid"]);
            let long = attributes[1].value.as_ref().and_then(|value| value.value.clone());
            assert_eq!(long, Some(any_value::Value::StringValue("é".repeat(300))));
            let [scope] = &*resource.scope_spans else { panic!("{read:?}") };
            assert_eq!(scope.scope.as_ref().unwrap().name, "pillion");
            assert_eq!(scope.spans.len() as u64, count);
            for (id, span) in (1..).zip(&scope.spans) {
                assert_eq!((span.name.as_str(), span.kind, span.flags), ("GET /a", 2, 1));
                assert_eq!(span.span_id, u64::to_be_bytes(id));
                assert_eq!(span.status.is_some(), id % 2 == 0);
                assert_eq!(span.attributes.len(), 2);
            }
        }
    }
}
