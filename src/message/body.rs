//! One body type for everything that flows through the stack: an upstream response, a client's upload, a problem
//! document, or the raw connection of an upgrade. Bodies stream; nothing here collects their frames.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::memory::buffers::ClientSlot;
use crate::memory::chunked_bytes::ChunkedBytes;
use crate::rendering::rendered_head::{HeadLines, StoreHead};

/// An error of a body. It says whose fault it is, so that the right status can still be chosen if the head has not been
/// sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client closed or reset its connection before its body ended.
    ClientGone,
    /// The client's framing is broken (RFC 9112 7.1).
    ClientMalformed(&'static str),
    /// The client sent nothing for longer than `server.body_timeout`.
    ClientSilent,
    /// The client sent its body more slowly than `server.min_body_rate`.
    ClientSlow,
    /// The client read the response too slowly, and no memory was left for the content that had arrived.
    ClientBehind,
    /// The client's body is longer than `max_body_size` bytes.
    TooLarge(u64),
    /// The client's trailer section is larger than the upstream accepts over HTTP/2 (RFC 9113 6.5.2); in bytes.
    TrailersTooLarge(usize),
    /// The upstream closed or reset its connection before its body ended.
    UpstreamGone,
    /// The upstream's framing is broken.
    UpstreamMalformed(&'static str),
    /// The upstream sent nothing for longer than `upstream.body_timeout`.
    UpstreamSilent,
    /// An HTTP/2 stream or connection failed; the text comes from the library.
    Http2(String),
    /// Compression or decompression failed; the text comes from the encoder.
    Coding(String),
    /// A stream without an expected end was closed because the process is stopping.
    Draining,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::ClientGone => f.write_str("the client disconnected before its body ended"),
            BodyError::ClientMalformed(what) => write!(f, "malformed request body: {what}"),
            BodyError::ClientSilent => f.write_str("the client stopped sending its body"),
            BodyError::ClientSlow => f.write_str("the client sent its body too slowly"),
            BodyError::ClientBehind => f.write_str(
                "the client read too little of the response, and its share of buffer_memory is used up",
            ),
            BodyError::TooLarge(limit) => write!(f, "the request body exceeds {limit} bytes"),
            BodyError::TrailersTooLarge(limit) => write!(f, "the request trailers exceed {limit} bytes"),
            BodyError::UpstreamGone => {
                f.write_str("the upstream closed the connection before its body ended")
            }
            BodyError::UpstreamMalformed(what) => write!(f, "malformed body from the upstream: {what}"),
            BodyError::UpstreamSilent => f.write_str("the upstream stopped sending its body"),
            BodyError::Http2(what) => write!(f, "HTTP/2: {what}"),
            BodyError::Coding(what) => write!(f, "the content could not be encoded: {what}"),
            BodyError::Draining => f.write_str("closed because the process is stopping"),
        }
    }
}

impl std::error::Error for BodyError {}

/// A raw two-way byte stream, as left by an upgrade.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// The upstream's side of an upgraded connection.
pub(crate) struct Tunnel {
    pub io: Box<dyn Duplex>,
    /// Bytes read past the head of the 101, which belong to the client.
    pub read_ahead: Bytes,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("read_ahead", &self.read_ahead.len()).finish_non_exhaustive()
    }
}

/// An observer of a body's frames and its end. If it is dropped without `end`, the receiver disconnected.
pub(crate) trait Observer {
    /// Records that `bytes` of data passed.
    fn data(&mut self, bytes: usize);
    /// Records the end of the body, complete or with an error.
    fn end(&mut self, result: Result<(), &BodyError>);
}

/// Fields of one response alone, which are in no map. For HTTP/1 they are written after the shared lines.
pub trait OwnFields {
    /// Writes the fields as lines of a head.
    fn write(&self, out: &mut BytesMut);
}

