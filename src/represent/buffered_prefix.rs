//! Content buffered for a moment: as much of it as a decision about the response needs, and for a short time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::memory::buffers::BufferReservation;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::memory::memory_budget::Reservation;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;
use crate::runtime::clock::{Deadline, Instant};

/// Pieces shorter than this on average are joined; in bytes.
const SMALL_PIECE: usize = 512;

#[derive(Clone, Copy, Debug)]
pub(crate) struct BufferGoal {
    /// Number of bytes to wait for.
    pub min: usize,
    /// Maximum number of bytes to take, even if more have arrived.
    pub max: usize,
    /// Whether to wait for the end, which may come after the last byte; but not after more than `max` bytes.
    pub end: bool,
}

/// The beginning of a body, or all of it.
#[derive(Debug)]
pub(crate) struct BufferedPrefix {
    /// The first piece. Most content is one piece, so that `more` takes no memory.
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
    length: usize,
    rest: Rest,
    /// The reservation for all of it while it is buffered.
    place: Option<Reservation>,
    /// The memory of content that waits for a client that may be slow.
    memory: Option<BufferReservation>,
}

#[derive(Debug)]
enum Rest {
    /// The body has ended, perhaps with trailers.
    Ended(Option<HeaderMap>),
    More(Body),
    Failed(BodyError),
}

impl BufferedPrefix {
    /// Creates the prefix of content that is complete already.
    pub(crate) fn whole(content: &ChunkedBytes) -> BufferedPrefix {
        let mut pieces = content.iter().cloned();
        let (first, more) = (pieces.next(), pieces.collect());
        let (rest, place, memory) = (Rest::Ended(None), None, None);
        BufferedPrefix { first, more, length: content.len(), rest, place, memory }
    }

    /// Creates an empty prefix of `body`.
    pub(crate) fn nothing(body: Body) -> BufferedPrefix {
        let (first, more) = (None, VecDeque::new());
        BufferedPrefix { first, more, length: 0, rest: Rest::More(body), place: None, memory: None }
    }

    /// Reads what `wanted` asks of `body`. Returns earlier if the body ends or fails, after `timeout`, or if `memory`
    /// has no room. `memory` counts the content while it is buffered, and longer if the content is not complete.
    pub(crate) async fn read(
        body: Body,
        wanted: BufferGoal,
        timeout: Duration,
        place: Option<Reservation>,
        memory: Option<BufferReservation>,
    ) -> BufferedPrefix {
        BufferedPrefix::until(body, wanted, place, memory, Some(clock::now() + timeout)).await
    }

