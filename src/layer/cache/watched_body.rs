//! The content of the response to a write: what the write changed is invalidated once more when it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::invalidate::InvalidationGuard;
use super::unattended::{outlive, to_its_end};
use crate::message::body::{Body, BodyError};
use crate::runtime::clock;

/// The body of a response to a write: stamps again when it ends or is dropped.
pub(super) struct Watched {
    pub body: Body,
    /// The guard, until it has stamped.
    pub guard: Option<Box<InvalidationGuard>>,
}

impl Watched {
    fn ended(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.fire(clock::now());
        }
    }
}

impl Drop for Watched {
    /// Stamps when the client drops the rest. If a rule matches, its end is awaited, as the upstream continues.
    fn drop(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        let body = std::mem::replace(&mut self.body, Body::empty());
        guard.fire(clock::now());
        if guard.waits().is_none() || body.is_endless() {
            guard.fire_again_later();
            return;
        }
        let place = guard.cache.unattended.write();
        outlive(async move {
            let _place = place;
            to_its_end(body).await;
            guard.fire(clock::now());
        });
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
