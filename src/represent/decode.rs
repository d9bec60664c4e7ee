//! The decoders, for an app that codes what its client refuses.

use std::io;

use async_compression::codecs::zstd::params::DParameter;
use async_compression::codecs::{BrotliDecoder, DecodeV2, GzipDecoder, ZlibDecoder, ZstdDecoder};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use bytes::{Buf, Bytes};

/// log2 of the largest window of zstd: what RFC 9659 lets a sender use, and so the memory one answer may
/// cost. Brotli's is at most 16 MiB, gzip's 32 KiB.
const MOST_WINDOW: u32 = 23;

/// How every member of gzip begins (RFC 1952 2.3.1).
const GZIP: u8 = 0x1f;

/// One decoder, for one answer.
pub struct Decoder {
    codec: Box<dyn DecodeV2>,
    /// Further members may follow the first (RFC 1952 2.2, RFC 8878 3.1).
    members: bool,
    /// A checksum follows the last of the content, so that content found no room never ends the input.
    trailing: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the content came yet.
    Fresh,
    Within,
    Ended,
}

impl Decoder {
    /// For a coding by its canonical name; `None` where we cannot decode it.
    pub fn new(coding: &str) -> Option<Decoder> {
        let window = [DParameter::window_log_max(MOST_WINDOW)];
        let (codec, members, trailing): (Box<dyn DecodeV2>, bool, bool) = match coding {
            "gzip" => (Box::new(GzipDecoder::new()), true, true),
            "br" => (Box::new(BrotliDecoder::new()), false, false),
            "zstd" => (Box::new(ZstdDecoder::new_with_params(&window)), true, false),
            "deflate" => (Box::new(ZlibDecoder::new()), false, true),
            _ => return None,
        };
        Some(Decoder { codec, members, trailing, state: State::Fresh })
    }

    /// Decodes some of `input` into `output`; says how much it wrote. Nothing written and nothing left of
    /// the input: it needs more.
    pub fn decode(&mut self, input: &mut Bytes, output: &mut [u8]) -> io::Result<usize> {
        if self.state == State::Ended && !input.is_empty() {
            if !self.members {
                return Err(io::Error::other("something follows its end"));
            }
            if self.trailing && input.first() != Some(&GZIP) {
                // Padding, as gzip itself ignores it.
                input.clear();
                return Ok(0);
            }
            self.codec.reinit()?;
        }
        let mut buffer = WriteBuffer::new_initialized(output);
        // What found no room the last time comes without further input.
        let goes_on = self.state == State::Within && !self.trailing;
        if !input.is_empty() || goes_on {
            let mut taken = PartialBuffer::new(&input[..]);
            let ended = self.codec.decode(&mut taken, &mut buffer)?;
            let count = taken.written_len();
            input.advance(count);
            self.state = if ended { State::Ended } else { State::Within };
        } else if self.state == State::Within {
            self.codec.flush(&mut buffer)?;
        }
        Ok(buffer.written_len())
    }

    /// Whether the content may end here: at its end, or where nothing of it came at all.
    pub fn may_end(&self) -> bool {
        self.state != State::Within
    }
}
