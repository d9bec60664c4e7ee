//! What both sides of HTTP/2 share: hyper speaks it, this room fits it to a worker.

pub mod refusals;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::BodyError;
use crate::clock::Deadline;

/// Receive windows: large enough for fast bodies, small enough that many streams stay bounded.
pub const STREAM_WINDOW: u32 = 512 * 1024;
/// Of one connection.
pub const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// What hyper may hold of one stream's outgoing data.
pub const SEND_BUFFER: usize = 128 * 1024;

/// Runs hyper's tasks on the worker they belong to.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A received body that may not be silent for longer than it should.
pub struct TimedBody {
    incoming: Incoming,
    silence: Duration,
    silent: BodyError,
    deadline: Deadline,
}

impl TimedBody {
    /// Fails with `silent` when nothing comes for longer than `silence`.
    pub fn new(incoming: Incoming, silence: Duration, silent: BodyError) -> TimedBody {
        TimedBody { incoming, silence, silent, deadline: Deadline::default() }
    }
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.deadline.clear();
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Http2(error.to_string()))))
            }
            Poll::Pending => {
                if !self.deadline.is_set() {
                    let silence = self.silence;
                    self.deadline.set_after(silence);
                }
                ready!(self.deadline.poll_expired(cx));
                Poll::Ready(Some(Err(self.silent.clone())))
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
