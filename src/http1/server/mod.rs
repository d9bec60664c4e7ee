//! One client connection speaking HTTP/1: reads a head, calls the service, writes the answer, again.
//!
//! A connection is one task. The request body is read, the service polled and the answer written by
//! the same poll, so nothing is handed between tasks and dropping the connection drops its request.
//! While it is silent it holds neither buffer nor request: that is what makes idle ones cheap.

mod next;
pub(crate) mod request_body;
pub(crate) mod response_writer;
pub(crate) mod waiting;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use tokio::io::AsyncWriteExt;
use tower::Service;

use super::buffered::Buffered;
use super::encode::{self, Connection as ConnectionField, Outgoing};
use super::framing::Framing;
use super::head::{HeadLimits, RequestHead};
use super::head_error::HeadError;
use crate::connection::seats::{Seat, Stall};
use crate::connection::stream::{Rewound, Stream};
use crate::connection::tunnel;
use crate::fields::media_type::MediaKind;
use crate::http1::server::request_body::RequestBodyReader;
use crate::http1::server::response_writer::Writing;
use crate::http1::server::waiting::Waiting;
use crate::memory::buffers;
use crate::memory::buffers::OF_A_WAIT;
use crate::message::body::{Body, Tunnel};
use crate::message::inbound;
use crate::message::inbound::{Inbound, Peer, Refused};
use crate::runtime::clock;
use crate::runtime::clock::Deadline;
use crate::runtime::lifecycle::{Phase, PhaseWatcher};

/// The client connection preface of HTTP/2 (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A silent connection gives its buffers back after this.
const PARK: Duration = Duration::from_millis(20);
/// A body that nobody read is read to its end if no more than this is left, to keep the connection.
const DISCARD_REST: u64 = 64 * 1024;
/// Lingering close (RFC 9112 9.6): at most this much is read and thrown away, ...
const LINGER_BYTES: usize = 64 * 1024;
/// ... for at most this long.
const LINGER: Duration = Duration::from_secs(2);

/// How long this side waits and how much it takes. Asked for at every request, so that connections
/// that live long obey a reload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Longest silence in a request body.
    pub body_timeout: Duration,
    /// Longest time in which a client takes nothing.
    pub send_timeout: Duration,
    pub idle_timeout: Duration,
    /// Instead of the silences, for streams without an expected end.
    pub stream_idle_timeout: Duration,
    /// How much of a response is read ahead of its client; bytes.
    pub buffer_response: usize,
    pub limits: HeadLimits,
}

pub(crate) enum Ended {
    Closed,
    /// The client speaks HTTP/2: the connection, and what was read of it.
    Http2(Stream, Bytes),
}

enum Next {
    Closed,
    Http2,
    Head(Box<RequestHead>),
    Refused(HeadError),
}

enum NextAction {
    KeepAlive,
    Close,
    /// Drops the connection as it is.
    Drop,
    Linger,
    Tunnel(Box<Tunnel>, Option<Box<dyn crate::message::body::Observer>>),
}

struct Connection<'a, S> {
    io: Buffered,
    service: S,
    peer: Rc<Peer>,
    settings: &'a dyn Fn() -> Settings,
    phase_watcher: PhaseWatcher,
    reading: Deadline,
    sending: Deadline,
    served: bool,
    /// Whether a head may be whole. Parsing starts over each time, so it waits for a line to end: a head
    /// sent byte by byte costs one parse a line.
    parse: bool,
    /// Silent for so long that its buffers were given back.
    parked: bool,
    /// The first byte of a head is here, and the time for the rest runs.
    begun: bool,
    asked: bool,
    seat: Option<&'a Seat>,
    stall: Stall,
    /// The memory of its buffers.
    waiting: Waiting,
}

