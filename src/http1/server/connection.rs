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
    /// Drops the connection without shutting it down.
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
    /// Whether a head may be complete. Parsing starts over each time, so it waits for the end of a line: a head sent
    /// byte by byte costs one parse per line.
    pub parse: bool,
    /// Whether the buffers were freed after a long silence.
    pub parked: bool,
    /// Whether the first byte of a head is here, so that the time for the rest runs.
    pub head_started: bool,
    pub asked: bool,
    /// Whether the time of a connection without a request runs out because of the shutdown.
    pub leaving: bool,
    pub seat: Option<&'a Seat>,
    pub stall: Stall,
    /// The memory of the connection's buffers.
    pub waiting: Waiting,
}

impl<S> Connection<'_, S> {
    pub(super) async fn close(&mut self) {
        // Nothing more is read or written, so the buffers are freed before the client closes its side.
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

    /// Closes so that the response can be read although input is left: an immediate close would send a reset that may
    /// overtake the response (RFC 9112 9.6).
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
