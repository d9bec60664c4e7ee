//! Timeouts of client connections, and the cut of a slow client.

use std::task::{Context, Poll};
use std::time::Duration;

use crate::connection::seats::{Seat, Stall};
use crate::http1::head::HeadLimits;
use crate::runtime::clock::Deadline;

/// Silence after which a connection frees its buffers.
pub(super) const PARK: Duration = Duration::from_millis(20);

/// Time in which a client that has sent no request yet may send one although the shutdown has begun: its connection may
/// have been accepted at this moment, with the request right behind.
pub(crate) const LEAVE_UNUSED: Duration = Duration::from_millis(250);

/// Maximum bytes that a lingering close (RFC 9112 9.6) reads and discards.
pub(super) const LINGER_BYTES: usize = 64 * 1024;
/// Maximum duration of a lingering close.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Timeouts and limits of a connection. They are read for every request, so long-lived connections follow a reload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Maximum time from the first byte of a head to its last.
    pub header_timeout: Duration,
    /// Maximum silence within a request body.
    pub body_timeout: Duration,
    /// Maximum time in which a client reads nothing.
    pub send_timeout: Duration,
    pub idle_timeout: Duration,
    /// Maximum silence of streams without an expected end, in place of the other timeouts.
    pub stream_idle_timeout: Duration,
    /// Bytes of a response that are read ahead of its client.
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
