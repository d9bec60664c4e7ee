//! The decisions about a response of the upstream or the cache, in their order.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;

use super::error::RepresentError;
use super::fields::{self, Seen};
use crate::fields::cache_control;
use crate::fields::entity_tag::EntityTag;
use crate::fields::vary;
use crate::layer::record::RequestRecord;
use crate::layer::represent::classify::RepresentationRequest;
use crate::memory::buffers::Room;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::memory::memory_budget::Reservation;
use crate::message::body::{Body, Kept};
use crate::policy::Policy;
use crate::rendering::rendered_head::{HeadVariant, StoreHead};
use crate::represent::buffered_prefix::{BufferGoal, BufferedPrefix};
use crate::represent::coding::Negotiated;
use crate::represent::compression_decision;
use crate::represent::compression_decision::{Choice, Reason};
use crate::represent::counters::Counters;
use crate::represent::encoded_body::EncoderMemory;
use crate::represent::encoder;
use crate::represent::entity_tag;
use crate::represent::precondition::{Current, Verdict};
use crate::represent::range::{self, Selected};

/// Bytes that are buffered without a reservation.
const LITTLE: usize = 32 * 1024;
/// How long a head waits for the content that decides about it. Chunked pages of PHP and WordPress arrive complete
/// within this time, and are then treated like responses with a length.
const TIMEOUT: Duration = Duration::from_millis(20);
/// How long a response of known length that may get a made tag waits for the last of its content: whether it gets one
/// must not depend on timing.
const TAG_TIMEOUT: Duration = Duration::from_millis(250);
/// Maximum bytes of a response from which a range is cut that the upstream ignored.
const MAX_CUT: u64 = 1024 * 1024;
/// Maximum bytes of a response of unknown length that are held because its end may be near.
const MAX_UNDECLARED: usize = 256 * 1024;

/// A request whose response is being represented.
pub(crate) struct Representing {
    pub(super) asked: RepresentationRequest,
    /// The head variant that the request asks for.
    pub(super) form: Option<HeadVariant>,
    /// The record of the request.
    pub(super) record: Rc<RequestRecord>,
}

/// The result of the first decisions about a response.
#[allow(clippy::large_enum_variant, reason = "a box for every response would cost more than it saves")]
pub(super) enum FirstDecision {
    Decided(Result<Response<Body>, RepresentError>),
    /// This content must arrive first.
    Needs(Box<Gathering>),
}

/// A response that needs more content before its head can be decided about.
pub(super) struct Gathering {
    parts: Parts,
    body: Body,
    wanted: BufferGoal,
    timeout: Duration,
    place: Option<Reservation>,
    known: Known,
    kept: Option<Arc<dyn Kept>>,
}

/// Facts about the content that its head tells.
#[derive(Clone, Copy)]
struct Known {
    /// Its length in bytes; `None` if it is unknown.
    length: Option<u64>,
    /// Whether it may be encoded, or the reason why not.
    codable: Result<(), Reason>,
    /// Whether it is never held back.
    stream: bool,
    /// Whether it gets a made tag.
    wants_tag: bool,
}

/// The content of a response when its head is decided about.
pub(super) struct Content {
    /// The content that has arrived so far.
    pub gathered: BufferedPrefix,
    /// Its length in bytes, if it is known.
    pub length: Option<u64>,
    /// Whether it is never held back.
    pub stream: bool,
    /// The memory of its encoder while the response is sent.
    pub memory: Option<EncoderMemory>,
    /// The owner of the stored content, which also keeps its encodings.
    pub kept: Option<Arc<dyn Kept>>,
}

impl Representing {
    pub(super) fn policy(&self) -> &Policy {
        &self.record.info.snapshot.policy
    }

    pub(super) fn counters(&self) -> &Counters {
        self.record.represent_counters()
    }

