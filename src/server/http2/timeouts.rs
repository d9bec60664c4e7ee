//! The cut of a slow client: its responses end when it does not read them.

use std::time::Duration;

use super::read_ahead::PIECE;
use super::streams::Streams;
use crate::runtime::clock::Instant;

/// A client that takes less than this in `send_timeout` takes nothing: acknowledgements are written too.
const PROGRESS: u64 = 4 * 1024;
/// While one stream waits for its next piece, each of the others is written about as much; at most this.
const ROUND: u64 = 4 * PIECE as u64;
/// A stream of a client that takes others waits this many times `send_timeout` for its turn.
const TIMEOUT: u32 = 8;
/// More streams than this that a client never reads end their connection.
const MAX_CUT: usize = 16;

impl Streams {
    /// Cuts what was unread for `send_timeout`; says when to look again, or `None` when nothing but cut
    /// streams is left, or too many: what the library holds for them is given back only with the connection.
    ///
    /// A slow client takes the pieces of many streams in turns, and each of them is unread for long. It is
    /// cut only where the client takes nothing at all, or has taken so much of the others that this one's
    /// turn is past, or in the end.
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
                    // The others that were open then had their turns in between, also those that have ended since.
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
