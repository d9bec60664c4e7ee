//! Helpers that several of these tests use.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::harness::{Pillion, Request, Script, connect, eventually, ok};

/// A configuration with one upstream slot and a short queue timeout.
pub(crate) const ONE_PLACE: &str = "max_connections = 1\nqueue_timeout = \"300ms\"\n";

/// Starts an app that reports the number of bytes received, and counts the requests that reach it.
pub(crate) fn counting() -> (Script, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let app = Script::new(move |mut tcp| {
        loop {
            // The first byte of a head counts as having reached the app.
            let mut byte = [0u8; 1];
            if !matches!(tcp.peek(&mut byte), Ok(1)) {
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
            let Some(request) = Request::read(&mut tcp) else { return };
            if tcp.write_all(&ok(&request.body.len().to_string())).is_err() {
                return;
            }
        }
    });
    (app, seen)
}

/// Starts Pillion in front of `app`. `upstream` is added to its section, `server` to `[server]`.
pub(crate) fn pillion(app: SocketAddr, server: &str, upstream: &str) -> Pillion {
    Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{server}\
         [upstream]\nurl = \"http://{app}\"\n{upstream}[cache]\nenabled = false\n"
    ))
}

/// Opens a connection and sends `bytes` on it.
pub(crate) fn sent(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut tcp = connect(address);
    tcp.write_all(bytes.as_bytes()).unwrap();
    tcp
}

/// Returns the number of upstream slots that are held.
#[track_caller]
pub(crate) fn held(pillion: &Pillion) -> f64 {
    let text = pillion.admin_get("/metrics").text();
    let lines = text.lines().filter(|line| line.starts_with("pillion_upstream_connections_in_use{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[track_caller]
pub(crate) fn eventually_held(pillion: &Pillion, count: f64) {
    eventually(&format!("{count} places are held"), || (held(pillion) == count).then_some(()));
}

pub(crate) type H2Client = h2::client::SendRequest<Bytes>;

/// Connects an HTTP/2 client with this window for each stream.
pub(crate) async fn h2_client(address: SocketAddr, window: u32) -> H2Client {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(16 << 20)
        .handshake(tcp)
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

/// Reads a body to its end.
pub(crate) async fn h2_body(body: &mut h2::RecvStream) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap_or_else(|error| panic!("{error} after {} bytes", content.len()));
        body.flow_control().release_capacity(data.len()).unwrap();
        content.extend_from_slice(&data);
    }
    content
}