    /// Decides about a response as far as possible without more content.
    pub(super) fn decide_from_head(&self, response: Response<Body>) -> FirstDecision {
        let (mut parts, mut body) = response.into_parts();
        if let Some(lines) = body.take_lines() {
            return FirstDecision::Decided(Ok(self.prepared(parts, body, lines)));
        }
        let keep_head = body.take_keep_head();
        if let Some((ttl, personal)) = self.asked.browser
            && self.asked.reads()
        {
            fields::browser_ttl(&mut parts, ttl, personal);
        }
        if parts.status == StatusCode::NOT_MODIFIED {
            if self.asked.reads() {
                self.counters().not_modified_by_app.add(1);
                self.relayed_not_modified(&mut parts.headers);
            }
            return FirstDecision::Decided(Ok(Response::from_parts(parts, body)));
        }
        let seen = Seen::scan(&parts.headers);
        let stream = seen.kind.is_stream() || body.is_endless();
        if (seen.content_encoding || self.asked.takes_nothing())
            && let Err(error) = self.check_acceptable(&mut parts, stream)
        {
            return FirstDecision::Decided(Err(error));
        }
        let coded = seen.content_encoding && parts.headers.contains_key(header::CONTENT_ENCODING);
        let seen = Seen { content_encoding: coded, ..seen };
        let codable = self.codable(&parts, seen, seen.kind.is_live());
        if self.varies(&parts, codable) {
            vary::add(&mut parts.headers, &header::ACCEPT_ENCODING);
        }
        let length = match self.asked.method {
            Method::HEAD => fields::content_length(&parts.headers),
            _ => body.size_hint().exact(),
        };
        let max = self.policy().etag.max_size;
        // The tag is of the unencoded content, which is not available if the upstream encoded it. An upstream's
        // validator is kept: a made tag beside it would replace it in every later condition (RFC 9110 13.1.3).
        let wants_tag = self.asked.etag
            && matches!(self.asked.method, Method::GET | Method::HEAD)
            && parts.status == StatusCode::OK
            && !seen.etag
            && !seen.last_modified
            && !coded
            && !stream
            && length.is_none_or(|length| length <= max)
            && !(seen.cache_control && cache_control::has(&parts.headers, "no-store"));
        let known = Known { length, codable, stream, wants_tag };
        let kept = body.keeper().cloned();
        if let Some(whole) = body.content() {
            let gathered = BufferedPrefix::whole(&whole);
            return FirstDecision::Decided(self.decide(parts, gathered, known, kept, keep_head));
        }
        match self.needed(known) {
            Some((wanted, timeout, place)) => {
                FirstDecision::Needs(Box::new(Gathering { parts, body, wanted, timeout, place, known, kept }))
            }
            None => {
                FirstDecision::Decided(self.decide(parts, BufferedPrefix::nothing(body), known, kept, None))
            }
        }
    }

    /// Decides when the needed content has arrived.
    pub(super) async fn go_on(
        self: Box<Self>,
        gathering: Box<Gathering>,
    ) -> Result<Response<Body>, RepresentError> {
        let Gathering { parts, body, wanted, timeout, place, known, kept } = *gathering;
        let gathered =
            BufferedPrefix::read(body, wanted, timeout, place, Some(self.record.reserve_buffer())).await;
        self.decide(parts, gathered, known, kept, None)
    }

    /// Returns how much content the decisions need, and how long they wait for it: all of it for a tag, for encoding in
    /// one call and for ranges, and all of content of unknown length if its end is near.
    fn needed(&self, known: Known) -> Option<(BufferGoal, Duration, Option<Reservation>)> {
        if known.stream || self.asked.method == Method::HEAD {
            return None;
        }
        let coding = match self.asked.coding {
            Some((_, Negotiated::Coded(coding, _))) if known.codable.is_ok() => Some(coding),
            _ => None,
        };
        let whole = |bytes: usize| BufferGoal { min: bytes, max: bytes, end: true };
        let Some(length) = known.length else {
            return Some(match self.place(MAX_UNDECLARED) {
                Some(place) => (whole(MAX_UNDECLARED), TIMEOUT, place),
                None => (whole(LITTLE), TIMEOUT, None),
            });
        };
        let effort = self.policy().compression.effort;
        let one_go = coding.map_or(0, |coding| encoder::one_go(coding, effort) as u64);
        let cut = if self.asked.range.is_some() { MAX_CUT } else { 0 };
        if !known.wants_tag && length > one_go.max(cut) {
            return None;
        }
        let timeout = if known.wants_tag { TAG_TIMEOUT } else { TIMEOUT };
        let wanted = whole(usize::try_from(length).ok()?);
        Some((wanted, timeout, self.place(wanted.max)?))
    }

