//! What a request asks of its representation, and what the app is to hear of that.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::RepresentError;
use crate::body::Body;
use crate::fields::accept_encoding::AcceptEncoding;
use crate::fields::cache_control;
use crate::layer::Routed;
use crate::represent::coding::{Negotiated, Plain, negotiate};
use crate::represent::precondition::{Conditions, ForApp, for_app};

/// See the head of the file.
pub(super) struct Asked {
    pub method: Method,
    /// What the client's Accept-Encoding comes to; `None` where answers are not coded here.
    pub coding: Option<(AcceptEncoding, Negotiated)>,
    /// Whether an answer without a tag gets one.
    pub etag: bool,
    /// How long the client is told to keep it, and whether it is personal.
    pub browser: Option<(Duration, bool)>,
    /// The conditions as the client wrote them.
    pub conditions: Conditions,
    /// The Range that went to the app.
    pub range: Option<HeaderValue>,
    /// What the answer may echo.
    pub said: Option<Said>,
}

/// What a client said in its request.
pub(super) struct Said {
    pub target: Option<PathAndQuery>,
    /// `None` where it was not at hand.
    pub content: Option<Bytes>,
}

impl Asked {
    /// Reads it, and edits the fields that go to the app. An error ends the request.
    pub fn read(routed: &mut Routed) -> Result<Asked, RepresentError> {
        let routes = || routed.rewritten_by.iter().chain([&routed.route]);
        let (compress, etag) = (routes().all(|route| route.compress), routes().all(|route| route.etag));
        let ttl = routes().filter_map(|route| route.browser_ttl).next_back();
        let policy = &routed.record.snapshot.policy.compression;
        let request = &mut routed.request;
        let method = request.method().clone();
        let content = request.body().content();
        let target = request.uri().path_and_query().cloned();
        let headers = request.headers_mut();
        let conditions = Conditions::of(headers);
        if !conditions.is_empty() {
            conditions_for_app(&conditions, headers)?;
        }
        let personal = headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE);
        // RFC 9111 5.2.1.6: such a request wants nobody between it and the app to change the content.
        let compress = compress && !cache_control::has(headers, "no-transform");
        let coding = compress.then(|| {
            let accepts = AcceptEncoding::of(headers);
            let negotiated = negotiate(&accepts, &policy.codings);
            (accepts, negotiated)
        });
        if let Some((_, negotiated)) = coding {
            if policy.ask_identity && negotiated != Negotiated::Nothing {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            if matches!(negotiated, Negotiated::Nothing | Negotiated::Coded(_, Plain::Refused)) {
                // A part of the content as it is would be of no use to this client.
                headers.remove(header::RANGE);
            }
        }
        let coded = matches!(coding, Some((_, Negotiated::Coded(..))));
        let range = headers.get(header::RANGE).cloned();
        Ok(Asked {
            method,
            coding,
            etag,
            browser: ttl.map(|ttl| (ttl, personal)),
            conditions,
            range,
            said: (coded && policy.breach_guard).then_some(Said { target, content }),
        })
    }

    /// Whether it is one of the methods that conditions and tags are about here.
    pub fn reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// Whether anything is to be done with an answer.
    pub fn concerns(&self, response: &Response<Body>) -> bool {
        let nothing = self.coding.is_none()
            && !self.etag
            && self.browser.is_none()
            && self.conditions.is_empty()
            && self.range.is_none();
        !nothing
            && !response.status().is_informational()
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Tags of ours never reach the app, and those it knows reach it as it wrote them.
fn conditions_for_app(conditions: &Conditions, headers: &mut HeaderMap) -> Result<(), RepresentError> {
    match for_app(headers, &header::IF_MATCH) {
        ForApp::AsIs => {}
        ForApp::Rewritten(value) => {
            headers.insert(header::IF_MATCH, value);
        }
        // Compared strongly (RFC 9110 13.1.1), our weak tags hold for nothing; without the condition the
        // request would be another one.
        ForApp::Nothing => return Err(RepresentError::PreconditionFailed),
    }
    match for_app(headers, &header::IF_NONE_MATCH) {
        ForApp::AsIs => {}
        ForApp::Rewritten(value) => {
            headers.insert(header::IF_NONE_MATCH, value);
        }
        ForApp::Nothing => {
            headers.remove(header::IF_NONE_MATCH);
            // It does not count beside If-None-Match (RFC 9110 13.1.3), and must not count alone.
            headers.remove(header::IF_MODIFIED_SINCE);
        }
    }
    if conditions.range_is_void() {
        // RFC 9110 13.1.5: a weak tag never holds, and then the Range is ignored.
        headers.remove(header::IF_RANGE);
        headers.remove(header::RANGE);
    }
    Ok(())
}
