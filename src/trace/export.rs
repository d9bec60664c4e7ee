//! Sends spans to the receiver in batches. Requests never wait for it: spans that do not fit are dropped and counted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, header};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::otlp::{self, Message};
use super::{ServerSpanInfo, spans};
use crate::policy::OtlpReceiver;
use crate::upstream::{InternalRequest, InternalRequestError, Pool, Registry, Upstream};

/// Maximum requests in one message: few enough to fit into the processor's cache, and enough to make up for the cost of
/// a message.
const BATCH: usize = 512;
/// Maximum messages that wait to be sent. The last one is still being filled.
const MAX_WAITING: usize = 16;
/// Size in bytes at which a message is closed.
const MAX_MESSAGE_LENGTH: usize = 1024 * 1024;
// The limit holds even with the request that closes the message, which adds at most twice the size of a head.
const _: () = assert!(2 * MAX_MESSAGE_LENGTH < otlp::MAX_MESSAGE_LENGTH);
/// Time that a batch is gathered. Sending each request at once would wake the exporter and the receiver for each.
const GATHER: Duration = Duration::from_secs(1);
/// Pauses between attempts for one batch. A batch that the receiver still does not accept is dropped.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Maximum bytes of the receiver's response, which is read and discarded.
const MAX_RESPONSE: usize = 64 * 1024;

thread_local! {
    /// Reused memory for the spans of one request, before they are appended to a batch.
    static SPANS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The queue in which workers put spans for the exporter.
#[derive(Clone, Debug)]
pub(crate) struct Spans(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<VecDeque<Batch>>,
    /// The memory of a sent batch, reused for the next one.
    spare: Mutex<BytesMut>,
    /// Notified when the first request of a batch arrives.
    first: Notify,
    /// Notified when a message is full.
    full: Notify,
    ended: AtomicBool,
    /// Counts the requests whose spans are dropped.
    dropped: Counter,
}

/// Encoded spans. The worker encodes them, because their values are still in its processor's cache.
#[derive(Debug)]
struct Batch {
    message: Message,
    requests: usize,
}

impl Batch {
    fn is_whole(&self) -> bool {
        self.requests >= BATCH || self.message.length() >= MAX_MESSAGE_LENGTH
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spans {
    pub(crate) fn new(dropped: Counter) -> Spans {
        let (first, full) = (Notify::new(), Notify::new());
        Spans(Arc::new(Shared {
            waiting: Mutex::default(),
            spare: Mutex::default(),
            first,
            full,
            ended: AtomicBool::new(false),
            dropped,
        }))
    }

    /// Queues the spans of one request, or drops and counts them.
    pub(crate) fn put(&self, told: &ServerSpanInfo<'_>) {
        SPANS.with_borrow_mut(|text| {
            text.clear();
            spans::write(told, text);
            self.append(text);
        });
    }

    fn append(&self, spans: &[u8]) {
        let mut waiting = lock(&self.0.waiting);
        let first = waiting.is_empty();
        if waiting.back().is_none_or(Batch::is_whole) {
            if waiting.len() >= MAX_WAITING {
                self.0.dropped.inc();
                return;
            }
            let message = Message::new(std::mem::take(&mut *lock(&self.0.spare)));
            waiting.push_back(Batch { message, requests: 0 });
        }
        let Some(batch) = waiting.back_mut() else { return };
        batch.message.append(spans);
        batch.requests += 1;
        let full = batch.is_whole();
        drop(waiting);
        if first {
            self.0.first.notify_one();
        }
        if full {
            self.0.full.notify_one();
        }
    }

    /// Signals that no more spans will come, so that the exporter sends the rest at once.
    pub(crate) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.first.notify_one();
        self.0.full.notify_one();
    }

    fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<Batch> {
        lock(&self.0.waiting).pop_front()
    }

    fn give_back(&self, room: BytesMut) {
        *lock(&self.0.spare) = room;
    }
}

/// Sends batches to the receiver until [`Spans::end`] is called. A reload may change the receiver.
pub(crate) async fn run(of: impl Fn() -> Option<OtlpReceiver>, registry: Arc<Registry>, spans: Spans) {
    let pool = Rc::new(Pool::default());
    let mut well = true;
    loop {
        spans.0.first.notified().await;
        if !spans.has_ended() {
            let _ = tokio::time::timeout(GATHER, spans.0.full.notified()).await;
        }
        while let Some(batch) = spans.take() {
            let more = batch.is_whole();
            if let Some(receiver) = of() {
                let room = tell(&receiver, &registry, &pool, batch, &spans.0.dropped, &mut well).await;
                spans.give_back(room.unwrap_or_default());
            }
            if !more && !spans.has_ended() {
                break;
            }
        }
        if spans.has_ended() {
            return;
        }
    }
}

/// Sends one batch and returns its memory for reuse. A failing receiver is logged once, and so is its recovery.
async fn tell(
    receiver: &OtlpReceiver,
    registry: &Registry,
    pool: &Rc<Pool>,
    batch: Batch,
    dropped: &Counter,
    well: &mut bool,
) -> Option<BytesMut> {
    let upstream = registry.build(std::slice::from_ref(&receiver.upstream)).pop()?;
    let message = batch.message.whole(&receiver.resource).freeze();
    match send(&upstream, pool, receiver, &message, well).await {
        Err(()) => {
            dropped.inc_by(batch.requests as u64);
        }
        Ok(()) => {
            if !std::mem::replace(well, true) {
                tracing::info!("tracing.otlp_endpoint takes spans again");
            }
        }
    }
    // This fails if a connection still holds a part of the message.
    message.try_into_mut().ok()
}

async fn send(
    upstream: &Upstream,
    pool: &Rc<Pool>,
    receiver: &OtlpReceiver,
    message: &Bytes,
    well: &mut bool,
) -> Result<(), ()> {
    let mut pauses = PAUSES.iter();
    loop {
        let mut headers = receiver.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let question = InternalRequest {
            method: Method::POST,
            target: &receiver.target,
            headers,
            body: message.clone(),
            max: MAX_RESPONSE,
        };
        let Err(why) = upstream.ask(pool, question).await else { return Ok(()) };
        // Logs at once: before the last attempt ends, many spans may have been dropped.
        if std::mem::replace(well, false) {
            tracing::warn!(%why, "tracing.otlp_endpoint does not take spans; spans it does not \
                take in time are dropped");
        }
        let Some(pause) = pauses.next().filter(|_| may_pass(&why)) else { return Err(()) };
        tokio::time::sleep(*pause).await;
    }
}

/// Returns whether the receiver may accept the same message later. Only these statuses are retryable (OTLP 1.x,
/// "OTLP/HTTP Response", "Retryable Response Codes").
fn may_pass(error: &InternalRequestError) -> bool {
    match error {
        InternalRequestError::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        InternalRequestError::Forward(_) | InternalRequestError::Body(_) | InternalRequestError::TimedOut => {
            true
        }
        InternalRequestError::TooLong(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn what_is_sent_again() {
        for (status, again) in [
            (400, false),
            (404, false),
            (429, true),
            (500, false),
            (501, false),
            (502, true),
            (503, true),
            (504, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            assert_eq!(may_pass(&InternalRequestError::Status(status)), again, "{status}");
        }
        assert!(may_pass(&InternalRequestError::TimedOut) && !may_pass(&InternalRequestError::TooLong(1)));
    }
}
