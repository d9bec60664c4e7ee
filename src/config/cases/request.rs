//! Reads the request of a test case, and the fields and the content of requests and responses.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri};
use serde_json::{Map, Value as Json};

use super::claims;
use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::table_reader::{Section, Size, Spanned};
use crate::config::value::{Node, Value};

/// Maximum length of content in bytes.
const MAX_CONTENT: u64 = 16 * 1024 * 1024;
/// The byte that content of a given size is made of.
const FILLER: u8 = b'.';

/// The request of a test case.
#[derive(Clone, Debug)]
pub(crate) struct CaseRequest {
    pub method: Method,
    /// A URL, or a path alone.
    pub uri: Uri,
    pub fields: Vec<(HeaderName, HeaderValue)>,
    pub client: IpAddr,
    pub content: Bytes,
    /// A token, which the request carries where the configuration reads it.
    pub token: Option<(String, Span)>,
    /// The claims of its token, which count as verified.
    pub claims: Option<(Map<String, Json>, Span)>,
    /// An API key, which the request carries where the configuration reads it.
    pub key: Option<(String, Span)>,
}

/// Reads the keys of a case that make its request.
pub(super) fn read(
    section: &mut Section<'_>,
    case: &Span,
    problems: &mut Diagnostics,
) -> Option<CaseRequest> {
    let line = section.get::<String>("request", problems);
    if !section.has("request") {
        problems.at(case, "the case has no request").help("write request = \"GET /path\"");
    }
    let fields = fields(section, "headers", problems);
    let client = client(section, problems);
    let content = content(section, problems);
    let written = |text: Spanned<String>| Some((text.value, text.span?));
    let token = section.get::<String>("token", problems).and_then(written);
    let key = section.get::<String>("key", problems).and_then(written);
    let claims = claims::read(section, problems);
    let (method, uri) = parse(&line?, problems)?;
    Some(CaseRequest { method, uri, fields, client, content, token, claims, key })
}

/// Parses a method and a URL or path, as in `GET /path?query`.
fn parse(line: &Spanned<String>, problems: &mut Diagnostics) -> Option<(Method, Uri)> {
    let found = line.value.split_once(' ').and_then(|(method, target)| {
        let uri: Uri = target.trim().parse().ok()?;
        let is_whole = uri.scheme().is_some() || uri.authority().is_none();
        Some((Method::from_bytes(method.as_bytes()).ok()?, uri)).filter(|_| is_whole)
    });
    if let (None, Some(span)) = (&found, &line.span) {
        let message = format!("case.request is {:?}", line.value);
        problems.at(span, message).help("expected a method and a path or URL, like \"GET /path?query\"");
    }
    found
}

fn client(section: &mut Section<'_>, problems: &mut Diagnostics) -> IpAddr {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let Some(written) = section.get::<String>("client", problems) else { return local };
    let address = written.value.parse();
    if let (Err(_), Some(span)) = (&address, &written.span) {
        let message = format!("case.client is {:?}", written.value);
        problems.at(span, message).help("expected an IP address without a port, like \"192.0.2.1\"");
    }
    address.unwrap_or(local)
}

/// Reads a table of fields, each with one value or several.
pub(super) fn fields(
    section: &mut Section<'_>,
    key: &'static str,
    problems: &mut Diagnostics,
) -> Vec<(HeaderName, HeaderValue)> {
    let path = section.path(key);
    let Some((table, _)) = section.table(key, problems) else { return Vec::new() };
    let named = Section::new(path, table);
    let mut fields = Vec::new();
    for (name, node, at) in named.entries() {
        let values = match &node.value {
            Value::Array(items) => items.iter().collect(),
            _ => vec![node],
        };
        let Some(name) = field_name(name, at, problems) else { continue };
        fields.extend(values.into_iter().filter_map(|node| {
            let value = field_value(node);
            if value.is_none() {
                named.mismatch(name.as_str(), node, "a string without control characters", problems);
            }
            Some((name.clone(), value?))
        }));
    }
    fields
}

/// Reads the name of a field.
pub(super) fn field_name(name: &str, at: &Span, problems: &mut Diagnostics) -> Option<HeaderName> {
    let found = HeaderName::from_bytes(name.as_bytes()).ok();
    if found.is_none() {
        problems.at(at, format!("{name:?} is not the name of a field")).help("expected a name like x-plan");
    }
    found
}

fn field_value(node: &Node) -> Option<HeaderValue> {
    match (&node.filled, &node.value) {
        (Some(text), _) | (None, Value::String(text)) => HeaderValue::from_str(text).ok(),
        _ => None,
    }
}

/// Reads content: `body` as it is written, or `size` bytes.
pub(super) fn content(section: &mut Section<'_>, problems: &mut Diagnostics) -> Bytes {
    let body = section.get::<String>("body", problems);
    let size = section.get::<Size>("size", problems);
    match (body, size) {
        (Some(_), Some(size)) => {
            let path = section.path("size");
            if let Some(span) = &size.span {
                problems.at(span, format!("{path} stands beside body")).help("remove one of them");
            }
            Bytes::new()
        }
        (Some(body), None) => Bytes::from(body.value),
        (None, Some(Spanned { value: Size(bytes), span })) => {
            if let Some(span) = span.filter(|_| bytes > MAX_CONTENT) {
                problems
                    .at(&span, format!("{} is {bytes}B", section.path("size")))
                    .help("expected at most 16MiB");
            }
            Bytes::from(vec![FILLER; usize::try_from(bytes.min(MAX_CONTENT)).unwrap_or_default()])
        }
        (None, None) => Bytes::new(),
    }
}
