//! Reads what a request asks of its representation, and edits the fields that the upstream receives.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::error::RepresentError;
use crate::fields::accept_encoding::AcceptEncoding;
use crate::fields::cache_control;
use crate::fields::entity_tag::EntityTag;
use crate::layer::routed::Routed;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::message::body::Body;
use crate::rendering::rendered_head::HeadVariant;
use crate::represent::breach_guard;
use crate::represent::coding::{Negotiated, Plain, negotiate};
use crate::represent::precondition::{Conditions, Current, ForApp, for_app};

/// The requested representation; see the head of the file.
pub(crate) struct RepresentationRequest {
    pub method: Method,
    /// The result of Accept-Encoding; `None` if responses are not encoded here.
    pub coding: Option<(AcceptEncoding, Negotiated)>,
    /// Whether a response without a tag gets a made one.
    pub etag: bool,
    /// How long the client is told to keep the response, and whether the request has credentials.
    pub browser: Option<(Duration, bool)>,
    /// The conditions as the client sent them, if there are any.
    pub conditions: Option<Box<Conditions>>,
    /// The Range that was sent to the upstream.
    pub range: Option<HeaderValue>,
    /// The parts of the request that the response may echo.
    pub said: Option<RequestEcho>,
}

/// The parts of a request that a response may echo.
pub(crate) struct RequestEcho {
    pub target: Option<PathAndQuery>,
    /// The request content; `None` if it was not available.
    pub content: Option<Bytes>,
}

