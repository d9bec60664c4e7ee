//! Timeouts of client connections, and the cut of a slow client.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::connection::seats::{Seat, Stall};
use crate::http1::head::HeadLimits;
use crate::runtime::clock::Deadline;

/// A silent connection gives its buffers back after this.
pub(super) const PARK: Duration = Duration::from_millis(20);

/// Lingering close (RFC 9112 9.6): at most this much is read and thrown away, ...
pub(super) const LINGER_BYTES: usize = 64 * 1024;
/// ... for at most this long.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long this side waits and how much it takes. Asked for at every request, so that connections
/// that live long obey a reload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Longest silence in a request body.
    pub body_timeout: Duration,
    /// Longest time in which a client takes nothing.
    pub send_timeout: Duration,
    pub idle_timeout: Duration,
    /// Instead of the silences, for streams without an expected end.
    pub stream_idle_timeout: Duration,
    /// How much of a response is read ahead of its client; bytes.
    pub buffer_response: usize,
    pub limits: HeadLimits,
}

/// Ready when a slow client is cut: it took nothing for `send_timeout`, or its connection has to make room for others.
/// `moved`: it has taken some just now; `written`: bytes that it took in all.
pub(super) fn poll_cut(
    sending: &mut Deadline,
    send_timeout: Duration,
    moved: bool,
    written: u64,
    (stall, seat): (&mut Stall, Option<&Seat>),
    cx: &mut Context<'_>,
) -> Poll<()> {
    if moved || !sending.is_set() {
        sending.set_after(send_timeout);
    }
    if sending.poll_expired(cx).is_ready() || stall.poll(seat, written, cx).is_ready() {
        return Poll::Ready(());
    }
    Poll::Pending
}
