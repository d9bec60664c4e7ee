//! A request that Pillion sends itself, to fetch keys or to notify other servers. It has one try, and its response is
//! read whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::call::{Call, Progress, Streaming};
use super::error::ForwardError;
use super::pool::Pool;
use super::state::Upstream;
use crate::http1::head::HeadLimits;
use crate::memory::buffers::ClientSlot;
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;

/// Timeout of one request, from its start to the last byte of its response.
const TIMEOUT: Duration = Duration::from_secs(10);
const LIMITS: HeadLimits = HeadLimits { size: 64 * 1024, fields: 256 };

pub(crate) struct InternalRequest<'a> {
    pub method: Method,
    pub target: &'a PathAndQuery,
    /// Fields beside Host and User-Agent.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Maximum length of the response in bytes.
    pub max: usize,
}

/// The reason why an internal request failed.
#[derive(Debug)]
pub(crate) enum InternalRequestError {
    /// The upstream failed during a revalidation.
    Forward(ForwardError),
    /// The response was cut short.
    Body(BodyError),
    /// The response did not arrive in time.
    TimedOut,
    /// The response is longer than this number of bytes.
    TooLong(usize),
    /// The response has a status outside 200 to 299.
    Status(StatusCode),
}

impl std::fmt::Display for InternalRequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The peer is no upstream here, but a server of keys, spans or webhooks.
            InternalRequestError::Forward(error) => error.tell("the server", f),
            InternalRequestError::Body(error) => error.fmt(f),
            InternalRequestError::TimedOut => f.write_str("no response in time"),
            InternalRequestError::TooLong(max) => write!(f, "the response is longer than {max} bytes"),
            InternalRequestError::Status(status) => write!(f, "answered {status}"),
        }
    }
}

impl Upstream {
    /// Sends the request and returns the content of a response with status 200 to 299.
    ///
    /// # Errors
    ///
    /// See [`InternalRequestError`].
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
        let progress = Progress::default();
        let response =
            self.send(pool, call, clock::now(), &progress).await.map_err(InternalRequestError::Forward)?;
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
