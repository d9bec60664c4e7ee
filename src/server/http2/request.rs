//! Converts a request from HTTP/2 into the form that the stack gets.

use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use super::streams::Streams;
use super::upload_wait::UploadWait;
use super::{fields, refusals, request_body};
use crate::fields::hop_by_hop::without_h2c;
use crate::http1::server::Settings;
use crate::http2::intake::{FEW, IntakeBody, STREAM};
use crate::message::body::Body;
use crate::message::inbound::{Inbound, Peer, Refused};
use crate::runtime::clock;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// Converts a request, and returns its wait for content, if it has content. A request that is refused for lack of
/// memory has none.
pub(super) fn inbound(
    request: Request<Incoming>,
    extended: Option<hyper::ext::Protocol>,
    peer: Rc<Peer>,
    settings: Settings,
    streams: &Rc<Streams>,
) -> (Inbound, Option<Rc<UploadWait>>) {
    let (mut parts, incoming) = request.into_parts();
    parts.extensions.clear();
    let size = fields::head_size(&parts);
    let count = parts.headers.len();
    let crowded = streams.open.get() > FEW;
    // The state of the stream, in the library and here, until it ends.
    let kept = if crowded { STREAM } else { 0 };
    let counted = crate::message::inbound::counted_bytes(size, count, crowded) + kept;
    let mut refused = fields::too_large(size, count, settings.limits).err();
    let mut reserved = None;
    if let Some(memory) = peer.buffers.as_ref().filter(|_| refused.is_none() && counted > 0) {
        match refusals::reserve_or_refuse(memory, streams.client, counted) {
            Ok(memory) => reserved = Some(memory),
            Err(no_memory) => refused = Some(no_memory),
        }
    }
    let here = refused.is_none();
    if !here {
        // A field of one byte on the wire takes a hundred in memory.
        parts.headers = HeaderMap::new();
    }
    refused = refused.or(fields::encode_target(&mut parts.uri).err());
    refused =
        refused.or(fields::check(&mut parts.headers, &parts.uri, &parts.method, extended.is_some()).err());
    let headers = &mut parts.headers;
    let takes_trailers = headers.remove(header::TE).is_some();
    // RFC 9110 11.7.2: credentials for this proxy, which asks for none.
    headers.remove(header::PROXY_AUTHORIZATION);
    let (mut upgrade, mut upload) = (None, None);
    let body = if let Some(protocol) = extended {
        // RFC 8441: the upstream gets the GET and the Upgrade that it knows; parts that HTTP/2 leaves out are
        // generated.
        parts.method = Method::GET;
        upgrade = HeaderValue::from_str(protocol.as_str()).ok().and_then(|protocol| without_h2c(&protocol));
        if upgrade.as_ref().is_some_and(|protocol| protocol == "websocket") {
            headers.insert(SEC_WEBSOCKET_KEY, websocket_key());
        }
        if upgrade.is_none() {
            let detail = "this protocol cannot be tunneled";
            refused = refused.or(Some(Refused { status: StatusCode::NOT_IMPLEMENTED, detail }));
        }
        Body::empty()
    } else if !here || http_body::Body::is_end_stream(&incoming) {
        Body::empty()
    } else {
        let wait = upload.insert(UploadWait::new(streams.clone())).clone();
        let taken = IntakeBody::new(streams.intake.clone());
        request_body::streaming(incoming, settings.body_timeout, wait, taken)
    };
    let inbound = Inbound {
        request: Box::new(Request::from_parts(parts, body)),
        peer,
        received: clock::now(),
        upgrade,
        takes_trailers,
        refused,
        counted: if refused.is_some() { 0 } else { counted },
        kept,
        reserved,
    };
    (inbound, upload)
}

/// Returns 16 random bytes in base64: 21 free digits, a digit that carries two bits, and the padding.
fn websocket_key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut key = [b'='; 24];
    for digit in &mut key[..21] {
        *digit = DIGITS[fastrand::usize(..64)];
    }
    key[21] = DIGITS[fastrand::usize(..4) << 4];
    HeaderValue::from_bytes(&key).unwrap_or_else(|_| HeaderValue::from_static(""))
}
