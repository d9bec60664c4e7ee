//! A connection from accept to its end: PROXY header, TLS, then HTTP/1 or HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::http2;
use super::proxy_protocol;
use super::worker::Worker;
use crate::connection::seats::Seat;
use crate::connection::stream::Stream;
use crate::http1::server::{self, Ended, Settings};
use crate::memory::buffers::ClientSlot;
use crate::message::inbound::Peer;
use crate::metrics::RefusedLabels;
use crate::runtime::clock;
use crate::runtime::lifecycle::{Phase, PhaseWatcher};
use crate::state::live_policy::Snapshot;

/// Maximum unsent bytes in the kernel before a connection counts as not writable.
const UNSENT: u32 = 64 * 1024;

/// Serves a connection until it ends.
pub(super) async fn serve(
    worker: Rc<Worker>,
    tcp: TcpStream,
    address: SocketAddr,
    tls: bool,
    mut seat: Seat,
) {
    // The connection works without the option too.
    let _ = tcp.set_nodelay(true);
    // Writable then means that the client reads, not that the kernel could still buffer megabytes. Only so does
    // `send_timeout` measure the client.
    let _ = socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT);
    let snapshot = worker.snapshot();
    let trusted = snapshot.policy.server.trusts(address.ip().to_canonical());
    let plain = !tls && !snapshot.policy.server.proxy_protocol;
    let (stream, address, negotiated) = if plain {
        (Stream::Tcp(tcp), address, false)
    } else {
        let phase_watcher = PhaseWatcher::new(worker.lifecycle.clone());
        let settings = snapshot.policy.server.settings;
        let silence = if trusted { settings.idle_timeout } else { settings.header_timeout };
        let prepared = Box::pin(async {
            let prepared = async {
                // Without a byte the connection is idle, and is closed without a log event.
                tokio::time::timeout(silence, tcp.peek(&mut [0])).await.ok()?.ok()?;
                Some(prepare(&snapshot, tcp, address, tls).await)
            };
            tokio::select! {
                prepared = prepared => prepared,
                // The connection may have been accepted at this moment, so its client gets a moment of its own. A client
                // that goes on to send nothing does not delay the shutdown.
                () = async {
                    phase_watcher.reached(Phase::Draining).await;
                    tokio::time::sleep(server::LEAVE_UNUSED).await;
                } => None,
                () = std::future::poll_fn(|cx| seat.poll_idle(cx)) => None,
            }
        });
        match prepared.await {
            Some(Ok(prepared)) => {
                if !seat.set_busy() {
                    return;
                }
                // If a PROXY header named the client, the connection counts as that client's.
                let named = prepared.1.ip();
                let client = ClientSlot::new(named, snapshot.policy.limits.ipv6_prefix);
                if !seat.set_client(client, snapshot.policy.server.trusts(named.to_canonical())) {
                    return worker.refuse_beyond_share(seat.seats(), named);
                }
                prepared
            }
            Some(Err((reason, error))) => return refuse(&worker, address, reason, &error),
            None => return,
        }
    };
    let max_streams = snapshot.policy.server.h2_max_streams;
    drop(snapshot);
    let buffers = Some(worker.buffers().clone());
    let peer = Rc::new(Peer { buffers, trusted, ..Peer::new(address, tls) });
    let settings = || -> Settings { worker.settings() };
    let phase_watcher = PhaseWatcher::new(worker.lifecycle.clone());
    let (stream, read) = if negotiated {
        (stream, Bytes::new())
    } else {
        let service = worker.service();
        let spoken = server::serve(
            stream,
            BytesMut::new(),
            service,
            peer.clone(),
            &settings,
            phase_watcher,
            !tls,
            Some(&seat),
        )
        .await;
        match spoken {
            Ended::Closed => return,
            Ended::Http2(stream, read) => (stream, read),
        }
    };
    let phase_watcher = PhaseWatcher::new(worker.lifecycle.clone());
    let served =
        http2::serve(stream, read, worker.service(), peer, &settings, max_streams, phase_watcher, seat);
    if let Err(error) = Box::pin(served).await
        && !is_disconnect(&error)
    {
        refuse(&worker, address, "http2", &error);
    }
}

/// Returns whether an HTTP/2 connection ended with an ordinary disconnect, and not with a protocol error.
fn is_disconnect(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<io::Error>() {
            return true;
        }
        cause = inner.source();
    }
    error.is_incomplete_message() || error.is_closed() || error.is_canceled()
}

/// Counts a refused connection, and logs at most one a second: a flood of bad connections must not become a flood of
/// lines.
fn refuse(worker: &Worker, address: SocketAddr, reason: &'static str, error: &dyn std::error::Error) {
    worker.metrics().refused.get_or_create(&RefusedLabels { reason }).inc();
    if worker.refusals.may(clock::now()).is_some() {
        tracing::info!(client = %address, reason, %error, "connection refused");
    }
}

/// Reads the PROXY header and does the TLS handshake, within `header_timeout`. The flag says that HTTP/2 was
/// negotiated.
async fn prepare(
    snapshot: &Arc<Snapshot>,
    mut tcp: TcpStream,
    mut address: SocketAddr,
    tls: bool,
) -> Result<(Stream, SocketAddr, bool), (&'static str, io::Error)> {
    let server = &snapshot.policy.server;
    let prepared = async {
        if server.proxy_protocol && server.trusts(address.ip().to_canonical()) {
            let told = proxy_protocol::read(&mut tcp).await.map_err(|error| ("proxy", error))?;
            address = told.unwrap_or(address);
        }
        let Some(policy) = server.tls.as_ref().filter(|_| tls) else {
            return Ok((Stream::Tcp(tcp), address, false));
        };
        let stream =
            TlsAcceptor::from(policy.config.clone()).accept(tcp).await.map_err(|error| ("tls", error))?;
        let negotiated = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Stream::ServerTls(Box::new(stream)), address, negotiated))
    };
    tokio::time::timeout(server.settings.header_timeout, prepared)
        .await
        .unwrap_or_else(|_| Err(("timeout", io::ErrorKind::TimedOut.into())))
}