impl RepresentationRequest {
    /// Reads the request and edits the fields for the upstream. An error ends the request.
    pub(crate) fn read(routed: &mut Routed) -> Result<RepresentationRequest, RepresentError> {
        let routes = || routed.rewritten_by.iter().chain([&routed.route]);
        let (compress, etag) = (routes().all(|route| route.compress), routes().all(|route| route.etag));
        let ttl = routes().filter_map(|route| route.browser_ttl).next_back();
        let policy = &routed.record.info.snapshot.policy.compression;
        let request = &mut routed.request;
        let method = request.method().clone();
        let headers = request.headers_mut();
        let seen = Seen::scan(headers);
        let conditions = seen.conditions.then(|| Box::new(Conditions::from_headers(headers)));
        if let Some(conditions) = &conditions
            && !conditions.is_one_strong_tag()
        {
            conditions_for_app(conditions, headers)?;
        }
        // RFC 9111 5.2.1.6: no intermediary may change the content for such a request.
        let compress = compress && !(seen.cache_control && cache_control::has(headers, "no-transform"));
        let coding = compress.then(|| {
            let accepts = if seen.accept_encoding {
                AcceptEncoding::from_headers(headers)
            } else {
                AcceptEncoding::default()
            };
            let negotiated = negotiate(&accepts, &policy.codings);
            (accepts, negotiated)
        });
        if let Some((_, negotiated)) = coding {
            if policy.ask_identity && negotiated != Negotiated::Nothing {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            if seen.range && matches!(negotiated, Negotiated::Nothing | Negotiated::Coded(_, Plain::Refused))
            {
                // A part of the unencoded content would be of no use to this client.
                headers.remove(header::RANGE);
            }
        }
        let coded = matches!(coding, Some((_, Negotiated::Coded(..))));
        if coded && conditions.as_ref().is_some_and(|conditions| conditions.range_has_date()) {
            // The client's content of that date may be encoded, and no part of the unencoded content fits to that.
            headers.remove(header::IF_RANGE);
            headers.remove(header::RANGE);
        }
        let range = if seen.range { headers.get(header::RANGE).cloned() } else { None };
        let is_short = |content: &ChunkedBytes| content.len() <= breach_guard::MAX_INPUT;
        Ok(RepresentationRequest {
            method,
            coding,
            etag,
            browser: ttl.map(|ttl| (ttl, seen.personal)),
            conditions,
            range,
            said: (coded && policy.breach_guard).then(|| RequestEcho {
                target: request.uri().path_and_query().cloned(),
                // Longer content is not examined, so it is not joined for that.
                content: request.body().content().filter(is_short).map(|content| content.joined()),
            }),
        })
    }

    /// Returns the head variant; requests of the same variant get the same head, except for fields that each gets anew.
    pub(crate) fn form(&self, routed: &Routed) -> Option<HeadVariant> {
        let coding = match self.coding {
            None => 0,
            Some((_, Negotiated::Identity)) => 1,
            Some((_, Negotiated::Coded(coding, Plain::Taken))) => 2 + coding as u64,
            Some((_, Negotiated::Coded(_, Plain::Refused) | Negotiated::Nothing)) => return None,
        };
        let routes = || routed.rewritten_by.iter().chain([&routed.route]);
        let usual = self.method == Method::GET
            && routed.request.version() != Version::HTTP_2
            && self.browser.is_none()
            && self.range.is_none()
            && self.conditions.as_ref().is_none_or(|conditions| conditions.is_none_match())
            && routes().all(|route| route.response.is_empty());
        let form = (routed.record.info.snapshot.generation << 8) | (u64::from(self.etag) << 7) | coding;
        HeadVariant::new(form).filter(|_| usual)
    }

    /// Returns whether conditions and made tags apply to the method.
    pub(crate) fn reads(&self) -> bool {
        // QUERY is conditional like GET (RFC 10008 2.6).
        matches!(self.method, Method::GET | Method::HEAD) || self.method.as_str() == "QUERY"
    }

    /// Returns whether the tag of a response is that of its content. The response to a write has the tag of the
    /// resource.
    pub(crate) fn tags_content(&self) -> bool {
        !matches!(self.method, Method::PUT | Method::PATCH | Method::DELETE)
    }

    /// Returns the client's tag that matches the upstream's tag `app`; see [`Conditions::held`].
    pub(crate) fn held(&self, app: Option<&EntityTag<'_>>) -> Option<Current> {
        self.conditions.as_ref()?.held(app)
    }

    /// Returns whether the client accepts neither an available coding nor unencoded content.
    pub(crate) fn takes_nothing(&self) -> bool {
        matches!(self.coding, Some((_, Negotiated::Nothing)))
    }

    /// Returns whether this layer may change a response.
    pub(crate) fn concerns(&self, response: &Response<Body>) -> bool {
        let nothing = self.coding.is_none()
            && !self.etag
            && self.browser.is_none()
            && self.conditions.is_none()
            && self.range.is_none();
        !nothing
            && !response.status().is_informational()
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// The presence of the fields that matter, found in one pass over the map.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    accept_encoding: bool,
    cache_control: bool,
    conditions: bool,
    range: bool,
    personal: bool,
}

impl Seen {
    fn scan(headers: &HeaderMap) -> Seen {
        let mut seen = Seen::default();
        for name in headers.keys() {
            match *name {
                header::ACCEPT_ENCODING => seen.accept_encoding = true,
                header::CACHE_CONTROL => seen.cache_control = true,
                header::RANGE => seen.range = true,
                header::AUTHORIZATION | header::COOKIE => seen.personal = true,
                header::IF_MATCH
                | header::IF_NONE_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_UNMODIFIED_SINCE
                | header::IF_RANGE => seen.conditions = true,
                _ => {}
            }
        }
        seen
    }
}

/// Edits the tags of conditions: the upstream receives no made tags, and its own ones as it wrote them.
fn conditions_for_app(conditions: &Conditions, headers: &mut HeaderMap) -> Result<(), RepresentError> {
    match for_app(headers, &header::IF_MATCH) {
        ForApp::AsIs => {}
        ForApp::Rewritten(value) => {
            headers.insert(header::IF_MATCH, value);
        }
        // Compared strongly (RFC 9110 13.1.1), made tags never match, as they are weak. Without the condition the
        // request would have another meaning.
        ForApp::Nothing => return Err(RepresentError::PreconditionFailed),
    }
    match for_app(headers, &header::IF_NONE_MATCH) {
        ForApp::AsIs => {}
        ForApp::Rewritten(value) => {
            headers.insert(header::IF_NONE_MATCH, value);
        }
        ForApp::Nothing => {
            // The date beside it counts now: it is of the same response as the tag, and the upstream's own validator.
            headers.remove(header::IF_NONE_MATCH);
        }
    }
    if conditions.range_is_void() {
        // RFC 9110 13.1.5: a weak tag never holds, and then the Range is ignored.
        headers.remove(header::IF_RANGE);
        headers.remove(header::RANGE);
    }
    Ok(())
}
