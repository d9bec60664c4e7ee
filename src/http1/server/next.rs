//! The wait for the next request of a connection: idle at first, then for the rest of its head.

use std::convert::Infallible;
use std::task::{Context, Poll, ready};

use http::Response;
use tower::Service;

use super::connection::{Connection, Next};
use super::timeouts::{LEAVE_UNUSED, PARK, Settings};
use crate::connection::seats::Seat;
use crate::http1::head;
use crate::http1::head_error::HeadError;
use crate::message::body::Body;
use crate::message::inbound::{Inbound, ORDINARY};
use crate::runtime::lifecycle::Phase;

/// The client connection preface of HTTP/2 (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl<S> Connection<'_, S>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible>,
{
    pub(super) async fn next(&mut self) -> Next {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let settings = (self.settings)();
        loop {
            // RFC 9112 2.2: empty lines before a request line are ignored, and do not start a request.
            while self.io.read.starts_with(b"\r\n") {
                let _ = self.io.read.split_to(2);
            }
            // Neither does half of an empty line.
            let idle = matches!(&self.io.read[..], b"" | b"\r");
            if !idle && std::mem::take(&mut self.parked) && !self.seat.is_none_or(Seat::set_busy) {
                return Poll::Ready(Next::Closed);
            }
            if !idle {
                if !self.served && self.io.read.starts_with(&PREFACE[..self.io.read.len().min(PREFACE.len())])
                {
                    if self.io.read.len() >= PREFACE.len() {
                        return Poll::Ready(Next::Http2);
                    }
                } else if self.parse {
                    match head::parse_request(&mut self.io.read, settings.limits) {
                        Ok(Some(head)) => {
                            self.reading.clear();
                            self.waiting.clear();
                            if std::mem::take(&mut self.head_started) && !self.seat.is_none_or(Seat::set_busy)
                            {
                                return Poll::Ready(Next::Closed);
                            }
                            return Poll::Ready(Next::Head(head));
                        }
                        Ok(None) => self.parse = false,
                        Err(error) => return Poll::Ready(Next::Refused(error)),
                    }
                }
            }
            if idle {
                let draining = self.phase_watcher.watch(cx) >= Phase::Draining;
                // A request that is here already is served although the shutdown has begun.
                if self.io.stream.poll_read_ready(cx).is_pending() {
                    return if draining { self.poll_leave(cx) } else { self.poll_idle(settings, cx) };
                }
            }
            let before = self.io.read.len();
            match self.io.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.parse = self.parse
                        || self.io.read[before..].contains(&b'\n')
                        || self.io.read.len() >= settings.limits.size;
                }
                Poll::Ready(_) => return Poll::Ready(Next::Closed),
                Poll::Pending => {
                    if idle {
                        // The phase was watched above.
                        let draining = self.phase_watcher.phase() >= Phase::Draining;
                        return if draining { self.poll_leave(cx) } else { self.poll_idle(settings, cx) };
                    }
                    if !std::mem::replace(&mut self.head_started, true) {
                        self.reading.set_after(settings.header_timeout);
                    }
                    // Counts the buffer of an incomplete head, if it is larger than ordinary.
                    self.waiting.count_read(&self.io);
                    let ordinary = self.io.read.len() <= ORDINARY;
                    let error = match ordinary || self.waiting.fits() {
                        true => HeadError::Timeout,
                        false => HeadError::NoMemory,
                    };
                    // Half a head is no request: for other clients' purposes the connection is idle.
                    if self.seat.is_some_and(|seat| seat.poll_idle(cx).is_ready()) {
                        return Poll::Ready(Next::Closed);
                    }
                    if error == HeadError::Timeout {
                        ready!(self.reading.poll_expired(cx));
                    }
                    self.head_started = false;
                    self.waiting.clear();
                    if !self.seat.is_none_or(Seat::set_busy) {
                        return Poll::Ready(Next::Closed);
                    }
                    return Poll::Ready(Next::Refused(error));
                }
            }
        }
    }

    /// Closes an idle connection because of the shutdown: at once if it has had a request, else after a moment in which the
    /// first one may still arrive.
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.asked {
            return Poll::Ready(Next::Closed);
        }
        if !std::mem::replace(&mut self.leaving, true) {
            self.reading.set_after(LEAVE_UNUSED);
        }
        self.reading.poll_expired(cx).map(|()| Next::Closed)
    }

    /// Waits for the first byte of a request. A busy connection keeps its buffers for the next request. After a moment
    /// of silence they are freed, and the connection may be closed to make room for others. Empty lines do not restart
    /// the wait.
    fn poll_idle(&mut self, settings: Settings, cx: &mut Context<'_>) -> Poll<Next> {
        // A proxy opens connections before it needs them; any other client has a request to send.
        let expected = self.asked || self.peer.trusted;
        let silence = if expected { settings.idle_timeout } else { settings.header_timeout };
        if !self.reading.is_set() {
            self.parked = false;
            self.reading.set_after(silence.min(PARK));
        }
        if self.reading.poll_expired(cx).is_ready() {
            if self.parked || silence <= PARK {
                return Poll::Ready(Next::Closed);
            }
            self.parked = true;
            self.reading.set_after(silence - PARK);
            if self.reading.poll_expired(cx).is_ready() {
                return Poll::Ready(Next::Closed);
            }
        }
        if self.parked {
            self.io.release();
            if let Some(seat) = self.seat {
                return seat.poll_idle(cx).map(|()| Next::Closed);
            }
        }
        Poll::Pending
    }
}
