//! HTTP/2 towards an app: hyper's connection, shared by the requests of one worker.

use std::cell::Cell;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Frame, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::error::ForwardError;
use crate::body::{Body, BodyError};
use crate::clock::{Deadline, Instant};
use crate::http1::client::{Sent, Timeouts, is_endless};
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
            .map_err(|error| ForwardError::Http2(chain(&error)))?;
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
        upload: Rc<Upload>,
        timeouts: Timeouts,
        now: fn() -> Instant,
    ) -> Result<Response<Body>, ForwardError> {
        let open = Open::new(&self, now);
        let body = std::mem::replace(request.body_mut(), Body::empty());
        *request.body_mut() = if http_body::Body::is_end_stream(&body) {
            upload.stage.set(Stage::Ended(now()));
            body
        } else {
            Body::streaming(Uploading { body, upload: upload.clone(), now })
        };
        *request.version_mut() = http::Version::HTTP_2;
        // Said by :authority (RFC 9113 8.3.1).
        request.headers_mut().remove(header::HOST);
        let mut answer = pin!(self.sender.clone().send_request(request));
        let mut deadline = Deadline::default();
        let answer = std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(classify));
            }
            upload.poll_expired(timeouts, &mut deadline, cx).map(|()| Err(ForwardError::TimedOut))
        });
        let (parts, incoming) = answer.await?.into_parts();
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

/// How far a request has gone.
pub(super) struct Upload {
    stage: Cell<Stage>,
    /// The app said that it processed nothing of it.
    unprocessed: Cell<bool>,
    /// Who waits for the answer, to be told when another time counts.
    waiting: Cell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The app was last given some of it then, and takes no more just now.
    Given(Instant),
    /// The client's next bytes are awaited; its own times run.
    Awaited,
    /// The last of it was given then.
    Ended(Instant),
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("stage", &self.stage.get()).finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(now: Instant) -> Upload {
        Upload {
            stage: Cell::new(Stage::Given(now)),
            unprocessed: Cell::new(false),
            waiting: Cell::new(None),
        }
    }

    /// How much of it the app can have received. The library takes a body no faster than it may send it.
    pub(super) fn sent(&self) -> Sent {
        match self.stage.get() {
            _ if self.unprocessed.get() => Sent::Nothing,
            Stage::Given(_) | Stage::Awaited => Sent::Part,
            Stage::Ended(_) => Sent::Whole,
        }
    }

    /// The app processed nothing of it (RFC 9113 8.7).
    pub(super) fn was_not_processed(&self) {
        self.unprocessed.set(true);
    }

    fn set(&self, stage: Stage) {
        self.stage.set(stage);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Ready when the app has taken too long: to answer from the last byte on, or to take the next ones.
    fn poll_expired(&self, timeouts: Timeouts, deadline: &mut Deadline, cx: &mut Context<'_>) -> Poll<()> {
        let Some(response) = timeouts.response else { return Poll::Pending };
        self.waiting.set(Some(cx.waker().clone()));
        match self.stage.get() {
            Stage::Given(since) => deadline.set(since + timeouts.body),
            Stage::Awaited => deadline.clear(),
            Stage::Ended(since) => deadline.set(since + response),
        }
        deadline.poll_expired(cx)
    }
}

/// A request's body on its way, telling how far it has gone.
struct Uploading {
    body: Body,
    upload: Rc<Upload>,
    now: fn() -> Instant,
}

impl http_body::Body for Uploading {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.upload.set(match &polled {
            Poll::Pending => Stage::Awaited,
            Poll::Ready(Some(Ok(_))) if !http_body::Body::is_end_stream(&self.body) => {
                Stage::Given((self.now)())
            }
            // It ends here, and not as a whole.
            Poll::Ready(Some(Err(_))) => Stage::Given((self.now)()),
            Poll::Ready(_) => Stage::Ended((self.now)()),
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn classify(error: hyper::Error) -> ForwardError {
    // A failure of the request's own body comes back wrapped: it says more than the reset it caused.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(&error);
    while let Some(inner) = cause {
        if let Some(body) = inner.downcast_ref::<BodyError>() {
            return ForwardError::Body(body.clone());
        }
        if let Some(inner) = inner.downcast_ref::<h2::Error>() {
            if is_unprocessed(inner) {
                return ForwardError::Closed;
            }
            if is_no_frame(inner) {
                let advice = "the server may speak HTTP/1 only: then write http:// in place of h2c://";
                return ForwardError::Http2(format!("{}; {advice}", chain(&error)));
            }
        }
        cause = inner.source();
    }
    if error.is_canceled() || error.is_closed() {
        ForwardError::Closed
    } else {
        ForwardError::Http2(chain(&error))
    }
}

/// RFC 9113 8.7: a refused stream, and one beyond the last that a leaving app takes, were not processed.
fn is_unprocessed(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)
            || error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
}

/// A first frame that is longer than any may be: the letters HTTP read as its length, most often.
fn is_no_frame(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_library() && error.reason() == Some(h2::Reason::FRAME_SIZE_ERROR)
}

/// An error with its causes: the outermost alone seldom says what happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
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
