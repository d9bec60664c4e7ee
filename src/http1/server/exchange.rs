//! The response to one request: its framing, and whether the connection is used again.

use std::time::Duration;

use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body as _;

use super::connection::{Connection, NextAction};
use super::request_body::RequestBodyReader;
use super::response_writer::ResponseWriter;
use crate::fields::media_type::MediaKind;
use crate::http1::buffered::Buffered;
use crate::http1::encode::{self, Connection as ConnectionField, Outgoing};
use crate::message::body::Body;
use crate::runtime::lifecycle::Phase;

/// Maximum bytes left of an unread body that are read and discarded to keep the connection.
const DISCARD_REST: u64 = 64 * 1024;

/// The facts about a request that its response depends on.
pub(super) struct Exchange {
    pub method: Method,
    pub version: Version,
    pub keep_alive: bool,
    pub takes_trailers: bool,
    /// Timeout in which the client must read; see [`super::timeouts::Settings::send_timeout`].
    pub send_timeout: Duration,
    /// Read-ahead in bytes; see [`super::timeouts::Settings::buffer_response`].
    pub read_ahead: usize,
}

/// The result of starting to send a response.
#[allow(clippy::large_enum_variant, reason = "nearly every one is the large one")]
pub(super) enum StartedResponse {
    Message {
        writer: ResponseWriter,
        body: Body,
        request_body: Option<RequestBodyReader>,
    },
    Switch(Box<(http::response::Parts, Body)>),
    /// There is no response, because nobody waits for it.
    Abandoned,
}

impl Exchange {
    /// Sends a response that was started.
    // It stays where it is: a future that held it would be moved with it, for each request.
    pub(super) async fn send<S>(
        &mut self,
        connection: &mut Connection<'_, S>,
        started: &mut StartedResponse,
    ) -> NextAction {
        match started {
            StartedResponse::Message { writer, body, request_body } => {
                let Connection { io, reading, sending, phase_watcher, peer, stall, seat, waiting, .. } =
                    connection;
                let buffers = peer.buffers.as_ref().filter(|_| writer.counted);
                let stalled = (stall, *seat);
                let result = std::future::poll_fn(|cx| {
                    let stalled = (&mut *stalled.0, stalled.1);
                    let request_body = request_body.as_mut();
                    writer.poll(
                        io,
                        waiting,
                        body,
                        request_body,
                        buffers,
                        reading,
                        sending,
                        stalled,
                        phase_watcher,
                        cx,
                    )
                })
                .await;
                connection.waiting.clear();
                connection.sending.clear();
                connection.reading.clear();
                let unread = request_body.as_ref().is_some_and(|request_body| {
                    !request_body.is_finished() && request_body.rest() != Some(0)
                });
                self.after(connection, result.is_ok(), writer.framing, unread)
            }
            StartedResponse::Switch(response) => {
                let (parts, body) = &mut **response;
                // Boxed because upgrades are rare.
                Box::pin(self.switch(connection, parts, body)).await
            }
            StartedResponse::Abandoned => NextAction::Close,
        }
    }

    /// Queues the head of a response, if there is one.
    pub(super) fn start<S>(
        &mut self,
        connection: &mut Connection<'_, S>,
        response: Option<Response<Body>>,
        mut request_body: Option<RequestBodyReader>,
    ) -> StartedResponse {
        let Some(response) = response else { return StartedResponse::Abandoned };
        let (mut parts, mut body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return StartedResponse::Switch(Box::new((parts, body)));
        }
        let framing = self.framing(&mut parts, &body);
        let unread = request_body
            .as_mut()
            .is_some_and(|request_body| !self.settle_input(request_body, framing, &mut connection.io));
        let told = parts.headers.remove(header::CONNECTION);
        self.keep_alive &= framing != Outgoing::Close
            && !unread
            && connection.phase_watcher.phase() == Phase::Running
            && told.is_none_or(|told| told.as_bytes() != b"close");
        let field = match (self.keep_alive, self.version) {
            (false, _) => ConnectionField::Close,
            (true, Version::HTTP_10) => ConnectionField::KeepAlive,
            (true, _) => ConnectionField::Implied,
        };
        let io = &mut connection.io;
        let before = io.tail().len();
        let (lines, own) = (body.take_lines(), body.take_own_fields());
        let (lines, own) = (lines.as_ref(), own.as_deref());
        let (status, phrase) = (parts.status, parts.extensions.get());
        encode::response_head(io.tail(), status, phrase, &parts.headers, lines, own, framing, &field);
        io.wrote(before);

        let bodiless = framing == Outgoing::None || self.method == Method::HEAD;
        let writer = ResponseWriter {
            framing,
            left: if let Outgoing::Length(length) = framing { length } else { u64::MAX },
            trailers: self.takes_trailers,
            ended: bodiless,
            failed: None,
            // Other streams than live ones may end by themselves while the process drains.
            endless: body.is_endless() && MediaKind::from_headers(&parts.headers) != MediaKind::Stream,
            send_timeout: self.send_timeout,
            read_ahead: self.read_ahead,
            // Stored content is in memory anyway; content that may still be stored is not.
            counted: body.keeper().is_none() || body.is_streaming(),
            waiting: None,
            written: 0,
        };
        if bodiless && !body.is_end_stream() {
            body = Body::empty();
        }
        StartedResponse::Message { writer, body, request_body }
    }

