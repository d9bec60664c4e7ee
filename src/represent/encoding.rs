//! Content that is encoded as it passes: at the client's pace, in slices between which the worker serves
//! others, and never holding back for long what the app has said.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};

use super::counters::CodingCounters;
use super::encode::Encoder;
use crate::body::{Body, BodyError};
use crate::clock::{self, Deadline};

/// What the app said is written out at the latest this long after it came. The promise is 20 ms, timers
/// and a busy worker included.
pub const FLUSH_AFTER: Duration = Duration::from_millis(12);

/// A pause in which the worker turns to its other tasks and its connections.
#[derive(Default)]
pub struct Breather(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Breather {
    /// From now on.
    pub fn begin(&mut self) {
        self.0 = Some(Box::pin(tokio::task::yield_now()));
    }

    /// Ready once it is over, or none was begun.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.0 {
            ready!(pause.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

enum State {
    Running,
    /// The encoder has ended; these come after its last bytes.
    Ended(Option<HeaderMap>),
}

/// See the head of the file.
pub struct Encoding {
    content: Body,
    encoder: Encoder,
    /// What came and is not encoded yet.
    input: Bytes,
    out: BytesMut,
    state: State,
    /// When what the encoder holds is to be written out.
    unflushed: Deadline,
    /// Encoded since the last pause.
    encoded: usize,
    breather: Breather,
    counters: Arc<CodingCounters>,
    before: Rc<Cell<u64>>,
}

impl Encoding {
    /// Of `content`; `before` counts its bytes as they come.
    pub fn new(
        content: Body,
        encoder: Encoder,
        counters: Arc<CodingCounters>,
        before: Rc<Cell<u64>>,
    ) -> Encoding {
        Encoding {
            content,
            encoder,
            input: Bytes::new(),
            out: BytesMut::new(),
            state: State::Running,
            unflushed: Deadline::default(),
            encoded: 0,
            breather: Breather::default(),
            counters,
            before,
        }
    }

    /// Runs the encoder and counts what it did.
    fn run<T>(
        &mut self,
        input: usize,
        work: impl FnOnce(&mut Encoder, &mut BytesMut) -> io::Result<T>,
    ) -> Result<T, BodyError> {
        let (since, before) = (clock::now(), self.out.len());
        let done = work(&mut self.encoder, &mut self.out);
        self.before.set(self.before.get() + input as u64);
        self.counters.ran(input, self.out.len() - before, clock::now().saturating_duration_since(since));
        done.map_err(|error| BodyError::Coding(error.to_string()))
    }

    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match Pin::new(&mut self.content).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.input = data,
                Err(frame) => return Poll::Ready(self.finish(frame.into_trailers().ok())),
            },
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return Poll::Ready(self.finish(None)),
            Poll::Pending => {
                ready!(self.unflushed.poll_expired(cx));
                self.run(0, |encoder, out| encoder.flush(out))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn finish(&mut self, trailers: Option<HeaderMap>) -> Result<(), BodyError> {
        self.state = State::Ended(trailers);
        self.run(0, |encoder, out| encoder.finish(out))
    }

    fn encode(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let slice = self.encoder.slice();
        let piece = self.input.split_to(slice.min(self.input.len()));
        let mut flushed = self.run(piece.len(), |encoder, out| encoder.encode(&piece, out))?;
        // An app that never pauses may fill the encoder as slowly as one that does.
        if !flushed && self.unflushed.poll_expired(cx).is_ready() {
            self.run(0, |encoder, out| encoder.flush(out))?;
            flushed = true;
        }
        if flushed {
            self.unflushed.clear();
        } else if !self.unflushed.is_set() {
            self.unflushed.set_after(FLUSH_AFTER);
        }
        self.encoded += piece.len();
        if self.encoded >= slice {
            self.encoded = 0;
            self.breather.begin();
        }
        Ok(())
    }
}

impl http_body::Body for Encoding {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            if !this.out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(this.out.split().freeze()))));
            }
            if let State::Ended(trailers) = &mut this.state {
                return Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            ready!(this.breather.poll(cx));
            let done = match this.input.is_empty() {
                true => ready!(this.take(cx)),
                false => this.encode(cx),
            };
            if let Err(error) = done {
                // What failed must never look complete: the encoder is not finished.
                this.state = State::Ended(None);
                this.out.clear();
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.out.is_empty() && matches!(self.state, State::Ended(None))
    }
}
