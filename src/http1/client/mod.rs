//! One HTTP/1 connection to an upstream: sends a request and reads its response in the caller's task, without a task of
//! its own. One request at a time uses a connection; once the response body has ended, the connection can be taken back
//! and used again.

pub(crate) mod body;
mod connection;
pub(crate) mod request_body;

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;

use super::decode::BodyDecoder;
use super::encode::{self, Beside, Connection, Outgoing};
use super::framing::Framing;
use super::head::{self, HeadLimits, ResponseHead};
use super::head_error::HeadError;
use crate::fields::media_type::MediaKind;
use crate::http1::client::body::{ACKNOWLEDGMENTS, ClientBody};
use crate::http1::client::request_body::Upload;
use crate::memory::buffers;
use crate::memory::buffers::{BufferReservation, Room};
use crate::message::body::{Body, BodyError, Tunnel};
use crate::message::inbound::Interim;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

pub(crate) use connection::ClientConnection;

/// Timeouts of one exchange with an upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Maximum time from the last byte of the request to the head of the response; `None` waits as long as the
    /// connection lives.
    pub response: Option<Duration>,
    /// Maximum silence within the response body, and maximum time in which the upstream reads nothing.
    pub body: Duration,
    /// Maximum silence that replaces `body` for responses without an expected end.
    pub stream: Duration,
}

#[derive(Debug)]
pub(crate) enum SendError {
    /// The connection broke; the text says how far the exchange had come.
    Broken(io::Error),
    /// The upstream closed without a response.
    Closed,
    /// The upstream sent no valid HTTP/1 response.
    Malformed(HeadError),
    /// No head arrived within `response_timeout`.
    TimedOut,
    /// The client's body failed; the upstream saw it cut short.
    Body(BodyError),
}

/// The part of a request that its upstream can have received, over all tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sent {
    #[default]
    Nothing,
    /// The head or a part of it, but not the end of the request.
    Part,
    Whole,
}

/// Records that at least `how_far` of a request was sent.
pub(crate) fn reach(sent: &Cell<Sent>, how_far: Sent) {
    sent.set(sent.get().max(how_far));
}

/// A request head as it goes to the upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outbound<'a> {
    pub method: &'a Method,
    /// The target in origin-form, or `*`.
    pub target: &'a [u8],
    pub headers: &'a HeaderMap,
    pub beside: Beside<'a>,
    /// The protocols to upgrade to.
    pub upgrade: Option<&'a HeaderValue>,
    /// Whether trailers are accepted (`TE: trailers`).
    pub takes_trailers: bool,
    /// Destination of interim responses, with the number of the request.
    pub interim: Option<(&'a Interim, u32)>,
    /// Limits on the head of the response.
    pub limits: HeadLimits,
    /// The buffer memory of the client that gets the response; `None` if nothing is buffered for a client.
    pub room: Option<Room<'a>>,
    /// The part of the request that was sent, updated on the way.
    pub sent: &'a Cell<Sent>,
}

impl ClientConnection {
    /// Queues the head of `request`. [`Sending::poll`] does the rest, and [`ClientConnection::response`] takes what comes.
    // No future does all of it: it would be moved with what it holds, for each request.
    pub(crate) fn begin(&mut self, request: &Outbound<'_>, body: &Body, now: Instant) -> Sending {
        let framing = outgoing(request, body);
        let connection = match request.upgrade {
            Some(protocol) => Connection::Upgrade(protocol.clone()),
            // RFC 9110 10.1.4: TE is a field of this connection and named so.
            None if request.takes_trailers => Connection::Trailers,
            None => Connection::Implied,
        };
        let before = self.io.tail().len();
        encode::request_head(
            self.io.tail(),
            request.method,
            request.target,
            request.headers,
            request.beside,
            framing,
            &connection,
        );
        self.io.wrote(before);
        Sending {
            upload: Upload { framing, ended: framing == Outgoing::None },
            head: self.io.queued(),
            at: Some(now),
            started: false,
            pressed: false,
            broken: None,
            counted: None,
        }
    }

