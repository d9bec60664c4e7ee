//! Connects to an upstream: TCP or Unix socket, and TLS with ALPN for https URLs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::address::{Address, Target};
use crate::connection::stream::Stream;
use crate::policy::{EndpointPolicy, Place, Scheme};

pub(super) enum Connected {
    /// A connection that speaks HTTP/1.
    Http1(Stream),
    /// A connection that speaks HTTP/2.
    Http2(Stream),
}

/// Connects within `timeout`, TLS included. `http1_only` keeps HTTP/2 out of the negotiation.
pub(super) async fn connect(
    endpoint: &EndpointPolicy,
    address: &Address,
    timeout: Duration,
    http1_only: bool,
) -> io::Result<Connected> {
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "no connection within connect_timeout");
    tokio::time::timeout(timeout, attempt(endpoint, address, http1_only))
        .await
        .unwrap_or_else(|_| Err(timed_out()))
}

/// Returns whether the address accepts connections. It only connects to TCP or the Unix socket, and sends nothing.
pub(super) async fn accepts(address: &Address, timeout: Duration) -> bool {
    let connected = async {
        match &address.target {
            Target::Unix(path) => UnixStream::connect(path).await.is_ok(),
            Target::Tcp(address) => TcpStream::connect(address).await.is_ok(),
            Target::Localhost(port) => localhost(address, *port).await.is_ok(),
        }
    };
    tokio::time::timeout(timeout, connected).await.unwrap_or(false)
}

/// Connects to a port of this machine over both families: first the one that served last, then the other. The error is
/// that of the first.
async fn localhost(address: &Address, port: u16) -> io::Result<TcpStream> {
    let ipv6_first = address.over_ipv6.load(Ordering::Relaxed);
    let ip = |ipv6| if ipv6 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let first = match TcpStream::connect((ip(ipv6_first), port)).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    match TcpStream::connect((ip(!ipv6_first), port)).await {
        Ok(stream) => {
            address.over_ipv6.store(!ipv6_first, Ordering::Relaxed);
            Ok(stream)
        }
        Err(_) => Err(first),
    }
}

async fn attempt(endpoint: &EndpointPolicy, address: &Address, http1_only: bool) -> io::Result<Connected> {
    let tcp = match &address.target {
        Target::Unix(path) => return Ok(Connected::Http1(Stream::Unix(UnixStream::connect(path).await?))),
        Target::Tcp(address) => TcpStream::connect(address).await?,
        Target::Localhost(port) => localhost(address, *port).await?,
    };
    // Heads and chunks leave in one write each; waiting for more would only delay them.
    tcp.set_nodelay(true)?;
    match &endpoint.scheme {
        Scheme::Http => Ok(Connected::Http1(Stream::Tcp(tcp))),
        Scheme::H2c => Ok(Connected::Http2(Stream::Tcp(tcp))),
        Scheme::Https { tls, tls_http1, server_name } => {
            let host = match (server_name, &endpoint.place) {
                (Some(name), _) => name.clone(),
                (None, Place::Host(host, _)) => host.clone(),
                (None, Place::Unix(_)) => String::new(),
            };
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let config = if http1_only { tls_http1 } else { tls };
            let stream = TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(not_tls)?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = Stream::ClientTls(Box::new(stream));
            Ok(if http2 { Connected::Http2(stream) } else { Connected::Http1(stream) })
        }
    }
}

/// Adds advice to the error if the server's reply to the handshake is no TLS at all.
fn not_tls(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            io::Error::other("the server does not speak TLS: write http:// or h2c:// in place of https://")
        }
        _ => error,
    }
}
