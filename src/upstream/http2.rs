//! HTTP/2 towards an app: hyper's connection, shared by the requests of one worker.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::error::ForwardError;
use crate::body::{Body, BodyError};
use crate::clock::Instant;
use crate::http1::client::{Timeouts, is_endless};
use crate::http1::head::HeadLimits;
use crate::http2::{CONNECTION_WINDOW, LocalExecutor, SEND_BUFFER, STREAM_WINDOW, TimedBody};
use crate::stream::Stream;

/// Streams put on one connection before another is made; what servers commonly allow.
const STREAMS: usize = 100;
/// One connection.
pub struct Http2Connection {
    sender: SendRequest<Body>,
    streams: Rc<Cell<usize>>,
    idle_since: Rc<Cell<Instant>>,
    keep_alive: Duration,
}

impl Http2Connection {
    /// Shakes hands on a fresh stream.
    pub async fn new(
        stream: Stream,
        limits: HeadLimits,
        keep_alive: Duration,
        now: Instant,
    ) -> Result<Http2Connection, ForwardError> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(limits.size).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ForwardError::Http2(error.to_string()))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to the app ended");
            }
        });
        let (streams, idle_since) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(now)));
        Ok(Http2Connection { sender, streams, idle_since, keep_alive })
    }

    /// Whether it is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether another stream fits.
    pub fn has_room(&self) -> bool {
        self.streams.get() < STREAMS && !self.is_closed()
    }

    /// Whether the pool keeps it at `now`.
    pub fn is_kept(&self, now: Instant) -> bool {
        !self.is_closed()
            && (self.streams.get() > 0
                || now.saturating_duration_since(self.idle_since.get()) < self.keep_alive)
    }

    /// Sends a request, whose URI is absolute, and waits for the head of its answer.
    pub async fn send(
        self: Rc<Self>,
        mut request: Request<Body>,
        timeouts: Timeouts,
        now: fn() -> Instant,
    ) -> Result<Response<Body>, ForwardError> {
        let open = Open::new(&self, now);
        *request.version_mut() = http::Version::HTTP_2;
        // Said by :authority (RFC 9113 8.3.1).
        request.headers_mut().remove(header::HOST);
        let answer = self.sender.clone().send_request(request);
        let answer = match timeouts.response {
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| ForwardError::TimedOut)?,
            None => answer.await,
        };
        let (parts, incoming) = answer.map_err(classify)?.into_parts();
        let endless = is_endless(&parts.headers);
        let silence = if endless { timeouts.stream } else { timeouts.body };
        let body = TimedBody::new(incoming, silence, BodyError::UpstreamSilent);
        let body = StreamBody { body, _open: open };
        let mut body = Body::streaming(body);
        if endless {
            body.set_endless();
        }
        Ok(Response::from_parts(parts, body))
    }
}

fn classify(error: hyper::Error) -> ForwardError {
    // A failure of the request's own body comes back wrapped: it says more than the reset it caused.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if let Some(body) = inner.downcast_ref::<BodyError>() {
            return ForwardError::Body(body.clone());
        }
        cause = inner.source();
    }
    if error.is_canceled() || error.is_closed() {
        ForwardError::Closed
    } else {
        ForwardError::Http2(error.to_string())
    }
}

/// Counts one stream.
struct Open {
    streams: Rc<Cell<usize>>,
    idle_since: Rc<Cell<Instant>>,
    now: fn() -> Instant,
}

impl Open {
    fn new(connection: &Http2Connection, now: fn() -> Instant) -> Open {
        connection.streams.set(connection.streams.get() + 1);
        Open { streams: connection.streams.clone(), idle_since: connection.idle_since.clone(), now }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.set(self.streams.get() - 1);
        self.idle_since.set((self.now)());
    }
}

struct StreamBody {
    body: TimedBody,
    _open: Open,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