    /// Reserves memory for buffered content; a little needs no reservation. `None`: there is no room.
    fn place(&self, bytes: usize) -> Option<Option<Reservation>> {
        if bytes <= LITTLE { Some(None) } else { self.counters().budget.take(bytes).map(Some) }
    }

    fn decide(
        &self,
        mut parts: Parts,
        gathered: BufferedPrefix,
        known: Known,
        kept: Option<Arc<dyn Kept>>,
        keep_head: Option<StoreHead>,
    ) -> Result<Response<Body>, RepresentError> {
        let whole = gathered.is_whole() && self.asked.method != Method::HEAD;
        let length = if whole { Some(gathered.len() as u64) } else { known.length };
        let mut content = Content { gathered, length, stream: known.stream, memory: None, kept };
        if known.wants_tag
            && let Some(tag) = self.made_tag(&content, whole)
        {
            parts.headers.insert(header::ETAG, tag);
        }
        let choice = self.choose(&parts, &mut content, known.codable);
        if let Some(keep) = keep_head
            && let Some(prepared) = self.prepare(&parts, &content, choice)
        {
            keep(prepared);
        }
        let has_content =
            self.asked.method != Method::HEAD && !compression_decision::has_no_content(parts.status);
        if self.asked.coding.is_some() && has_content {
            self.counters().chose(choice);
        }
        if let Some(conditions) = &self.asked.conditions
            && self.asked.reads()
            && parts.status == StatusCode::OK
        {
            match conditions.evaluate(&parts.headers) {
                Verdict::Proceed => {}
                Verdict::NotModified => return Ok(self.not_modified(parts, content, choice)),
                Verdict::Failed => {
                    content.discard();
                    return Err(RepresentError::PreconditionFailed);
                }
            }
        }
        match choice {
            Choice::Code(coding) => Ok(self.code(parts, content, coding)),
            Choice::Leave(Reason::Range) => self.partial(parts, content),
            Choice::Leave(_) => {
                if !whole {
                    self.count(&mut content);
                }
                let body = content.gathered.into_body();
                Ok(Response::from_parts(parts, of_kept(body, content.kept)))
            }
        }
    }

