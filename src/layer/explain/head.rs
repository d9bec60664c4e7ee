//! Builds a request as a client would send it. It goes through the usual parser, so that everything the parser refuses
//! is refused here too.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::http1::framing::Framing;
use crate::http1::head::{self, HeadLimits};
use crate::http1::head_error::HeadError;
use crate::message::body::Body;
use crate::message::inbound::{Inbound, Peer, Refused};
use crate::runtime::clock::Instant;

/// The host of a request given as a path without a host.
pub(super) const NOBODY_S: &str = "localhost";

/// Parses the request, or returns why it is refused.
pub(super) fn request(
    (method, uri): (&Method, &Uri),
    fields: &[(HeaderName, HeaderValue)],
    limits: HeadLimits,
    (peer, received): (Rc<Peer>, Instant),
) -> Result<Inbound, Refused> {
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut text = BytesMut::from(format!("{method} {target} HTTP/1.1\r\n").as_bytes());
    let mut line = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            text.extend_from_slice(part);
        }
    };
    // As in curl, an explicit `Host` field replaces the host of the URL.
    if !fields.iter().any(|(name, _)| name == header::HOST) {
        line("host", uri.authority().map_or(NOBODY_S, |authority| authority.as_str()).as_bytes());
    }
    fields.iter().for_each(|(name, value)| line(name.as_str(), value.as_bytes()));
    text.extend_from_slice(b"\r\n");
    let refused = |error: HeadError| Refused { status: error.status(), detail: error.detail() };
    let head = head::parse_request(&mut text, limits).map_err(refused)?;
    let head = head.ok_or(HeadError::TooLarge).map_err(refused)?;
    let body = match head.framing {
        Framing::Length(0) => Body::empty(),
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
