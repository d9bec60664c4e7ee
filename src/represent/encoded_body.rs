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
use tokio::sync::Semaphore;

use super::counters::CodingCounters;
use crate::memory::buffers::BufferReservation;
use crate::memory::memory_budget::Reservation;
use crate::message::body::{Body, BodyError};
use crate::represent::encoder::Encoder;
use crate::runtime::clock;
use crate::runtime::clock::Deadline;

/// What the app said is written out at the latest this long after it came. The promise is 20 ms, timers
/// and a busy worker included.
pub(crate) const FLUSH_AFTER: Duration = Duration::from_millis(8);

/// A pause in which the worker turns to its other tasks and its connections.
#[derive(Default)]
struct Breather(Option<Pin<Box<dyn Future<Output = ()>>>>);

impl Breather {
    fn begin(&mut self) {
        self.0 = Some(Box::pin(tokio::task::yield_now()));
    }

    /// Ready once it is over, or none was begun.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.0 {
            ready!(pause.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }
}

/// An encoder that worked for so long on the worker takes a pause.
const SLICE_TIME: Duration = Duration::from_micros(300);
/// A slice that takes longer than this is followed by a smaller one.
const TOO_LONG: Duration = Duration::from_micros(500);
const MIN_SLICE: usize = 2 * 1024;

/// The next slice: content differs by ten times and more in what it costs.
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
    /// The encoder has ended; these come after its last bytes.
    Ended(Option<HeaderMap>),
}

/// What an encoder is to do.
enum Job {
    Encode(Bytes),
    /// Encode this and finish: it is the last.
    Last(Bytes),
    Flush,
    Finish(Option<HeaderMap>),
}

struct Done {
    encoder: Encoder,
    out: BytesMut,
    job: Job,
    /// Whether all it took was written out.
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

/// Heavy jobs of one worker at once: with more of them than that, the worker itself would get too small a
/// share of its core.
const HEAVY_AT_ONCE: usize = 1;

thread_local! {
    static HEAVY: Arc<Semaphore> = Arc::new(Semaphore::new(HEAVY_AT_ONCE));
}

/// Works on another thread, when it is this job's turn. `None`: the process is stopping.
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

/// The memory of one encoder while its response is on its way.
#[derive(Debug)]
pub(crate) struct EncoderMemory {
    /// Its part of the buffer memory.
    pub reserved: BufferReservation,
    /// Its place among all encoders.
    pub place: Reservation,
}

impl EncoderMemory {
    /// So much content waits for the encoder; bytes.
    fn hold_input(&mut self, bytes: usize) {
        self.reserved.resize(self.place.bytes() + bytes);
    }
}

/// See the head of the file.
pub(crate) struct Encoding {
    content: Body,
    encoder: Whereabouts,
    /// How much is encoded at once, by how long it took the last time.
    slice: usize,
    /// What came and is not encoded yet.
    input: Bytes,
    out: BytesMut,
    state: State,
    /// When what the encoder holds is to be written out.
    unflushed: Deadline,
    /// Whether it is written out as soon as there is nothing more to encode: of a stream each piece is of use at once.
    flushes: bool,
    /// How long it encoded since the last pause.
    encoded: Duration,
    breather: Breather,
    counters: Arc<CodingCounters>,
    before: Rc<Cell<u64>>,
    /// Given back when the encoder has ended.
    memory: Option<EncoderMemory>,
}

impl Encoding {
    /// Of `content`; `before` counts its bytes as they are encoded.
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

    /// The same of a stream: nothing that came is held back.
    pub(crate) fn of_stream(self) -> Encoding {
        Encoding { flushes: true, ..self }
    }

    /// What is to be done next; pending while there is nothing.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Job, BodyError>> {
        // An app that never pauses may fill the encoder as slowly as one that does.
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

    /// One step: a job begun, done, or both.
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
        // Nothing is left to do for it, however slowly its client reads. What came out of it last is counted by whoever
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
                // What failed must never look complete: the encoder is not finished.
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
