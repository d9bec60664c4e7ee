//! The entry point of the fuzz target for field values.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::fields::accept_encoding::{self, AcceptEncoding};
use crate::fields::cache_control::{self, RequestDirectives, ResponseDirectives};
use crate::fields::entity_tag::{EntityTag, TagList};
use crate::fields::media_type::MediaKind;
use crate::fields::set_cookie::SetCookie;
use crate::fields::target::{self, Looks};
use crate::fields::traceparent::TraceParent;
use crate::fields::{
    connection_auth, cookie, date, forwarded, glob, host, list, query, range, signature, structured, vary,
};

const NAMES: [HeaderName; 14] = [
    header::CACHE_CONTROL,
    header::ACCEPT_ENCODING,
    header::CONTENT_ENCODING,
    header::IF_NONE_MATCH,
    header::IF_MATCH,
    header::ETAG,
    header::COOKIE,
    header::VARY,
    header::FORWARDED,
    header::AUTHORIZATION,
    header::DATE,
    signature::SIGNATURE_INPUT,
    forwarded::X_FORWARDED_FOR,
    forwarded::X_FORWARDED_PROTO,
];

/// Passes `data` to each parser: as fields, one a line, and as one value.
///
/// # Panics
///
/// Panics if a parser returns anything that is not part of its input, or does not accept its own output.
pub fn read(data: &[u8]) {
    // Each line of the input is one field. The first byte selects its name, and the rest is its value.
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(8) {
        let Some((name, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        headers.append(NAMES[usize::from(*name) % NAMES.len()].clone(), value);
    }

    let accepts = AcceptEncoding::from_headers(&headers);
    let _ = (
        accepts.identity(),
        accepts.weight("gzip"),
        accepts.takes(&accept_encoding::content_encoding(&headers)),
    );
    for directive in cache_control::directives(&headers) {
        assert!(directive.name.len() <= data.len());
    }
    let _ = (RequestDirectives::from_headers(&headers), ResponseDirectives::from_headers(&headers, &[]));
    for (name, value) in cookie::pairs(&headers) {
        let _ = cookie::is_odd(value);
        assert!(name.len() + value.len() <= data.len());
    }
    let patterns = ["_ga*", "*x*y*"].map(str::to_owned).to_vec();
    let ignored = cookie::Ignored::new(patterns, |_| true, vec!["*_session".to_owned()]);
    let _ = cookie::counts(&headers, &ignored);
    for name in NAMES {
        let all: usize = headers.get_all(&name).iter().map(HeaderValue::len).sum();
        let elements: usize = list::elements_in_field(&headers, &name).map(<[u8]>::len).sum();
        assert!(elements <= all, "{name}");
        let _ = (
            structured::dictionary(&headers, &name),
            structured::strings(&headers, &name),
            date::from_headers(&headers, &name),
        );
        let _ = TagList::from_headers(&headers, &name);
    }
    if let Some(tag) = EntityTag::from_headers(&headers) {
        let value = tag.to_value();
        assert_eq!(
            EntityTag::parse(value.as_bytes()).map(|tag| tag.to_value()),
            Some(value),
            "a tag is its own text"
        );
    }
    let mut varied = headers.clone();
    vary::add(&mut varied, &header::ACCEPT_ENCODING);
    vary::add(&mut varied, &header::ACCEPT_ENCODING);

    // A sender that is not trusted is never believed, and the result is always an address that occurs in the input.
    let trusts = |ip: IpAddr| ip.is_loopback();
    let stranger = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(forwarded::client_ip(&headers, stranger, trusts), stranger);
    let _ = forwarded::told_https(&headers, IpAddr::from([127, 0, 0, 1]), trusts);
    let _ = forwarded::in_older_words(&headers);

    let _ = forwarded::without_addresses(&headers);
    let _ = (MediaKind::from_headers(&headers), connection_auth::is_tried(&headers));
    if let Some(set) = SetCookie::parse(data, 1_700_000_000) {
        assert!(!set.name.contains(&b';'));
    }
    let encoded = target::encoded(data);
    assert_eq!(target::encoded(&encoded), encoded, "what is encoded is not encoded again");
    if Looks::inspect(data) == Looks::Plain {
        assert_eq!(encoded, data);
    }

    let text = String::from_utf8_lossy(data);
    let signed = signature::names_fields(&headers, Some(&text));
    for name in NAMES {
        assert!(signed || !signature::covers(&headers, Some(&text), &name));
    }
    for spec in range::parse(data, 16).unwrap_or_default() {
        if let Some(part) = spec.resolve(1000) {
            assert!(part.start < part.end && part.end <= 1000, "{part:?}");
        }
    }
    for (name, value) in query::pairs(&text) {
        assert!(name.len() + value.len() <= text.len());
        let _ = query::folds(&name);
    }
    if host::is_host(data) {
        assert!(
            !data.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'@' | b'?' | b'#'))
        );
        let _ = host::name(&text);
    }
    if let Some(trace) = TraceParent::parse(data) {
        assert_ne!(trace.trace, 0, "W3C Trace Context 3.2.2.3");
        assert!(TraceParent::parse(trace.value().as_bytes()).is_some());
    }
    let (pattern, name) = data.split_at(data.len() / 2);
    if !pattern.contains(&b'*') {
        assert_eq!(glob::matches(pattern, name), pattern == name);
    }
}
