//! Cuts a body out of the bytes that follow a head.

use bytes::BytesMut;

use super::chunked::{self, Decoded};
use super::framing::Framing;

#[derive(Debug)]
pub(crate) enum BodyDecoder {
    /// This many bytes are left.
    Length(u64),
    Chunked(chunked::Decoder),
    /// Whatever comes until the connection closes.
    Close,
}

impl BodyDecoder {
    /// For a body framed so.
    pub(super) fn new(framing: Framing) -> BodyDecoder {
        match framing {
            Framing::Length(length) => BodyDecoder::Length(length),
            Framing::Chunked => BodyDecoder::Chunked(chunked::Decoder::default()),
            Framing::Close => BodyDecoder::Close,
        }
    }

    /// Takes what it can from the front of `input`.
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

    /// Whether the end of the connection is the end of the body.
    pub(super) fn ends_at_close(&self) -> bool {
        matches!(self, BodyDecoder::Close | BodyDecoder::Length(0))
    }

    /// The exact number of bytes left, where it is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            BodyDecoder::Length(left) => Some(*left),
            BodyDecoder::Chunked(_) | BodyDecoder::Close => None,
        }
    }
}