/// Content that is stored beyond this response, with forms derived from it such as content codings.
pub(crate) trait Kept: Send + Sync {
    /// Returns the content if all of it has arrived.
    fn content(&self) -> Option<ChunkedBytes>;
    /// Returns the derived form with this name.
    fn made(&self, name: &'static str) -> Option<ChunkedBytes>;
    /// Stores a derived form if there is room for it. It is stored as given, so the caller has cut it into chunks.
    fn keep(&self, name: &'static str, made: ChunkedBytes);
    /// Claims the work of deriving a form, which takes a while. Returns `false` if another task is already at it.
    fn begin(&self, name: &'static str) -> bool;
    /// Releases the claim of `begin`, whether the form was derived or given up.
    fn end(&self, name: &'static str);
    /// Number of responses it was sent in.
    fn given(&self) -> u32;
    /// Returns `true` once for each name: the first caller derives the form again with better compression.
    fn claim(&self, name: &'static str) -> bool;
}

type Streaming = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>;

enum Kind {
    Empty,
    Full(Bytes),
    /// Several chunks, and the index of the next one.
    Pieces(Arc<[Bytes]>, usize),
    Streaming(Streaming),
    /// Boxed because it is rare: bodies are moved often, and should be small.
    Tunnel(Box<Tunnel>),
}

/// Content of unknown length, limited to a maximum.
struct Limited {
    body: Streaming,
    left: u64,
    limit: u64,
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        let came = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        match self.left.checked_sub(came as u64) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(BodyError::TooLarge(self.limit)))),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The state of the head that goes before a body.
enum Head {
    Ordinary,
    Written(HeadLines),
    /// The code that decides the head should also store it for other responses.
    Wanted(StoreHead),
}

/// A body on its way through the stack.
pub(crate) struct Body {
    kind: Kind,
    /// Whether some data has passed.
    data_passed: bool,
    endless: bool,
    client: ClientSlot,
    kept: Option<Arc<dyn Kept>>,
    head: Head,
    own_fields: Option<Rc<dyn OwnFields>>,
    observer: Option<Box<dyn Observer>>,
    silence: Option<Rc<Cell<Duration>>>,
}

impl Body {
    fn new(kind: Kind) -> Body {
        Body {
            kind,
            data_passed: false,
            endless: false,
            client: ClientSlot::default(),
            kept: None,
            head: Head::Ordinary,
            own_fields: None,
            observer: None,
            silence: None,
        }
    }

    pub(crate) fn empty() -> Body {
        Body::new(Kind::Empty)
    }

    /// Creates a body from complete content.
    pub(crate) fn full(content: impl Into<Bytes>) -> Body {
        let content = content.into();
        if content.is_empty() { Body::empty() } else { Body::new(Kind::Full(content)) }
    }

    pub(crate) fn pieces(content: ChunkedBytes) -> Body {
        match content.into_single() {
            Ok(single) => Body::full(single),
            Err(several) => Body::new(Kind::Pieces(several, 0)),
        }
    }

    /// Creates a body from complete content that is stored in `kept`.
    pub(crate) fn kept(content: ChunkedBytes, kept: Arc<dyn Kept>) -> Body {
        Body { kept: Some(kept), ..Body::pieces(content) }
    }

    /// Sets the owner of the stored content.
    pub(crate) fn set_keeper(&mut self, keeper: Arc<dyn Kept>) {
        self.kept = Some(keeper);
    }

    pub(crate) fn keeper(&self) -> Option<&Arc<dyn Kept>> {
        self.kept.as_ref()
    }

    /// Attaches rendered header lines. The fields of such a response are these lines and those beside them.
    pub(crate) fn with_lines(self, lines: HeadLines) -> Body {
        Body { head: Head::Written(lines), ..self }
    }

    /// Takes the rendered header lines, if there are any.
    pub(crate) fn take_lines(&mut self) -> Option<HeadLines> {
        match std::mem::replace(&mut self.head, Head::Ordinary) {
            Head::Written(lines) => Some(lines),
            other => {
                self.head = other;
                None
            }
        }
    }

    /// Attaches fields of this response alone. Protocols other than HTTP/1 put them into the map instead.
    pub(crate) fn set_own_fields(&mut self, fields: Rc<dyn OwnFields>) {
        self.own_fields = Some(fields);
    }

    /// Takes the fields of this response alone, for the code that writes them.
    pub(crate) fn take_own_fields(&mut self) -> Option<Rc<dyn OwnFields>> {
        self.own_fields.take()
    }

    /// Asks the code that decides the head to store the rendered head for other responses.
    pub(crate) fn set_keep_head(&mut self, keep: StoreHead) {
        self.head = Head::Wanted(keep);
    }

    /// Takes the callback that stores the rendered head.
    pub(crate) fn take_keep_head(&mut self) -> Option<StoreHead> {
        match std::mem::replace(&mut self.head, Head::Ordinary) {
            Head::Wanted(keep) => Some(keep),
            other => {
                self.head = other;
                None
            }
        }
    }

    pub(crate) fn streaming(body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Body {
        Body::new(Kind::Streaming(Box::pin(body)))
    }

    /// Creates a body that is the upstream's side of an upgrade.
    pub(crate) fn tunnel(tunnel: Tunnel) -> Body {
        Body::new(Kind::Tunnel(Box::new(tunnel)))
    }

    /// Returns a second body with the same content, if all of it is here.
    pub(crate) fn replica(&self) -> Option<Body> {
        self.content().map(Body::pieces)
    }

    /// Returns the content, if all of it is here.
    pub(crate) fn content(&self) -> Option<ChunkedBytes> {
        match &self.kind {
            Kind::Empty => Some(Bytes::new().into()),
            Kind::Full(content) => Some(content.clone().into()),
            Kind::Pieces(pieces, 0) => Some(pieces.clone().into()),
            Kind::Pieces(pieces, next) => Some(pieces.iter().skip(*next).cloned().collect()),
            Kind::Streaming(_) | Kind::Tunnel(_) => None,
        }
    }

    /// Returns whether all remaining content is here.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.kind, Kind::Full(_) | Kind::Pieces(..))
    }

    /// Returns the memory of the list of chunks in bytes, without the chunks; zero for other bodies.
    pub(crate) fn list_size(&self) -> usize {
        match &self.kind {
            Kind::Pieces(pieces, _) => pieces.iter().count() * size_of::<Bytes>(),
            _ => 0,
        }
    }

    /// Takes the upstream's side of an upgrade out of the body.
    pub(crate) fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Tunnel(tunnel) => Some(*tunnel),
            other => {
                self.kind = other;
                None
            }
        }
    }

    /// Returns whether this is the upstream's side of an upgrade.
    pub(crate) fn is_tunnel(&self) -> bool {
        matches!(self.kind, Kind::Tunnel(_))
    }

    /// Limits a streaming body: it fails with [`BodyError::TooLarge`] once more than `limit` bytes have passed.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.kind = match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Streaming(body) => Kind::Streaming(Box::pin(Limited { body, left: limit, limit })),
            other => other,
        };
    }

