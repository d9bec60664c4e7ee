//! Encodes responses, and rejects the rare response that no acceptable coding exists for.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::response::Parts;
use http::{Method, Response, StatusCode, header};

use super::error::RepresentError;
use super::fields;
use crate::fields::accept_encoding;
use crate::fields::cache_control;
use crate::layer::represent::on_response::{Content, Representing};
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::message::body::{Body, Kept};
use crate::represent::coding::{Coding, Negotiated};
use crate::represent::compression_decision;
use crate::represent::encoded_body::Encoding;
use crate::represent::encoder;
use crate::represent::encoder::Encoder;
use crate::represent::tee_encoded::Keeping;
use crate::runtime::clock;

impl Representing {
    /// Checks whether the client accepts the content as the upstream encoded it, or as Pillion may encode it. Content
    /// that the upstream encoded is never decoded: a file like `x.tar.gz` keeps its bytes, and without `identity;q=0` a
    /// response in another coding is better than none (RFC 9110 12.5.3).
    pub(super) fn check_acceptable(&self, parts: &mut Parts, stream: bool) -> Result<(), RepresentError> {
        let Some((accepts, negotiated)) = &self.asked.coding else { return Ok(()) };
        if compression_decision::has_no_content(parts.status) {
            return Ok(());
        }
        let codings = accept_encoding::content_encoding(&parts.headers);
        let acceptable = if codings.is_empty() {
            // `Content-Encoding: identity` has no meaning.
            parts.headers.remove(header::CONTENT_ENCODING);
            *negotiated != Negotiated::Nothing
        } else {
            accepts.identity() != Some(0)
                || accepts.takes(&codings)
                || stream
                || parts.status == StatusCode::PARTIAL_CONTENT
                || cache_control::has(&parts.headers, "no-transform")
        };
        // Only a read can be refused after the upstream processed it (RFC 9110 15.5.7).
        if acceptable || !self.asked.reads() || !parts.status.is_success() {
            return Ok(());
        }
        Err(RepresentError::NotAcceptable)
    }

    /// Records that kept encoded content is sent once more, and perhaps encodes it again with more effort.
    pub(super) fn gives_again(&self, coding: Coding, kept: &Arc<dyn Kept>, before: usize, after: usize) {
        self.record.represent.set_coding(coding.as_str(), Rc::new(Cell::new(before as u64)));
        let effort = self.policy().compression.effort;
        self.counters().recoding.perhaps(self.record.represent_counters(), kept, coding, effort, after);
    }

    /// Encodes the response: in one call if that is quick, else as it passes.
    pub(super) fn code(&self, mut parts: Parts, mut content: Content, coding: Coding) -> Response<Body> {
        fields::coded(&mut parts.headers, coding, self.asked.tags_content());
        if self.asked.method == Method::HEAD {
            return Response::from_parts(parts, content.gathered.into_body());
        }
        let effort = self.record.info.snapshot.policy.compression.effort;
        let counters = self.counters().coding(coding);
        if let Some(kept) = &content.kept
            && let Some(made) = kept.made(coding.as_str())
        {
            self.gives_again(coding, kept, content.gathered.len(), made.len());
            return Response::from_parts(parts, Body::kept(made, kept.clone()));
        }
        let before = Rc::new(Cell::new(0));
        self.record.represent.set_coding(coding.as_str(), before.clone());
        // Content that is kept stays in memory beside its encoding, so there must be room for both.
        let room = content.kept.is_none() || self.has_room();
        if room
            && content.gathered.len() <= encoder::one_go(coding, effort)
            && let Some(whole) = content.gathered.content()
        {
            let since = clock::now();
            match encoder::encode(coding, effort, &whole) {
                Ok(encoded) => {
                    before.set(whole.len() as u64);
                    let duration = clock::now().saturating_duration_since(since);
                    counters.ran(whole.len(), encoded.len(), duration);
                    if let Some(kept) = &content.kept {
                        kept.keep(coding.as_str(), ChunkedBytes::copy(&encoded));
                    }
                    return Response::from_parts(parts, Body::full(encoded));
                }
                Err(error) => {
                    tracing::warn!(%error, coding = coding.as_str(), "the content could not be encoded")
                }
            }
        }
        self.count(&mut content);
        let encoder = Encoder::new(coding, effort, content.length);
        let encoding =
            Encoding::new(content.gathered.into_body(), encoder, counters.clone(), before, content.memory);
        let encoding = if content.stream { encoding.of_stream() } else { encoding };
        let body = match content.kept {
            Some(keeper) => Body::streaming(Keeping::new(encoding, keeper, coding.as_str())),
            None => Body::streaming(encoding),
        };
        Response::from_parts(parts, body)
    }
}
