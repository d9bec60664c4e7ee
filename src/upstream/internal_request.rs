//! A request of Pillion's own: keys it fetches, and what it tells others. One try, with an answer that is read whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{Call, ForwardError, Outcome, Pool, Streaming, Upstream};
use crate::http1::head::HeadLimits;
use crate::memory::buffers::ClientSlot;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;

/// For one request, from its start to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
const LIMITS: HeadLimits = HeadLimits { size: 64 * 1024, fields: 256 };

pub(crate) struct Question<'a> {
    pub method: Method,
    pub target: &'a PathAndQuery,
    /// Fields beside Host and User-Agent.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The longest answer; bytes.
    pub most: usize,
}

/// Why there is no answer to be had.
#[derive(Debug)]
pub(crate) enum AskError {
    /// It could not be asked.
    Forward(ForwardError),
    /// Its answer ended before its end.
    Body(BodyError),
    /// It did not answer in time.
    TimedOut,
    /// Its answer is longer than so many bytes.
    TooLong(usize),
    /// It answered with another status.
    Status(StatusCode),
}

impl std::fmt::Display for AskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Who is asked here is no app: keys, receivers of spans and webhooks are.
            AskError::Forward(error) => error.tell("the server", f),
            AskError::Body(error) => error.fmt(f),
            AskError::TimedOut => f.write_str("no answer in time"),
            AskError::TooLong(most) => write!(f, "the answer is longer than {most} bytes"),
            AskError::Status(status) => write!(f, "answered {status}"),
        }
    }
}

impl Upstream {
    /// Asks, and returns the content of an answer of 200 to 299.
    ///
    /// # Errors
    ///
    /// See [`AskError`].
    pub(crate) async fn ask(&self, pool: &Rc<Pool>, question: Question<'_>) -> Result<Vec<u8>, AskError> {
        let answered = tokio::time::timeout(PATIENCE, self.ask_patiently(pool, question)).await;
        answered.unwrap_or(Err(AskError::TimedOut))
    }

    async fn ask_patiently(&self, pool: &Rc<Pool>, mut question: Question<'_>) -> Result<Vec<u8>, AskError> {
        if let Some(endpoint) = self.policy.endpoints.first()
            && let Ok(host) = HeaderValue::from_str(endpoint.authority.as_str())
        {
            question.headers.insert(header::HOST, host);
        }
        question.headers.insert(header::USER_AGENT, HeaderValue::from_static("pillion"));
        let call = Call {
            method: &question.method,
            target: question.target,
            headers: &mut question.headers,
            forwarding: None,
            identified: None,
            client: ClientSlot::default(),
            body: Body::full(question.body),
            upgrade: None,
            takes_trailers: false,
            interim: None,
            pinned: None,
            timeout: Some(PATIENCE),
            streaming: Streaming::No,
            stream_idle_timeout: PATIENCE,
            limits: LIMITS,
            room: None,
            counted: false,
            rank: (0, 1),
        };
        let outcome = Outcome::default();
        let response = self.send(pool, call, clock::now(), &outcome).await.map_err(AskError::Forward)?;
        let status = response.status();
        let mut body = response.into_body();
        let mut content = Vec::new();
        while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {
            let Ok(data) = frame.map_err(AskError::Body)?.into_data() else { continue };
            if content.len() + data.len() > question.most {
                return Err(AskError::TooLong(question.most));
            }
            content.extend_from_slice(&data);
        }
        if status.is_success() { Ok(content) } else { Err(AskError::Status(status)) }
    }
}
