//! One request and its response over HTTP/2: the timeouts of each part, and the meaning of a failure.

use std::cell::Cell;
use std::future::Future as _;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;

use super::connection::Http2Connection;
use super::errors::{classify, not_sent};
use super::response::ResponseBody;
use super::shared::Open;
use super::upload::{Stage, Stopped, Upload};
use crate::fields::hop_by_hop::NOT_SENT_OVER_HTTP2;
use crate::http1::client::{Sent, Timeouts, is_endless, reach};
use crate::http1::encode;
use crate::http2::{FIELD_OVERHEAD, section_size};
use crate::memory::buffers::Room;
use crate::message::body::Body;
use crate::message::inbound::Interim;
use crate::runtime::clock::{Deadline, Instant};
use crate::upstream::error::ForwardError;

/// The destinations of progress, interim responses and buffered content of a request.
#[derive(Clone, Copy)]
pub(crate) struct Passing<'a> {
    /// The part of the request that was sent, updated on the way.
    pub sent: &'a Cell<Sent>,
    /// Destination of interim responses, with the number of the request.
    pub interim: Option<(&'a Interim, u32)>,
    /// The client's room in the buffer memory, where content that waits for the client is counted.
    pub room: Option<Room<'a>>,
}

impl Passing<'_> {
    /// Forwards an interim response (RFC 9110 15.2). A 100 is dropped, because Pillion never asks for it, and so is a
    /// 101, which HTTP/2 does not have (RFC 9113 8.6): to an HTTP/1.1 client it would be the end of HTTP.
    fn pass_on(self, response: Response<()>) {
        let (parts, ()) = response.into_parts();
        if !matches!(parts.status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
            && let Some((interim, exchange)) = self.interim
        {
            interim.add(exchange, |out| encode::interim_head(out, &parts));
        }
    }
}

impl Http2Connection {
    /// Sends a request, whose URI is absolute, and waits for the head of its response.
    pub(crate) async fn send(
        self: Rc<Self>,
        request: Request<Body>,
        passing: Passing<'_>,
        timeouts: Timeouts,
        now: fn() -> Instant,
    ) -> Result<Response<Body>, ForwardError> {
        let mut open = Open::new(&self.shared, now);
        let begun = now();
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_2;
        adapt(&parts.method, &mut parts.headers, &body);
        self.admit(|| request_size(&parts.method, &parts.uri, &parts.headers)).await?;
        let bodiless = body.is_end_stream();
        let mut sender = self.sender.borrow().clone();
        let sent = sender.send_request(Request::from_parts(parts, ()), bodiless);
        let (response, stream) = sent.map_err(|error| not_sent(&error))?;
        open.set_lasting(true);
        reach(passing.sent, if bodiless { Sent::Whole } else { Sent::Part });
        let mut response = pin!(response);
        let mut sending = Sending {
            upload: (!bodiless).then(|| Upload::new(body, stream, self.shared.clone(), passing.room, now)),
            ended: begun,
            deadline: Deadline::default(),
            now,
        };
        let response = std::future::poll_fn(|cx| {
            if let Err(error) = sending.poll_upload(passing.sent, cx) {
                return Poll::Ready(Err(error));
            }
            while let Poll::Ready(Some(Ok(interim))) = response.as_mut().poll_informational(cx) {
                passing.pass_on(interim);
            }
            if let Poll::Ready(response) = response.as_mut().poll(cx) {
                return Poll::Ready(response.map_err(|error| classify(&error)));
            }
            sending.poll_expired(timeouts, cx).map(|()| Err(ForwardError::TimedOut))
        });
        let response = response.await.inspect_err(|error| {
            if !matches!(error, ForwardError::TimedOut | ForwardError::Body(_)) {
                // The upstream ended the stream.
                open.set_lasting(false);
            }
            // A connection on which nothing arrived in all that time does not get the next request.
            if matches!(error, ForwardError::TimedOut) && self.shared.heard.get() < begun {
                self.shared.retired.set(true);
            }
        });
        let (parts, stream) = response?.into_parts();
        let endless = is_endless(&parts.headers);
        let silence = if endless { timeouts.stream } else { timeouts.body };
        let memory = passing.room.map(Room::arrival);
        let body = ResponseBody::new(stream, &parts.headers, silence, sending.upload, open, memory);
        let mut body = Body::streaming(body);
        if endless {
            body.set_endless();
        }
        Ok(Response::from_parts(parts, body))
    }
}

/// Returns the size in bytes of a request's field section with its pseudo-header fields (RFC 9113 6.5.2, 8.3.1).
fn request_size(method: &Method, uri: &Uri, headers: &HeaderMap) -> usize {
    let pseudo = [
        (":method", method.as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (":authority", uri.authority().map_or("", Authority::as_str)),
        (":path", uri.path_and_query().map_or("", PathAndQuery::as_str)),
    ];
    let pseudo = pseudo.iter().map(|(name, value)| name.len() + value.len() + FIELD_OVERHEAD);
    pseudo.sum::<usize>() + section_size(headers)
}

/// Adapts the fields of a request to HTTP/2.
fn adapt(method: &Method, headers: &mut HeaderMap, body: &Body) {
    for name in &NOT_SENT_OVER_HTTP2 {
        headers.remove(name);
    }
    // RFC 9110 8.6: a known length is sent, and a length of zero if the method usually has content.
    let told = match body.size_hint().exact() {
        Some(0) => matches!(*method, Method::POST | Method::PUT | Method::PATCH).then_some(0),
        length => length,
    };
    if let Some(length) = told {
        headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
}

/// A request whose response has not begun.
struct Sending {
    /// The rest of the request's body.
    upload: Option<Upload>,
    /// Time at which the last part of the request was sent.
    ended: Instant,
    deadline: Deadline,
    now: fn() -> Instant,
}

impl Sending {
    fn poll_upload(&mut self, sent: &Cell<Sent>, cx: &mut Context<'_>) -> Result<(), ForwardError> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        match upload.poll(cx) {
            Poll::Pending => return Ok(()),
            // The body is dropped with its stream, which tells the upstream that no more comes.
            Poll::Ready(Err(Stopped::Client(error))) => return Err(ForwardError::Body(error)),
            Poll::Ready(Ok(())) => reach(sent, Sent::Whole),
            Poll::Ready(Err(Stopped::Upstream)) => {}
        }
        self.upload = None;
        self.ended = (self.now)();
        Ok(())
    }

    /// Polls the timeouts. Ready once the upstream took too long to respond to the last byte, or to read further ones.
    fn poll_expired(&mut self, timeouts: Timeouts, cx: &mut Context<'_>) -> Poll<()> {
        let Some(response) = timeouts.response else { return Poll::Pending };
        match self.upload.as_ref().map(Upload::stage) {
            Some(Stage::Given(since)) => self.deadline.set(since + timeouts.body),
            Some(Stage::Awaited) => self.deadline.clear(),
            None => self.deadline.set(self.ended + response),
        }
        self.deadline.poll_expired(cx)
    }
}