/// Serves one connection until it ends. `http2` says whether the HTTP/2 preface is looked for.
#[allow(clippy::too_many_arguments, reason = "each of them is another side of one connection")]
pub(crate) async fn serve<S>(
    stream: Stream,
    read: BytesMut,
    service: S,
    peer: Rc<Peer>,
    settings: &dyn Fn() -> Settings,
    phase_watcher: PhaseWatcher,
    http2: bool,
    seat: Option<&Seat>,
) -> Ended
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible>,
{
    let mut connection = Connection {
        io: Buffered::new(stream, read),
        service,
        waiting: Waiting::new(peer.clone()),
        peer,
        settings,
        phase_watcher,
        reading: Deadline::default(),
        sending: Deadline::default(),
        served: !http2,
        parse: true,
        parked: false,
        begun: false,
        asked: false,
        seat,
        stall: Stall::default(),
    };
    loop {
        let after = match connection.next().await {
            Next::Closed => return Ended::Closed,
            Next::Http2 => {
                let read = connection.io.read.split().freeze();
                return Ended::Http2(connection.io.stream, read);
            }
            Next::Head(head) => Box::pin(connection.exchange(head)).await,
            Next::Refused(error) => Box::pin(connection.refuse(error)).await,
        };
        if !connection.stall.end(connection.seat) {
            if matches!(after, NextAction::KeepAlive) {
                connection.close().await;
            } else {
                // Only a reset tells a reader of a close-delimited body that it is not whole.
                connection.io.stream.reset_on_close();
            }
            return Ended::Closed;
        }
        connection.served = true;
        connection.asked = true;
        connection.parse = true;
        match after {
            NextAction::KeepAlive => {}
            NextAction::Drop => return Ended::Closed,
            NextAction::Close => {
                connection.close().await;
                return Ended::Closed;
            }
            NextAction::Linger => {
                Box::pin(connection.linger()).await;
                return Ended::Closed;
            }
            NextAction::Tunnel(tunnel, observer) => {
                let Connection { io, phase_watcher, settings, .. } = connection;
                let idle = settings().stream_idle_timeout;
                let mut io = io;
                let client = Rewound::new(io.read.split().freeze(), io.stream);
                Box::pin(tunnel::between(client, *tunnel, idle, &phase_watcher, observer)).await;
                return Ended::Closed;
            }
        }
    }
}

impl<S> Connection<'_, S>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible>,
{
    /// Sends a bad head through the stack, so that it is counted, logged and answered there.
    async fn refuse(&mut self, error: HeadError) -> NextAction {
        self.reading.clear();
        let settings = (self.settings)();
        let inbound = Inbound {
            request: Box::new(Request::new(Body::empty())),
            peer: self.peer.clone(),
            received: clock::now(),
            upgrade: None,
            takes_trailers: false,
            refused: Some(Refused { status: error.status(), detail: error.detail() }),
            counted: 0,
            kept: 0,
            reserved: None,
        };
        let Ok(response) = self.service.call(inbound).await;
        let mut exchange = Exchange {
            method: Method::GET,
            version: Version::HTTP_11,
            keep_alive: false,
            takes_trailers: false,
            send_timeout: settings.send_timeout,
            read_ahead: settings.buffer_response,
        };
        let mut begun = exchange.begin(self, Some(response), None);
        match exchange.send(self, &mut begun).await {
            NextAction::KeepAlive | NextAction::Close => NextAction::Linger,
            after => after,
        }
    }