    /// Decides what happens to the connection after the response was sent or failed.
    fn after<S>(
        &self,
        connection: &mut Connection<'_, S>,
        whole: bool,
        framing: Outgoing,
        unread: bool,
    ) -> NextAction {
        match whole {
            true if unread => NextAction::Linger,
            true if self.keep_alive => NextAction::KeepAlive,
            true if framing == Outgoing::Close => NextAction::Close,
            true => NextAction::Linger,
            false => {
                // Only a reset tells the reader of a close-delimited body that it is incomplete.
                if framing == Outgoing::Close {
                    connection.io.stream.reset_on_close();
                    return NextAction::Drop;
                }
                NextAction::Close
            }
        }
    }

    /// Returns the framing of the response body (RFC 9112 6.1, 6.2; RFC 9110 8.6).
    fn framing(&self, parts: &mut http::response::Parts, body: &Body) -> Outgoing {
        let status = parts.status;
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            parts.headers.remove(header::CONTENT_LENGTH);
            return Outgoing::None;
        }
        if status == StatusCode::NOT_MODIFIED || self.method == Method::HEAD {
            // Content that is present in a response to HEAD is that of a GET (RFC 9110 8.6).
            if let (true, Some(length @ 1..)) = (status != StatusCode::NOT_MODIFIED, body.size_hint().exact())
            {
                parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
            }
            return Outgoing::None;
        }
        match body.size_hint().exact() {
            Some(length) => Outgoing::Length(length),
            None if self.version == Version::HTTP_11 => Outgoing::Chunked,
            None => Outgoing::Close,
        }
    }

    /// Returns whether the request's body leaves the connection usable.
    fn settle_input(
        &self,
        request_body: &mut RequestBodyReader,
        framing: Outgoing,
        io: &mut Buffered,
    ) -> bool {
        if request_body.is_finished() {
            return true;
        }
        if request_body.forget_continue() {
            return false;
        }
        if !request_body.is_dropped() {
            // The body is still being read, beside the response. A response with a known end does not wait for it, so
            // the connection ends then, and must say so now (RFC 9112 9.6). A two-way exchange may last until both end.
            let ends_first = framing != Outgoing::Chunked && request_body.rest() != Some(0);
            return !ends_first && request_body.error().is_none();
        }
        request_body.rest().is_some_and(|left| left <= DISCARD_REST) && request_body.discard(io)
    }

    async fn switch<S>(
        &mut self,
        connection: &mut Connection<'_, S>,
        parts: &mut http::response::Parts,
        body: &mut Body,
    ) -> NextAction {
        let observer = body.take_observer();
        let Some(tunnel) = body.take_tunnel() else { return NextAction::Close };
        let protocol =
            parts.headers.remove(header::UPGRADE).unwrap_or_else(|| HeaderValue::from_static("websocket"));
        let io = &mut connection.io;
        let before = io.tail().len();
        let field = ConnectionField::Upgrade(protocol);
        // RFC 9110 8.6: no Content-Length in a 1xx.
        parts.headers.remove(header::CONTENT_LENGTH);
        let (status, phrase) = (parts.status, parts.extensions.get());
        encode::response_head(io.tail(), status, phrase, &parts.headers, None, None, Outgoing::None, &field);
        io.wrote(before);
        match std::future::poll_fn(|cx| io.poll_flush(cx)).await {
            Ok(()) => NextAction::Tunnel(Box::new(tunnel), observer),
            Err(_) => NextAction::Close,
        }
    }
}
