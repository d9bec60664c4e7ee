//! An HTTP/1 connection to an upstream: its buffers, and the check that an idle one is still usable.

use std::task::Context;

use bytes::BytesMut;

use crate::connection::stream::Stream;
use crate::http1::buffered::Buffered;
use crate::runtime::clock::Deadline;

/// A connection to an upstream.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub(super) io: Buffered,
    pub(super) deadline: Deadline,
    /// Seconds after which the upstream announced to close an idle connection.
    pub keep_alive_timeout: Option<u64>,
}

impl ClientConnection {
    pub(crate) fn new(stream: Stream) -> ClientConnection {
        ClientConnection {
            io: Buffered::new(stream, BytesMut::new()),
            deadline: Deadline::default(),
            keep_alive_timeout: None,
        }
    }

    /// Returns whether an idle connection is still usable: a readable one was closed by the upstream, or speaks out of
    /// turn. It uses only what the reactor already knows.
    pub(crate) fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        self.io.read.is_empty()
            && match &self.io.stream {
                Stream::Tcp(_) => self.io.stream.poll_read_ready(cx).is_pending(),
                _ => self.io.poll_fill(cx).is_pending(),
            }
    }

    /// Frees the buffers of an idle connection.
    pub(crate) fn release(&mut self) {
        self.io.release();
    }

    /// Frees the buffers that have grown for the finished response.
    pub(crate) fn release_grown(&mut self) {
        self.io.release_grown();
    }
}
