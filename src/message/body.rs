//! One body type for everything that flows through the stack: an app's answer, a client's upload, a
//! problem document, or the raw connection of an upgrade. It streams; nothing here gathers.

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

/// What a body can fail with. It says who is at fault, so a head that has not been sent yet can
/// still become the right status.
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
    /// The client took too little of a response, and there was no memory left for what came of it.
    ClientBehind,
    /// The client's body is longer than `max_body_size` bytes.
    TooLarge(u64),
    /// The client's trailer section is larger than the app takes over HTTP/2 (RFC 9113 6.5.2); bytes.
    TrailersTooLarge(usize),
    /// The app closed or reset its connection before its body ended.
    UpstreamGone,
    /// The app's framing is broken.
    UpstreamMalformed(&'static str),
    /// The app sent nothing for longer than `upstream.body_timeout`.
    UpstreamSilent,
    /// An HTTP/2 stream or connection failed; the text is the library's.
    Http2(String),
    /// Content could not be coded; the text is the encoder's.
    Coding(String),
    /// A stream without an end was closed because the process is stopping.
    Draining,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BodyError::ClientGone => f.write_str("the client left before its body ended"),
            BodyError::ClientMalformed(what) => write!(f, "malformed request body: {what}"),
            BodyError::ClientSilent => f.write_str("the client stopped sending its body"),
            BodyError::ClientSlow => f.write_str("the client sent its body too slowly"),
            BodyError::ClientBehind => f.write_str(
                "the client took too little of the response, and its share of buffer_memory is used up",
            ),
            BodyError::TooLarge(limit) => write!(f, "the request body exceeds {limit} bytes"),
            BodyError::TrailersTooLarge(limit) => write!(f, "the request trailers exceed {limit} bytes"),
            BodyError::UpstreamGone => f.write_str("the app closed before its body ended"),
            BodyError::UpstreamMalformed(what) => write!(f, "malformed body from the app: {what}"),
            BodyError::UpstreamSilent => f.write_str("the app stopped sending its body"),
            BodyError::Http2(what) => write!(f, "HTTP/2: {what}"),
            BodyError::Coding(what) => write!(f, "the content could not be coded: {what}"),
            BodyError::Draining => f.write_str("closed because the process is stopping"),
        }
    }
}

impl std::error::Error for BodyError {}

/// A raw two-way byte stream, as an upgrade leaves it.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// The app's side of an upgraded connection.
pub(crate) struct Tunnel {
    pub io: Box<dyn Duplex>,
    /// What was read past the head of the 101 and belongs to the client.
    pub read_ahead: Bytes,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("read_ahead", &self.read_ahead.len()).finish_non_exhaustive()
    }
}

/// Told about each frame and the end of a body. Dropped without `end`: the receiver left.
pub(crate) trait Observer {
    /// `bytes` of data passed.
    fn data(&mut self, bytes: usize);
    /// The body ended, whole or by an error.
    fn end(&mut self, result: Result<(), &BodyError>);
}

/// Fields of one answer alone, which are in no map: for HTTP/1 they are written behind the others.
pub trait OwnFields {
    /// Writes them as lines of a head.
    fn write(&self, out: &mut BytesMut);
}

