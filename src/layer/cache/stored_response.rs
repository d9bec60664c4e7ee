//! Builds responses from stored ones.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Frame, SizeHint};

use crate::cache::in_flight_body::InFlightReader;
use crate::cache::rules::reuse::Age;
use crate::cache::store::stored::{Content, StoredHead, StoredResponse};
use crate::fields::cache_status::{CACHE_STATUS, Member, X_CACHE};
use crate::layer::record::RequestRecord;
use crate::message::body::{Body, BodyError, Kept};
use crate::rendering::rendered_head::{HeadLines, HeadVariant};
use crate::represent::compression_decision::has_no_content;

/// Writes Cache-Status and X-Cache; details and the key only if the configuration asks for them.
pub(super) fn say(record: &Rc<RequestRecord>, headers: &mut HeaderMap, member: Member<'_>) {
    let debug = record.info.cache_settings().debug_header;
    let key = match (&record.info.target, debug) {
        (Some(target), true) => Some(target.as_str()),
        _ => None,
    };
    let detail = member.detail.filter(|_| debug);
    let member = Member { key, detail, ..member };
    if member.without_key().is_none_or(|member| !record.set_cache_status(member)) {
        member.append(headers);
        if record.info.cache_settings().x_cache {
            member.append_word(headers);
        }
    }
}

/// Writes the same on fields that have placeholders for it.
fn say_in_place(record: &Rc<RequestRecord>, headers: &mut HeaderMap, member: Member<'_>) {
    if record.info.cache_settings().debug_header {
        headers.remove(CACHE_STATUS);
        headers.remove(X_CACHE);
        say(record, headers, member);
        return;
    }
    Member { detail: None, ..member }.put(headers);
    if record.info.cache_settings().x_cache {
        headers.insert(X_CACHE, HeaderValue::from_static(member.word()));
    } else {
        headers.remove(X_CACHE);
    }
}

/// Builds a response from a stored one.
pub(super) fn build(
    record: &Rc<RequestRecord>,
    stored: &StoredResponse,
    age: Age,
    head: bool,
    member: Member<'_>,
) -> Response<Body> {
    stored.content.hits.fetch_add(1, Ordering::Relaxed);
    let body = match stored.content.trailers() {
        _ if head => {
            let mut body = Body::empty();
            // The entity tag made of the content is that of GET.
            body.set_keeper(stored.content.clone());
            body
        }
        None => Body::kept(stored.content.pieces().clone(), stored.content.clone()),
        Some(_) => Body::streaming(Replay { content: Some(stored.content.clone()), next: 0 }),
    };
    let mut response = with_head(record, &stored.head, age, body, member);
    if head && stored.content.trailers().is_none() && !has_no_content(stored.head.status) {
        // The upstream may have sent no length (chunked). The length is known now, and a GET would receive it.
        let length = HeaderValue::from(stored.content.pieces().len());
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length);
    }
    response
}

/// Builds the same in a variant that may be requested again, from its rendered head if there is one.
pub(super) fn hit(
    record: &Rc<RequestRecord>,
    stored: &StoredResponse,
    age: Age,
    head: bool,
    member: Member<'_>,
    form: Option<HeadVariant>,
) -> Response<Body> {
    let Some(form) = form.filter(|_| stored.head.keeps_place && stored.content.trailers().is_none()) else {
        return build(record, stored, age, head, member);
    };
    let prepared = stored.head.rendered_heads.get(form);
    let content = prepared.as_ref().and_then(|prepared| match prepared.made {
        Some(name) => Kept::made(&*stored.content, name),
        None => Some(stored.content.pieces().clone()),
    });
    let (Some(prepared), Some(content)) = (prepared, content) else {
        let mut response = build(record, stored, age, head, member);
        // A response that is requested once is not worth rendering for.
        if stored.content.given() > 1 {
            let stored = stored.clone();
            response.body_mut().set_keep_head(Box::new(move |prepared| stored.prepare(prepared)));
        }
        return response;
    };
    stored.content.hits.fetch_add(1, Ordering::Relaxed);
    let mut lines = HeadLines::new(prepared);
    lines.add(header::AGE.as_str(), |out| {
        out.extend_from_slice(itoa::Buffer::new().format(age.current.as_secs()).as_bytes());
    });
    let member = Member { ttl: Some(age.ttl(&stored.head.freshness)), detail: None, ..member };
    lines.add(CACHE_STATUS.as_str(), |out| member.write(out));
    if record.info.cache_settings().x_cache {
        lines.add(X_CACHE.as_str(), |out| out.extend_from_slice(member.word().as_bytes()));
    }
    let mut response = Response::new(Body::kept(content, stored.content.clone()).with_lines(lines));
    *response.status_mut() = stored.head.status;
    say_phrase(&stored.head, &mut response);
    response
}

/// Builds a response whose content is still arriving.
pub(super) fn coming(
    record: &Rc<RequestRecord>,
    head: &StoredHead,
    age: Age,
    reader: InFlightReader,
    member: Member<'_>,
) -> Response<Body> {
    with_head(record, head, age, Body::streaming(reader), member)
}

fn say_phrase(head: &StoredHead, response: &mut Response<Body>) {
    if let Some(phrase) = &head.phrase {
        response.extensions_mut().insert(phrase.clone());
    }
}

fn with_head(
    record: &Rc<RequestRecord>,
    head: &StoredHead,
    age: Age,
    body: Body,
    member: Member<'_>,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    say_phrase(head, &mut response);
    let headers = response.headers_mut();
    *headers = head.fields.clone();
    // RFC 9111 5.1: Age is in whole seconds.
    headers.insert(header::AGE, HeaderValue::from(age.current.as_secs()));
    let member = Member { ttl: member.ttl.or_else(|| Some(age.ttl(&head.freshness))), ..member };
    if head.keeps_place {
        say_in_place(record, headers, member);
    } else {
        headers.remove(X_CACHE);
        say(record, headers, member);
    }
    response
}

/// Stored content with its trailers, as a body.
struct Replay {
    content: Option<Arc<Content>>,
    /// The index of the next piece.
    next: usize,
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = self.next;
        self.next += 1;
        let Some(content) = &self.content else { return Poll::Ready(None) };
        if let Some(piece) = content.pieces().iter().nth(next) {
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let trailers = content.trailers().cloned();
        self.content = None;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
