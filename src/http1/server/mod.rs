//! One HTTP/1 client connection: reads a head, calls the service, writes the response, and starts over.
//!
//! A connection is one task. The same poll reads the request body, polls the service and writes the response, so
//! nothing is handed between tasks, and dropping the connection drops its request. A silent connection holds neither
//! buffer nor request, which makes idle connections cheap.

mod connection;
mod exchange;
mod next;
mod request_body;
mod response_writer;
mod timeouts;
mod waiting;

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use tower::Service;

use super::buffered::Buffered;
use super::framing::Framing;
use super::head::RequestHead;
use super::head_error::HeadError;
use crate::connection::seats::{Seat, Stall};
use crate::connection::stream::{Rewound, Stream};
use crate::connection::tunnel;
use crate::memory::buffers;
use crate::memory::buffers::OF_A_WAIT;
use crate::message::body::Body;
use crate::message::inbound;
use crate::message::inbound::{Inbound, Peer, Refused};
use crate::runtime::clock;
use crate::runtime::clock::Deadline;
use crate::runtime::lifecycle::PhaseWatcher;

use connection::{Connection, Next, NextAction};
use exchange::Exchange;
use request_body::RequestBodyReader;
use waiting::Waiting;

pub(crate) use timeouts::{LEAVE_UNUSED, Settings};

pub(crate) enum Ended {
    Closed,
    /// The client speaks HTTP/2: the connection, and the bytes read from it.
    Http2(Stream, Bytes),
}

/// Serves one connection until it ends. `http2` enables the check for the HTTP/2 preface.
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
        head_started: false,
        asked: false,
        leaving: false,
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
                // Only a reset tells the reader of a close-delimited body that it is incomplete.
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
    /// Sends a refused head through the stack, which counts it, logs it and creates the response.
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
        let mut started = exchange.start(self, Some(response), None);
        match exchange.send(self, &mut started).await {
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
        let (mut request_body, inbound) = self.inbound(*head, settings);
        self.peer.interim.begin(exchange.version == Version::HTTP_11);
        let mut response = pin!(self.service.call(inbound));
        let (io, reading, peer) = (&mut self.io, &mut self.reading, &self.peer);
        let (stall, seat, waiting) = (&mut self.stall, self.seat, &mut self.waiting);
        let response = std::future::poll_fn(|cx| {
            loop {
                let polled = response.as_mut().poll(cx);
                // A client that reads nothing gets no more interim responses.
                if let Some(heads) = peer.interim.take(polled.is_ready()).filter(|_| io.has_room()) {
                    io.push_small(&heads);
                }
                if let Poll::Ready(Ok(response)) = polled {
                    return Poll::Ready(Some(response));
                }
                let fed = request_body
                    .as_mut()
                    .is_some_and(|request_body| request_body.poll(io, waiting, reading, cx));
                if !io.is_flushed() && matches!(io.poll_flush(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(None);
                }
                if !fed {
                    break;
                }
            }
            // After its whole request, a client that closes has left (RFC 9112 9.5): its request is not worth
            // finishing. A pipelined request hides the close; at most one is read ahead.
            let whole = request_body.as_ref().is_none_or(RequestBodyReader::is_finished);
            if whole && io.read.is_empty() && io.stream.poll_read_ready(cx).is_ready() {
                match io.poll_fill_at_most(0, cx) {
                    Poll::Ready(Ok(count)) if count > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => {}
                }
            }
            waiting.count(io);
            match request_body.as_ref().filter(|request_body| request_body.is_waiting()) {
                Some(request_body) => stall.poll(seat, request_body.received(), cx).map(|()| None),
                None if stall.end(seat) => Poll::Pending,
                None => Poll::Ready(None),
            }
        })
        .await;
        // Uploaded bytes are no progress of the response.
        let _ = self.stall.end(self.seat);
        let mut started = exchange.start(self, response, request_body);
        exchange.send(self, &mut started).await
    }

    /// Creates the request for the stack. It is separate from [`Connection::exchange`], whose future would otherwise
    /// hold the parts until the request ends.
    fn inbound(&mut self, head: RequestHead, settings: Settings) -> (Option<RequestBodyReader>, Inbound) {
        let (request_body, body) = self.body(&head, settings);
        let RequestHead { parts, upgrade, takes_trailers, size, .. } = head;
        // Content that came with the head is held as long as the head.
        let content = if body.is_here() { body.size_hint().exact().unwrap_or_default() as usize } else { 0 };
        // A large request is counted with all the memory that it takes while it waits.
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
        (request_body, inbound)
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
        let (request_body, body) = RequestBodyReader::new(head.framing, expects, settings.body_timeout);
        (Some(request_body), body)
    }
}
