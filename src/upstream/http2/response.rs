//! The body of a response that arrives over HTTP/2, and beside it the rest of a request whose response began early.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::Open;
use super::upload::{Stopped, Upload};
use crate::body::BodyError;
use crate::clock::Deadline;

/// See the head of the file.
pub(super) struct ResponseBody {
    stream: RecvStream,
    /// What is left of a declared length.
    left: Option<u64>,
    /// All data is here; trailers may come.
    data_ended: bool,
    silence: Duration,
    deadline: Deadline,
    rest: Option<RestOfUpload>,
    open: Open,
}

impl ResponseBody {
    /// Of a response with these fields, whose upstream may be silent for `silence`.
    pub fn new(
        stream: RecvStream,
        headers: &HeaderMap,
        silence: Duration,
        upload: Option<Upload>,
        open: Open,
    ) -> ResponseBody {
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let left = declared.and_then(|length| length.parse().ok());
        let left = left.or(stream.is_end_stream().then_some(0));
        let deadline = Deadline::default();
        let rest = upload.map(RestOfUpload::start);
        ResponseBody { stream, left, data_ended: false, silence, deadline, rest, open }
    }

    /// Whose fault it is that no more comes: a client that broke off its upload broke off its response too.
    fn failed(&self, error: &h2::Error) -> BodyError {
        let client = self.rest.as_ref().and_then(|rest| rest.failed.borrow_mut().take());
        client.unwrap_or_else(|| BodyError::Http2(error.to_string()))
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    self.open.set_lasting(false);
                    return Poll::Ready(Some(Err(self.failed(&error))));
                }
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.open.set_lasting(false);
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(self.failed(&error))),
        })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = self.poll_stream(cx) {
            self.deadline.clear();
            return Poll::Ready(frame);
        }
        if !self.deadline.is_set() {
            let silence = self.silence;
            self.deadline.set_after(silence);
        }
        ready!(self.deadline.poll_expired(cx));
        Poll::Ready(Some(Err(BodyError::UpstreamSilent)))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // One whose length was told may be left with its last byte.
        if self.stream.is_end_stream() || self.left == Some(0) {
            self.open.set_lasting(false);
        }
    }
}

/// The rest of an upload, in a task of its own: it goes on whether the response is read or not, and ends with it.
struct RestOfUpload {
    task: tokio::task::AbortHandle,
    failed: Rc<RefCell<Option<BodyError>>>,
}

impl RestOfUpload {
    fn start(mut upload: Upload) -> RestOfUpload {
        let failed: Rc<RefCell<Option<BodyError>>> = Rc::default();
        let told = failed.clone();
        let task = tokio::task::spawn_local(async move {
            if let Err(Stopped::Client(error)) = std::future::poll_fn(|cx| upload.poll(cx)).await {
                told.replace(Some(error));
                upload.cancel();
            }
        });
        RestOfUpload { task: task.abort_handle(), failed }
    }
}

impl Drop for RestOfUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}
