//! A request body that arrives over HTTP/2: its silence timeout, and the fault behind a failure.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::upload_wait::UploadWait;
use crate::http2::intake::IntakeBody;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;
use crate::runtime::clock::{Deadline, Instant};

/// The body of a request, read from the library.
pub(super) struct RequestBody {
    incoming: Incoming,
    silence: Rc<Cell<Duration>>,
    silent_since: Option<Instant>,
    deadline: Deadline,
    wait: Rc<UploadWait>,
    taken: Option<IntakeBody>,
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.wait.end(None);
    }
}

/// Creates the body of a request whose client may be silent for `silence`, until its route allows more.
pub(super) fn streaming(
    incoming: Incoming,
    silence: Duration,
    wait: Rc<UploadWait>,
    taken: IntakeBody,
) -> Body {
    let silence = Rc::new(Cell::new(silence));
    let mut body = Body::streaming(RequestBody {
        incoming,
        silence: silence.clone(),
        silent_since: None,
        deadline: Deadline::default(),
        wait,
        taken: Some(taken),
    });
    body.set_silence(silence);
    body
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(frame)) => {
                self.silent_since = None;
                let received = frame.as_ref().ok().and_then(Frame::data_ref).map(Bytes::len);
                match (&mut self.taken, received) {
                    (Some(taken), Some(bytes)) => taken.took(bytes),
                    _ => self.taken = None,
                }
                self.wait.end(received);
                Poll::Ready(Some(frame.map_err(|error| fault(&error))))
            }
            // The library takes a stream that was reset with NO_ERROR for an ended one. Only END_STREAM ends a body
            // (RFC 9113 8.1): a truncated body must never look complete to the upstream.
            Poll::Ready(None) if !self.incoming.is_end_stream() => {
                Poll::Ready(Some(Err(BodyError::ClientGone)))
            }
            Poll::Ready(None) => {
                self.taken = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                if let Some(taken) = &mut self.taken {
                    taken.wait();
                }
                // Computed anew at each poll, because the route may have allowed more meanwhile.
                let since = *self.silent_since.get_or_insert_with(clock::now);
                let due = since + self.silence.get();
                self.wait.begin(since);
                self.deadline.set(due);
                ready!(self.deadline.poll_expired(cx));
                Poll::Ready(Some(Err(BodyError::ClientSilent)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Returns the client's fault: a protocol violation if the library itself ended the stream, otherwise a disconnect.
fn fault(error: &hyper::Error) -> BodyError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<h2::Error>()
            && error.is_library()
        {
            // RFC 9113 8.1.1: the content differs from Content-Length, or the trailer section is malformed.
            return BodyError::ClientMalformed("it breaks the rules of HTTP/2");
        }
        cause = inner.source();
    }
    BodyError::ClientGone
}
