//! Live readers of decisions, for `pillion tail`. A worker that completes a request asks one atomic whether anybody
//! reads; only then it renders a line for the readers whose filter takes the request. Everything is bounded: the
//! readers, the lines and bytes that wait for each, and the lines a second that each gets. A worker never waits: a line
//! beyond a bound is counted, and its reader is told how many lines it did not get.

mod filter;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::line::Line;
use super::rate_window::RateWindow;
use crate::runtime::clock::Instant;

pub(crate) use filter::Filter;

/// Maximum number of readers at a time.
pub(crate) const MAX_READERS: usize = 4;
/// Maximum number of lines that wait for one reader.
const MAX_WAITING: usize = 1024;
/// Maximum bytes of the lines that wait for one reader.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// The span of time in which a reader gets at most [`LINES_A_SPAN`] lines: a thousand a second.
const SPAN: Duration = Duration::from_millis(100);
const LINES_A_SPAN: u32 = 100;

/// The reason why a reader is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// [`MAX_READERS`] are reading.
    Full,
    /// The process drains.
    Closed,
}

/// The readers of one process.
pub(crate) struct Tail {
    /// Whether there is a reader.
    open: AtomicBool,
    readers: ArcSwap<Vec<Arc<Reader>>>,
    state: Mutex<State>,
    /// The moment from which spans are counted.
    origin: Instant,
    /// Lines that no reader got although its filter took them.
    dropped: Counter,
}

#[derive(Default)]
struct State {
    closed: bool,
    next_id: u64,
    /// Subscriptions that are not dropped yet, also after the end of their streams.
    subscriptions: usize,
}

/// One reader, as the workers see it.
struct Reader {
    id: u64,
    filter: Filter,
    /// Whether lines have the address of the client.
    address: bool,
    lines: Sender<Bytes>,
    flow: Arc<Flow>,
    window: RateWindow,
}

/// The state of the lines on their way to one reader.
#[derive(Default)]
struct Flow {
    waiting_bytes: AtomicUsize,
    /// Lines that the reader did not get and was not told about yet.
    not_shown: AtomicU64,
}

impl Tail {
    /// Creates a tail without readers. Spans are counted from `now`.
    pub(crate) fn new(now: Instant) -> Tail {
        Tail {
            open: AtomicBool::new(false),
            readers: ArcSwap::default(),
            state: Mutex::default(),
            origin: now,
            dropped: Counter::default(),
        }
    }

    /// Returns whether somebody reads.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns the number of readers, also of those whose stream has ended and who have not taken all of it.
    pub(crate) fn subscriptions(&self) -> usize {
        self.state().subscriptions
    }

    /// Adds a reader of the requests that `filter` takes; `address` shows it the addresses of clients.
    pub(crate) fn subscribe(
        self: &Arc<Tail>,
        filter: Filter,
        address: bool,
    ) -> Result<Subscription, Refused> {
        let mut state = self.state();
        let mut readers = Vec::clone(&self.readers.load());
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.subscriptions >= MAX_READERS {
            return Err(Refused::Full);
        }
        let (sender, lines) = channel(MAX_WAITING);
        let (id, flow) = (state.next_id, Arc::new(Flow::default()));
        state.next_id += 1;
        state.subscriptions += 1;
        let window = RateWindow::new(LINES_A_SPAN, SPAN, self.origin);
        readers.push(Arc::new(Reader { id, filter, address, lines: sender, flow: flow.clone(), window }));
        self.set(readers);
        Ok(Subscription { tail: self.clone(), id, lines, flow })
    }

    /// Ends the stream of every reader and refuses new ones, for the rest of the process's life.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        self.set(Vec::new());
    }

    fn unsubscribe(&self, id: u64) {
        // Held so that no reader is added or removed meanwhile.
        let mut state = self.state();
        state.subscriptions -= 1;
        let mut readers = Vec::clone(&self.readers.load());
        readers.retain(|reader| reader.id != id);
        self.set(readers);
    }

    fn set(&self, readers: Vec<Arc<Reader>>) {
        self.open.store(!readers.is_empty(), Ordering::Relaxed);
        self.readers.store(Arc::new(readers));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a line to each reader whose filter takes it. `render` returns its JSON text, with the address of the
    /// client or without.
    pub(super) fn offer(&self, line: &Line<'_>, mut render: impl FnMut(bool) -> Vec<u8>) {
        let mut rendered = [const { None }; 2];
        for reader in self.readers.load().iter().filter(|reader| reader.filter.takes(line)) {
            let taken = reader.window.admits(line.at) && {
                let text = &mut rendered[usize::from(reader.address)];
                reader.send(text.get_or_insert_with(|| Bytes::from(render(reader.address))).clone())
            };
            if !taken {
                reader.flow.not_shown.fetch_add(1, Ordering::Relaxed);
                self.dropped.inc();
            }
        }
    }
}

impl Reader {
    fn send(&self, line: Bytes) -> bool {
        let (waiting, length) = (&self.flow.waiting_bytes, line.len());
        if waiting.fetch_add(length, Ordering::Relaxed) + length > MAX_WAITING_BYTES
            || self.lines.try_send(line).is_err()
        {
            waiting.fetch_sub(length, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// The lines of one reader. Dropping it removes the reader.
pub(crate) struct Subscription {
    tail: Arc<Tail>,
    id: u64,
    lines: Receiver<Bytes>,
    flow: Arc<Flow>,
}

impl Subscription {
    /// Returns the next line; `None` after [`Tail::close`].
    pub(crate) fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let line = ready!(self.lines.poll_recv(cx));
        if let Some(line) = &line {
            self.flow.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
        }
        Poll::Ready(line)
    }

    /// Returns the number of lines that were not shown since the last call.
    pub(crate) fn take_not_shown(&self) -> u64 {
        self.flow.not_shown.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.tail.unsubscribe(self.id);
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tail")
    }
}

/// The metrics of the readers.
#[derive(Debug)]
pub(crate) struct Collected(pub Arc<Tail>);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Readers of live decisions (pillion tail)";
        let readers = ConstGauge::new(i64::try_from(self.0.subscriptions()).unwrap_or(i64::MAX));
        readers.encode(encoder.encode_descriptor("tail_readers", help, None, MetricType::Gauge)?)?;
        let help = "Lines of live decisions that a reader did not get, because there were too many or it \
            read too slowly";
        let dropped = ConstCounter::new(self.0.dropped.get());
        dropped.encode(encoder.encode_descriptor("tail_dropped", help, None, MetricType::Counter)?)
    }
}

#[cfg(test)]
mod tests;
