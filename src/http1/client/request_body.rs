//! The body of a request on its way to an upstream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;

use crate::http1::buffered::Buffered;
use crate::http1::encode;
use crate::http1::encode::Outgoing;
use crate::message::body::{Body, BodyError};

/// A request body that is being sent.
#[derive(Debug)]
pub(crate) struct Upload {
    pub framing: Outgoing,
    /// Whether all of the body is queued.
    pub ended: bool,
}

impl Upload {
    /// Queues frames of the body while the queue has room. Content that is still arriving is queued behind other
    /// content only while there is `room` in the buffer memory; without room the upstream gets one piece at a time.
    pub(crate) fn take(
        &mut self,
        io: &mut Buffered,
        body: &mut Body,
        room: impl Fn() -> bool,
        cx: &mut Context<'_>,
    ) -> Result<(), BodyError> {
        while !self.ended && io.has_room() && (io.is_flushed() || !body.is_streaming() || room()) {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.put(io, data),
                    Err(frame) => self.end(io, frame.into_trailers().ok().as_ref()),
                },
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(None) => self.end(io, None),
            }
        }
        Ok(())
    }

    fn put(&self, io: &mut Buffered, data: Bytes) {
        if self.framing == Outgoing::Chunked && !data.is_empty() {
            let before = io.tail().len();
            encode::chunk_size(io.tail(), data.len());
            io.wrote(before);
            io.push(data);
            io.push_small(b"\r\n");
        } else {
            io.push(data);
        }
    }

    fn end(&mut self, io: &mut Buffered, trailers: Option<&HeaderMap>) {
        if self.framing == Outgoing::Chunked {
            let before = io.tail().len();
            encode::last_chunk(io.tail(), trailers);
            io.wrote(before);
        }
        self.ended = true;
    }
}
