//! What becomes of an app's answer: the order of the decisions.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;

use super::RepresentError;
use super::asked::Asked;
use super::fields::{self, Seen};
use crate::body::{Body, Kept};
use crate::fields::entity_tag::EntityTag;
use crate::fields::media_type::MediaKind;
use crate::fields::vary;
use crate::held::Place;
use crate::layer::record::Record;
use crate::pieces::Pieces;
use crate::policy::Policy;
use crate::prepared::{Form, Keep};
use crate::represent::choice::{self, Choice, Reason};
use crate::represent::coding::Negotiated;
use crate::represent::counters::Counters;
use crate::represent::encode;
use crate::represent::entity_tag;
use crate::represent::gather::{Gathered, Wanted};
use crate::represent::precondition::{Held, Verdict};
use crate::represent::range::{self, Selected};

/// So much is gathered without asking whether there is a place for it.
const LITTLE: usize = 32 * 1024;

/// One answer on its way.
pub struct Answering {
    /// What its request asked.
    pub(super) asked: Asked,
    /// The form in which it asks.
    pub(super) form: Option<Form>,
    /// What is noted of it.
    pub(super) record: Rc<Record>,
}

/// How far an answer was decided about at once.
#[allow(clippy::large_enum_variant, reason = "a box for every answer would cost more than it saves")]
pub(super) enum Begun {
    /// To the end.
    Decided(Result<Response<Body>, RepresentError>),
    /// This has to come first.
    Needs(Box<Gathering>),
}

/// An answer of which more has to come before its head can be decided about.
pub(super) struct Gathering {
    parts: Parts,
    body: Body,
    wanted: Wanted,
    place: Option<Place>,
    known: Known,
    kept: Option<Arc<dyn Kept>>,
}

/// What is known of an answer's content from its head.
#[derive(Clone, Copy)]
struct Known {
    /// Its length; `None` where nobody told.
    length: Option<u64>,
    /// Whether it may be coded, and why not.
    codable: Result<(), Reason>,
    /// Whether it is never held back.
    stream: bool,
    /// Whether it is to get a tag.
    wants_tag: bool,
}

/// An answer's content when its head is decided about.
pub(super) struct Content {
    /// What came of it so far.
    pub gathered: Gathered,
    /// Its length, where it is known.
    pub length: Option<u64>,
    /// See [`Known`].
    pub stream: bool,
    /// The place of its encoder.
    pub memory: Option<Place>,
    /// Who keeps it, and what is made of it.
    pub kept: Option<Arc<dyn Kept>>,
}

impl Answering {
    pub(super) fn policy(&self) -> &Policy {
        &self.record.snapshot.policy
    }

    pub(super) fn counters(&self) -> &Counters {
        self.record.represented()
    }

    /// See the head of the file.
    pub(super) fn begin(&self, response: Response<Body>) -> Begun {
        let (mut parts, mut body) = response.into_parts();
        if let Some(lines) = body.take_lines() {
            return Begun::Decided(Ok(self.prepared(parts, body, lines)));
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
            return Begun::Decided(Ok(Response::from_parts(parts, body)));
        }
        let seen = Seen::of(&parts.headers);
        let kind = MediaKind::of(&parts.headers);
        let stream = kind.is_stream() || body.is_endless();
        if (seen.content_encoding || self.asked.takes_nothing())
            && let Err(error) = self.check_acceptable(&mut parts, stream)
        {
            return Begun::Decided(Err(error));
        }
        let coded = seen.content_encoding && parts.headers.contains_key(header::CONTENT_ENCODING);
        let seen = Seen { content_encoding: coded, ..seen };
        let codable = self.codable(&parts, seen, kind.is_live());
        if self.varies(&parts, codable) {
            vary::add(&mut parts.headers, &header::ACCEPT_ENCODING);
        }
        let length = match self.asked.method {
            Method::HEAD => fields::content_length(&parts.headers),
            _ => body.size_hint().exact(),
        };
        // The tag is of the content as it is, which is not at hand where the app coded it.
        let wants_tag = self.asked.etag
            && self.asked.method == Method::GET
            && parts.status == StatusCode::OK
            && !seen.etag
            && !coded
            && !stream;
        let known = Known { length, codable, stream, wants_tag };
        let kept = body.keeper().cloned();
        if let Some(whole) = body.content() {
            let gathered = Gathered::whole(&whole);
            return Begun::Decided(self.decide(parts, gathered, known, kept, keep_head));
        }
        match self.needed(known) {
            Some((wanted, place)) => {
                Begun::Needs(Box::new(Gathering { parts, body, wanted, place, known, kept }))
            }
            None => Begun::Decided(self.decide(parts, Gathered::nothing(body), known, kept, None)),
        }
    }

    /// Goes on when as much of the content as was needed has come.
    pub(super) async fn go_on(
        self: Box<Self>,
        gathering: Box<Gathering>,
    ) -> Result<Response<Body>, RepresentError> {
        let Gathering { parts, body, wanted, place, known, kept } = *gathering;
        let gathered = Gathered::of(body, wanted, place).await;
        self.decide(parts, gathered, known, kept, None)
    }

