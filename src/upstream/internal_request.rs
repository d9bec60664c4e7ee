//! A request of Pillion's own: keys it fetches, and what it tells others. One try, with an answer that is read whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::call::{Call, Outcome, Streaming};
use super::error::ForwardError;
use super::pool::Pool;
use super::state::Upstream;
use crate::http1::head::HeadLimits;
use crate::memory::buffers::ClientSlot;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;

/// For one request, from its start to the last byte of its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const LIMITS: HeadLimits = HeadLimits { size: 64 * 1024, fields: 256 };

pub(crate) struct InternalRequest<'a> {
    pub method: Method,
    pub target: &'a PathAndQuery,
    /// Fields beside Host and User-Agent.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The longest answer; bytes.
    pub max: usize,
}

/// Why there is no answer to be had.
#[derive(Debug)]
pub(crate) enum InternalRequestError {
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

impl std::fmt::Display for InternalRequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // Who is asked here is no app: keys, receivers of spans and webhooks are.
            InternalRequestError::Forward(error) => error.tell("the server", f),
            InternalRequestError::Body(error) => error.fmt(f),
            InternalRequestError::TimedOut => f.write_str("no answer in time"),
            InternalRequestError::TooLong(max) => write!(f, "the answer is longer than {max} bytes"),
            InternalRequestError::Status(status) => write!(f, "answered {status}"),
        }
    }
}

impl Upstream {
    /// Asks, and returns the content of an answer of 200 to 299.
    ///
    /// # Errors
    ///
    /// See [`AskError`].
    pub(crate) async fn ask(
        &self,
        pool: &Rc<Pool>,
        question: InternalRequest<'_>,
    ) -> Result<Vec<u8>, InternalRequestError> {
        let responded = tokio::time::timeout(TIMEOUT, self.send_internal_within(pool, question)).await;
        responded.unwrap_or(Err(InternalRequestError::TimedOut))
    }

    async fn send_internal_within(
        &self,
        pool: &Rc<Pool>,
        mut question: InternalRequest<'_>,
    ) -> Result<Vec<u8>, InternalRequestError> {
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
            timeout: Some(TIMEOUT),
            streaming: Streaming::No,
            stream_idle_timeout: TIMEOUT,
            limits: LIMITS,
            room: None,
            counted: false,
            rank: (0, 1),
        };
        let outcome = Outcome::default();
        let response =
            self.send(pool, call, clock::now(), &outcome).await.map_err(InternalRequestError::Forward)?;
        let status = response.status();
        let mut body = response.into_body();
        let mut content = Vec::new();
        while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {
            let Ok(data) = frame.map_err(InternalRequestError::Body)?.into_data() else { continue };
            if content.len() + data.len() > question.max {
                return Err(InternalRequestError::TooLong(question.max));
            }
            content.extend_from_slice(&data);
        }
        if status.is_success() { Ok(content) } else { Err(InternalRequestError::Status(status)) }
    }
}
