//! One HTTP/2 client connection: hyper's connection around the same stack, with the timeouts and the shutdown that
//! hyper does not provide.

mod counted;
mod fields;
mod read_ahead;
mod refusals;
mod request;
mod request_body;
mod response_body;
mod streams;
mod timeouts;
mod upload_wait;
mod waiting;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tower::Service;

use counted::{Counted, CountedTunnel};
use response_body::{Ahead, StreamBody};
use streams::{Open, Streams};
use waiting::Waiting;

use crate::connection::seats::Seat;
use crate::connection::stream::{Rewound, Stream};
use crate::connection::tunnel;
use crate::fields::media_type::MediaKind;
use crate::http1::head_error::HeadError;
use crate::http1::server::{LEAVE_UNUSED, Settings};
use crate::http2::intake::{Intake, IntakeBody};
use crate::http2::trailers::Watched;
use crate::http2::{LocalExecutor, SEND_BUFFER};
use crate::memory::buffers::{BufferReservation, ClientSlot};
use crate::message::body::{Body, Tunnel};
use crate::message::inbound::{Inbound, Peer};
use crate::runtime::clock;
use crate::runtime::clock::Deadline;
use crate::runtime::lifecycle::{Phase, PhaseWatcher};

/// Bytes that a client may send of one request before the upstream has read them.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Maximum window size (RFC 9113 6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Bytes that wait in TLS while the client reads nothing: the buffer of rustls.
const TLS_BUFFER: usize = 64 * 1024;
/// Bits of an IPv6 address that identify a client before the policy for its request is known.
const IPV6_PREFIX: u8 = 64;
/// Time that a client without open requests gets to leave.
const LEAVE: Duration = Duration::from_secs(2);

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Serves one connection until it ends; `read` was read from it already. An error says which rule of the protocol the
/// client broke; the library has already told the client.
#[allow(clippy::too_many_arguments, reason = "each of them is another side of one connection")]
pub(super) async fn serve<S>(
    stream: Stream,
    read: Bytes,
    service: S,
    peer: Rc<Peer>,
    settings: &dyn Fn() -> Settings,
    max_streams: u32,
    phase_watcher: PhaseWatcher,
    seat: Seat,
) -> Result<(), hyper::Error>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    let written: Rc<Cell<u64>> = Rc::default();
    let client = ClientSlot::new(peer.address.ip(), IPV6_PREFIX);
    let reserved = peer.buffers.clone().map(|memory| BufferReservation::new(memory, client));
    let intake = Intake::new(reserved, STREAM_WINDOW as usize, if peer.tls { TLS_BUFFER } else { 0 });
    if !intake.has_room() {
        // An idle connection is closed to make room, as at `max_connections`.
        seat.seats().evict(client);
    }
    let streams = Rc::new(Streams {
        open: Cell::new(0),
        moved: Cell::new(clock::now()),
        used: Cell::new(false),
        look: Cell::new(clock::now()),
        written: written.clone(),
        progress: Cell::new((0, clock::now())),
        read_ahead: RefCell::default(),
        waiting: Waiting::new(seat, written, clock::now()),
        intake: intake.clone(),
        client,
    });
    let now = settings();
    let inner = Rewound::new(read, stream);
    let (refusing, refused_peer) = (service.clone(), peer.clone());
    let trusted = peer.trusted;
    let adapter = Adapter {
        service,
        peer,
        settings: now,
        streams: streams.clone(),
        phase_watcher: Rc::new(phase_watcher.another()),
    };
    // Pinned in place: a moved connection would take its space twice.
    let mut connection = pin!(
        http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            // Room for every stream's window: unread uploads must not stop other streams.
            .initial_connection_window_size(max_streams.saturating_mul(STREAM_WINDOW).min(MAX_WINDOW))
            .max_send_buf_size(SEND_BUFFER)
            .max_concurrent_streams(max_streams)
            // The library refuses without a problem document: up to twice the limit the refusal is made here.
            .max_header_list_size(u32::try_from(now.limits.size * 2).unwrap_or(u32::MAX))
            .enable_connect_protocol()
            .auto_date_header(true)
            .serve_connection(
                TokioIo::new(Counted {
                    inner: Watched::counted(inner, intake.clone()),
                    written: streams.written.clone(),
                    intake: intake.clone(),
                }),
                adapter,
            )
    );
    let mut deadline = Deadline::default();
    let mut leaving = false;
    let mut poll = |cx: &mut Context<'_>| {
        intake.begin_turn();
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        intake.end_turn();
        if intake.is_overdrawn() {
            connection.as_mut().graceful_shutdown();
            let _ = connection.as_mut().poll(cx);
            return Poll::Ready(Ok(()));
        }
        let phase = phase_watcher.watch(cx);
        // While announcing, a connection is told to end after its first request, like every other.
        let end = phase >= Phase::Draining || (phase == Phase::Announcing && streams.used.get());
        if end && !leaving {
            leaving = true;
            streams.moved.set(clock::now());
            connection.as_mut().graceful_shutdown();
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
        }
        loop {
            let (settings, now) = (settings(), clock::now());
            let Some(mut next) = streams.cut_unread(now, settings.send_timeout) else {
                return Poll::Ready(Ok(()));
            };
            let (room, look) = streams.waiting.poll(streams.open.get(), now, cx);
            next = look.map_or(next, |look| next.min(look));
            if room && !leaving {
                // The connection has to make room for others.
                leaving = true;
                connection.as_mut().graceful_shutdown();
                let _ = connection.as_mut().poll(cx);
                return Poll::Ready(Ok(()));
            }
            if streams.open.get() == 0 {
                let limit = match leaving {
                    // A client that never sent a request, or never finished a handshake, does not delay the shutdown.
                    true if !streams.used.get() => LEAVE_UNUSED,
                    true => LEAVE,
                    // The connection has a head that never ends, or a preface that never comes.
                    false if !streams.used.get() && !trusted => settings.header_timeout,
                    false => settings.idle_timeout,
                };
                let due = streams.moved.get() + limit;
                if now >= due && leaving {
                    return Poll::Ready(Ok(()));
                }
                if now >= due {
                    leaving = true;
                    streams.moved.set(now);
                    connection.as_mut().graceful_shutdown();
                    if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                        return Poll::Ready(result);
                    }
                    continue;
                }
                next = next.min(due);
            }
            deadline.set(next);
            ready!(deadline.poll_expired(cx));
        }
    };
    let served = std::future::poll_fn(|cx| {
        // Earlier refusals belong to other connections.
        drop(refusals::by_library());
        let polled = poll(cx);
        let no_memory = streams.intake.is_overdrawn().then_some(HeadError::NoMemory);
        for error in refusals::by_library().chain(no_memory) {
            refusals::note(error, refusing.clone(), refused_peer.clone());
        }
        polled
    })
    .await;
    streams.waiting.close();
    served
}