    fn room(&self) -> Room<'_> {
        self.record.room(self.record.info.client_slot())
    }

    /// Returns whether more may be buffered for the client.
    pub(super) fn has_room(&self) -> bool {
        self.room().is_left()
    }

    /// Reserves memory for the encoder of a response being sent; `None`: there is no room for it.
    pub(super) fn reserve_encoder(&self, bytes: usize) -> Option<EncoderMemory> {
        let reserved = self.room().try_reserve(bytes)?;
        Some(EncoderMemory { reserved, place: self.counters().encoders.take_over(bytes) })
    }

    /// Counts the buffered content that is held for this response alone.
    pub(super) fn count(&self, content: &mut Content) {
        let kept = content.kept.as_ref().is_some_and(|kept| kept.content().is_some());
        let counts = !kept && !content.gathered.is_empty();
        content.gathered.count(counts.then(|| self.record.reserve_buffer()));
    }

    /// Makes the tag of content without one, once if the content is stored. HEAD gets the tag of the stored content.
    /// Returns `None` if the content is not complete or too long.
    fn made_tag(&self, content: &Content, whole: bool) -> Option<HeaderValue> {
        const NAME: &str = "etag";
        let kept = content.kept.as_ref();
        let stored = match whole {
            true => None,
            false => Some(kept.filter(|_| self.asked.method == Method::HEAD)?.content()?),
        };
        let length = stored.as_ref().map_or(content.gathered.len(), ChunkedBytes::len);
        if length as u64 > self.policy().etag.max_size {
            return None;
        }
        if let Some(tag) = kept.and_then(|kept| kept.made(NAME))
            && let Ok(tag) = HeaderValue::from_maybe_shared(tag.joined())
        {
            return Some(tag);
        }
        self.counters().tags.add(1);
        let tag = match &stored {
            Some(stored) => entity_tag::made(stored.iter()),
            None => entity_tag::made(content.gathered.pieces()),
        };
        if let Some(kept) = kept {
            kept.keep(NAME, ChunkedBytes::copy(tag.as_bytes()));
        }
        Some(tag)
    }

    fn partial(&self, mut parts: Parts, mut content: Content) -> Result<Response<Body>, RepresentError> {
        let selected = self.selected(&parts, &mut content);
        let whole = content.gathered.whole_pieces().unwrap_or_default();
        match selected {
            Selected::Parts(ranges) => {
                self.counters().partial.add(1);
                parts.status = StatusCode::PARTIAL_CONTENT;
                fields::of_a_part(&mut parts.headers);
                let body = range::partial(&whole, &ranges, &mut parts.headers);
                let kept = content.kept.filter(|kept| kept.content().is_some());
                let body = match kept {
                    Some(kept) => Body::kept(body, kept),
                    // Slices would hold the whole content.
                    None => Body::pieces(body.cut()),
                };
                Ok(Response::from_parts(parts, body))
            }
            Selected::Nothing => Err(RepresentError::RangeNotSatisfiable(whole.len())),
            Selected::Whole => Ok(Response::from_parts(parts, of_kept(Body::pieces(whole), content.kept))),
        }
    }

    /// Makes a 304 of an upstream's 200 (RFC 9110 15.4.5).
    fn not_modified(&self, mut parts: Parts, content: Content, choice: Choice) -> Response<Body> {
        self.counters().not_modified_by_pillion.add(1);
        let tag = EntityTag::from_headers(&parts.headers);
        let shown = match (self.asked.held(tag.as_ref()), &tag) {
            (Some(Current::As(tag)), _) => Some(tag),
            (_, Some(tag)) => Some(outgoing(tag, choice)),
            (_, None) => None,
        };
        fields::not_modified(&mut parts, shown);
        content.discard();
        Response::from_parts(parts, Body::empty())
    }

    /// Rewrites the tag of the upstream's own 304 to the form in which the client has it.
    fn relayed_not_modified(&self, headers: &mut HeaderMap) {
        // A 304 seldom has a Content-Type, so the content may be of a type that is encoded.
        let may = !headers.contains_key(header::CONTENT_TYPE) || self.is_of_type(headers);
        let coded = may && matches!(self.asked.coding, Some((_, Negotiated::Coded(..))));
        let shown =
            EntityTag::from_headers(headers).and_then(|tag| match (self.asked.held(Some(&tag)), coded) {
                (Some(Current::As(shown)), _) => Some(shown),
                (_, true) => Some(entity_tag::on_coded(&tag)),
                (_, false) => None,
            });
        if let Some(shown) = shown {
            headers.insert(header::ETAG, shown);
        }
        if self.asked.coding.is_some() && may {
            vary::add(headers, &header::ACCEPT_ENCODING);
        }
    }
}

impl Content {
    /// Drops the content. A short rest is read to its end, so that the connection can be used again.
    fn discard(self) {
        const MAX: u64 = 256 * 1024;
        let Some(mut body) = self.gathered.into_rest() else { return };
        if body.size_hint().exact().is_some_and(|left| left <= MAX) {
            tokio::task::spawn_local(async move {
                while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
            });
        }
    }
}

/// Names the owner of stored content in its body, so that its memory is not counted twice.
fn of_kept(mut body: Body, kept: Option<Arc<dyn Kept>>) -> Body {
    if let Some(kept) = kept
        && body.is_here()
        && kept.content().is_some()
    {
        body.set_keeper(kept);
    }
    body
}

/// Returns the tag that a client receives for the upstream's tag.
fn outgoing(tag: &EntityTag<'_>, choice: Choice) -> HeaderValue {
    match choice {
        Choice::Code(_) => entity_tag::on_coded(tag),
        Choice::Leave(_) => tag.to_value(),
    }
}
