//! Buffering of request bodies before the upstream is asked. Small bodies are read completely before the request takes
//! an upstream slot, and every body must arrive at a minimum rate, so that no slow client holds a slot.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body::{Body as _, Frame, SizeHint};

use super::record::RequestRecord;
use super::routed::Routed;
use crate::memory::buffers;
use crate::memory::buffers::{BufferReservation, OF_A_WAIT};
use crate::memory::chunked_bytes::{Builder, ChunkedBytes};
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;
use crate::runtime::clock::{Deadline, Instant};

/// A body of unknown length that pauses this long is forwarded as it arrives: its client may be waiting for a response
/// to the part sent so far.
const PAUSE: Duration = Duration::from_millis(250);
/// Waiting time before the rate of a body is judged.
const GRACE: Duration = Duration::from_secs(10);

/// Returns whether a request is a stream from its start, which is never buffered: an extended CONNECT (RFC 8441 5),
/// whose body is the tunnel; a request of a route with `stream`; or gRPC to an upstream that speaks HTTP/2. For any
/// other upstream the content is ordinary; over HTTP/1, even content with `Upgrade` is.
pub(super) fn is_stream(routed: &Routed) -> bool {
    (routed.upgrade.is_some() && routed.request.version() == Version::HTTP_2)
        || routed.route.stream
        || claims_grpc(routed) && speaks_http2(&routed.record, routed.route.upstream)
}

/// Returns whether the request is a gRPC call, which exists only over HTTP/2.
fn claims_grpc(routed: &Routed) -> bool {
    routed.record.info.grpc && routed.request.version() == Version::HTTP_2
}

fn speaks_http2(record: &RequestRecord, upstream: Option<usize>) -> bool {
    let upstream = record.info.snapshot.upstreams.get(upstream.unwrap_or(0));
    upstream.is_some_and(|upstream| upstream.speaks_http2())
}

/// Wraps the body, so that it fails if it arrives more slowly than `min_body_rate`.
pub(super) fn hold_to_rate(routed: &mut Routed) {
    let rate = routed.record.info.snapshot.policy.server.min_body_rate;
    if rate == 0 || is_stream(routed) {
        return;
    }
    let timed = TimedBody {
        body: std::mem::replace(routed.request.body_mut(), Body::empty()),
        record: Rc::downgrade(&routed.record),
        grpc: claims_grpc(routed).then_some(routed.route.upstream),
        rate: BodyRate::new(rate),
        deadline: Deadline::default(),
    };
    let silence = timed.body.silence();
    let mut body = Body::streaming(timed);
    if let Some(silence) = silence {
        body.set_silence(silence);
    }
    *routed.request.body_mut() = body;
}

/// The rate of a body, in which only time spent waiting for it counts.
#[derive(Debug)]
struct BodyRate {
    bytes_per_second: u64,
    bytes: u64,
    waited: Duration,
    since: Option<Instant>,
}

impl BodyRate {
    fn new(bytes_per_second: u64) -> BodyRate {
        BodyRate { bytes_per_second, bytes: 0, waited: Duration::ZERO, since: None }
    }

    /// Starts waiting for the next bytes. Returns the time at which the body is too slow unless bytes arrive before.
    fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        let earned = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second.max(1) as f64);
        since + earned.max(GRACE).saturating_sub(self.waited)
    }

    fn came(&mut self, bytes: u64, now: impl FnOnce() -> Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now().saturating_duration_since(since);
        }
        self.bytes += bytes;
    }
}

