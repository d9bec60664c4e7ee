//! A response on its way to its client: frames in, framed bytes out, at the client's pace. Beside it the rest of the
//! request is read, for as long as a reader wants it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;

use super::timeouts::poll_cut;
use super::waiting::Waiting;
use crate::connection::seats::{Seat, Stall};
use crate::http1::buffered::Buffered;
use crate::http1::encode;
use crate::http1::encode::Outgoing;
use crate::http1::server::request_body::RequestBodyReader;
use crate::memory::buffers;
use crate::memory::buffers::{BufferMemory, BufferReservation, ClientSlot, OF_A_WAIT, Reading};
use crate::message::body::{Body, BodyError};
use crate::runtime::clock::Deadline;
use crate::runtime::lifecycle::{Phase, PhaseWatcher};

/// Size in bytes from which content is not copied behind the head if more is to come.
const SHARE_FROM: usize = 4 * 1024;

/// A response on its way to its client; see the head of the file.
pub(crate) struct ResponseWriter {
    pub framing: Outgoing,
    /// Bytes left of a declared length.
    pub left: u64,
    /// Whether the client accepts trailers.
    pub trailers: bool,
    /// Whether the body has ended.
    pub ended: bool,
    /// The error of the body; content that came before it is still written.
    pub failed: Option<BodyError>,
    /// Whether the stream has no expected end: it is closed when draining starts.
    pub endless: bool,
    /// Maximum time in which the client reads nothing.
    pub send_timeout: Duration,
    /// Bytes that are read ahead of the client.
    pub read_ahead: usize,
    /// Whether bytes that wait for the client are counted.
    pub counted: bool,
    /// Memory of the bytes that wait for a slow client.
    pub waiting: Option<BufferReservation>,
    /// Bytes that the client has taken.
    pub written: u64,
}

impl ResponseWriter {
    #[allow(clippy::too_many_arguments, reason = "the parts of one connection, borrowed apart")]
    pub(crate) fn poll(
        &mut self,
        io: &mut Buffered,
        waiting: &mut Waiting,
        body: &mut Body,
        mut request_body: Option<&mut RequestBodyReader>,
        buffers: Option<&Arc<BufferMemory>>,
        reading: &mut Deadline,
        sending: &mut Deadline,
        (stall, seat): (&mut Stall, Option<&Seat>),
        phase_watcher: &PhaseWatcher,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BodyError>> {
        if self.endless && !self.ended && phase_watcher.watch(cx) >= Phase::Draining {
            return Poll::Ready(self.end_at_drain(io, cx));
        }
        loop {
            let starved = self.take(io, body, buffers, cx).unwrap_or_else(|error| {
                self.failed = Some(error);
                self.ended = true;
                false
            });
            let queued = io.queued();
            let flushed = match io.poll_flush(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(BodyError::ClientGone)),
                Poll::Pending => false,
            };
            if flushed && self.ended {
                return Poll::Ready(self.failed.take().map_or(Ok(()), Err));
            }
            self.count(if flushed { 0 } else { io.held_by_queue() }, buffers, body.client());
            let fed =
                request_body.as_mut().is_some_and(|request_body| request_body.poll(io, waiting, reading, cx));
            waiting.count_read(io);
            if flushed {
                sending.clear();
                if !stall.end(seat) {
                    return Poll::Ready(Err(BodyError::ClientGone));
                }
                if !starved || fed {
                    continue;
                }
                self.watch_client(io, request_body.as_deref(), cx)?;
                return Poll::Pending;
            }
            let moved = io.queued() < queued;
            self.written += queued.saturating_sub(io.queued()) as u64;
            let stalled = (&mut *stall, seat);
            if poll_cut(sending, self.send_timeout, moved, self.written, stalled, cx).is_ready() {
                return Poll::Ready(Err(BodyError::ClientGone));
            }
            if !fed {
                return Poll::Pending;
            }
        }
    }