    async fn exchange(&mut self, head: Box<RequestHead>) -> NextAction {
        let settings = (self.settings)();
        let mut exchange = Exchange {
            method: head.parts.method.clone(),
            version: head.parts.version,
            keep_alive: head.keep_alive,
            takes_trailers: head.takes_trailers,
            send_timeout: settings.send_timeout,
            read_ahead: settings.buffer_response,
        };
        let (mut feed, inbound) = self.inbound(*head, settings);
        self.peer.interim.begin(exchange.version == Version::HTTP_11);
        let mut response = pin!(self.service.call(inbound));
        let (io, reading, peer) = (&mut self.io, &mut self.reading, &self.peer);
        let (stall, seat, waiting) = (&mut self.stall, self.seat, &mut self.waiting);
        let response = std::future::poll_fn(|cx| {
            loop {
                let polled = response.as_mut().poll(cx);
                // A client that reads nothing gets no more of them.
                if let Some(heads) = peer.interim.take(polled.is_ready()).filter(|_| io.has_room()) {
                    io.push_small(&heads);
                }
                if let Poll::Ready(Ok(response)) = polled {
                    return Poll::Ready(Some(response));
                }
                let fed = feed.as_mut().is_some_and(|feed| feed.poll(io, waiting, reading, cx));
                if !io.is_flushed() && matches!(io.poll_flush(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(None);
                }
                if !fed {
                    break;
                }
            }
            // With its whole request here, a client that closes has left (RFC 9112 9.5): what it asked for
            // is not worth finishing. A request in the pipeline hides that; it is read one further only.
            let whole = feed.as_ref().is_none_or(RequestBodyReader::is_finished);
            if whole && io.read.is_empty() && io.stream.poll_read_ready(cx).is_ready() {
                match io.poll_fill_at_most(0, cx) {
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => {}
                }
            }
            waiting.count(io);
            match feed.as_ref().filter(|feed| feed.is_waiting()) {
                Some(feed) => stall.poll(seat, feed.received(), cx).map(|()| None),
                None if stall.end(seat) => Poll::Pending,
                None => Poll::Ready(None),
            }
        })
        .await;
        // What was uploaded is no progress of the response.
        let _ = self.stall.end(self.seat);
        let mut begun = exchange.begin(self, response, feed);
        exchange.send(self, &mut begun).await
    }

    /// The request as the stack gets it. Apart from [`Connection::exchange`], whose future would hold what it is made of for
    /// as long as the request takes.
    fn inbound(&mut self, head: RequestHead, settings: Settings) -> (Option<RequestBodyReader>, Inbound) {
        let (feed, body) = self.body(&head, settings);
        let RequestHead { parts, upgrade, takes_trailers, size, .. } = head;
        // Content that came with the head is held as long as that.
        let content = if body.is_here() { body.size_hint().exact().unwrap_or_default() as usize } else { 0 };
        // A large one is counted with all that it takes while it waits.
        let counted = match inbound::counted_bytes(size + content, parts.headers.len(), false) {
            0 => 0,
            bytes => buffers::weight(bytes) + OF_A_WAIT,
        };
        let inbound = Inbound {
            request: Box::new(Request::from_parts(parts, body)),
            peer: self.peer.clone(),
            received: clock::now(),
            upgrade,
            takes_trailers,
            refused: None,
            counted,
            kept: 0,
            reserved: None,
        };
        (feed, inbound)
    }

    fn body(&mut self, head: &RequestHead, settings: Settings) -> (Option<RequestBodyReader>, Body) {
        match head.framing {
            Framing::Length(0) => return (None, Body::empty()),
            Framing::Length(length) if length <= self.io.read.len() as u64 => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                return (None, Body::full(self.io.take(length)));
            }
            _ => {}
        }
        let expects = head.expects_continue && self.io.read.is_empty();
        let (feed, body) = RequestBodyReader::new(head.framing, expects, settings.body_timeout);
        (Some(feed), body)
    }

    async fn close(&mut self) {
        // Nobody reads any more of it: its buffers are not held for as long as the client takes to close its side.
        self.io.release_all();
        self.waiting.clear();
        let mut expires = Deadline::default();
        expires.set_after(LINGER);
        let mut shutdown = pin!(self.io.stream.shutdown());
        std::future::poll_fn(|cx| {
            if expires.poll_expired(cx).is_ready() {
                return Poll::Ready(());
            }
            shutdown.as_mut().poll(cx).map(|_| ())
        })
        .await;
    }