/// A body with a minimum rate; see [`hold_to_rate`].
struct TimedBody {
    body: Body,
    /// The record tells whether the response has begun. A client that reads the response may send the rest at its own
    /// pace.
    record: Weak<RequestRecord>,
    /// The upstream of a gRPC call, which may turn out to speak HTTP/2 once it is connected.
    grpc: Option<Option<usize>>,
    rate: BodyRate,
    deadline: Deadline,
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
            this.rate.came(data.map_or(0, Bytes::len) as u64, clock::now);
            this.deadline.clear();
            return Poll::Ready(frame);
        }
        let unbound = |record: Rc<RequestRecord>| {
            record.timeline.is_head_sent()
                || this.grpc.is_some_and(|upstream| speaks_http2(&record, upstream))
        };
        if this.record.upgrade().is_none_or(unbound) {
            this.deadline.clear();
            return Poll::Pending;
        }
        if !this.deadline.is_set() {
            this.deadline.set(this.rate.wait(clock::now()));
        }
        ready!(this.deadline.poll_expired(cx));
        Poll::Ready(Some(Err(BodyError::ClientSlow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body of which the awaited part has arrived.
pub(super) struct Buffered {
    pub body: Body,
    /// The memory of a complete body, which may be sent more than once.
    pub memory: Option<BufferReservation>,
}

/// Buffers a body. A body with a length of at most `limit` bytes is read completely. A body of unknown length is read
/// until its end, `limit` bytes, or a pause. A longer body is not read, and neither is any while there is no memory for
/// it.
pub(super) async fn buffer(
    body: Body,
    limit: usize,
    memory: BufferReservation,
) -> Result<Buffered, BodyError> {
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length > limit as u64) {
        return Ok(Buffered { body, memory: None });
    }
    let mut prefix =
        Prefix { content: Received::Nothing, length: 0, rest: Some(body), trailers: None, memory };
    let mut pause = Deadline::default();
    std::future::poll_fn(|cx| prefix.poll_fill(limit, length.is_some(), &mut pause, cx)).await?;
    Ok(prefix.into_buffered())
}

/// The received part of a body.
enum Received {
    Nothing,
    One(Bytes),
    /// Copied, because a body may arrive in very small pieces, each of which would keep a larger buffer in memory.
    Copied(Builder),
}

struct Prefix {
    content: Received,
    length: usize,
    rest: Option<Body>,
    trailers: Option<HeaderMap>,
    memory: BufferReservation,
}

impl Prefix {
    fn poll_fill(
        &mut self,
        limit: usize,
        length_known: bool,
        pause: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BodyError>> {
        loop {
            let Some(body) = &mut self.rest else { return Poll::Ready(Ok(())) };
            let full = !length_known && self.length >= limit;
            if full || !self.memory.has_room() {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending if length_known => return Poll::Pending,
                Poll::Pending => {
                    if !pause.is_set() {
                        pause.set_after(PAUSE);
                    }
                    return pause.poll_expired(cx).map(Ok);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    pause.clear();
                    match frame.into_data() {
                        Ok(data) => self.push(data, length_known),
                        Err(frame) => {
                            self.trailers = frame.into_trailers().ok();
                            self.rest = None;
                        }
                    }
                    if self.rest.as_ref().is_some_and(http_body::Body::is_end_stream) {
                        self.rest = None;
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => self.rest = None,
            }
        }
    }

    /// Adds received bytes. With a known length they were read into a buffer made for them. Otherwise even the first
    /// piece may be a small part of a large buffer, so it is copied.
    fn push(&mut self, data: Bytes, length_known: bool) {
        if data.is_empty() {
            return;
        }
        self.length += data.len();
        let mut copied = match std::mem::replace(&mut self.content, Received::Nothing) {
            Received::Nothing if length_known => {
                self.memory.resize(buffers::weight(data.len()) + OF_A_WAIT);
                self.content = Received::One(data);
                return;
            }
            Received::Nothing => Builder::default(),
            Received::One(first) => {
                let mut copied = Builder::default();
                copied.push(&first);
                copied
            }
            Received::Copied(copied) => copied,
        };
        copied.push(&data);
        self.memory.resize(buffers::weight(copied.memory()) + OF_A_WAIT);
        self.content = Received::Copied(copied);
    }

    fn into_buffered(mut self) -> Buffered {
        let content = match self.content {
            Received::Nothing => ChunkedBytes::default(),
            Received::One(piece) => piece.into(),
            Received::Copied(copied) => copied.finish(),
        };
        self.memory.resize(content.len());
        match (self.rest, self.trailers) {
            (None, None) => Buffered { body: Body::pieces(content), memory: Some(self.memory) },
            (Some(rest), _) if content.is_empty() => Buffered { body: rest, memory: None },
            (rest, trailers) => {
                let pieces = content.iter().cloned().collect();
                let memory = self.memory;
                let silence = rest.as_ref().and_then(Body::silence);
                let mut body = Body::streaming(Resumed { pieces, rest, trailers, memory });
                if let Some(silence) = silence {
                    body.set_silence(silence);
                }
                Buffered { body, memory: None }
            }
        }
    }
}

/// A body that begins with buffered pieces and continues with the rest as it arrives.
struct Resumed {
    pieces: VecDeque<Bytes>,
    rest: Option<Body>,
    trailers: Option<HeaderMap>,
    memory: BufferReservation,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.pieces.pop_front() {
            let left = self.memory.bytes().saturating_sub(piece.len());
            self.memory.resize(left);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(rest) = &mut self.rest {
            return pin!(rest).poll_frame(cx);
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let here: usize = self.pieces.iter().map(Bytes::len).sum();
        match &self.rest {
            // A length would leave no room for the trailers.
            None if self.trailers.is_some() => SizeHint::default(),
            None => SizeHint::with_exact(here as u64),
            Some(rest) => match rest.size_hint().exact() {
                Some(rest) => SizeHint::with_exact(here as u64 + rest),
                None => SizeHint::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
