//! Gives an answer the form its client asked for: coded, validated, not at all because the client has it,
//! or a part of it. It stands outside the cache, so that what is stored gets the same treatment as what
//! the app has just said.
//!
//! `asked` reads the request and changes what the app is to hear of it; `response` decides about the answer, with
//! `choose`, or finds that it was decided about before (`prepared`); `coded` and `fields` change it. The decisions themselves are the engine's (`represent`).

mod choose;
pub(super) mod classify;
mod coded;
pub(super) mod error;
mod fields;
mod on_response;
mod rendered;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use tower::Service;

use super::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use classify::RepresentationRequest;
use error::RepresentError;
use on_response::{Begun, Representing};

/// See the head of the file.
#[derive(Clone)]
pub(super) struct Represent<S>(pub S);

impl<S> Service<Box<Routed>> for Represent<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = RepresentFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut routed: Box<Routed>) -> Self::Future {
        // An upgrade is no representation, and gRPC codes its messages itself. What a signature covers stays as it is:
        // Accept-Encoding, Range and the conditions are then the app's to answer.
        if routed.upgrade.is_some() || routed.record.grpc || routed.signed {
            return RepresentFuture::Below(self.0.call(routed), None);
        }
        match RepresentationRequest::read(&mut routed) {
            Ok(asked) => {
                routed.form = asked.form(&routed);
                let representing = Representing { asked, form: routed.form, record: routed.record.clone() };
                RepresentFuture::Below(self.0.call(routed), Some(Box::new(representing)))
            }
            Err(error) => RepresentFuture::Refused(Some(error)),
        }
    }
}

/// The answer in the form asked for. Most are decided about at once; those of which more has to come first
/// go on in a future of their own.
pub(super) enum RepresentFuture<F> {
    /// From below; nothing is done with an answer where nobody asked.
    Below(F, Option<Box<Representing>>),
    /// More of its content has to come.
    Gathering(Pin<Box<dyn Future<Output = Result<Response<Body>, RepresentError>>>>),
    /// The request is not sent on.
    Refused(Option<RepresentError>),
}

impl<F> Future for RepresentFuture<F>
where
    F: Future<Output = Result<Response<Body>, BoxError>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let RepresentFuture::Below(below, representing) = this {
            let response = ready!(Pin::new(below).poll(cx))?;
            let Some(representing) =
                representing.take().filter(|representing| representing.asked.concerns(&response))
            else {
                return Poll::Ready(Ok(response));
            };
            match representing.begin(response) {
                Begun::Decided(result) => return Poll::Ready(result.map_err(Into::into)),
                Begun::Needs(gathering) => {
                    *this = RepresentFuture::Gathering(Box::pin(representing.go_on(gathering)));
                }
            }
        }
        match this {
            RepresentFuture::Gathering(gathering) => gathering.as_mut().poll(cx).map_err(Into::into),
            RepresentFuture::Refused(error) => {
                error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error.into())))
            }
            RepresentFuture::Below(..) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_every_request_are_allocated_quickly() {
        let size = size_of::<Representing>();
        assert!(super::super::is_quick(size), "{size}");
    }
}
