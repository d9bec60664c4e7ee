//! The head of a request over HTTP/2: its size, the checks that HTTP/1 also makes, and its form for the stack.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

use crate::fields::target::{self, Looks};
use crate::http1::head::{self, HeadLimits};
use crate::http1::head_error::HeadError;
use crate::message::inbound::Refused;

/// Encodes characters that a URI cannot have, as the HTTP/1 parser does. Characters that the library refuses itself
/// never arrive here: `<`, `>` in a target, `"` in a query, a backtick in a path.
pub(super) fn encode_target(uri: &mut Uri) -> Result<(), Refused> {
    let given = uri.path_and_query().map_or(&b""[..], |target| target.as_str().as_bytes());
    if Looks::inspect(given) != Looks::Raw {
        return Ok(());
    }
    let encoded = target::encoded(given);
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = PathAndQuery::from_maybe_shared(Bytes::from(encoded)).ok();
    let whole = parts.path_and_query.is_some();
    match Uri::from_parts(parts) {
        Ok(encoded) if whole => *uri = encoded,
        _ => {
            let error = HeadError::TargetTooLong;
            return Err(Refused { status: error.status(), detail: error.detail() });
        }
    }
    Ok(())
}

/// Returns the bytes of the target and of the fields' names and values.
pub(super) fn head_size(parts: &http::request::Parts) -> usize {
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    fields.sum::<usize>() + target
}

/// Checks the limits of heads, with the sizes as HTTP/2 counts them (RFC 9113 10.5.1).
pub(super) fn too_large(size: usize, fields: usize, limits: HeadLimits) -> Result<(), Refused> {
    const OVERHEAD: usize = 32;
    let error = if fields > limits.fields {
        HeadError::TooManyFields
    } else if size + fields * OVERHEAD > limits.size {
        HeadError::TooLarge
    } else {
        return Ok(());
    };
    Err(Refused { status: error.status(), detail: error.detail() })
}

/// Checks what the HTTP/1 parser checks: one Host, taken from :authority if present (RFC 9113 8.3.1), and a target that
/// fits its method.
pub(super) fn check(
    headers: &mut HeaderMap,
    uri: &Uri,
    method: &Method,
    extended: bool,
) -> Result<(), Refused> {
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    let checked = match *method {
        Method::CONNECT if !extended => Ok(()),
        Method::CONNECT => head::check_target(&Method::GET, uri),
        _ => head::check_target(method, uri),
    };
    let checked = checked.and_then(|()| head::check_host(headers, Version::HTTP_2));
    checked.map_err(|error| Refused { status: error.status(), detail: error.detail() })
}

/// Joins the Cookie fields into one before they go on to HTTP/1 (RFC 9113 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}
