//! Decisions about stored responses, made once for all requests of the same variant.

use http::response::Parts;
use http::{HeaderName, Response, StatusCode, header};
use http_body::Body as _;

use super::fields;
use crate::fields::cache_status::{CACHE_STATUS, X_CACHE};
use crate::fields::entity_tag::EntityTag;
use crate::fields::request_id::X_REQUEST_ID;
use crate::http1::encode;
use crate::layer::represent::on_response::{Content, Representing};
use crate::message::body::Body;
use crate::rendering::rendered_head::{HeadLines, RenderedHead};
use crate::represent::coding::{Coding, Negotiated};
use crate::represent::compression_decision;
use crate::represent::compression_decision::{Choice, Reason};
use crate::represent::counters::Counters;
use crate::represent::precondition::Current;

/// Fields that each response gets anew, or that its connection writes.
static OWN: [HeaderName; 5] = [header::AGE, CACHE_STATUS, X_CACHE, X_REQUEST_ID, header::CONTENT_LENGTH];
/// Fields of responses that depend on more than the variant of the request, or that are not written as they are.
static PARTICULAR: [HeaderName; 4] =
    [header::SET_COOKIE, header::CONTENT_ENCODING, header::CONNECTION, header::TRAILER];

impl Representing {
    /// Renders the head of a response for all requests of the same variant; `None` if the next response may get another
    /// head.
    pub(super) fn prepare(&self, parts: &Parts, content: &Content, choice: Choice) -> Option<RenderedHead> {
        let headers = &parts.headers;
        let made = match choice {
            // The next response uses the kept encoding, and nothing is encoded any more.
            Choice::Code(coding) => content.kept.as_ref()?.made(coding.as_str()).map(|_| Some(coding))?,
            Choice::Leave(Reason::NotAsked | Reason::NoTransform | Reason::Type | Reason::Small) => None,
            Choice::Leave(_) => return None,
        };
        let usual = !headers.keys().any(|name| PARTICULAR.contains(name))
            && !compression_decision::has_no_content(parts.status);
        let form = self.form.filter(|_| usual)?;
        let mut own = headers.clone();
        OWN.iter().for_each(|name| drop(own.remove(name)));
        // A value that is not a valid tag is sent as it is, and no condition is about it.
        let tag = headers.get(header::ETAG).filter(|_| EntityTag::from_headers(headers).is_some());
        let mut unchanged = Response::new(()).into_parts().0;
        unchanged.headers = own.clone();
        fields::not_modified(&mut unchanged, tag.cloned());
        if tag.is_some() {
            // Each client gets the tag as it sent it.
            unchanged.headers.remove(header::ETAG);
        }
        let unchanged = encode::lines(&unchanged.headers);
        if let Some(coding) = made {
            fields::coded(&mut own, coding, self.asked.tags_content());
        }
        Some(RenderedHead {
            form,
            lines: encode::lines(&own),
            unchanged,
            dated: headers.contains_key(header::DATE),
            shown: tag.and_then(|_| own.get(header::ETAG)).cloned(),
            tag: tag.cloned(),
            made: made.map(Coding::as_str),
            counted: Counters::place(choice),
        })
    }

    /// Builds a response with a rendered head.
    pub(super) fn prepared(&self, mut parts: Parts, body: Body, mut lines: HeadLines) -> Response<Body> {
        let prepared = lines.head.clone();
        if self.asked.coding.is_some() {
            self.counters().chose_at(prepared.counted);
        }
        if self.asked.conditions.is_some() && parts.status == StatusCode::OK {
            let tag = prepared.tag.as_ref().and_then(|tag| EntityTag::parse(tag.as_bytes()));
            if let Some(held) = self.asked.held(tag.as_ref()) {
                self.counters().not_modified_by_pillion.add(1);
                let shown = match &held {
                    Current::As(tag) => Some(tag),
                    Current::Any => prepared.shown.as_ref(),
                };
                if let Some(shown) = shown {
                    lines.add(header::ETAG.as_str(), |out| out.extend_from_slice(shown.as_bytes()));
                }
                parts.status = StatusCode::NOT_MODIFIED;
                lines.unchanged = true;
                return Response::from_parts(parts, Body::empty().with_lines(lines));
            }
        }
        if prepared.made.is_some()
            && let Some((_, Negotiated::Coded(coding, _))) = self.asked.coding
            && let Some(kept) = body.keeper()
        {
            let before = kept.content().map_or(0, |content| content.len());
            let after = body.size_hint().exact().map_or(0, |length| length as usize);
            self.gives_again(coding, kept, before, after);
        }
        Response::from_parts(parts, body.with_lines(lines))
    }
}
