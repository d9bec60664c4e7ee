//! What may not pass is stopped here, before any work is done for it: bodies that are too long.

use std::fmt;
use std::task::{Context, Poll};

use http::Response;
use tower::Service;

use super::Routed;
use super::either::Either;
use crate::body::Body;
use crate::error::BoxError;

/// A body that says it is longer than this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge(pub u64);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request body exceeds {} bytes", self.0)
    }
}

impl std::error::Error for TooLarge {}

/// See the head of the file.
#[derive(Clone)]
pub struct Limit<S>(pub S);

impl<S> Service<Box<Routed>> for Limit<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Either<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut routed: Box<Routed>) -> Self::Future {
        let most = routed.route.max_body_size.unwrap_or(routed.record.snapshot.policy.server.max_body_size);
        if most < u64::MAX {
            let body = routed.request.body_mut();
            if http_body::Body::size_hint(body).exact().is_some_and(|length| length > most) {
                return Either::error(TooLarge(most));
            }
            // A body of unknown length is counted as it passes.
            body.set_limit(most);
        }
        Either::Below(self.0.call(routed))
    }
}
