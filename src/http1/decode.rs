//! Extracts a body from the bytes that follow a head.

use bytes::BytesMut;

use super::chunked::{self, Decoded};
use super::framing::Framing;

#[derive(Debug)]
pub(crate) enum BodyDecoder {
    /// The number of bytes left.
    Length(u64),
    Chunked(chunked::Decoder),
    /// The body ends when the connection closes.
    Close,
}

impl BodyDecoder {
    /// Creates a decoder for this framing.
    pub(super) fn new(framing: Framing) -> BodyDecoder {
        match framing {
            Framing::Length(length) => BodyDecoder::Length(length),
            Framing::Chunked => BodyDecoder::Chunked(chunked::Decoder::default()),
            Framing::Close => BodyDecoder::Close,
        }
    }

    /// Decodes from the front of `input` and consumes what it used.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, &'static str> {
        match self {
            BodyDecoder::Length(0) => Ok(Decoded::End(None)),
            _ if input.is_empty() => Ok(Decoded::NeedMore),
            BodyDecoder::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= take as u64;
                Ok(Decoded::Data(input.split_to(take).freeze()))
            }
            BodyDecoder::Chunked(decoder) => decoder.decode(input),
            BodyDecoder::Close => Ok(Decoded::Data(input.split().freeze())),
        }
    }

    /// Returns whether the end of the connection ends the body.
    pub(super) fn ends_at_close(&self) -> bool {
        matches!(self, BodyDecoder::Close | BodyDecoder::Length(0))
    }

    /// Returns the exact number of bytes left, if it is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            BodyDecoder::Length(left) => Some(*left),
            BodyDecoder::Chunked(_) | BodyDecoder::Close => None,
        }
    }
}
