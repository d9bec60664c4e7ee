//! Builds a request as a client would send it. It goes through the usual parser, so that everything the parser refuses
//! is refused here too.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::http1::framing::Framing;
use crate::http1::head::{self, HeadLimits};
use crate::http1::head_error::HeadError;
use crate::identity::jwt::Claims;
use crate::message::body::Body;
use crate::message::inbound::{Inbound, Peer, Refused};
use crate::runtime::clock::Instant;

/// The host of a request given as a path without a host.
pub(super) const NOBODY_S: &str = "localhost";

/// A request that nobody sends.
#[derive(Clone)]
pub(crate) struct SampleRequest {
    pub method: Method,
    /// A URL, or a path alone.
    pub uri: Uri,
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The address it comes from.
    pub client: SocketAddr,
    /// Its content; `None`: only its fields say whether it has any.
    pub content: Option<Bytes>,
    /// Claims of its token that count as verified; `None`: the token is verified.
    pub claims: Option<Claims>,
}

impl SampleRequest {
    /// Returns whether neither the URL nor a field names a host.
    pub(super) fn names_no_host(&self) -> bool {
        self.uri.authority().is_none() && !self.names(&header::HOST)
    }

    fn names(&self, field: &HeaderName) -> bool {
        self.fields.iter().any(|(name, _)| name == field)
    }
}

/// Parses the request, or returns why it is refused.
pub(super) fn request(
    sample: &SampleRequest,
    limits: HeadLimits,
    (peer, received): (Rc<Peer>, Instant),
) -> Result<Inbound, Refused> {
    let SampleRequest { method, uri, fields, content, .. } = sample;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut text = BytesMut::from(format!("{method} {target} HTTP/1.1\r\n").as_bytes());
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    };
    // As in curl, an explicit `Host` field replaces the host of the URL.
    if !sample.names(&header::HOST) {
        line("host", uri.authority().map_or(NOBODY_S, |authority| authority.as_str()).as_bytes());
    }
    fields.iter().for_each(|(name, value)| line(name.as_str(), value.as_bytes()));
    if let Some(content) = content.as_ref().filter(|content| !content.is_empty())
        && !sample.names(&header::CONTENT_LENGTH)
    {
        line("content-length", content.len().to_string().as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    let refused = |error: HeadError| Refused { status: error.status(), detail: error.detail() };
    let head = head::parse_request(&mut text, limits).map_err(refused)?;
    let head = head.ok_or(HeadError::TooLarge).map_err(refused)?;
    let body = match (content, head.framing) {
        (Some(content), _) if !content.is_empty() => Body::full(content.clone()),
        (_, Framing::Length(0)) => Body::empty(),
        // The content is unknown; only its presence matters.
        _ => Body::full(Bytes::from_static(b"?")),
    };
    Ok(Inbound {
        request: Box::new(Request::from_parts(head.parts, body)),
        peer,
        received,
        upgrade: head.upgrade,
        takes_trailers: head.takes_trailers,
        refused: None,
        counted: 0,
        kept: 0,
        reserved: None,
    })
}
