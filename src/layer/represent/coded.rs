//! Codings put on, and those taken away that a client refuses.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::response::Parts;
use http::{Method, Response, StatusCode, header};

use super::RepresentError;
use super::answer::{Answering, Content};
use super::fields;
use crate::body::{Body, Kept};
use crate::clock;
use crate::fields::accept_encoding;
use crate::fields::cache_control;
use crate::pieces::Pieces;
use crate::represent::choice;
use crate::represent::coding::{Coding, Negotiated};
use crate::represent::decode::Decoder;
use crate::represent::decoding::Decoding;
use crate::represent::encode::{self, Encoder};
use crate::represent::encoding::Encoding;
use crate::represent::keeping::Keeping;

/// More codings over one another than any app means.
const MOST_CODINGS: usize = 3;

impl Answering {
    /// The body in a coding that the client takes, as far as the app's own is concerned; true where the
    /// app's was taken away.
    pub(super) fn acceptable(&self, parts: &mut Parts, body: Body) -> Result<(Body, bool), RepresentError> {
        let Some((accepts, negotiated)) = &self.asked.coding else { return Ok((body, false)) };
        if choice::has_no_content(parts.status) {
            return Ok((body, false));
        }
        // Only of reads it can be said afterwards that they should not have been answered (RFC 9110 15.5.7).
        let refusable = self.asked.reads() && parts.status.is_success();
        let not_acceptable = |body: Body| match refusable {
            true => Err(RepresentError::NotAcceptable),
            false => Ok((body, false)),
        };
        if !parts.headers.contains_key(header::CONTENT_ENCODING) {
            return match negotiated {
                Negotiated::Nothing => not_acceptable(body),
                Negotiated::Coded(..) | Negotiated::Identity => Ok((body, false)),
            };
        }
        let codings = accept_encoding::content_encoding(&parts.headers);
        if codings.is_empty() {
            parts.headers.remove(header::CONTENT_ENCODING);
            return Ok((body, false));
        }
        // Without the field any coding is acceptable (RFC 9110 12.5.3).
        let as_is = !accepts.is_present()
            || accepts.takes(&codings)
            || body.is_endless()
            || parts.status == StatusCode::PARTIAL_CONTENT
            || cache_control::has(&parts.headers, "no-transform");
        if as_is {
            return Ok((body, false));
        }
        if *negotiated == Negotiated::Nothing {
            // What would come of it is refused too.
            return not_acceptable(body);
        }
        let decoders: Option<Vec<Decoder>> =
            codings.iter().take(MOST_CODINGS + 1).rev().map(|coding| Decoder::new(coding)).collect();
        let Some(decoders) = decoders.filter(|decoders| decoders.len() <= MOST_CODINGS) else {
            return not_acceptable(body);
        };
        self.counters().decoded.add(1);
        fields::content_changed(&mut parts.headers);
        parts.headers.remove(header::CONTENT_ENCODING);
        if self.asked.method == Method::HEAD {
            return Ok((body, true));
        }
        let decode = |body, decoder| Body::streaming(Decoding::new(body, decoder));
        Ok((decoders.into_iter().fold(body, decode), true))
    }

    /// Notes that what was made of content before is given out once more.
    pub(super) fn gives_again(&self, coding: Coding, kept: &Arc<dyn Kept>, before: usize, after: usize) {
        self.record.coded(coding.as_str(), Rc::new(Cell::new(before as u64)));
        let effort = self.policy().compression.effort;
        self.counters().recoding.perhaps(self.record.represented(), kept, coding, effort, after);
    }

    /// The answer coded: in one go where that is quickly done, else as it passes.
    pub(super) fn code(&self, mut parts: Parts, mut content: Content, coding: Coding) -> Response<Body> {
        fields::coded(&mut parts.headers, coding, self.asked.tags_content());
        if self.asked.method == Method::HEAD {
            return Response::from_parts(parts, content.gathered.into_body());
        }
        let effort = self.record.snapshot.policy.compression.effort;
        let counters = self.counters().coding(coding);
        if let Some(kept) = &content.kept
            && let Some(made) = kept.made(coding.as_str())
        {
            self.gives_again(coding, kept, content.gathered.len(), made.len());
            return Response::from_parts(parts, Body::pieces(made));
        }
        let before = Rc::new(Cell::new(0));
        self.record.coded(coding.as_str(), before.clone());
        if content.gathered.len() <= encode::one_go(coding, effort)
            && let Some(whole) = content.gathered.content()
        {
            let since = clock::now();
            match encode::encode(coding, effort, &whole) {
                Ok(encoded) => {
                    before.set(whole.len() as u64);
                    let duration = clock::now().saturating_duration_since(since);
                    counters.ran(whole.len(), encoded.len(), duration);
                    if let Some(kept) = &content.kept {
                        kept.keep(coding.as_str(), Pieces::copy(&encoded));
                    }
                    return Response::from_parts(parts, Body::full(encoded));
                }
                Err(error) => tracing::warn!(%error, coding = coding.as_str(), "content could not be coded"),
            }
        }
        let encoder = Encoder::new(coding, effort, content.length);
        let encoding =
            Encoding::new(content.gathered.into_body(), encoder, counters.clone(), before, content.memory);
        let body = match content.kept {
            Some(keeper) => Body::streaming(Keeping::new(encoding, keeper, coding.as_str())),
            None => Body::streaming(encoding),
        };
        Response::from_parts(parts, body)
    }
}
