//! Content that is encoded as it passes, at the pace of the client and in slices between which the worker serves
//! others. The encoder never holds back for long what the upstream sent.

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
use tokio::sync::Semaphore;

use super::counters::CodingCounters;
use crate::memory::buffers::BufferReservation;
use crate::memory::memory_budget::Reservation;
use crate::message::body::{Body, BodyError};
use crate::represent::encoder::Encoder;
use crate::runtime::clock;
use crate::runtime::clock::Deadline;

/// Maximum time for which the encoder holds content back. The promise is 20 ms, including timers and a busy worker.
pub(crate) const FLUSH_AFTER: Duration = Duration::from_millis(8);

/// A pause in which the worker serves its other tasks and connections.
#[derive(Default)]
struct Breather(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Breather {
    fn begin(&mut self) {
        self.0 = Some(Box::pin(tokio::task::yield_now()));
    }

    /// Polls the pause; ready once it is over or if there is none.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.0 {
            ready!(pause.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

/// Time an encoder works on the worker before it pauses.
const SLICE_TIME: Duration = Duration::from_micros(300);
/// A slice that takes longer than this is followed by a smaller one.
const TOO_LONG: Duration = Duration::from_micros(500);
const MIN_SLICE: usize = 2 * 1024;

/// Returns the size of the next slice: the cost of content differs by a factor of ten and more.
fn paced(slice: usize, max: usize, taken: usize, duration: Duration) -> usize {
    if duration > TOO_LONG && taken > MIN_SLICE {
        (slice / 2).max(MIN_SLICE)
    } else if duration < TOO_LONG / 4 && taken >= slice {
        (slice * 2).min(max)
    } else {
        slice
    }
}

enum State {
    Running,
    /// The encoder has ended; these trailers follow its last bytes.
    Ended(Option<HeaderMap>),
}

/// A job of an encoder.
enum Job {
    Encode(Bytes),
    /// Encodes the last content and finishes.
    Last(Bytes),
    Flush,
    Finish(Option<HeaderMap>),
}

struct Done {
    encoder: Encoder,
    out: BytesMut,
    job: Job,
    /// Whether all content that the encoder took was written out.
    result: io::Result<bool>,
    duration: Duration,
}

fn work(mut encoder: Encoder, job: Job) -> Done {
    let (since, mut out) = (clock::now(), BytesMut::new());
    let result = match &job {
        Job::Encode(content) => encoder.encode(content, &mut out),
        Job::Last(content) => {
            encoder.encode(content, &mut out).and_then(|_| encoder.finish(&mut out)).map(|()| true)
        }
        Job::Flush => encoder.flush(&mut out).map(|()| true),
        Job::Finish(_) => encoder.finish(&mut out).map(|()| true),
    };
    let duration = clock::now().saturating_duration_since(since);
    Done { encoder, out, job, result, duration }
}

/// Maximum number of heavy jobs of one worker at once: with more, the worker itself would get too small a share of its
/// core.
const HEAVY_AT_ONCE: usize = 1;

thread_local! {
    static HEAVY: Arc<Semaphore> = Arc::new(Semaphore::new(HEAVY_AT_ONCE));
}

/// Runs a job on another thread when its turn comes. `None`: the process is stopping.
async fn work_away(encoder: Encoder, job: Job) -> Option<Done> {
    let permit = HEAVY.with(Arc::clone).acquire_owned().await.ok()?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work(encoder, job);
        drop(permit);
        done
    });
    done.await.ok()
}

enum Whereabouts {
    Here(Encoder),
    Away(Pin<Box<dyn Future<Output = Option<Done>>>>),
    Gone,
}

/// The memory of one encoder while its response is sent.
#[derive(Debug)]
pub(crate) struct EncoderMemory {
    /// Its part of the buffer memory.
    pub reserved: BufferReservation,
    /// Its reservation among all encoders.
    pub place: Reservation,
}

impl EncoderMemory {
    /// Counts content that waits for the encoder, in bytes.
    fn hold_input(&mut self, bytes: usize) {
        self.reserved.resize(self.place.bytes() + bytes);
    }
}

/// An encoding body; see the head of the file.
pub(crate) struct Encoding {
    content: Body,
    encoder: Whereabouts,
    /// Number of bytes encoded at once, adjusted by how long the last slice took.
    slice: usize,
    /// Content that has arrived and is not encoded yet.
    input: Bytes,
    out: BytesMut,
    state: State,
    /// The time at which the encoder must write out what it holds.
    unflushed: Deadline,
    /// Whether output is flushed as soon as no more content is waiting: each piece of a stream is of use at once.
    flushes: bool,
    /// Time spent encoding since the last pause.
    encoded: Duration,
    breather: Breather,
    counters: Arc<CodingCounters>,
    before: Rc<Cell<u64>>,
    /// The memory of the encoder, returned when it has ended.
    memory: Option<EncoderMemory>,
}

impl Encoding {
    /// Encodes `content`; `before` counts its bytes as they are encoded.
    pub(crate) fn new(
        content: Body,
        encoder: Encoder,
        counters: Arc<CodingCounters>,
        before: Rc<Cell<u64>>,
        memory: Option<EncoderMemory>,
    ) -> Encoding {
        Encoding {
            content,
            slice: encoder.slice(),
            encoder: Whereabouts::Here(encoder),
            input: Bytes::new(),
            out: BytesMut::new(),
            state: State::Running,
            unflushed: Deadline::default(),
            flushes: false,
            encoded: Duration::ZERO,
            breather: Breather::default(),
            counters,
            before,
            memory,
        }
    }

    /// Makes it hold back nothing that has arrived, for the content of a stream.
    pub(crate) fn of_stream(self) -> Encoding {
        Encoding { flushes: true, ..self }
    }

    /// Returns the next job; pending while there is none.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Job, BodyError>> {
        // Checked first: an upstream that never pauses may fill the encoder as slowly as one that does.
        if self.unflushed.is_set() && self.unflushed.poll_expired(cx).is_ready() {
            return Poll::Ready(Ok(Job::Flush));
        }
        while self.input.is_empty() {
            let polled = Pin::new(&mut self.content).poll_frame(cx);
            if polled.is_pending() && self.flushes && self.unflushed.is_set() {
                return Poll::Ready(Ok(Job::Flush));
            }
            self.input = match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(frame) => return Poll::Ready(Ok(Job::Finish(frame.into_trailers().ok()))),
                },
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(Job::Finish(None))),
            };
            if let Some(memory) = &mut self.memory {
                memory.hold_input(self.input.len());
            }
        }
        let piece = self.input.split_to(self.slice.min(self.input.len()));
        let last = self.input.is_empty() && http_body::Body::is_end_stream(&self.content);
        Poll::Ready(Ok(if last { Job::Last(piece) } else { Job::Encode(piece) }))
    }

    /// Does one step: begins a job, finishes it, or both.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if let Whereabouts::Here(_) = &self.encoder {
            let job = ready!(self.next(cx))?;
            let Whereabouts::Here(encoder) = std::mem::replace(&mut self.encoder, Whereabouts::Gone) else {
                return Poll::Pending;
            };
            if !encoder.works_away() {
                return Poll::Ready(self.take(work(encoder, job)));
            }
            self.encoder = Whereabouts::Away(Box::pin(work_away(encoder, job)));
        }
        let done = match &mut self.encoder {
            Whereabouts::Away(working) => ready!(working.as_mut().poll(cx)),
            Whereabouts::Here(_) | Whereabouts::Gone => None,
        };
        let lost = || BodyError::Coding("the encoder is gone".to_owned());
        Poll::Ready(done.ok_or_else(lost).and_then(|done| self.take(done)))
    }

    fn take(&mut self, done: Done) -> Result<(), BodyError> {
        let Done { encoder, out, job, result, duration } = done;
        let taken = match &job {
            Job::Encode(content) | Job::Last(content) => content.len(),
            Job::Flush | Job::Finish(_) => 0,
        };
        self.before.set(self.before.get() + taken as u64);
        self.counters.ran(taken, out.len(), duration);
        let flushed = result.map_err(|error| BodyError::Coding(error.to_string()))?;
        if !encoder.works_away() {
            self.encoded += duration;
            self.slice = paced(self.slice, encoder.slice(), taken, duration);
            if self.encoded >= SLICE_TIME {
                self.encoded = Duration::ZERO;
                self.breather.begin();
            }
        }
        self.out = out;
        let trailers = match job {
            Job::Encode(_) | Job::Flush => {
                self.encoder = Whereabouts::Here(encoder);
                if flushed {
                    self.unflushed.clear();
                } else if !self.unflushed.is_set() {
                    self.unflushed.set_after(FLUSH_AFTER);
                }
                return Ok(());
            }
            Job::Last(_) => None,
            Job::Finish(trailers) => trailers,
        };
        // The encoder is done, however slowly the client reads. Its last output is counted by the connection that
        // writes it.
        self.memory = None;
        self.state = State::Ended(trailers);
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
            if let Err(error) = ready!(this.step(cx)) {
                // Failed content must never look complete, so the encoder is not finished.
                this.state = State::Ended(None);
                this.encoder = Whereabouts::Gone;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.out.is_empty() && matches!(self.state, State::Ended(None))
    }
}
