//! The body of a response over HTTP/2, and beside it the rest of a request whose response began early.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::inbox::Inbox;
use super::shared::Open;
use super::upload::{RestOfUpload, Upload};
use crate::memory::buffers::Arrival;
use crate::message::body::BodyError;
use crate::runtime::clock::Deadline;

/// The body of one response.
pub(super) struct ResponseBody {
    inbox: Rc<Inbox>,
    /// The task that fills the inbox, unless the response is complete.
    task: Option<tokio::task::AbortHandle>,
    /// Bytes left of a declared length.
    left: Option<u64>,
    silence: Duration,
    deadline: Deadline,
}

impl ResponseBody {
    /// Creates the body of a response with these fields, whose upstream may be silent for `silence`. Content that waits
    /// for its client is counted in `memory`.
    pub(super) fn new(
        stream: RecvStream,
        headers: &HeaderMap,
        silence: Duration,
        upload: Option<Upload>,
        open: Open,
        memory: Option<Arrival>,
    ) -> ResponseBody {
        let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let left = declared.and_then(|length| length.parse().ok());
        let left = left.or(stream.is_end_stream().then_some(0));
        let inbox = Inbox::new(stream, open, upload.map(RestOfUpload::start), memory);
        // Takes the content that came with the head, often all of it.
        let here = inbox.poll_collect(&mut Context::from_waker(Waker::noop()));
        let task = here.is_pending().then(|| {
            let inbox = inbox.clone();
            tokio::task::spawn_local(std::future::poll_fn(move |cx| inbox.poll_collect(cx))).abort_handle()
        });
        ResponseBody { inbox, task, left, silence, deadline: Deadline::default() }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = self.inbox.poll_frame(cx) {
            self.deadline.clear();
            if let Some(Ok(frame)) = &frame {
                let taken = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.left = self.left.map(|left| left.saturating_sub(taken));
            }
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
        self.inbox.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        // A response with a declared length may be dropped after its last byte.
        self.inbox.close(self.left == Some(0));
    }
}