/// The stack as a service for hyper.
struct Adapter<S> {
    service: S,
    peer: Rc<Peer>,
    settings: Settings,
    streams: Rc<Streams>,
    phase_watcher: Rc<PhaseWatcher>,
}

impl<S> hyper::service::Service<Request<Incoming>> for Adapter<S>
where
    S: Service<Inbound, Response = Response<Body>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
{
    type Response = Response<StreamBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let open = Open::new(self.streams.clone());
        let mut service = self.service.clone();
        let settings = self.settings;
        let phase_watcher = self.phase_watcher.clone();
        let extended = request.extensions().get::<hyper::ext::Protocol>().cloned();
        let head = *request.method() == Method::HEAD;
        let upgrade = extended.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let peer = self.peer.clone();
        // The tunnel reads the content.
        let taken = extended.as_ref().map(|_| IntakeBody::new(self.streams.intake.clone()));
        let (mut inbound, upload) =
            request::inbound(request, extended, peer.clone(), settings, &self.streams);
        let no_memory = inbound.refused == Some(refusals::refused(HeadError::NoMemory));
        Box::pin(async move {
            // Cookies are joined here, just before the stack counts the request: many requests arrive before any of
            // them begins.
            fields::join_cookies(inbound.request.headers_mut());
            let Ok(response) = service.call(inbound).await;
            if let Some(upload) = upload {
                upload.set_responded();
            }
            let (mut parts, mut body) = response.into_parts();
            // Fields of an HTTP/1 connection are not allowed here (RFC 9113 8.2.2).
            parts.headers.remove(header::CONNECTION);
            if matches!(parts.status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT) {
                // RFC 9110 8.6: neither a 204 nor a successful CONNECT has a Content-Length.
                parts.headers.remove(header::CONTENT_LENGTH);
            }
            if parts.status == StatusCode::SWITCHING_PROTOCOLS {
                // RFC 8441 5: a 101 of HTTP/1 is a 200 here.
                parts.status = StatusCode::OK;
                parts.headers.remove(header::UPGRADE);
                parts.headers.remove(SEC_WEBSOCKET_ACCEPT);
                let observer = body.take_observer();
                if let (Some(tunnel), Some(upgrade), Some(taken)) = (body.take_tunnel(), upgrade, taken) {
                    let idle = settings.stream_idle_timeout;
                    let client = Upgrading { upgrade, taken, open };
                    tokio::task::spawn_local(relay(client, tunnel, idle, phase_watcher.another(), observer));
                }
                return Ok(Response::from_parts(parts, StreamBody::tunnel()));
            }
            if no_memory {
                body = refusals::without_content(&mut parts.headers, body);
            }
            if head && !http_body::Body::is_end_stream(&body) {
                // Content that is present for a HEAD request is dropped here, because the library would send it (RFC
                // 9110 9.3.2).
                if let Some(length) = http_body::Body::size_hint(&body).exact() {
                    parts.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| length.into());
                }
                body = Body::empty();
            }
            // Other streams than live ones may end by themselves while the process drains.
            let ends = body.is_endless() && MediaKind::from_headers(&parts.headers) != MediaKind::Stream;
            let endless = ends.then(|| phase_watcher.another());
            let ahead = Ahead { bytes: settings.buffer_response, memory: peer.buffers.clone() };
            Ok(Response::from_parts(parts, StreamBody::new(body, open, endless, ahead)))
        })
    }
}

/// The client's side of a tunnel that is being set up.
struct Upgrading {
    upgrade: hyper::upgrade::OnUpgrade,
    taken: IntakeBody,
    open: Open,
}

async fn relay(
    client: Upgrading,
    tunnel: Tunnel,
    idle: Duration,
    phase_watcher: PhaseWatcher,
    observer: Option<Box<dyn crate::message::body::Observer>>,
) {
    let Upgrading { upgrade, taken, open } = client;
    match upgrade.await {
        Ok(client) => {
            let client = CountedTunnel { inner: TokioIo::new(client), taken };
            tunnel::between(client, tunnel, idle, &phase_watcher, observer).await;
        }
        Err(error) => tracing::debug!(%error, "an upgrade over HTTP/2 failed"),
    }
    drop(open);
}
