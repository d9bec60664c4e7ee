//! The body of an upstream response, read from its connection in the task of its receiver.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::http1::chunked::Decoded;
use crate::http1::client::connection::ClientConnection;
use crate::http1::client::request_body::Upload;
use crate::http1::decode::BodyDecoder;
use crate::memory::buffers::BufferReservation;
use crate::message::body::{Body, BodyError};

/// The body of a response, with the connection that it is read from.
#[derive(Debug)]
pub(crate) struct ClientBody {
    /// The connection, taken back when the body has ended.
    pub(crate) connection: Option<Box<ClientConnection>>,
    pub(crate) decoder: BodyDecoder,
    pub(crate) ended: bool,
    /// Whether the connection can be used again.
    pub(crate) reusable: bool,
    /// The rest of the request, if the response began before the request ended.
    pub(crate) upload: Option<(Upload, Body)>,
    /// Maximum silence of the upstream.
    pub(crate) silence: Duration,
    /// The reason why the client's part of the exchange failed; boxed because it is rare.
    pub(crate) client_failed: Option<Box<BodyError>>,
    /// Remaining TCP acknowledgments to force; see [`ACKNOWLEDGMENTS`].
    pub(crate) acknowledgments: u8,
    /// The memory of the connection's buffers, if it is more than ordinary.
    pub(crate) counted: Option<BufferReservation>,
}

/// Number of waits for more content that acknowledge received bytes at once; longer content is acknowledged as it
/// flows.
pub(crate) const ACKNOWLEDGMENTS: u8 = 4;

impl ClientBody {
    /// Takes the connection, if the body has ended and the connection can be used again.
    pub(crate) fn take_connection(&mut self) -> Option<Box<ClientConnection>> {
        if self.ended && self.reusable && self.upload.is_none() {
            self.counted = None;
            self.connection.take().filter(|connection| connection.io.read.is_empty())
        } else {
            None
        }
    }

    /// Continues a request whose response began early. While the client's next bytes are awaited, the upstream's
    /// silence timeout does not run.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        let (Some((upload, body)), Some(connection)) = (&mut self.upload, &mut self.connection) else {
            return;
        };
        loop {
            let counted = &self.counted;
            let room = || counted.as_ref().is_none_or(BufferReservation::has_room);
            if let Err(error) = upload.take(&mut connection.io, body, room, cx) {
                // The client's body failed: this request must never look complete to the upstream.
                self.client_failed = Some(Box::new(error));
                self.reusable = false;
                self.upload = None;
                return;
            }
            let queued = connection.io.queued();
            match connection.io.poll_flush(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => {
                    self.reusable = false;
                    self.upload = None;
                    return;
                }
                Poll::Ready(Ok(())) if upload.ended => {
                    self.upload = None;
                    return;
                }
                Poll::Ready(Ok(())) if queued == 0 => {
                    connection.deadline.clear();
                    return;
                }
                Poll::Ready(Ok(())) => {}
            }
        }
    }

    /// Counts unread and queued bytes, because the client's next bytes, or its reading, may take long.
    fn count(&mut self) {
        if let (Some(_), Some(connection)) = (&self.counted, &mut self.connection) {
            connection.io.count(&mut self.counted, || None);
        }
    }

    /// Returns the cause of a truncated response: an upstream that did not get the whole request owes no whole
    /// response.
    fn broke_off(&mut self, error: BodyError) -> BodyError {
        self.client_failed.take().map_or(error, |failed| *failed)
    }

    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<Result<Decoded, BodyError>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(Decoded::End(None))) };
        loop {
            match self.decoder.decode(&mut connection.io.read) {
                Ok(Decoded::NeedMore) => {}
                Ok(decoded) => {
                    connection.deadline.clear();
                    return Poll::Ready(Ok(decoded));
                }
                Err(what) => return Poll::Ready(Err(BodyError::UpstreamMalformed(what))),
            }
            let left = self.decoder.left().unwrap_or(u64::MAX);
            match connection.io.poll_fill_at_most(left, cx) {
                Poll::Ready(Ok(0)) if self.decoder.ends_at_close() => {
                    return Poll::Ready(Ok(Decoded::End(None)));
                }
                Poll::Ready(Ok(0) | Err(_)) => {
                    return Poll::Ready(Err(self.broke_off(BodyError::UpstreamGone)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    let awaited = self.upload.is_some() && connection.io.is_flushed();
                    if awaited {
                        return Poll::Pending;
                    }
                    if !connection.deadline.is_set() {
                        connection.deadline.set_after(self.silence);
                        if self.acknowledgments > 0 {
                            self.acknowledgments -= 1;
                            connection.io.stream.acknowledge();
                        }
                    }
                    std::task::ready!(connection.deadline.poll_expired(cx));
                    return Poll::Ready(Err(self.broke_off(BodyError::UpstreamSilent)));
                }
            }
        }
    }
}

impl http_body::Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.upload.is_some() {
            self.poll_upload(cx);
        }
        let decoded = self.poll_decode(cx);
        self.count();
        Poll::Ready(match std::task::ready!(decoded) {
            Ok(Decoded::Data(data)) => {
                self.ended = self.decoder.left() == Some(0);
                Some(Ok(Frame::data(data)))
            }
            Ok(Decoded::End(trailers)) => {
                self.ended = true;
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Ok(Decoded::NeedMore) => return Poll::Pending,
            Err(error) => {
                self.ended = true;
                self.reusable = false;
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.left() {
            Some(left) if !self.ended => SizeHint::with_exact(left),
            _ if self.ended => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
