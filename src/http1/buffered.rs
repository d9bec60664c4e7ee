//! A connection with a read buffer and a bounded write queue.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::connection::stream::Stream;
use crate::memory::buffers;
use crate::memory::buffers::{BufferReservation, Reading};

/// Bytes of the first read of a message.
const SMALLEST_READ: usize = 4 * 1024;
/// Maximum bytes of one read; reads grow to it while a body fills them.
const LARGEST_READ: usize = 128 * 1024;
/// Maximum bytes of one read ahead of a slow client.
const AHEAD_READ: usize = 32 * 1024;
/// Maximum bytes of one read of a small body, whose client may be slow.
const SMALL_READ: usize = 16 * 1024;
/// Content up to this size in bytes is copied behind the head and leaves in one plain write.
const COPY_BELOW: usize = 16 * 1024;
/// Content up to this size in bytes is also copied behind other slices: each slice takes memory beside its bytes.
const COPY_BEHIND: usize = 1024;
/// Size in bytes up to which a connection's buffers are ordinary and not counted.
pub(crate) const ORDINARY_BUFFERS: usize = 8 * 1024;
/// Maximum number of slices in one vectored write.
const MAX_SLICES: usize = 64;
/// Queued bytes above which nothing more is taken from the body.
const HIGH_WATER: usize = 256 * 1024;
/// Capacity in bytes above which an empty write buffer is freed.
const KEEP_CAPACITY: usize = 32 * 1024;

/// Takes bytes from the front of a read buffer; see [`Buffered::take`].
pub(crate) fn take(read: &mut BytesMut, length: usize) -> Bytes {
    if read.capacity() - length <= SMALL_READ {
        return read.split_to(length).freeze();
    }
    let copy = Bytes::copy_from_slice(&read[..length]);
    read.advance(length);
    if read.is_empty() {
        *read = BytesMut::new();
    }
    copy
}

/// Counts buffer memory; see [`Buffered::count`].
pub(crate) fn count(
    bytes: usize,
    counted: &mut Option<BufferReservation>,
    reserve: impl FnOnce() -> Option<BufferReservation>,
) {
    let bytes = if bytes > ORDINARY_BUFFERS { buffers::weight(bytes) } else { 0 };
    if counted.is_none() && bytes > 0 {
        *counted = reserve();
    }
    if let Some(counted) = counted {
        counted.resize(bytes);
    }
}

/// A stream with the bytes that were read from it and are not consumed yet.
#[derive(Debug)]
pub(crate) struct Buffered {
    pub stream: Stream,
    /// Bytes that were read and not yet consumed.
    pub read: BytesMut,
    next_read: usize,
    /// Bytes of the buffer that was last read into, with what was taken of it since.
    read_whole: usize,
    slices: VecDeque<Bytes>,
    tail: BytesMut,
    queued: usize,
    /// Written bytes of the first slice, which are held until the whole slice is written.
    front_written: usize,
}

impl Buffered {
    /// Creates a connection of which `read` was read already.
    pub(crate) fn new(stream: Stream, read: BytesMut) -> Buffered {
        Buffered {
            stream,
            read_whole: read.capacity(),
            read,
            next_read: SMALLEST_READ,
            slices: VecDeque::new(),
            tail: BytesMut::new(),
            queued: 0,
            front_written: 0,
        }
    }

