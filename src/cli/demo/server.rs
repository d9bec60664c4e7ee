//! Serves the sample app over HTTP/1 on a thread of its own. Like a typical app, it has no ETag, compression or
//! caching.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use serde_json::{Value, json};
use tower::Service;

use super::clinic::{Clinic, Reply};
use crate::connection::stream::Stream;
use crate::http1::head::HeadLimits;
use crate::http1::server::{self, Settings};
use crate::message::body::Body;
use crate::message::inbound::{Inbound, Peer};
use crate::runtime::lifecycle::{Lifecycle, PhaseWatcher};
use crate::server::listener;

/// Time that a report takes, to make caching visible.
const REPORT: Duration = Duration::from_millis(300);
/// Maximum bytes of a request body.
const MAX_BODY_LENGTH: usize = 1 << 20;

const SETTINGS: Settings = Settings {
    header_timeout: Duration::from_secs(10),
    body_timeout: Duration::from_secs(60),
    send_timeout: Duration::from_secs(60),
    idle_timeout: Duration::from_secs(75),
    stream_idle_timeout: Duration::from_secs(3600),
    buffer_response: 256 * 1024,
    limits: HeadLimits { size: 64 * 1024, fields: 256 },
};

/// A sample app that is running.
pub(super) struct App {
    /// The address that the app listens on.
    pub address: SocketAddr,
    thread: JoinHandle<()>,
}

impl App {
    /// Blocks for as long as the app runs.
    pub(super) fn join(self) {
        let _ = self.thread.join();
    }
}

/// Starts the app on a thread of its own; returns once it listens.
pub(super) fn start(address: SocketAddr) -> io::Result<App> {
    let listener = listener::bind(address)?;
    let address = listener.local_addr()?;
    let runtime = move || -> io::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
        runtime.block_on(accept(listener))
    };
    let thread = std::thread::Builder::new().name("clinic".to_owned()).spawn(move || {
        if let Err(error) = runtime() {
            eprintln!("the sample app ended: {error}");
        }
    })?;
    Ok(App { address, thread })
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let clinic = Rc::new(RefCell::new(Clinic::new()));
    let lifecycle = Rc::new(Lifecycle::default());
    loop {
        let (tcp, address) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let (app, phase_watcher) = (Handler(clinic.clone()), PhaseWatcher::new(lifecycle.clone()));
        tokio::task::spawn_local(async move {
            let peer = Rc::new(Peer::new(address, false));
            server::serve(
                Stream::Tcp(tcp),
                BytesMut::new(),
                app,
                peer,
                &|| SETTINGS,
                phase_watcher,
                false,
                None,
            )
            .await;
        });
    }
}

#[derive(Clone)]
struct Handler(Rc<RefCell<Clinic>>);

impl Service<Inbound> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        let clinic = self.0.clone();
        Box::pin(async move {
            if let Some(refused) = inbound.refused {
                return Ok(respond(Reply {
                    status: refused.status,
                    body: json!({ "error": refused.detail }),
                }));
            }
            let (parts, body) = inbound.request.into_parts();
            let Some(content) = read(body).await else {
                return Ok(respond(Reply {
                    status: StatusCode::BAD_REQUEST,
                    body: json!({ "error": "no body" }),
                }));
            };
            if parts.uri.path().starts_with("/api/reports") {
                tokio::time::sleep(REPORT).await;
            }
            let input: Option<Value> = serde_json::from_slice(&content).ok();
            let reply =
                clinic.borrow_mut().respond(&parts.method, parts.uri.path(), parts.uri.query(), input);
            Ok(respond(reply))
        })
    }
}

async fn read(mut body: Body) -> Option<Bytes> {
    let mut content = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.ok()?.into_data() {
            content.extend_from_slice(&data);
        }
        if content.len() > MAX_BODY_LENGTH {
            return None;
        }
    }
    Some(content.freeze())
}

fn respond(reply: Reply) -> Response<Body> {
    let text = if reply.body.is_null() { String::new() } else { format!("{:#}\n", reply.body) };
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = reply.status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