    /// The response to what was sent, of which the head is here.
    pub(crate) fn response(
        mut self: Box<Self>,
        head: ResponseHead,
        sending: Sending,
        body: &mut Body,
        timeouts: Timeouts,
        room: Option<Room<'_>>,
    ) -> UpstreamResponse {
        self.deadline.clear();
        self.keep_alive_timeout = head.keep_alive_timeout;
        let mut parts = head.parts;
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(protocol) = head.upgrade {
                parts.headers.insert(header::UPGRADE, protocol);
            }
            let read_ahead = self.io.read.split().freeze();
            let tunnel = Tunnel { io: Box::new(self.io.stream), read_ahead };
            return UpstreamResponse { parts, content: Content::Tunnel(tunnel) };
        }
        let sent = sending.upload.ended && self.io.is_flushed();
        let reusable = head.keep_alive && sending.broken.is_none();
        if let Framing::Length(length) = head.framing
            && length <= self.io.read.len() as u64
            && sent
            && !sending.pressed
        {
            // The common small response came with its head. It needs no streaming, and the connection is free before
            // the client has read a byte. Without room, content and connection stay here until the client reads.
            let content = self.io.take(usize::try_from(length).unwrap_or_default());
            let connection = (reusable && self.io.read.is_empty()).then_some(self);
            return UpstreamResponse { parts, content: Content::Whole(content, connection) };
        }
        // An early response (a 413, say) is relayed. The rest of the request is sent beside the response for as long as
        // the upstream reads it.
        let upload = match (sent, &sending.broken) {
            (false, None) => Some((sending.upload, std::mem::replace(body, Body::empty()))),
            _ => None,
        };
        let endless = is_endless(&parts.headers);
        let body = ClientBody {
            connection: Some(self),
            decoder: BodyDecoder::new(head.framing),
            ended: false,
            reusable,
            upload,
            silence: if endless { timeouts.stream } else { timeouts.body },
            client_failed: None,
            acknowledgments: ACKNOWLEDGMENTS,
            counted: sending.counted.or_else(|| room.map(|room| room.reservation())),
        };
        UpstreamResponse { parts, content: Content::Streaming { body, endless } }
    }
}

/// The head of a response and the content that follows it.
#[derive(Debug)]
pub(crate) struct UpstreamResponse {
    pub parts: http::response::Parts,
    pub content: Content,
}

/// The content that follows a response head.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a box for every response that arrives would cost more than it saves"
)]
pub(crate) enum Content {
    /// All content is here; with the connection, if it can be used again.
    Whole(Bytes, Option<Box<ClientConnection>>),
    /// The content arrives over time. `endless` content has no expected end and may be silent for long.
    Streaming { body: ClientBody, endless: bool },
    /// The connection itself, after a 101.
    Tunnel(Tunnel),
}

/// Returns whether a message is a stream that may be silent for long.
pub(crate) fn is_endless(headers: &HeaderMap) -> bool {
    MediaKind::from_headers(headers).is_stream()
}

/// Returns the framing of the request's body (RFC 9112 6.3: no body without a length or a coding).
fn outgoing(request: &Outbound<'_>, body: &Body) -> Outgoing {
    match body.size_hint().exact() {
        // A method that usually has content announces that it has none (RFC 9110 8.6).
        Some(0) if *request.method == Method::POST || *request.method == Method::PUT => Outgoing::Length(0),
        Some(0) => Outgoing::None,
        Some(length) => Outgoing::Length(length),
        None => Outgoing::Chunked,
    }
}

/// A request whose response has not begun.
#[derive(Debug)]
pub(crate) struct Sending {
    upload: Upload,
    /// Start time of the request, while it is recent enough to stand for now.
    at: Option<Instant>,
    head: usize,
    started: bool,
    /// Whether there was no buffer memory for the response at the last read.
    pressed: bool,
    broken: Option<io::Error>,
    /// The memory of the connection's buffers, if it is more than ordinary.
    counted: Option<BufferReservation>,
}