    async fn until(
        body: Body,
        wanted: BufferGoal,
        place: Option<Reservation>,
        memory: Option<BufferReservation>,
        due: Option<Instant>,
    ) -> BufferedPrefix {
        let mut gathered = BufferedPrefix { place, memory, ..BufferedPrefix::nothing(body) };
        let mut timeout = Deadline::default();
        std::future::poll_fn(|cx| {
            loop {
                let Rest::More(body) = &mut gathered.rest else { return Poll::Ready(()) };
                if gathered.length > wanted.max || (gathered.length == wanted.max && !wanted.end) {
                    return Poll::Ready(());
                }
                // A body that arrived whole no longer holds an upstream connection, so nothing else bounds its memory.
                // The room is checked with each piece, so that many requests that buffer at once see one another.
                if gathered.memory.as_ref().is_some_and(|memory| !memory.has_room()) {
                    return Poll::Ready(());
                }
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Pending if gathered.length >= wanted.min && !wanted.end => return Poll::Ready(()),
                    Poll::Pending => {
                        let Some(due) = due else { return Poll::Pending };
                        timeout.set(due);
                        return timeout.poll_expired(cx);
                    }
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => {
                            let ended = http_body::Body::is_end_stream(body);
                            gathered.length += data.len();
                            gathered.push(data);
                            if let Some(memory) = &mut gathered.memory {
                                memory.resize(gathered.length);
                            }
                            if ended {
                                gathered.rest = Rest::Ended(None);
                            }
                        }
                        Err(frame) => gathered.rest = Rest::Ended(frame.into_trailers().ok()),
                    },
                    Poll::Ready(Some(Err(error))) => gathered.rest = Rest::Failed(error),
                    Poll::Ready(None) => gathered.rest = Rest::Ended(None),
                }
            }
        })
        .await;
        if let Some(place) = &mut gathered.place {
            place.shrink(gathered.length);
        }
        if gathered.is_whole() {
            // From here on the connection that writes the content counts it.
            gathered.memory = None;
        }
        gathered
    }

    /// Reads what `wanted` asks of `body`, however long that takes: the sender has its own timeouts.
    pub(crate) async fn waited_for(body: Body, wanted: BufferGoal) -> BufferedPrefix {
        BufferedPrefix::until(body, wanted, None, None, None).await
    }

    fn push(&mut self, piece: Bytes) {
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some(piece);
        } else {
            self.more.push_back(piece);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        self.first.take().or_else(|| self.more.pop_front())
    }

    /// Returns whether it is the complete content.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.rest, Rest::Ended(None))
    }

    /// Returns whether more content may arrive, perhaps late.
    pub(crate) fn has_more(&self) -> bool {
        matches!(self.rest, Rest::More(_))
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Bytes> + Clone {
        self.first.iter().chain(&self.more)
    }

    /// Joins the content into one piece; `None` while it is not complete.
    pub(crate) fn content(&mut self) -> Option<Bytes> {
        if !self.is_whole() {
            return None;
        }
        if !self.more.is_empty() {
            let mut joined = BytesMut::with_capacity(self.length);
            self.pieces().for_each(|piece| joined.extend_from_slice(piece));
            (self.first, self.more) = (Some(joined.freeze()), VecDeque::new());
        }
        Some(self.first.clone().unwrap_or_default())
    }

    /// Returns the content in its pieces; `None` while it is not complete.
    pub(crate) fn whole_pieces(&self) -> Option<ChunkedBytes> {
        self.is_whole().then(|| self.pieces().cloned().collect())
    }

    /// Counts the content until it is sent, because it waits for more that may arrive late. `None`: it is counted
    /// elsewhere.
    pub(crate) fn count(&mut self, memory: Option<BufferReservation>) {
        self.memory = memory.map(|mut memory| {
            memory.resize(self.length);
            memory
        });
        self.place = None;
    }

    /// Returns the body from its beginning. Complete content is counted by the connection that writes it, unless
    /// counted here.
    pub(crate) fn into_body(mut self) -> Body {
        match self.rest {
            Rest::More(body) if self.first.is_none() && self.more.is_empty() => body,
            Rest::Ended(None) if self.memory.is_none() => {
                // Small pieces take more memory than their bytes.
                if (1 + self.more.len()) * SMALL_PIECE > self.length {
                    self.content();
                }
                Body::pieces(self.first.into_iter().chain(self.more).collect())
            }
            _ => Body::streaming(self),
        }
    }

    /// Returns the rest of the body, without what was buffered.
    pub(crate) fn into_rest(self) -> Option<Body> {
        match self.rest {
            Rest::More(body) => Some(body),
            Rest::Ended(_) | Rest::Failed(_) => None,
        }
    }
}

impl http_body::Body for BufferedPrefix {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.pop() {
            self.length -= piece.len();
            let left = self.length;
            if let Some(place) = &mut self.place {
                place.shrink(left);
            }
            if let Some(memory) = &mut self.memory {
                memory.resize(left);
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match std::mem::replace(&mut self.rest, Rest::Ended(None)) {
            Rest::Ended(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Rest::Failed(error) => Poll::Ready(Some(Err(error))),
            Rest::More(mut body) => {
                let polled = Pin::new(&mut body).poll_frame(cx);
                self.rest = Rest::More(body);
                Poll::Ready(ready!(polled))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none()
            && self.more.is_empty()
            && match &self.rest {
                Rest::Ended(trailers) => trailers.is_none(),
                Rest::More(body) => http_body::Body::is_end_stream(body),
                Rest::Failed(_) => false,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.length as u64;
        match &self.rest {
            Rest::Ended(None) => SizeHint::with_exact(length),
            Rest::More(body) => match http_body::Body::size_hint(body).exact() {
                Some(rest) => SizeHint::with_exact(length + rest),
                None => SizeHint::default(),
            },
            Rest::Ended(Some(_)) | Rest::Failed(_) => SizeHint::default(),
        }
    }
}
