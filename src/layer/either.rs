//! A future for a response that is ready at once, for the response of the layer below, or for one that comes after a
//! wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;

use crate::message::body::Body;
use crate::message::error::BoxError;

/// A ready response, the future of the layer below, or one that waits first.
pub(super) enum Either<F> {
    Ready(Option<Box<Result<Response<Body>, BoxError>>>),
    Below(F),
    Later(Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>>>>),
}

impl<F> Either<F> {
    pub(super) fn error(error: impl Into<BoxError>) -> Either<F> {
        Either::Ready(Some(Box::new(Err(error.into()))))
    }

    pub(super) fn ready(response: Response<Body>) -> Either<F> {
        Either::Ready(Some(Box::new(Ok(response))))
    }
}

impl<F> Future for Either<F>
where
    F: Future<Output = Result<Response<Body>, BoxError>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Either::Ready(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(*response))
            }
            Either::Below(future) => Pin::new(future).poll(cx),
            Either::Later(future) => future.as_mut().poll(cx),
        }
    }
}
