//! The stage on which layers are tested: the policy of a small configuration, requests as a connection brings them, and
//! a scripted service in place of the layers below.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::{Notify, mpsc};
use tower::Service;

use super::observe::Observe;
use super::record::Sink;
use super::route::{Decision, decide};
use super::routed::{Observed, Routed};
use crate::cache::Cache;
use crate::config::{self, Environment, Source};
use crate::message::body::{Body, BodyError};
use crate::message::error::BoxError;
use crate::message::inbound::{Inbound, Peer};
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::state::live_policy::{PolicyView, Snapshot};

/// The host that all requests name.
pub(super) const HOST: &str = "example.com";
/// The upstream of configurations that are tested without one.
const NOWHERE: &str = "http://127.0.0.1:9";
/// Maximum turns of other tasks that [`until`] waits for.
const MAX_TURNS: usize = 100_000;

/// The result of a layer.
pub(super) type Outcome = Result<Response<Body>, BoxError>;

/// Runs a test as a worker runs its tasks.
pub(super) fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.unwrap(), test);
}

/// Lets other tasks run until a condition holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..MAX_TURNS {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("this never came: {what}");
}

/// The state of a process with one configuration.
#[derive(Clone)]
pub(super) struct Stage {
    pub snapshot: Arc<Snapshot>,
    pub sink: Rc<Sink>,
}

impl Stage {
    /// Creates the state of a process that was started with this configuration, in TOML. Its upstream does not exist.
    pub(super) fn new(configuration: &str) -> Stage {
        Stage::before(NOWHERE, configuration)
    }

    /// As [`Stage::new`], before the upstream at `url`.
    pub(super) fn before(url: &str, configuration: &str) -> Stage {
        let text: &'static str = Box::leak(configuration.to_owned().into_boxed_str());
        let (embedded, upstream) = (Some(("test.toml", text)), Some(url.to_owned()));
        let source = Source { embedded, upstream, ..Source::default() };
        let environment = Environment { cores: 1, ..Environment::default() };
        let policy = config::load(&source, &environment).unwrap_or_else(|error| panic!("{error}"));
        let (snapshot, sink) = crate::app::rehearse(policy, None).unwrap();
        Stage { snapshot, sink }
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.sink.shared_state.cache
    }

    /// Returns the view of a worker on the policy.
    pub(super) fn view(&self) -> PolicyView {
        arc_swap::Cache::new(Arc::new(ArcSwap::new(self.snapshot.clone())))
    }

    /// Begins a request, such as `GET /a?b`.
    pub(super) fn ask(&self, line: &str) -> Asking {
        let (method, target) = line.split_once(' ').unwrap();
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *request.uri_mut() = target.parse().unwrap();
        // Fields of the response stand in its map and not in lines beside it.
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static(HOST));
        let client = SocketAddr::from(([192, 0, 2, 1], 1));
        Asking {
            stage: self.clone(),
            request,
            peer: Peer::new(client, false),
            received: clock::now(),
            upgrade: None,
        }
    }
}

/// A request on its way to the stage.
pub(super) struct Asking {
    stage: Stage,
    request: Request<Body>,
    peer: Peer,
    received: Instant,
    upgrade: Option<HeaderValue>,
}

impl Asking {
    pub(super) fn field(mut self, name: &'static str, value: &str) -> Self {
        self.request.headers_mut().append(name, value.parse().unwrap());
        self
    }

    /// Names another host than [`HOST`].
    pub(super) fn host(mut self, name: &str) -> Self {
        self.request.headers_mut().insert(header::HOST, name.parse().unwrap());
        self
    }

    pub(super) fn body(mut self, body: Body) -> Self {
        *self.request.body_mut() = body;
        self
    }

    pub(super) fn upgrade(mut self, protocol: &'static str) -> Self {
        self.upgrade = Some(HeaderValue::from_static(protocol));
        self
    }

    /// Sends the request from this address.
    pub(super) fn from(mut self, client: [u8; 4]) -> Self {
        self.peer = Peer::new(SocketAddr::new(IpAddr::from(client), 1), self.peer.tls);
        self
    }

    /// Sends the request over TLS.
    pub(super) fn over_tls(mut self) -> Self {
        self.peer = Peer::new(self.peer.address, true);
        self
    }

    pub(super) fn over_http1(mut self) -> Self {
        *self.request.version_mut() = Version::HTTP_11;
        self
    }

    /// Lets the request arrive at this moment.
    pub(super) fn at(mut self, received: Instant) -> Self {
        self.received = received;
        self
    }

    /// Lets the request arrive that much later.
    pub(super) fn later(mut self, by: Duration) -> Self {
        self.received += by;
        self
    }

    /// Returns the request as its connection gives it to the stack.
    pub(super) fn inbound(self) -> Inbound {
        Inbound {
            request: Box::new(self.request),
            peer: Rc::new(self.peer),
            received: self.received,
            upgrade: self.upgrade,
            takes_trailers: false,
            refused: None,
            counted: 0,
            kept: 0,
            reserved: None,
        }
    }

    /// Returns the request as `rescue` and `route` see it.
    pub(super) fn observed(self) -> Observed {
        let (view, sink) = (self.stage.view(), self.stage.sink.clone());
        let taken = Taken::default();
        drop(Observe::new(taken.clone(), view, sink).call(self.inbound()));
        taken.0.take().unwrap()
    }