    /// Sets the client's silence timeout, as shared with the connection that enforces it.
    pub(crate) fn set_silence(&mut self, silence: Rc<Cell<Duration>>) {
        self.silence = Some(silence);
    }

    /// Returns the client's silence timeout, for a body that this one becomes part of and for code that extends it
    /// later.
    pub(crate) fn silence(&self) -> Option<Rc<Cell<Duration>>> {
        self.silence.clone()
    }

    /// Changes the client's silence timeout, also for a silence in progress.
    pub(crate) fn allow_silence(&self, silence: Duration) {
        if let Some(limit) = &self.silence {
            limit.set(silence);
        }
    }

    /// Marks a stream that may be silent for `stream_idle_timeout` and is closed when draining starts.
    pub(crate) fn set_endless(&mut self) {
        self.endless = true;
    }

    /// Returns whether this is a stream without an expected end.
    pub(crate) fn is_endless(&self) -> bool {
        self.endless
    }

    /// Returns whether the body is still arriving, from a peer that may be slow.
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.kind, Kind::Streaming(_))
    }

    /// Sets the client whose share of the buffer memory this body uses.
    pub(crate) fn set_client(&mut self, client: ClientSlot) {
        self.client = client;
    }

    /// Returns the client whose share of the buffer memory this body uses.
    pub(crate) fn client(&self) -> ClientSlot {
        self.client
    }

    /// Reports the frames and the end of the body to `observer`.
    pub(crate) fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Restarts the body with the same content. The observer stays if it has not counted any data yet.
    pub(crate) fn begin_again(&mut self, content: ChunkedBytes) {
        let observer = self.observer.take().filter(|_| !self.data_passed);
        *self = Body::pieces(content);
        self.observer = observer;
    }

    /// Takes the observer, for a body whose bytes are counted elsewhere.
    pub(crate) fn take_observer(&mut self) -> Option<Box<dyn Observer>> {
        self.observer.take()
    }

    fn finish(&mut self, result: Result<(), &BodyError>) {
        if let Some(mut observer) = self.observer.take() {
            observer.end(result);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "empty",
            Kind::Full(_) | Kind::Pieces(..) => "full",
            Kind::Streaming(_) => "streaming",
            Kind::Tunnel(_) => "tunnel",
        };
        f.debug_struct("Body").field("kind", &kind).field("data_passed", &self.data_passed).finish()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.kind {
            Kind::Empty | Kind::Tunnel(_) => None,
            Kind::Full(content) => {
                let content = std::mem::take(content);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(content)))
            }
            Kind::Pieces(pieces, next) => {
                *next += 1;
                pieces.get(*next - 1).cloned().map(|piece| Ok(Frame::data(piece)))
            }
            Kind::Streaming(body) => ready!(body.as_mut().poll_frame(cx)),
        };
        match &frame {
            None => {
                this.kind = Kind::Empty;
                this.finish(Ok(()));
            }
            Some(Err(error)) => {
                // A failed body must never look complete: no frame follows the error.
                this.kind = Kind::Empty;
                this.finish(Err(error));
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.data_passed = true;
                    if let Some(observer) = &mut this.observer {
                        observer.data(data.len());
                    }
                }
                // A receiver that knows the length stops polling, so the end is reported with the last frame.
                if http_body::Body::is_end_stream(this) {
                    this.finish(Ok(()));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => true,
            Kind::Full(content) => content.is_empty(),
            Kind::Pieces(pieces, next) => *next >= pieces.len(),
            Kind::Streaming(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Tunnel(_) => SizeHint::with_exact(0),
            Kind::Full(content) => SizeHint::with_exact(content.len() as u64),
            Kind::Pieces(pieces, next) => {
                let left: usize = pieces.iter().skip(*next).map(Bytes::len).sum();
                SizeHint::with_exact(left as u64)
            }
            Kind::Streaming(body) => body.size_hint(),
        }
    }
}
