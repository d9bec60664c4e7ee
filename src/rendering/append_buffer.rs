//! A buffer that gathers short pieces before they are appended to a vector. Appended one by one, each of some fifty
//! pieces would check whether the vector has to grow.

use std::cell::RefCell;

/// Size of the buffer in bytes, enough for most log lines.
const ROOM: usize = 1024;

/// A short text in a fixed-size array: a copy of constant length compiles to a few instructions without a call.
#[derive(Debug)]
pub(crate) struct Fixed<const SIZE: usize> {
    text: [u8; SIZE],
    length: usize,
}

impl<const SIZE: usize> Fixed<SIZE> {
    /// Joins parts, which together fit into `SIZE` bytes.
    pub(crate) const fn new<const PARTS: usize>(parts: [&[u8]; PARTS]) -> Fixed<SIZE> {
        let (mut text, mut length, mut part) = ([0; SIZE], 0, 0);
        while part < PARTS {
            text.split_at_mut(length).1.split_at_mut(parts[part].len()).0.copy_from_slice(parts[part]);
            length += parts[part].len();
            part += 1;
        }
        Fixed { text, length }
    }

    /// Returns the length of the text in bytes.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

/// A buffer that gathers short pieces for a vector; see the head of the file.
#[derive(Debug)]
pub(crate) struct AppendBuffer<'o> {
    out: &'o mut Vec<u8>,
    room: &'o mut [u8; ROOM],
    filled: usize,
}

impl AppendBuffer<'_> {
    /// Runs `write` with the thread's buffer and appends the result to `out`. `write` must not call this function
    /// again, because the buffer is in use.
    pub(crate) fn with(out: &mut Vec<u8>, write: impl FnOnce(&mut AppendBuffer<'_>)) {
        thread_local! {
            static PLACE: RefCell<[u8; ROOM]> = const { RefCell::new([0; ROOM]) };
        }
        PLACE.with_borrow_mut(|room| {
            let mut scratch = AppendBuffer { out, room, filled: 0 };
            write(&mut scratch);
            scratch.vector();
        });
    }

    /// Returns the vector after appending all bytes gathered so far.
    pub(crate) fn vector(&mut self) -> &mut Vec<u8> {
        self.out.extend_from_slice(&self.room[..self.filled]);
        self.filled = 0;
        self.out
    }

    /// Appends bytes, through the buffer if they fit.
    #[inline(always)]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        match self.room.get_mut(self.filled..self.filled + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.filled += bytes.len();
            }
            None => self.spill(bytes),
        }
    }

    /// Appends the first `length` of the given bytes.
    #[inline(always)]
    pub(crate) fn first<const SIZE: usize>(&mut self, bytes: &[u8; SIZE], length: usize) {
        match self.room.get_mut(self.filled..self.filled + SIZE) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.filled += length;
            }
            None => self.spill(&bytes[..length]),
        }
    }

    #[inline(always)]
    pub(crate) fn fixed<const SIZE: usize>(&mut self, fixed: &Fixed<SIZE>) {
        self.first(&fixed.text, fixed.length);
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        self.vector().extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_comes_in_its_order() {
        let fixed = Fixed::<8>::new([b"ab", b"", b"c"]);
        for length in [0, 1, 7, ROOM / 2, ROOM - 9, ROOM - 8, ROOM, 3 * ROOM] {
            let (long, mut out) = (vec![b'x'; length], b"before".to_vec());
            AppendBuffer::with(&mut out, |scratch| {
                scratch.bytes(&long);
                scratch.fixed(&fixed);
                scratch.first(b"defg", 2);
                scratch.vector().push(b'-');
                scratch.bytes(b"h");
            });
            assert_eq!(out, [&b"before"[..], &long, b"abcde-h"].concat(), "{length}");
        }
    }
}
