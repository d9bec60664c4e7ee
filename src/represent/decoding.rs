//! Content that is decoded as it passes. However much it grows, no more of it than one piece is held.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::decode::Decoder;
use super::encoding::Breather;
use crate::body::{Body, BodyError};

/// What is decoded at once.
const PIECE: usize = 32 * 1024;
/// Decoded between two pauses.
const SLICE: usize = 128 * 1024;

/// See the head of the file.
pub struct Decoding {
    content: Body,
    decoder: Decoder,
    input: Bytes,
    decoded: usize,
    breather: Breather,
    ended: bool,
}

impl Decoding {
    /// Of `content`.
    pub fn new(content: Body, decoder: Decoder) -> Decoding {
        Decoding {
            content,
            decoder,
            input: Bytes::new(),
            decoded: 0,
            breather: Breather::default(),
            ended: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            ready!(self.breather.poll(cx));
            let mut piece = vec![0; PIECE];
            let before = self.input.len();
            let count = self.decoder.decode(&mut self.input, &mut piece).map_err(malformed)?;
            // Input that gives nothing is work too.
            self.decoded += count + 8 * (before - self.input.len()).min(SLICE);
            if self.decoded >= SLICE {
                self.decoded = 0;
                self.breather.begin();
            }
            if count > 0 {
                piece.truncate(count);
                return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
            }
            if !self.input.is_empty() {
                continue;
            }
            match ready!(Pin::new(&mut self.content).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.input = data,
                    Err(_) if !self.decoder.may_end() => return Poll::Ready(Some(Err(cut_short()))),
                    Err(frame) => {
                        self.ended = true;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.decoder.may_end() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(cut_short()))),
            }
        }
    }
}

fn malformed(_: std::io::Error) -> BodyError {
    BodyError::UpstreamMalformed("its content is not in the coding it names")
}

fn cut_short() -> BodyError {
    BodyError::UpstreamMalformed("its coded content is cut short")
}

impl http_body::Body for Decoding {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(self.poll(cx));
        self.ended |= matches!(polled, None | Some(Err(_)));
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
