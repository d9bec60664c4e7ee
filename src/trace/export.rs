//! Sends spans in batches to the receiver. Requests never wait for it: what finds no room is dropped and counted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, header};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc::{Receiver, Sender, error::TrySendError};

use super::{Told, otlp};
use crate::policy::OtlpReceiver;
use crate::upstream::{AskError, Pool, Question, Registry, Upstream};

/// Requests that wait to be told.
pub const MOST_WAITING: usize = 8192;
/// In one message.
const BATCH: usize = 1024;
/// A batch is gathered for as long.
const GATHER: Duration = Duration::from_secs(1);
/// Between tries for one batch; what the receiver then has not taken is dropped.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// What it answers is not used; bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Where workers leave what is to be told.
#[derive(Clone, Debug)]
pub struct Spans {
    sender: Sender<Box<Told>>,
    dropped: Counter,
}

impl Spans {
    /// With room for [`MOST_WAITING`], and the other end. What is lost is counted in `dropped`, by requests.
    pub fn new(dropped: Counter) -> (Spans, Receiver<Box<Told>>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(MOST_WAITING);
        (Spans { sender, dropped }, receiver)
    }

    /// Leaves one, or drops and counts it.
    pub fn put(&self, told: Box<Told>) {
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.sender.try_send(told) {
            self.dropped.inc();
        }
    }
}

/// Tells the receiver, for the life of the process; which one it is can change.
pub async fn run(
    of: impl Fn() -> Option<OtlpReceiver>,
    registry: Arc<Registry>,
    mut waiting: Receiver<Box<Told>>,
    dropped: Counter,
) {
    let pool = Rc::new(Pool::default());
    let mut batch = Vec::with_capacity(BATCH);
    let mut well = true;
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        if batch.len() < BATCH {
            let gathered =
                async { while batch.len() < BATCH && waiting.recv_many(&mut batch, BATCH).await > 0 {} };
            let _ = tokio::time::timeout(GATHER, gathered).await;
        }
        if let Some(receiver) = of()
            && let Some(upstream) = registry.build(std::slice::from_ref(&receiver.upstream)).pop()
        {
            let told: Vec<Told> = batch.drain(..).map(|told| *told).collect();
            let sent = send(&upstream, &pool, &receiver, otlp::encode(&receiver.service, &told)).await;
            // Once, and once when it is well again.
            match sent {
                Err(why) => {
                    dropped.inc_by(told.len() as u64);
                    if std::mem::replace(&mut well, false) {
                        tracing::warn!(%why, "tracing.otlp_endpoint does not take spans; they are dropped");
                    }
                }
                Ok(()) => {
                    if !std::mem::replace(&mut well, true) {
                        tracing::info!("tracing.otlp_endpoint takes spans again");
                    }
                }
            }
        }
        batch.clear();
    }
}

async fn send(
    upstream: &Upstream,
    pool: &Rc<Pool>,
    receiver: &OtlpReceiver,
    message: Vec<u8>,
) -> Result<(), AskError> {
    let mut pauses = PAUSES.iter();
    loop {
        let mut headers = receiver.headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let question = Question {
            method: Method::POST,
            target: &receiver.target,
            headers,
            body: message.clone(),
            most: LONGEST_ANSWER,
        };
        let Err(why) = upstream.ask(pool, question).await else { return Ok(()) };
        let pause = pauses.next().filter(|_| may_pass(&why));
        let Some(pause) = pause else { return Err(why) };
        tokio::time::sleep(*pause).await;
    }
}

/// Whether the same message may be taken the next time. By status these do (OTLP 1.x, "OTLP/HTTP Response", "Retryable
/// Response Codes"), and no other.
fn may_pass(error: &AskError) -> bool {
    match error {
        AskError::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        AskError::Forward(_) | AskError::Body(_) | AskError::TimedOut => true,
        AskError::TooLong(_) => false,
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
            assert_eq!(may_pass(&AskError::Status(status)), again, "{status}");
        }
        assert!(may_pass(&AskError::TimedOut) && !may_pass(&AskError::TooLong(1)));
    }
}
