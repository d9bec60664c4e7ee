//! Collects encoded content on its way to the client and keeps it with the stored content, so that it is encoded once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::memory::chunked_bytes::Builder;
use crate::message::body::{BodyError, Kept};
use crate::represent::encoded_body::Encoding;

/// An encoding body whose output is kept.
pub(crate) struct Keeping {
    encoding: Encoding,
    keeper: Option<Arc<dyn Kept>>,
    name: &'static str,
    made: Builder,
}

impl Keeping {
    /// Keeps the output of `encoding` under `name`, unless another response is keeping it already.
    pub(crate) fn new(encoding: Encoding, keeper: Arc<dyn Kept>, name: &'static str) -> Keeping {
        let keeper = keeper.begin(name).then_some(keeper);
        Keeping { encoding, keeper, name, made: Builder::default() }
    }

    fn ended(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.keep(self.name, std::mem::take(&mut self.made).finish());
            keeper.end(self.name);
        }
    }

    fn give_up(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.end(self.name);
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl http_body::Body for Keeping {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.encoding).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if this.keeper.is_some() => this.made.push(data),
                Some(_) => {}
                // Trailers follow the last piece of content.
                None => this.ended(),
            },
            Some(Err(_)) => this.give_up(),
            None => this.ended(),
        }
        if http_body::Body::is_end_stream(&this.encoding) {
            this.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.encoding)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.encoding)
    }
}
