//! The encoders, run in slices that a worker can spare (`async-compression`'s codecs without its asynchronous wrappers,
//! which would copy everything twice).
//!
//! Levels and slices were measured (benches/README.md): a slice of ordinary text takes well under a millisecond. A
//! codec that gathers its input into blocks that take longer is flushed at the end of each slice. Levels that are
//! worthwhile only with large blocks run on another thread.

use std::cell::RefCell;
use std::io;

use async_compression::Level;
use async_compression::codecs::brotli::params::EncoderParams as BrotliParams;
use async_compression::codecs::flate::params::FlateEncoderParams;
use async_compression::codecs::zstd::params::CParameter;
use async_compression::codecs::{BrotliEncoder, EncodeV2, GzipEncoder, ZstdEncoder};
use async_compression::core::util::{PartialBuffer, WriteBuffer};
use bytes::{Bytes, BytesMut};

use super::coding::{Coding, Effort};

const KIB: usize = 1024;
/// Size in bytes of the buffer that encoders write to before their output is copied out.
const SCRATCH: usize = 16 * KIB;
/// log2 of the maximum window of zstd, which is the memory of a stream of unknown length. With 19 ordinary text is 3 %
/// smaller, at 1.4 MiB instead of 0.5 MiB for each response.
const MAX_WINDOW: u32 = 17;
/// log2 of the minimum window of zstd.
const MIN_WINDOW: u32 = 12;
/// log2 of the tables of zstd's heaviest level here, which would be 4 MiB by default.
const HEAVY_TABLES: u32 = 17;
/// log2 of brotli's window for any length. Up to 16 brotli uses another hasher, which takes 5 ms to initialize; above
/// 18 its ring buffer costs a millisecond of page faults.
const BROTLI_WINDOW: i32 = 18;

thread_local! {
    static OUTPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

type Codec = Box<dyn EncodeV2 + Send>;

/// The settings of a codec.
struct Setting {
    level: i32,
    /// Maximum bytes of complete content that are encoded on the worker in one call.
    one_go: usize,
    /// Bytes encoded at once of longer content.
    slice: usize,
    /// How slices are kept from taking too long.
    pace: Pace,
}

/// How a codec is kept from blocking the worker for too long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// The codec encodes all it is given at once, so the size of a slice bounds its time.
    Even,
    /// The codec is flushed after each slice.
    Flushed,
    /// The codec runs on another thread.
    Away,
}

fn setting(coding: Coding, effort: Effort) -> Setting {
    let set = |level, one_go, slice, pace| Setting { level, one_go: one_go * KIB, slice: slice * KIB, pace };
    match (coding, effort) {
        (Coding::Gzip, Effort::Fast) => set(1, 32, 32, Pace::Even),
        (Coding::Gzip, Effort::Balanced) => set(3, 32, 32, Pace::Even),
        (Coding::Gzip, Effort::Best) => set(9, 8, 128, Pace::Away),
        (Coding::Zstd, Effort::Fast) => set(1, 32, 32, Pace::Flushed),
        (Coding::Zstd, Effort::Balanced) => set(3, 32, 32, Pace::Flushed),
        (Coding::Zstd, Effort::Best) => set(7, 8, 128, Pace::Away),
        (Coding::Brotli, Effort::Fast) => set(1, 32, 32, Pace::Even),
        (Coding::Brotli, Effort::Balanced) => set(4, 32, 16, Pace::Flushed),
        (Coding::Brotli, Effort::Best) => set(6, 8, 128, Pace::Away),
    }
}

/// Returns the memory of one encoder in bytes, as measured.
pub(crate) fn memory(coding: Coding, effort: Effort) -> usize {
    KIB * match (coding, effort) {
        (Coding::Gzip, _) => 416,
        (Coding::Zstd, Effort::Fast | Effort::Balanced) => 512,
        (Coding::Zstd, Effort::Best) => 2048,
        (Coding::Brotli, Effort::Fast) => 256,
        (Coding::Brotli, Effort::Balanced) => 1728,
        (Coding::Brotli, Effort::Best) => 3584,
    }
}

/// Returns the maximum bytes of content that are encoded in one call.
pub(crate) fn one_go(coding: Coding, effort: Effort) -> usize {
    setting(coding, effort).one_go
}

/// Returns whether an encoder holds memory while the response is sent; one that encodes the content in one call, here
/// or on another thread, does not.
pub(crate) fn holds_memory(coding: Coding, effort: Effort, whole: Option<usize>) -> bool {
    let Setting { one_go, slice, pace, .. } = setting(coding, effort);
    let max = if pace == Pace::Away { slice } else { one_go };
    whole.is_none_or(|length| length > max)
}

