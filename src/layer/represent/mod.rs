//! Gives an answer the form its client asked for: coded, validated, not at all because the client has it,
//! or a part of it. It stands outside the cache, so that what is stored gets the same treatment as what
//! the app has just said.
//!
//! `asked` reads the request and changes what the app is to hear of it; `answer` decides about the answer;
//! `coded` and `fields` change it. The decisions themselves are the engine's (`represent`).

mod answer;
mod asked;
mod coded;
mod fields;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use tower::Service;

use super::Routed;
use super::either::Either;
use crate::body::Body;
use crate::error::BoxError;
use crate::represent::counters::Counters;
use answer::Answering;
use asked::Asked;

/// Why there is no answer in the form asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepresentError {
    /// 412: a condition of the request does not hold.
    PreconditionFailed,
    /// 406: the client takes no coding in which this can be had.
    NotAcceptable,
    /// 416: no part asked for is within content of this length.
    RangeNotSatisfiable(usize),
}

impl fmt::Display for RepresentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepresentError::PreconditionFailed => f.write_str("a condition of the request does not hold"),
            RepresentError::NotAcceptable => f.write_str("no coding the client takes can be had"),
            RepresentError::RangeNotSatisfiable(length) => {
                write!(f, "the range is outside of {length} bytes")
            }
        }
    }
}

impl std::error::Error for RepresentError {}

/// See the head of the file.
#[derive(Clone)]
pub struct Represent<S> {
    inner: S,
    counters: Arc<Counters>,
}

impl<S> Represent<S> {
    /// Around `inner`.
    pub fn new(inner: S, counters: Arc<Counters>) -> Represent<S> {
        Represent { inner, counters }
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>>>>;

impl<S> Service<Box<Routed>> for Represent<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError>,
    S::Future: 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Either<Boxed>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut routed: Box<Routed>) -> Self::Future {
        // An upgrade is no representation, and gRPC codes its messages itself.
        if routed.upgrade.is_some() || routed.record.grpc {
            return Either::Below(Box::pin(self.inner.call(routed)));
        }
        let asked = match Asked::read(&mut routed) {
            Ok(asked) => asked,
            Err(error) => return Either::error(error),
        };
        let record = routed.record.clone();
        let counters = self.counters.clone();
        let below = self.inner.call(routed);
        Either::Below(Box::pin(async move {
            let response = below.await?;
            if !asked.concerns(&response) {
                return Ok(response);
            }
            let answering = Answering { asked: &asked, record: &record, counters: &counters };
            answering.answer(response).await.map_err(Into::into)
        }))
    }
}
