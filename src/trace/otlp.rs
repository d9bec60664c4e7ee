//! The messages of OTLP 1 (opentelemetry-proto `trace/v1`), as far as they are told; names and values of
//! attributes by OpenTelemetry's conventions for HTTP.

use std::time::{Duration, SystemTime};

use prost::Message;

use super::{Told, Trace};

#[derive(Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Message)]
struct InstrumentationScope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(enumeration = "SpanKind", tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum SpanKind {
    Unspecified = 0,
    Server = 2,
    Client = 3,
}

#[derive(Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(enumeration = "StatusCode", tag = "3")]
    code: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum StatusCode {
    Unset = 0,
    Error = 2,
}

#[derive(Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(int64, tag = "3")]
    Int(i64),
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::String(value.into())) });
    KeyValue { key: key.to_owned(), value }
}

fn number(key: &str, value: u64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::Int(i64::try_from(value).unwrap_or(i64::MAX))) });
    KeyValue { key: key.to_owned(), value }
}

/// One message of what is told, by a `service` of that name.
pub fn encode(service: &str, told: &[Told]) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![
            text("service.name", service),
            text("service.version", env!("CARGO_PKG_VERSION")),
            number("process.pid", std::process::id().into()),
        ],
    };
    let scope =
        InstrumentationScope { name: "pillion".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = told.iter().flat_map(spans).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn spans(told: &Told) -> Vec<Span> {
    let Some(own) = told.trace.spans else { return Vec::new() };
    let started = nanoseconds(told.started);
    let (path, query) =
        told.target.split_once('?').map_or((&*told.target, None), |(path, query)| (path, Some(query)));
    let mut attributes = vec![
        text("http.request.method", &*told.method),
        text("url.path", path),
        text("http.route", &*told.route),
        number("http.response.status_code", told.status.into()),
        number("http.response.body.size", told.bytes),
        text("client.address", told.client.to_string()),
        text("network.protocol.name", "http"),
        text("network.protocol.version", told.protocol),
        text("pillion.request_id", told.id.to_str().unwrap_or("-")),
    ];
    attributes.extend(query.map(|query| text("url.query", query)));
    attributes.extend(told.cache.map(|word| text("pillion.cache", word)));
    attributes.extend(told.limit.map(|word| text("pillion.limit", word)));
    // The conventions: an error of a server's span is a 5xx, whatever the client did.
    let failed = told.status >= 500;
    if failed {
        let kind =
            told.error.as_ref().map_or_else(|| told.status.to_string(), |(fault, _)| (*fault).to_owned());
        attributes.push(text("error.type", kind));
    }
    let name = format!("{} {}", told.method, told.route);
    let status = status(failed, told);
    let ended = started.saturating_add(whole(told.duration));
    let mut spans = Vec::with_capacity(2);
    if let Some(asked) = &told.asked {
        let unanswered = !asked.answered;
        let mut attributes = vec![
            text("http.request.method", &*told.method),
            text("url.path", path),
            text("server.address", &*asked.address),
        ];
        if asked.retries > 0 {
            attributes.push(number("http.request.resend_count", asked.retries.into()));
        }
        if unanswered {
            attributes.push(text("error.type", told.error.as_ref().map_or("upstream", |(fault, _)| fault)));
        }
        let status = self::status(unanswered, told);
        spans.push(Span {
            end_time_unix_nano: asked
                .duration
                .map_or(ended, |duration| started.saturating_add(whole(duration))),
            status,
            ..span(
                &told.trace,
                own.client,
                Some(own.server),
                told.method.clone(),
                SpanKind::Client,
                started,
                attributes,
            )
        });
    }
    spans.push(Span {
        end_time_unix_nano: ended,
        status,
        ..span(&told.trace, own.server, told.trace.parent, name, SpanKind::Server, started, attributes)
    });
    spans
}

fn span(
    trace: &Trace,
    id: u64,
    parent: Option<u64>,
    name: String,
    kind: SpanKind,
    started: u64,
    attributes: Vec<KeyValue>,
) -> Span {
    Span {
        trace_id: trace.id.to_be_bytes().to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name,
        kind: kind.into(),
        start_time_unix_nano: started,
        end_time_unix_nano: started,
        attributes,
        status: None,
        flags: trace.flags.into(),
    }
}

fn status(failed: bool, told: &Told) -> Option<Status> {
    let message = told.error.as_ref().map(|(_, error)| error.clone()).unwrap_or_default();
    failed.then(|| Status { message, code: StatusCode::Error.into() })
}

fn nanoseconds(at: SystemTime) -> u64 {
    whole(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