    /// Reads once; `Ok(0)` is the end of the stream.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_fill_at_most(u64::MAX, cx)
    }

    /// Reads once within a message that has `left` bytes to come: the buffer gets no larger than those need.
    pub(crate) fn poll_fill_at_most(&mut self, left: u64, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let reading = buffers::reading();
        let max = if reading == Reading::Ahead { AHEAD_READ } else { LARGEST_READ };
        if reading == Reading::Pressed {
            self.next_read = SMALLEST_READ;
            if self.read.is_empty() && self.read.capacity() > SMALLEST_READ {
                // A grown buffer is not read into again: its whole capacity could fill with bytes that wait.
                self.read = BytesMut::new();
            }
        }
        if self.read.capacity() - self.read.len() < SMALLEST_READ / 2 {
            let left = usize::try_from(left).unwrap_or(usize::MAX).max(SMALLEST_READ);
            let wanted = self.next_read.min(max).min(left);
            if reading == Reading::Freely {
                // Reclaims the buffer if nothing refers to it anymore. Otherwise it allocates a new one, which may be
                // as large as any before.
                self.read.reserve(wanted);
            } else {
                let mut read = BytesMut::with_capacity(self.read.len() + wanted);
                read.extend_from_slice(&self.read);
                self.read = read;
            }
            self.read_whole = self.read.capacity();
        }
        let room = self.read.capacity() - self.read.len();
        let count = ready!(pin!(self.stream.read_buf(&mut self.read)).poll(cx))?;
        if count >= room && self.next_read < LARGEST_READ {
            self.next_read = (self.next_read * 4).min(LARGEST_READ);
        } else if count < SMALLEST_READ && self.next_read > SMALLEST_READ {
            self.next_read /= 2;
        }
        Poll::Ready(Ok(count))
    }

    /// Limits reads to small pieces, because little of the message is left.
    pub(crate) fn read_little(&mut self) {
        self.next_read = self.next_read.min(SMALL_READ);
    }

    /// Returns whether the next read is larger than the first read of a message.
    pub(crate) fn reads_much(&self) -> bool {
        self.next_read > SMALLEST_READ
    }

    /// Takes the first `length` bytes that were read. The result is a slice of the buffer if the buffer is hardly
    /// larger, otherwise a copy, because a slice keeps the whole buffer alive.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        take(&mut self.read, length)
    }

    /// Frees an empty read buffer when the next bytes may take long to arrive.
    pub(crate) fn release_read(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
    }

    /// Frees an empty read buffer that has grown.
    pub(crate) fn release_grown(&mut self) {
        if self.reads_much() {
            self.release_read();
        }
    }

    /// Discards all bytes that are read or queued, and frees the buffers.
    pub(crate) fn release_all(&mut self) {
        self.read = BytesMut::new();
        self.tail = BytesMut::new();
        self.slices = VecDeque::new();
        (self.queued, self.front_written) = (0, 0);
    }

    /// Frees the buffers of a silent connection.
    pub(crate) fn release(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
            self.next_read = SMALLEST_READ;
        }
        if self.is_flushed() {
            self.tail = BytesMut::new();
            self.slices = VecDeque::new();
        }
    }

    /// Returns the write buffer for heads and small pieces; call [`Buffered::wrote`] after writing to it.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Counts the bytes written to [`Buffered::tail`] since its length was `before`.
    pub(crate) fn wrote(&mut self, before: usize) {
        self.queued += self.tail.len() - before;
    }

    pub(crate) fn push_small(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.queued += bytes.len();
    }

    /// Queues content: a copy if it is small, a reference if not.
    pub(crate) fn push(&mut self, content: Bytes) {
        let copied = if self.slices.is_empty() { COPY_BELOW } else { COPY_BEHIND };
        if content.len() <= copied {
            self.push_small(&content);
        } else {
            self.push_shared(content);
        }
    }

    pub(crate) fn push_shared(&mut self, content: Bytes) {
        if !self.tail.is_empty() {
            let before = self.tail.split().freeze();
            self.slices.push_back(before);
        }
        self.queued += content.len();
        self.slices.push_back(content);
    }

    /// Returns whether more may be queued.
    pub(crate) fn has_room(&self) -> bool {
        self.queued < HIGH_WATER
    }

    /// Returns whether everything queued has been handed to the system.
    pub(crate) fn is_flushed(&self) -> bool {
        self.queued == 0
    }

    /// Returns the number of queued bytes.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Returns the memory held by the queue in bytes.
    pub(crate) fn held_by_queue(&self) -> usize {
        if self.slices.is_empty() {
            return self.tail.capacity();
        }
        let slices = self.queued - self.tail.len() + self.front_written;
        // The first slice may be the end of a buffer whose written part is held with it.
        let gone = slices.min(LARGEST_READ) / 2;
        slices + gone + self.slices.capacity() * size_of::<Bytes>() + self.tail.capacity()
    }

    /// Bytes of memory that the read buffer holds: all of it, also where max was taken, for as long as the rest is here.
    pub(crate) fn held_by_read(&self) -> usize {
        if self.read.capacity() > 0 { self.read.capacity().max(self.read_whole) } else { 0 }
    }

    /// Frees an empty write buffer that is larger than ordinary ones, because the connection waits.
    pub(crate) fn release_written(&mut self) {
        if self.is_flushed() && self.tail.capacity() > ORDINARY_BUFFERS / 2 {
            self.tail = BytesMut::new();
        }
    }

    /// Counts the memory of the buffers while the connection waits, if it is more than ordinary. `reserve` creates the
    /// reservation.
    pub(crate) fn count(
        &mut self,
        counted: &mut Option<BufferReservation>,
        reserve: impl FnOnce() -> Option<BufferReservation>,
    ) {
        self.release_written();
        // The part that was taken is queued for the client, and counted there.
        count(self.read.capacity() + self.held_by_queue(), counted, reserve);
    }

    /// Writes until the queue is empty.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued > 0 {
            let count = if self.slices.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_write(cx, &self.tail))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut used = 0;
                let pieces = self.slices.iter().map(|piece| &piece[..]).chain([&self.tail[..]]);
                for (slot, piece) in slices.iter_mut().zip(pieces) {
                    *slot = IoSlice::new(piece);
                    used += 1;
                }
                ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..used]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn advance(&mut self, mut count: usize) {
        self.queued -= count;
        while let Some(front) = self.slices.front_mut() {
            if front.len() > count {
                front.advance(count);
                self.front_written += count;
                return;
            }
            count -= front.len();
            self.front_written = 0;
            self.slices.pop_front();
        }
        if count == self.tail.len() {
            self.tail.clear();
            if self.tail.capacity() > KEEP_CAPACITY {
                self.tail = BytesMut::new();
            }
        } else {
            self.tail.advance(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn n3_4_a_read_buffer_of_which_most_is_taken_counts_whole() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let mut io = Buffered::new(Stream::Tcp(tcp), BytesMut::new());
        assert_eq!(io.held_by_read(), 0);
        io.next_read = LARGEST_READ;
        std::io::Write::write_all(&mut &client, &[b'x'; 30_000]).unwrap();
        while io.read.len() < 30_000 {
            std::future::poll_fn(|cx| io.poll_fill(cx)).await.unwrap();
        }
        let chunk = io.read.split_to(29_000).freeze();
        drop(chunk);
        assert!(io.held_by_read() >= LARGEST_READ, "{} bytes", io.held_by_read());
        drop(io.read.split());
        io.release_read();
        assert_eq!(io.held_by_read(), 0, "it is given back");
    }

    #[test]
    fn n3_4_what_is_taken_of_a_large_buffer_does_not_hold_it() {
        // Columns: capacity, length, bytes taken, and whether the result shares the buffer.
        for (capacity, length, taken, stays) in [
            (4096, 1000, 400, true),
            (SMALL_READ + 400, 1000, 400, true),
            (SMALL_READ + 401, 1000, 400, false),
            (LARGEST_READ, 60_000, 60_000, false),
            (LARGEST_READ, LARGEST_READ, LARGEST_READ - 10, true),
        ] {
            let mut read = BytesMut::with_capacity(capacity);
            read.extend((0..length).map(|at| at as u8));
            let (whole, start) = (read.to_vec(), read.as_ptr());
            let part = take(&mut read, taken);
            assert_eq!([&part[..], &read[..]].concat(), whole);
            assert_eq!(part.as_ptr() == start, stays, "{taken} of {length} in {capacity}");
            if !stays && taken == length {
                assert_eq!(read.capacity(), 0, "the buffer is given back");
            }
        }
    }
}
