//! Helpers that several of these tests use.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Answer, Folder, Pillion, accept, exchange};

pub(crate) type Connection = h2::server::Connection<TcpStream, Bytes>;

/// Starts an app that uses HTTP/2 with prior knowledge. `serve` gets each connection with its number.
pub(crate) async fn app<F>(serve: impl Fn(Connection, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((tcp, _)) = accept(&listener).await else { return };
            let connection = h2::server::handshake(tcp).await.unwrap();
            tokio::spawn(serve(connection, number));
        }
    });
    address
}

/// Responds with the content of the request.
pub(crate) async fn echo(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let mut body = request.into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        // An incomplete upload gets no response.
        let Ok(data) = data else { return };
        let _ = body.flow_control().release_capacity(data.len());
        content.extend_from_slice(&data);
    }
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(content.into(), true);
    }
}

pub(crate) async fn serve_all<T>(mut connection: h2::server::Connection<T, Bytes>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(echo(request, respond));
    }
}

pub(crate) fn over_h2c(app: SocketAddr, more: &str) -> Pillion {
    Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\n{more}"))
}

pub(crate) fn post(pillion: &Pillion, content: &str) -> Answer {
    let length = content.len();
    let head =
        format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    exchange(pillion.http, &format!("{head}{content}"))
}

/// A configuration with one worker, so that there is one connection.
pub(crate) const ONE_WORKER: &str =
    "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n";

/// Starts the same app behind TLS, with HTTP/2 by ALPN. `tls.crt` and `tls.key` are in `folder`.
pub(crate) async fn tls_app<F>(
    folder: &Folder,
    serve: impl Fn(h2::server::Connection<tokio_rustls::server::TlsStream<TcpStream>, Bytes>) -> F
    + Send
    + Sync
    + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let chain = CertificateDer::pem_file_iter(folder.path("tls.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.path("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = accept(&listener).await {
            let (acceptor, serve) = (acceptor.clone(), serve.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let Ok(connection) = h2::server::handshake(stream).await else { return };
                serve(connection).await;
            });
        }
    });
    address
}