    /// Closes so that the answer can be read although input is left: closing at once would send a
    /// reset that may overtake it (RFC 9112 9.6).
    async fn linger(&mut self) {
        self.close().await;
        let mut expires = Deadline::default();
        expires.set_after(LINGER);
        let mut left = LINGER_BYTES;
        let io = &mut self.io;
        std::future::poll_fn(|cx| {
            loop {
                io.release_all();
                if expires.poll_expired(cx).is_ready() {
                    return Poll::Ready(());
                }
                match ready!(io.poll_fill_at_most(0, cx)) {
                    Ok(count) if count > 0 && count < left => left -= count,
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}

/// What the answer has to know of its request.
struct Exchange {
    method: Method,
    version: Version,
    keep_alive: bool,
    takes_trailers: bool,
    /// See [`Settings::send_timeout`].
    send_timeout: Duration,
    /// See [`Settings::buffer_response`].
    read_ahead: usize,
}

/// What became of an answer when it was to be sent.
#[allow(clippy::large_enum_variant, reason = "nearly every one is the large one")]
enum Begun {
    Response {
        writing: Writing,
        body: Body,
        feed: Option<RequestBodyReader>,
    },
    Switch(Box<(http::response::Parts, Body)>),
    /// There is none, as nobody waits for it.
    Left,
}

impl Exchange {
    /// Sends what has begun.
    // It stays where it is: a future that held it would be moved with it, for each request.
    async fn send<S>(&mut self, connection: &mut Connection<'_, S>, begun: &mut Begun) -> NextAction {
        match begun {
            Begun::Response { writing, body, feed } => {
                let Connection { io, reading, sending, phase_watcher, peer, stall, seat, waiting, .. } =
                    connection;
                let buffers = peer.buffers.as_ref().filter(|_| writing.counted);
                let stalled = (stall, *seat);
                let result = std::future::poll_fn(|cx| {
                    let stalled = (&mut *stalled.0, stalled.1);
                    let feed = feed.as_mut();
                    writing.poll(
                        io,
                        waiting,
                        body,
                        feed,
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
                let unread = feed.as_ref().is_some_and(|feed| !feed.is_finished() && feed.rest() != Some(0));
                self.after(connection, result.is_ok(), writing.framing, unread)
            }
            Begun::Switch(response) => {
                let (parts, body) = &mut **response;
                // In a box, as all that is seldom.
                Box::pin(self.switch(connection, parts, body)).await
            }
            Begun::Left => NextAction::Close,
        }
    }

    /// Queues the head of a response, if there is one.
    fn begin<S>(
        &mut self,
        connection: &mut Connection<'_, S>,
        response: Option<Response<Body>>,
        mut feed: Option<RequestBodyReader>,
    ) -> Begun {
        let Some(response) = response else { return Begun::Left };
        let (mut parts, mut body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Begun::Switch(Box::new((parts, body)));
        }
        let framing = self.framing(&mut parts, &body);
        let unread = feed.as_mut().is_some_and(|feed| !self.settle_input(feed, framing, &mut connection.io));
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
        let writing = Writing {
            framing,
            left: if let Outgoing::Length(length) = framing { length } else { u64::MAX },
            trailers: self.takes_trailers,
            ended: bodiless,
            failed: None,
            // Other streams than live ones may end by themselves in the time that draining gives.
            endless: body.is_endless() && MediaKind::from_headers(&parts.headers) != MediaKind::Stream,
            send_timeout: self.send_timeout,
            read_ahead: self.read_ahead,
            // What is stored is held in any case; what may yet be is not.
            counted: body.keeper().is_none() || body.is_streaming(),
            waiting: None,
            written: 0,
        };
        if bodiless && !body.is_end_stream() {
            body = Body::empty();
        }
        Begun::Response { writing, body, feed }
    }

    /// What becomes of the connection when the answer has gone, or failed.
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
                // Only a reset tells a reader of a close-delimited body that it is not whole.
                if framing == Outgoing::Close {
                    connection.io.stream.reset_on_close();
                    return NextAction::Drop;
                }
                NextAction::Close
            }
        }
    }

    /// How the answer's body is framed (RFC 9112 6.1, 6.2; RFC 9110 8.6).
    fn framing(&self, parts: &mut http::response::Parts, body: &Body) -> Outgoing {
        let status = parts.status;
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            parts.headers.remove(header::CONTENT_LENGTH);
            return Outgoing::None;
        }
        if status == StatusCode::NOT_MODIFIED || self.method == Method::HEAD {
            // Content that is here although HEAD asks for none is that of a GET (RFC 9110 8.6).
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

    /// Whether the connection can be used again as far as the request's body goes.
    fn settle_input(&self, feed: &mut RequestBodyReader, framing: Outgoing, io: &mut Buffered) -> bool {
        if feed.is_finished() {
            return true;
        }
        if feed.forget_continue() {
            return false;
        }
        if !feed.is_dropped() {
            // It is still being read, beside the response. One whose end is known does not wait for it, so the connection
            // ends then, which has to be said by now (RFC 9112 9.6). A conversation may go on to the end of both.
            let ends_first = framing != Outgoing::Chunked && feed.rest() != Some(0);
            return !ends_first && feed.error().is_none();
        }
        feed.rest().is_some_and(|left| left <= DISCARD_REST) && feed.discard(io)
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
