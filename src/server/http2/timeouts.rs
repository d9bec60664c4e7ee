//! The cut of a slow client: its responses end when it does not read them.

use std::time::Duration;

use super::read_ahead::PIECE;
use super::streams::Streams;
use crate::runtime::clock::Instant;

/// Bytes that a client must take in `send_timeout` to make progress: acknowledgments are written too.
const PROGRESS: u64 = 4 * 1024;
/// Maximum bytes written for each other stream while one stream waits for its next piece; all get about the same.
const ROUND: u64 = 4 * PIECE as u64;
/// Factor on `send_timeout` for the turn of a stream whose client reads other streams.
const TIMEOUT: u32 = 8;
/// Number of streams that a client never reads beyond which the connection ends.
const MAX_CUT: usize = 16;

impl Streams {
    /// Cuts responses that were unread for `send_timeout`, and returns the time of the next check. Returns `None` if
    /// nothing but cut streams is left, or too many: the library frees their memory only with the connection.
    ///
    /// A slow client reads the pieces of many streams in turns, and each of them is unread for long. A response is cut
    /// only if the client reads nothing at all, or has read so much of the others that the turn of this one is past, or
    /// after the longest wait.
    pub(super) fn cut_unread(&self, now: Instant, send_timeout: Duration) -> Option<Instant> {
        if now < self.look.get() {
            return Some(self.look.get());
        }
        let mut next = now + send_timeout;
        let mut cut = 0;
        let written = self.written.get();
        if written - self.progress.get().0 >= PROGRESS {
            self.progress.set((written, now));
        }
        let stalled = now >= self.progress.get().1 + send_timeout;
        let open = self.open.get();
        self.read_ahead.borrow_mut().retain(|response| {
            let Some(response) = response.upgrade() else { return false };
            match (response.cut_at(), response.unread_since()) {
                (Some(since), _) => cut += usize::from(now >= since + send_timeout),
                (None, Some(unread)) if now < unread.since + send_timeout => {
                    next = next.min(unread.since + send_timeout)
                }
                (None, Some(unread)) => {
                    // The other streams open at that time had their turns in between, also those that have ended since.
                    let round = ROUND * unread.open.max(open).max(1) as u64;
                    let passed_over = written - unread.written > round;
                    if stalled || passed_over || now >= unread.since + send_timeout * TIMEOUT {
                        response.cut(now);
                    } else {
                        next = next.min(now + send_timeout / 4);
                    }
                }
                (None, None) => {}
            }
            true
        });
        self.look.set(next);
        let dead = cut > MAX_CUT || (cut > 0 && cut == self.open.get());
        (!dead).then_some(next)
    }
}