    /// Returns the request as the layers below `route` see it.
    pub(super) fn routed(self) -> Box<Routed> {
        match decide(self.observed()) {
            Ok(Decision::Below(routed)) => routed,
            Ok(Decision::Respond(response)) => panic!("the route responded with {}", response.status()),
            Err(error) => panic!("the route refused the request: {error}"),
        }
    }
}

/// Takes the request that the layer above sends.
#[derive(Clone, Default)]
struct Taken(Rc<Cell<Option<Observed>>>);

impl Service<Observed> for Taken {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Pending<Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, observed: Observed) -> Self::Future {
        self.0.set(Some(observed));
        std::future::pending()
    }
}

/// A request that the scripted service got.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    /// Its content, if all of it was there.
    pub content: Option<Bytes>,
}

impl Asked {
    fn new(request: &Request<Body>) -> Asked {
        Asked {
            method: request.method().clone(),
            target: request.uri().to_string(),
            headers: request.headers().clone(),
            content: request.body().content().map(|content| content.joined()),
        }
    }

    /// Returns a field of the request as text; empty if it is absent.
    pub(super) fn field(&self, name: &str) -> &str {
        field(&self.headers, name)
    }
}

/// The service below the tested layer. It responds by a script, and remembers the requests it got.
#[derive(Clone)]
pub(super) struct Scripted(Rc<Script>);

type Respond = Box<dyn FnMut(&Asked) -> Outcome>;

struct Script {
    respond: RefCell<Respond>,
    asked: RefCell<Vec<Asked>>,
    /// Whether it responds only when it is told to.
    is_held: Cell<bool>,
    /// Number of responses that are sent although the others are held back.
    let_through: Cell<usize>,
    released: Notify,
}

impl Scripted {
    /// Creates a service that responds by a function.
    pub(super) fn by(respond: impl FnMut(&Asked) -> Outcome + 'static) -> Scripted {
        Scripted(Rc::new(Script {
            respond: RefCell::new(Box::new(respond)),
            asked: RefCell::default(),
            is_held: Cell::new(false),
            let_through: Cell::new(0),
            released: Notify::new(),
        }))
    }

    /// Creates a service that sends these responses, one after the other.
    pub(super) fn queue(responses: impl IntoIterator<Item = Response<Body>>) -> Scripted {
        let mut responses: VecDeque<_> = responses.into_iter().collect();
        Scripted::by(move |asked| match responses.pop_front() {
            Some(response) => Ok(response),
            None => panic!("no response is left for {asked:?}"),
        })
    }

    /// Holds the responses back until [`Scripted::release`].
    pub(super) fn hold(&self) {
        self.0.is_held.set(true);
    }

    /// Sends the responses that were held back.
    pub(super) fn release(&self) {
        self.0.is_held.set(false);
        self.0.released.notify_waiters();
    }

    /// Sends the first of the responses that were held back.
    pub(super) fn release_one(&self) {
        self.0.let_through.set(1);
        self.0.released.notify_waiters();
    }

    /// Returns the requests it got so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.0.asked.borrow().clone()
    }

    /// Returns the number of requests it got so far.
    pub(super) fn count(&self) -> usize {
        self.0.asked.borrow().len()
    }

    /// Returns the last request it got.
    pub(super) fn last(&self) -> Asked {
        self.0.asked.borrow().last().cloned().unwrap()
    }

    fn start(&self, request: &Request<Body>) -> Pin<Box<dyn Future<Output = Outcome>>> {
        let (script, asked) = (self.0.clone(), Asked::new(request));
        script.asked.borrow_mut().push(asked.clone());
        Box::pin(async move {
            while script.is_held.get() {
                if script.let_through.get() > 0 {
                    script.let_through.set(script.let_through.get() - 1);
                    break;
                }
                script.released.notified().await;
            }
            (script.respond.borrow_mut())(&asked)
        })
    }
}

impl Service<Box<Routed>> for Scripted {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Outcome>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Box<Routed>) -> Self::Future {
        self.start(&routed.request)
    }
}

impl Service<Observed> for Scripted {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Outcome>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, observed: Observed) -> Self::Future {
        self.start(&observed.inbound.request)
    }
}

/// Makes a response with complete content.
pub(super) fn response(status: u16, lines: &[(&'static str, &str)], content: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(content.to_owned()));
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in lines {
        response.headers_mut().append(HeaderName::from_static(name), value.parse().unwrap());
    }
    response
}

/// Returns a field as text; empty if it is absent.
pub(super) fn field<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Reads the content of a response.
pub(super) async fn content(response: Response<Body>) -> Result<String, BodyError> {
    let (mut body, mut content) = (response.into_body(), BytesMut::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            content.extend_from_slice(&data);
        }
    }
    Ok(String::from_utf8(content.to_vec()).unwrap())
}

/// The side of a body from which its pieces come; the body ends when this is dropped.
pub(super) type Sender = mpsc::UnboundedSender<Result<Bytes, BodyError>>;

/// Makes a body whose content arrives piece by piece.
pub(super) fn arriving(length: Option<u64>) -> (Sender, Body) {
    let (sender, pieces) = mpsc::unbounded_channel();
    (sender, Body::streaming(Arriving { pieces, left: length }))
}

struct Arriving {
    pieces: mpsc::UnboundedReceiver<Result<Bytes, BodyError>>,
    left: Option<u64>,
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.pieces.poll_recv(cx));
        if let (Some(left), Some(Ok(data))) = (&mut self.left, &piece) {
            *left -= data.len() as u64;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
