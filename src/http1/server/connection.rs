//! The state of one client connection, and how it is closed.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use tokio::io::AsyncWriteExt;

use super::timeouts::{LINGER, LINGER_BYTES, Settings};
use super::waiting::Waiting;
use crate::connection::seats::{Seat, Stall};
use crate::http1::buffered::Buffered;
use crate::http1::head::RequestHead;
use crate::http1::head_error::HeadError;
use crate::message::body::Tunnel;
use crate::message::inbound::Peer;
use crate::runtime::clock::Deadline;
use crate::runtime::lifecycle::PhaseWatcher;

pub(super) enum Next {
    Closed,
    Http2,
    Head(Box<RequestHead>),
    Refused(HeadError),
}

pub(super) enum NextAction {
    KeepAlive,
    Close,
    /// Drops the connection as it is.
    Drop,
    Linger,
    Tunnel(Box<Tunnel>, Option<Box<dyn crate::message::body::Observer>>),
}

pub(super) struct Connection<'a, S> {
    pub io: Buffered,
    pub service: S,
    pub peer: Rc<Peer>,
    pub settings: &'a dyn Fn() -> Settings,
    pub phase_watcher: PhaseWatcher,
    pub reading: Deadline,
    pub sending: Deadline,
    pub served: bool,
    /// Whether a head may be whole. Parsing starts over each time, so it waits for a line to end: a head
    /// sent byte by byte costs one parse a line.
    pub parse: bool,
    /// Silent for so long that its buffers were given back.
    pub parked: bool,
    /// The first byte of a head is here, and the time for the rest runs.
    pub begun: bool,
    pub asked: bool,
    pub seat: Option<&'a Seat>,
    pub stall: Stall,
    /// The memory of its buffers.
    pub waiting: Waiting,
}

impl<S> Connection<'_, S> {
    pub(super) async fn close(&mut self) {
        // Nobody reads any more of it: its buffers are not held for as long as the client takes to close its side.
        self.io.release_all();
        self.waiting.clear();
        let mut expires = Deadline::default();
        expires.set_after(LINGER);
        let mut shutdown = pin!(self.io.stream.shutdown());
        std::future::poll_fn(|cx| {
            if expires.poll_expired(cx).is_ready() {
                return Poll::Ready(());
            }
            shutdown.as_mut().poll(cx).map(|_| ())
        })
        .await;
    }

    /// Closes so that the answer can be read although input is left: closing at once would send a
    /// reset that may overtake it (RFC 9112 9.6).
    pub(super) async fn linger(&mut self) {
        self.close().await;
        let mut expires = Deadline::default();
        expires.set_after(LINGER);
        let mut left = LINGER_BYTES;
        let io = &mut self.io;
        std::future::poll_fn(|cx| {
            loop {
                io.release_all();
                if expires.poll_expired(cx).is_ready() {
                    return Poll::Ready(());
                }
                match ready!(io.poll_fill_at_most(0, cx)) {
                    Ok(count) if count > 0 && count < left => left -= count,
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}