/// Content that is kept beyond this answer, with what was made of it.
pub(crate) trait Kept: Send + Sync {
    /// It, where all of it is here.
    fn content(&self) -> Option<ChunkedBytes>;
    /// What was made of it under this name.
    fn made(&self, name: &'static str) -> Option<ChunkedBytes>;
    /// Keeps something made of it, if there is a place for it. It is kept as it is given, so it was cut for that.
    fn keep(&self, name: &'static str, made: ChunkedBytes);
    /// Somebody begins to make something of it that takes a while; false: somebody else is at it.
    fn begin(&self, name: &'static str) -> bool;
    /// It was made, or given up.
    fn end(&self, name: &'static str);
    /// How often it was given out.
    fn given(&self) -> u32;
    /// True once for each name: whoever asks makes it again, better.
    fn claim(&self, name: &'static str) -> bool;
}

type Streaming = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>;

enum Kind {
    Empty,
    Full(Bytes),
    /// Several pieces, and which is the next.
    Pieces(Arc<[Bytes]>, usize),
    Streaming(Streaming),
    /// In a box, as all that is seldom: bodies are moved often, and the smaller the better.
    Tunnel(Box<Tunnel>),
}

/// Content of unknown length, of which no more than so much may come.
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

/// What is prepared of the head that goes before a body.
enum Head {
    Ordinary,
    Written(HeadLines),
    /// Whoever decides about it is to prepare it for others.
    Wanted(StoreHead),
}

/// A body on its way through the stack.
pub(crate) struct Body {
    kind: Kind,
    /// Whether some of it has passed.
    begun: bool,
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
            begun: false,
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

    /// Content that is here already.
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

    /// Content that is here already, and kept.
    pub(crate) fn kept(content: ChunkedBytes, kept: Arc<dyn Kept>) -> Body {
        Body { kept: Some(kept), ..Body::pieces(content) }
    }

    /// Says who keeps the content.
    pub(crate) fn set_keeper(&mut self, keeper: Arc<dyn Kept>) {
        self.kept = Some(keeper);
    }

    pub(crate) fn keeper(&self) -> Option<&Arc<dyn Kept>> {
        self.kept.as_ref()
    }

    /// Gives it the lines of its head. The fields of such an answer are these, and those beside them.
    pub(crate) fn with_lines(self, lines: HeadLines) -> Body {
        Body { head: Head::Written(lines), ..self }
    }

    /// The lines of its head, where those are written already.
    pub(crate) fn take_lines(&mut self) -> Option<HeadLines> {
        match std::mem::replace(&mut self.head, Head::Ordinary) {
            Head::Written(lines) => Some(lines),
            other => {
                self.head = other;
                None
            }
        }
    }

    /// Gives it the fields of this answer alone. Whoever speaks anything but HTTP/1 puts them into the map instead.
    pub(crate) fn set_own_fields(&mut self, fields: Rc<dyn OwnFields>) {
        self.own_fields = Some(fields);
    }

    /// The same, for whoever writes them.
    pub(crate) fn take_own_fields(&mut self) -> Option<Rc<dyn OwnFields>> {
        self.own_fields.take()
    }

    /// Asks whoever decides about the head to prepare it for others.
    pub(crate) fn set_keep_head(&mut self, keep: StoreHead) {
        self.head = Head::Wanted(keep);
    }

    /// Who keeps the head once it is prepared.
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

    /// The app's side of an upgrade.
    pub(crate) fn tunnel(tunnel: Tunnel) -> Body {
        Body::new(Kind::Tunnel(Box::new(tunnel)))
    }

    /// The same body again, if all of it is here.
    pub(crate) fn replica(&self) -> Option<Body> {
        self.content().map(Body::pieces)
    }

    /// The content, if all of it is here.
    pub(crate) fn content(&self) -> Option<ChunkedBytes> {
        match &self.kind {
            Kind::Empty => Some(Bytes::new().into()),
            Kind::Full(content) => Some(content.clone().into()),
            Kind::Pieces(pieces, 0) => Some(pieces.clone().into()),
            Kind::Pieces(pieces, next) => Some(pieces.iter().skip(*next).cloned().collect()),
            Kind::Streaming(_) | Kind::Tunnel(_) => None,
        }
    }

    /// Whether all that is left of the content is here.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self.kind, Kind::Full(_) | Kind::Pieces(..))
    }

    /// What the list of its pieces takes beside them, where all of it is here; bytes.
    pub(crate) fn list_size(&self) -> usize {
        match &self.kind {
            Kind::Pieces(pieces, _) => pieces.iter().count() * size_of::<Bytes>(),
            _ => 0,
        }
    }

    /// Takes the app's side of an upgrade out of the body.
    pub(crate) fn take_tunnel(&mut self) -> Option<Tunnel> {
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Tunnel(tunnel) => Some(*tunnel),
            other => {
                self.kind = other;
                None
            }
        }
    }

    /// Whether this is the app's side of an upgrade.
    pub(crate) fn is_tunnel(&self) -> bool {
        matches!(self.kind, Kind::Tunnel(_))
    }

    /// Fails a body that arrives with [`BodyError::TooLarge`] once more than `limit` bytes have passed.
    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.kind = match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Streaming(body) => Kind::Streaming(Box::pin(Limited { body, left: limit, limit })),
            other => other,
        };
    }

    /// Names the longest silence of the client whose content this is, as its connection enforces it.
    pub(crate) fn set_silence(&mut self, silence: Rc<Cell<Duration>>) {
        self.silence = Some(silence);
    }

    /// The longest silence of the client, for a body that this one becomes part of, and for whoever allows more later.
    pub(crate) fn silence(&self) -> Option<Rc<Cell<Duration>>> {
        self.silence.clone()
    }

    /// The client may be silent for this long, also in the silence that lasts.
    pub(crate) fn allow_silence(&self, silence: Duration) {
        if let Some(limit) = &self.silence {
            limit.set(silence);
        }
    }

    /// Marks a stream that may be silent for `stream_idle_timeout` and is closed when draining starts.
    pub(crate) fn set_endless(&mut self) {
        self.endless = true;
    }

    /// Whether this is a stream without an expected end.
    pub(crate) fn is_endless(&self) -> bool {
        self.endless
    }

    /// Whether it arrives, from a peer that may be slow.
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.kind, Kind::Streaming(_))
    }

    /// Says whose share of the buffer memory it takes.
    pub(crate) fn set_client(&mut self, client: ClientSlot) {
        self.client = client;
    }

    /// The client whose share of the buffer memory it takes.
    pub(crate) fn client(&self) -> ClientSlot {
        self.client
    }

    /// Reports what passes to `observer`.
    pub(crate) fn observe(&mut self, observer: Box<dyn Observer>) {
        self.observer = Some(observer);
    }

    /// Begins again with the same content. Who counts goes on where nothing was counted yet.
    pub(crate) fn begin_again(&mut self, content: ChunkedBytes) {
        let observer = self.observer.take().filter(|_| !self.begun);
        *self = Body::pieces(content);
        self.observer = observer;
    }

    /// Takes the observer away, for a body whose bytes are counted elsewhere.
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
        f.debug_struct("Body").field("kind", &kind).field("begun", &self.begun).finish()
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
                // What failed must never look complete: nothing more comes after the error.
                this.kind = Kind::Empty;
                this.finish(Err(error));
            }
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.begun = true;
                    if let Some(observer) = &mut this.observer {
                        observer.data(data.len());
                    }
                }
                // A receiver that knows the length stops asking: the end is told with the last frame.
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
