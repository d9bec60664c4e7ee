//! The encoders, driven in slices that a worker can spare (`async-compression`'s codecs without its
//! asynchronous wrappers, which would copy everything twice).
//!
//! Levels and slices were measured (benches/README.md): on ordinary text a slice takes well under a
//! millisecond. Where a codec gathers its input into blocks that take longer, it is flushed at the end of
//! each slice. Levels that need large blocks to be worth their while work away from the worker.

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
/// Encoders write here before their output is copied out in the size it has.
const SCRATCH: usize = 16 * KIB;
/// log2 of the largest window of zstd: what a stream of unknown length remembers. 19 would make ordinary text
/// 3 % smaller, at 1.4 MiB for each answer on its way in place of 0.5.
const MAX_WINDOW: u32 = 17;
/// log2 of the smallest.
const MIN_WINDOW: u32 = 12;
/// log2 of the tables of zstd's heaviest level here, which would be 4 MiB.
const HEAVY_TABLES: u32 = 17;
/// log2 of brotli's window, whatever the length. Up to 16 it takes another hasher, which needs 5 ms to set
/// itself up; beyond 18 its ring buffer costs a millisecond of page faults.
const BROTLI_WINDOW: i32 = 18;

thread_local! {
    static OUTPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

type Codec = Box<dyn EncodeV2 + Send>;

/// How a codec is set.
struct Setting {
    level: i32,
    /// Bytes of content that are encoded on the worker in one go.
    one_go: usize,
    /// Bytes of content that are encoded at once where there is more.
    slice: usize,
    /// What is done about slices that would take too long.
    pace: Pace,
}

/// See [`Setting`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// The codec takes no more at once than it is given.
    Even,
    /// It is made to write out each slice.
    Flushed,
    /// It works on another thread.
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

/// What one encoder takes in memory, as measured.
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

/// How much content is encoded in one go.
pub(crate) fn one_go(coding: Coding, effort: Effort) -> usize {
    setting(coding, effort).one_go
}

/// Whether content needs memory for as long as it is on its way: not where it is encoded in one go, here or
/// away.
pub(crate) fn holds_memory(coding: Coding, effort: Effort, whole: Option<usize>) -> bool {
    let Setting { one_go, slice, pace, .. } = setting(coding, effort);
    let max = if pace == Pace::Away { slice } else { one_go };
    whole.is_none_or(|length| length > max)
}

/// One encoder, for one answer.
pub(crate) struct Encoder {
    /// Made when there is something to encode: what waits for its turn takes no memory.
    codec: Option<Codec>,
    of: (Coding, i32, Option<u64>),
    slice: usize,
    pace: Pace,
    /// Content taken since it was last made to write out all it has.
    held: usize,
}

impl Encoder {
    /// For content of this length, as far as it is known.
    pub(crate) fn new(coding: Coding, effort: Effort, length: Option<u64>) -> Encoder {
        let Setting { level, slice, pace, .. } = setting(coding, effort);
        Encoder { codec: None, of: (coding, level, length), slice, pace, held: 0 }
    }

    fn codec(&mut self) -> &mut Codec {
        let ((coding, level, length), pace) = (self.of, self.pace);
        self.codec.get_or_insert_with(|| codec(coding, level, length, pace))
    }

    /// How much content it takes at once.
    pub(crate) fn slice(&self) -> usize {
        self.slice
    }

    /// Whether its work is too much for a worker.
    pub(crate) fn works_away(&self) -> bool {
        self.pace == Pace::Away
    }

    /// Encodes `content`, at most a slice of it; says whether all of it was written out.
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

    /// Writes out what it holds, so that a client can decode all it was given.
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

/// Encodes what is here whole; no more than goes in one go.
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
            // Tables no larger than the content can fill: they are zeroed for each answer.
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

/// Lets a codec write until it says that it is done.
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

/// log2 of a window that content of this length fits into.
fn window(length: u64) -> u32 {
    length.max(1).next_power_of_two().trailing_zeros().clamp(MIN_WINDOW, MAX_WINDOW)
}
