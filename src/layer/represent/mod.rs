//! The representation layer: gives a response the form its client asked for (encoded, validated, 304, or a range). It
//! is outside the cache, so stored responses and new ones are treated alike.
//!
//! `classify` reads the request and edits the fields that the upstream receives. `on_response` decides about the
//! response, with `choose`; `rendered` reuses an earlier decision; `coded` and `fields` change the response. The
//! decisions themselves are those of the engine `crate::represent`.

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
use on_response::{FirstDecision, Representing};

/// The representation layer as a tower layer; see the head of the file.
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
        // An upgrade has no representation, and gRPC encodes its messages itself. A signed request is forwarded
        // unchanged, so the upstream handles its Accept-Encoding, Range and conditions.
        if routed.upgrade.is_some() || routed.record.info.grpc || routed.signed {
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

/// The response in the requested form. Most responses are decided about at once; those that need more content first
/// continue in a boxed future.
pub(super) enum RepresentFuture<F> {
    /// From below; without a [`Representing`] the response is passed on unchanged.
    Below(F, Option<Box<Representing>>),
    /// More of the content must arrive first.
    Gathering(Pin<Box<dyn Future<Output = Result<Response<Body>, RepresentError>>>>),
    /// The request is not forwarded.
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
            match representing.decide_from_head(response) {
                FirstDecision::Decided(result) => return Poll::Ready(result.map_err(Into::into)),
                FirstDecision::Needs(gathering) => {
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
mod tests;