    /// How much of the content the decisions need: for a tag the whole, where nobody told the length the
    /// first `min_size` bytes, and what is encoded in one go. Of content without a length no more than that is
    /// waited for, but what is there already is taken: it may be all.
    fn needed(&self, known: Known) -> Option<(Wanted, Option<Place>)> {
        if known.stream || self.asked.method == Method::HEAD {
            return None;
        }
        let coding = match self.asked.coding {
            Some((_, Negotiated::Coded(coding, _))) if known.codable.is_ok() => Some(coding),
            _ => None,
        };
        let compression = &self.policy().compression;
        let least = if coding.is_some() { compression.min_size } else { 0 };
        let one_go = coding.map_or(0, |coding| encode::one_go(coding, compression.effort) as u64);
        let tagged = if known.wants_tag { self.policy().etag.max_size } else { 0 };
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        match known.length {
            Some(length) if length > tagged.max(one_go) => None,
            Some(length) => {
                let wanted = Wanted { least: size(length), most: size(length), end: true };
                Some((wanted, self.place(wanted.most)?))
            }
            None if !known.wants_tag && coding.is_none() => None,
            None => {
                let wanted = Wanted { least: size(least), most: size(least.max(tagged)), end: false };
                Some(match self.place(wanted.most) {
                    Some(place) => (wanted, place),
                    None => (Wanted { most: wanted.least, ..wanted }, None),
                })
            }
        }
    }

    /// A place for what is gathered; a little needs none. `None`: there is none.
    fn place(&self, bytes: usize) -> Option<Option<Place>> {
        if bytes <= LITTLE { Some(None) } else { self.counters().held.take(bytes).map(Some) }
    }

    fn decide(
        &self,
        mut parts: Parts,
        gathered: Gathered,
        known: Known,
        kept: Option<Arc<dyn Kept>>,
        keep_head: Option<Keep>,
    ) -> Result<Response<Body>, RepresentError> {
        let whole = gathered.is_whole() && self.asked.method != Method::HEAD;
        let length = if whole { Some(gathered.len() as u64) } else { known.length };
        let mut content = Content { gathered, length, stream: known.stream, memory: None, kept };
        if known.wants_tag && whole {
            parts.headers.insert(header::ETAG, self.made_tag(&content));
        }
        let choice = self.choose(&parts, &mut content, known.codable);
        if let Some(keep) = keep_head
            && let Some(prepared) = self.prepare(&parts, &content, choice)
        {
            keep(prepared);
        }
        let has_content = self.asked.method != Method::HEAD && !choice::has_no_content(parts.status);
        if self.asked.coding.is_some() && has_content {
            self.counters().chose(choice);
        }
        if self.asked.has_conditions && self.asked.reads() && parts.status == StatusCode::OK {
            match self.asked.conditions.evaluate(&parts.headers) {
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
            Choice::Leave(_) => Ok(Response::from_parts(parts, content.gathered.into_body())),
        }
    }

    /// The tag of content that has none, made once where the content is kept.
    fn made_tag(&self, content: &Content) -> HeaderValue {
        const NAME: &str = "etag";
        let kept = content.kept.as_ref();
        if let Some(tag) = kept.and_then(|kept| kept.made(NAME))
            && let Ok(tag) = HeaderValue::from_maybe_shared(tag.joined())
        {
            return tag;
        }
        self.counters().tags.add(1);
        let tag = entity_tag::made(content.gathered.pieces());
        if let Some(kept) = kept {
            kept.keep(NAME, Pieces::copy(tag.as_bytes()));
        }
        tag
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
                Ok(Response::from_parts(parts, Body::pieces(body)))
            }
            Selected::Nothing => Err(RepresentError::RangeNotSatisfiable(whole.len())),
            Selected::Whole => Ok(Response::from_parts(parts, Body::pieces(whole))),
        }
    }

    /// A 304 in place of an app's 200 (RFC 9110 15.4.5).
    fn not_modified(&self, mut parts: Parts, content: Content, choice: Choice) -> Response<Body> {
        self.counters().not_modified_by_pillion.add(1);
        let tag = EntityTag::of(&parts.headers);
        let shown = match (self.asked.conditions.held(tag.as_ref()), &tag) {
            (Some(Held::As(tag)), _) => Some(tag),
            (_, Some(tag)) => Some(outgoing(tag, choice)),
            (_, None) => None,
        };
        fields::not_modified(&mut parts, shown);
        content.discard();
        Response::from_parts(parts, Body::empty())
    }

    /// The app's own 304: its tag goes out in the form in which the client has it.
    fn relayed_not_modified(&self, headers: &mut HeaderMap) {
        // What kind of content it is, a 304 seldom says: it may be of those that are coded.
        let may = !headers.contains_key(header::CONTENT_TYPE) || self.is_of_type(headers);
        let coded = may && matches!(self.asked.coding, Some((_, Negotiated::Coded(..))));
        let shown =
            EntityTag::of(headers).and_then(|tag| match (self.asked.conditions.held(Some(&tag)), coded) {
                (Some(Held::As(shown)), _) => Some(shown),
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
    /// Nobody wants it: a little is read to its end, so that the connection can be used again.
    fn discard(self) {
        const MOST: u64 = 256 * 1024;
        let Some(mut body) = self.gathered.into_rest() else { return };
        if body.size_hint().exact().is_some_and(|left| left <= MOST) {
            tokio::task::spawn_local(async move {
                while let Some(Ok(_)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
            });
        }
    }
}

/// The tag that goes out on what the app gave this one.
fn outgoing(tag: &EntityTag<'_>, choice: Choice) -> HeaderValue {
    match choice {
        Choice::Code(_) => entity_tag::on_coded(tag),
        Choice::Leave(_) => tag.to_value(),
    }
}