    /// Counts the bytes that wait for the client, and with them the connection. A client that takes all at once counts
    /// nothing.
    fn count(&mut self, queued: usize, buffers: Option<&Arc<BufferMemory>>, client: ClientSlot) {
        let queued = if queued > 0 { buffers::weight(queued) + OF_A_WAIT } else { 0 };
        match (&mut self.waiting, buffers) {
            (Some(waiting), _) => waiting.resize(queued),
            (None, Some(buffers)) if queued > 0 => {
                self.waiting.insert(BufferReservation::new(buffers.clone(), client)).resize(queued);
            }
            (None, _) => {}
        }
    }

    /// Takes frames while there is room. Returns `true` if the body has nothing more at present.
    fn take(
        &mut self,
        io: &mut Buffered,
        body: &mut Body,
        buffers: Option<&Arc<BufferMemory>>,
        cx: &mut Context<'_>,
    ) -> Result<bool, BodyError> {
        // Content that is here already takes no more memory when it is queued, and leaves in fewer writes.
        while !self.ended {
            let arrives = body.is_streaming();
            let room = !arrives || buffers.is_none_or(|buffers| buffers.has_room(body.client()));
            // A client that has taken everything gets more in any case, even if little.
            if arrives && !io.is_flushed() && !(room && io.queued() < self.read_ahead) {
                break;
            }
            let reading = match (room, io.is_flushed()) {
                (true, true) => Reading::Freely,
                (true, false) => Reading::Ahead,
                (false, _) => Reading::Pressed,
            };
            match buffers::while_reading(reading, || Pin::new(&mut *body).poll_frame(cx)) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.put(io, data, room)?,
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers()
                            && self.framing == Outgoing::Chunked
                        {
                            encode_last(io, Some(&trailers).filter(|_| self.trailers));
                            self.ended = true;
                        }
                    }
                },
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(None) => {
                    if self.framing == Outgoing::Chunked {
                        encode_last(io, None);
                    } else if matches!(self.framing, Outgoing::Length(_)) && self.left > 0 {
                        return Err(BodyError::UpstreamGone);
                    }
                    self.ended = true;
                }
            }
        }
        Ok(false)
    }

    fn put(&mut self, io: &mut Buffered, data: Bytes, room: bool) -> Result<(), BodyError> {
        if data.is_empty() {
            return Ok(());
        }
        // Without room, content may hold an upstream's permit until it is written, so it is not copied.
        let share = !room || self.left > data.len() as u64 && data.len() >= SHARE_FROM;
        match self.framing {
            Outgoing::Chunked => {
                let before = io.tail().len();
                encode::chunk_size(io.tail(), data.len());
                io.wrote(before);
                if room {
                    io.push(data)
                } else {
                    io.push_shared(data)
                }
                io.push_small(b"\r\n");
            }
            Outgoing::Length(_) => {
                let length = data.len() as u64;
                if length > self.left {
                    return Err(BodyError::UpstreamMalformed(
                        "the content is longer than its Content-Length",
                    ));
                }
                self.left -= length;
                // Content that follows leaves in a vectored write anyway.
                if share { io.push_shared(data) } else { io.push(data) }
            }
            Outgoing::Close if room => io.push(data),
            Outgoing::Close => io.push_shared(data),
            Outgoing::None => {}
        }
        Ok(())
    }

    /// Checks by reading whether the client closed, while the response waits for the upstream.
    fn watch_client(
        &self,
        io: &mut Buffered,
        request_body: Option<&RequestBodyReader>,
        cx: &mut Context<'_>,
    ) -> Result<(), BodyError> {
        let whole = request_body.is_none_or(RequestBodyReader::is_finished);
        if whole
            && io.read.is_empty()
            && io.stream.poll_read_ready(cx).is_ready()
            && let Poll::Ready(Ok(0) | Err(_)) = io.poll_fill_at_most(0, cx)
        {
            return Err(BodyError::ClientGone);
        }
        Ok(())
    }

    fn end_at_drain(&mut self, io: &mut Buffered, cx: &mut Context<'_>) -> Result<(), BodyError> {
        // Queued bytes may be lost: the client of an endless stream reconnects and resumes.
        let _ = io.poll_flush(cx);
        Err(BodyError::Draining)
    }
}

fn encode_last(io: &mut Buffered, trailers: Option<&http::HeaderMap>) {
    let before = io.tail().len();
    encode::last_chunk(io.tail(), trailers);
    io.wrote(before);
}