impl Sending {
    /// Whether something of the request was handed to the system.
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    /// Sends the request with `body` and reads the head of the response. `body` is left untouched as long as nothing of it
    /// was taken, so the caller can send it elsewhere.
    pub(crate) fn poll(
        &mut self,
        connection: &mut ClientConnection,
        request: &Outbound<'_>,
        body: &mut Body,
        timeouts: Timeouts,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendError>> {
        loop {
            let just_sent = self.poll_upload(connection, body, timeouts, request, cx)?;
            self.at = None;
            // A response seldom comes as fast as this: it is not read, and no buffer is made for it, before it is there.
            let filled = if just_sent && connection.io.stream.poll_read_ready(cx).is_pending() {
                Poll::Pending
            } else {
                self.pressed = request.room.is_some_and(|room| !room.is_left());
                buffers::while_pressed(self.pressed, || connection.io.poll_fill(cx))
            };
            let read = match filled {
                Poll::Pending => {
                    connection.io.count(&mut self.counted, || request.room.map(|room| room.reservation()));
                    // While the client's body is awaited, its own deadline runs, not the upstream's.
                    if connection.deadline.poll_expired(cx).is_ready() {
                        return Poll::Ready(Err(SendError::TimedOut));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => Err(SendError::Closed),
                Poll::Ready(Ok(_)) => Ok(()),
                Poll::Ready(Err(error)) => Err(SendError::Broken(error)),
            };
            if let Err(error) = read {
                // A failed write explains more than the closed read that follows it.
                return Poll::Ready(Err(self.broken.take().map_or(error, SendError::Broken)));
            }
            if let Some(head) = self.parse(connection, request)? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    fn poll_upload(
        &mut self,
        connection: &mut ClientConnection,
        body: &mut Body,
        timeouts: Timeouts,
        request: &Outbound<'_>,
        cx: &mut Context<'_>,
    ) -> Result<bool, SendError> {
        let sent = request.sent;
        let io = &mut connection.io;
        if self.broken.is_some() || (self.upload.ended && io.is_flushed()) {
            return Ok(false);
        }
        loop {
            let room = || request.room.is_none_or(|room| room.is_left());
            self.upload.take(io, body, room, cx).map_err(SendError::Body)?;
            let queued = io.queued();
            match io.poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.started = true;
                    reach(sent, if self.upload.ended { Sent::Whole } else { Sent::Part });
                    if self.upload.ended {
                        match timeouts.response {
                            Some(response) => {
                                let ended = self.at.unwrap_or_else(clock::now);
                                connection.deadline.set(ended + response);
                            }
                            None => connection.deadline.clear(),
                        }
                        return Ok(true);
                    }
                    connection.deadline.clear();
                    if queued == 0 {
                        return Ok(false);
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.started |= io.queued() < self.head.max(queued);
                    self.note_start(sent);
                    self.broken = Some(error);
                    // The upstream may have sent a response before it closed, so that is read first.
                    connection.deadline.set_after(timeouts.body);
                    return Ok(true);
                }
                Poll::Pending => {
                    self.started |= io.queued() < queued;
                    self.note_start(sent);
                    if io.queued() < queued || !connection.deadline.is_set() {
                        connection.deadline.set_after(timeouts.body);
                    }
                    return Ok(false);
                }
            }
        }
    }

    fn note_start(&self, sent: &Cell<Sent>) {
        if self.started {
            reach(sent, Sent::Part);
        }
    }

    fn parse(
        &mut self,
        connection: &mut ClientConnection,
        request: &Outbound<'_>,
    ) -> Result<Option<ResponseHead>, SendError> {
        loop {
            let parsed = head::parse_response(&mut connection.io.read, request.method, request.limits)
                .map_err(SendError::Malformed)?;
            match parsed {
                Some(head) if head.parts.status == StatusCode::SWITCHING_PROTOCOLS => {
                    if request.upgrade.is_none() {
                        // RFC 9110 15.2.2: only in response to an Upgrade.
                        return Err(SendError::Malformed(HeadError::Malformed(
                            "a 101 response to a request without Upgrade",
                        )));
                    }
                    return Ok(Some(head));
                }
                // RFC 9110 15.2: a proxy forwards interim responses, except a 100 that it asked for itself. Any number
                // may come within `response_timeout`. An upstream that keeps sending them never lets the read wait, so
                // the deadline is checked here.
                Some(head) if head.parts.status.is_informational() => {
                    if connection.deadline.has_passed(clock::now()) {
                        return Err(SendError::TimedOut);
                    }
                    if head.parts.status != StatusCode::CONTINUE
                        && let Some((interim, exchange)) = request.interim
                    {
                        interim.add(exchange, |out| encode::interim_head(out, &head.parts));
                    }
                }
                head => return Ok(head),
            }
        }
    }
}