/// The encoder of one response.
pub(crate) struct Encoder {
    /// Created with the first content: an encoder that waits for its turn takes no memory.
    codec: Option<Codec>,
    of: (Coding, i32, Option<u64>),
    slice: usize,
    pace: Pace,
    /// Bytes of content taken since the last flush.
    held: usize,
}

impl Encoder {
    /// Creates an encoder for content of this length, if it is known.
    pub(crate) fn new(coding: Coding, effort: Effort, length: Option<u64>) -> Encoder {
        let Setting { level, slice, pace, .. } = setting(coding, effort);
        Encoder { codec: None, of: (coding, level, length), slice, pace, held: 0 }
    }

    fn codec(&mut self) -> &mut Codec {
        let ((coding, level, length), pace) = (self.of, self.pace);
        self.codec.get_or_insert_with(|| codec(coding, level, length, pace))
    }

    /// Returns the maximum bytes of content for one call.
    pub(crate) fn slice(&self) -> usize {
        self.slice
    }

    /// Returns whether it must run on another thread.
    pub(crate) fn works_away(&self) -> bool {
        self.pace == Pace::Away
    }

    /// Encodes at most a slice of content; returns whether all of it was written out.
    pub(crate) fn encode(&mut self, content: &[u8], out: &mut BytesMut) -> io::Result<bool> {
        let mut input = PartialBuffer::new(content);
        if content.is_empty() {
            return Ok(false);
        }
        let codec = self.codec();
        drive(out, |output| {
            codec.encode(&mut input, output)?;
            Ok(input.unwritten().is_empty())
        })?;
        self.held += content.len();
        if self.pace == Pace::Flushed && self.held >= self.slice {
            self.flush(out)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Writes out everything it holds, so that a client can decode all content so far.
    pub(crate) fn flush(&mut self, out: &mut BytesMut) -> io::Result<()> {
        self.held = 0;
        let codec = self.codec();
        drive(out, |output| codec.flush(output))
    }

    pub(crate) fn finish(&mut self, out: &mut BytesMut) -> io::Result<()> {
        let codec = self.codec();
        drive(out, |output| codec.finish(output))
    }
}

/// Encodes complete content in one call; the content must be within [`one_go`].
pub(crate) fn encode(coding: Coding, effort: Effort, content: &[u8]) -> io::Result<Bytes> {
    let mut encoder = Encoder::new(coding, effort, Some(content.len() as u64));
    let mut out = BytesMut::with_capacity(content.len() / 4 + 64);
    encoder.pace = Pace::Even;
    encoder.encode(content, &mut out)?;
    encoder.finish(&mut out)?;
    Ok(out.freeze())
}

fn codec(coding: Coding, level: i32, length: Option<u64>, pace: Pace) -> Codec {
    match coding {
        Coding::Gzip => Box::new(GzipEncoder::new(FlateEncoderParams::from(Level::Precise(level)))),
        Coding::Zstd => {
            // Tables no larger than the content can fill, because they are zeroed for each response.
            let window = length.map_or(MAX_WINDOW, window);
            let tables = if pace == Pace::Away { HEAVY_TABLES } else { window - 2 };
            let parameters =
                [CParameter::window_log(window), CParameter::hash_log(tables), CParameter::chain_log(tables)];
            Box::new(ZstdEncoder::new_with_params(level, &parameters))
        }
        Coding::Brotli => {
            let parameters = BrotliParams::default().quality(Level::Precise(level));
            Box::new(BrotliEncoder::new(parameters.window_size(BROTLI_WINDOW)))
        }
    }
}

/// Lets a codec write until it reports that it is done.
fn drive(
    out: &mut BytesMut,
    mut step: impl FnMut(&mut WriteBuffer<'_>) -> io::Result<bool>,
) -> io::Result<()> {
    OUTPUT.with_borrow_mut(|scratch| {
        loop {
            let mut buffer = WriteBuffer::new_initialized(scratch);
            let done = step(&mut buffer)?;
            out.extend_from_slice(buffer.written());
            if done {
                return Ok(());
            }
        }
    })
}

/// Returns log2 of a window that content of this length fits into.
fn window(length: u64) -> u32 {
    length.max(1).next_power_of_two().trailing_zeros().clamp(MIN_WINDOW, MAX_WINDOW)
}
