//! Stored content, cut into chunks of one size.
//!
//! Stored contents come in every length. A single block for each would seldom fit into the gap that another left, and
//! the allocator would hold far more memory than is in use. A chunk of fixed size fits wherever another chunk was.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Length in bytes of every chunk but the last. mimalloc has a size class for it: 32 of them fill one of its pages to
/// the last byte. In `benches/churn`, 32 KiB took 5 % more memory and 4 KiB 2 % more (benches/README.md).
pub(crate) const PIECE: usize = 16 * 1024;

/// Length in bytes beyond which content gets the room of a whole chunk at once.
const LITTLE: usize = 4 * 1024;

/// Content in chunks; see the module documentation. A clone shares the content.
#[derive(Clone, Debug)]
pub(crate) struct ChunkedBytes {
    pieces: Kind,
    length: usize,
}

/// Most content is one chunk, which needs no list.
#[derive(Clone, Debug)]
enum Kind {
    One(Bytes),
    Many(Arc<[Bytes]>),
}

impl ChunkedBytes {
    /// Copies `content` into chunks that are suitable for storing.
    pub(crate) fn copy(content: &[u8]) -> ChunkedBytes {
        content.chunks(PIECE).map(Bytes::copy_from_slice).collect()
    }

    /// Copies the content into chunks of its own: the present ones may be slices that keep larger buffers alive.
    pub(crate) fn cut(&self) -> ChunkedBytes {
        if let Kind::One(piece) = &self.pieces {
            return ChunkedBytes::copy(piece);
        }
        let mut cutter = Builder::default();
        self.iter().for_each(|piece| cutter.push(piece));
        cutter.finish()
    }

    /// Returns the total length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Returns whether the content is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the content if it is one chunk, otherwise the list of chunks.
    pub(crate) fn into_single(self) -> Result<Bytes, Arc<[Bytes]>> {
        match self.pieces {
            Kind::One(piece) => Ok(piece),
            Kind::Many(pieces) => Err(pieces),
        }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Bytes> {
        match &self.pieces {
            Kind::One(piece) => std::slice::from_ref(piece).iter(),
            Kind::Many(pieces) => pieces.iter(),
        }
    }

    /// Returns the content as one buffer. Several chunks are copied for that.
    pub(crate) fn joined(&self) -> Bytes {
        match &self.pieces {
            Kind::One(piece) => piece.clone(),
            Kind::Many(pieces) => pieces.concat().into(),
        }
    }

    /// Returns a part of the content without copying.
    pub(crate) fn slice(&self, range: Range<usize>) -> ChunkedBytes {
        let mut start = 0;
        let cut = |piece: &Bytes| {
            let (from, to) = (range.start.saturating_sub(start), range.end.saturating_sub(start));
            start += piece.len();
            let (from, to) = (from.min(piece.len()), to.min(piece.len()));
            (from < to).then(|| piece.slice(from..to))
        };
        self.iter().filter_map(cut).collect()
    }
}

impl Default for ChunkedBytes {
    fn default() -> ChunkedBytes {
        Bytes::new().into()
    }
}

impl From<Bytes> for ChunkedBytes {
    fn from(piece: Bytes) -> ChunkedBytes {
        ChunkedBytes { length: piece.len(), pieces: Kind::One(piece) }
    }
}

impl From<Arc<[Bytes]>> for ChunkedBytes {
    fn from(pieces: Arc<[Bytes]>) -> ChunkedBytes {
        ChunkedBytes { length: pieces.iter().map(Bytes::len).sum(), pieces: Kind::Many(pieces) }
    }
}

impl FromIterator<Bytes> for ChunkedBytes {
    fn from_iter<T: IntoIterator<Item = Bytes>>(pieces: T) -> ChunkedBytes {
        let mut pieces = pieces.into_iter();
        let first = pieces.next().unwrap_or_default();
        let Some(second) = pieces.next() else { return ChunkedBytes::from(first) };
        [first, second].into_iter().chain(pieces).collect::<Arc<[Bytes]>>().into()
    }
}

/// Cuts content that arrives bit by bit into chunks.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    whole: Vec<Bytes>,
    last: BytesMut,
}

impl Builder {
    /// Appends a copy of `content`.
    pub(crate) fn push(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            let (now, later) = content.split_at(content.len().min(PIECE - self.last.len()));
            let wanted = self.last.len() + now.len();
            if wanted > self.last.capacity() {
                let room = if wanted > LITTLE || !self.whole.is_empty() { PIECE } else { LITTLE };
                self.last.reserve(room - self.last.len());
            }
            self.last.extend_from_slice(now);
            content = later;
            if self.last.len() == PIECE {
                self.whole.push(std::mem::take(&mut self.last).freeze());
            }
        }
    }

    /// Returns the memory held so far in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.whole.len() * PIECE + self.last.capacity()
    }

    pub(crate) fn finish(mut self) -> ChunkedBytes {
        if !self.last.is_empty() {
            // The last chunk is copied: a buffer that is shrunk in place may still take twice its length.
            self.whole.push(Bytes::copy_from_slice(&self.last));
        }
        self.whole.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cut_and_joined_it_is_the_same(
            parts in proptest::collection::vec(0usize..3 * PIECE / 2, 0..6),
            a: usize,
            b: usize,
        ) {
            let whole: Vec<u8> = (0..parts.iter().sum::<usize>()).map(|at| (at % 251) as u8).collect();
            let (mut cutter, mut left) = (Builder::default(), &whole[..]);
            for part in parts {
                let (now, later) = left.split_at(part);
                cutter.push(now);
                left = later;
            }
            let cut = cutter.finish();
            let (a, b) = (a % (whole.len() + 1), b % (whole.len() + 1));
            let (start, end) = (a.min(b), a.max(b));
            for pieces in [cut.cut(), cut, ChunkedBytes::copy(&whole)] {
                prop_assert_eq!(pieces.len(), whole.len());
                prop_assert_eq!(pieces.iter().len(), whole.len().div_ceil(PIECE).max(1));
                prop_assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() == PIECE));
                prop_assert!(pieces.joined() == whole);
                let part = pieces.slice(start..end);
                prop_assert_eq!(part.len(), end - start);
                prop_assert!(part.joined() == whole[start..end]);
            }
        }
    }
}
