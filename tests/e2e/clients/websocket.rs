//! Tests of WebSockets over HTTP/1 and HTTP/2, and of other upgrades.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::tools::{Authority, TLS, curl, h2_bytes, h2_client, local, tls_connector};
use crate::harness::{self, PATIENCE, Pillion, Script, connect, ok, read_answer};

/// Starts an app that echoes every message of every connection.
async fn websocket_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = crate::harness::accept(&listener).await.unwrap();
            tokio::spawn(async move {
                let Ok(socket) = tokio_tungstenite::accept_async(tcp).await else { return };
                let (mut sink, mut stream) = socket.split();
                while let Some(Ok(message)) = stream.next().await {
                    // The library responds to a Close itself, at the next read.
                    if !message.is_close() && sink.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

type WebSocket<T> = tokio_tungstenite::WebSocketStream<T>;

async fn echoed<T>(socket: &mut WebSocket<T>, text: &str)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    socket.send(Message::text(text)).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(heard.into_text().unwrap().as_str(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_echo_survive_a_reload_and_end_when_draining_starts() {
    let app = websocket_app().await;
    let config = local(&format!(
        "drain_timeout = \"30s\"\n[upstream]\nurl = \"http://{app}\"\nmax_connections = 1\nbody_timeout = \"200ms\"\n"
    ));
    let pillion = Pillion::with(&config);
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut socket, answer) = tokio_tungstenite::client_async("ws://a.test/chat", tcp).await.unwrap();
    assert_eq!(answer.status(), 101);
    echoed(&mut socket, "hello").await;
    echoed(&mut socket, &"long ".repeat(100_000)).await;
    // An upgraded connection takes no ordinary upstream slot, so a second request finds one.
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut second, _) = tokio_tungstenite::client_async("ws://a.test/chat", tcp).await.unwrap();
    echoed(&mut second, "me too").await;
    second.close(None).await.unwrap();

    tokio::task::block_in_place(|| pillion.reload(&config.replace("200ms", "250ms")));
    echoed(&mut socket, "still here").await;

    let since = harness::now();
    pillion.process.signal("TERM");
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "it ends");
    tokio::task::block_in_place(|| {
        let mut pillion = pillion;
        assert!(pillion.process.wait().success());
    });
    assert!(since.elapsed().as_secs() < 15, "nobody waited for drain_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_over_tls() {
    let app = websocket_app().await;
    let authority = Authority::new();
    let pillion =
        Pillion::in_folder(authority.folder(), &local(&format!("{TLS}[upstream]\nurl = \"http://{app}\"\n")));
    let tcp = TcpStream::connect(pillion.https.unwrap()).await.unwrap();
    let connector = tls_connector(&authority, b"http/1.1");
    let stream = connector.connect("pillion.test".try_into().unwrap(), tcp).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("wss://pillion.test/chat", stream).await.unwrap();
    echoed(&mut socket, "hello").await;
    socket.close(None).await.unwrap();
    let farewell = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(matches!(farewell, Some(Ok(Message::Close(_)))), "{farewell:?}");
}

#[test]
fn an_app_that_refuses_an_upgrade_is_heard() {
    let app = Script::answering(|_| b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_vec());
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    for _ in 0..2 {
        tcp.write_all(
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
        let answer = read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"), "and the connection goes on");
    }
}

/// Returns a masked text frame whose mask is zero, so that its payload is readable.
fn text_frame(text: &str) -> Bytes {
    let length = 0x80 | u8::try_from(text.len()).unwrap();
    [&[0x81, length, 0, 0, 0, 0][..], text.as_bytes()].concat().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_over_http_2() {
    let app = websocket_app().await;
    let config = local(&format!("drain_timeout = \"30s\"\n[upstream]\nurl = \"http://{app}\"\n"));
    let pillion = Pillion::with(&config);
    let mut client = h2_client(pillion.http).await;
    // The settings of the server arrive with its first frame. An ordinary request makes sure that they have.
    let (answer, _) =
        client.send_request(http::Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    answer.await.unwrap();
    assert!(client.is_extended_connect_protocol_enabled());
    let open = |client: &mut h2::client::SendRequest<Bytes>| {
        let mut request = http::Request::builder()
            .method("CONNECT")
            .uri("http://a.test/chat")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        client.send_request(request, false).unwrap()
    };
    let (answer, mut upload) = open(&mut client);
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let mut download = answer.into_body();
    for text in ["hello", "again"] {
        upload.send_data(text_frame(text), false).unwrap();
        let heard = h2_bytes(&mut download, 2 + text.len()).await;
        assert_eq!(heard, [&[0x81, 5][..], text.as_bytes()].concat());
    }

    tokio::task::block_in_place(|| pillion.reload(&config.replace("30s", "29s")));
    upload.send_data(text_frame("still"), false).unwrap();
    assert_eq!(h2_bytes(&mut download, 7).await, b"\x81\x05still");

    // The second tunnel ends when its client ends it.
    let (answer, mut second) = open(&mut client);
    let mut second_download = answer.await.unwrap().into_body();
    second.send_data(text_frame("bye"), false).unwrap();
    assert_eq!(h2_bytes(&mut second_download, 5).await, b"\x81\x03bye");
    second.send_data(Bytes::new(), true).unwrap();
    let end = tokio::time::timeout(PATIENCE, second_download.data()).await.unwrap();
    assert!(!matches!(end, Some(Ok(ref data)) if !data.is_empty()), "{end:?}");

    let since = harness::now();
    pillion.process.signal("TERM");
    let end = tokio::time::timeout(PATIENCE, download.data()).await.unwrap();
    assert!(!matches!(end, Some(Ok(ref data)) if !data.is_empty()), "{end:?}");
    tokio::task::block_in_place(|| {
        let mut pillion = pillion;
        assert!(pillion.process.wait().success());
    });
    assert!(since.elapsed().as_secs() < 15, "nobody waited for drain_timeout");
}

#[test]
fn whoever_speaks_first_in_an_upgrade_is_heard() {
    // The app's first bytes arrive with its 101, and the client's with its request.
    let app = Script::new(|mut tcp| {
        let Some(request) = harness::Request::read(&mut tcp) else { return };
        assert_eq!((request.field("upgrade"), request.field("connection")), (Some("rot13"), Some("upgrade")));
        tcp.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: rot13\r\n\r\nuryyb",
        )
        .unwrap();
        let mut heard = [0u8; 4];
        tcp.read_exact(&mut heard).unwrap();
        tcp.write_all(&heard).unwrap();
        // The end of one direction is forwarded, while the other continues.
        assert_eq!(tcp.read(&mut heard).unwrap(), 0);
        tcp.write_all(b"olr").unwrap();
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: rot13\r\n\r\nabcd").unwrap();
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    tcp.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 101 ") && all.contains("upgrade: rot13"), "{all}");
    assert!(all.ends_with("\r\n\r\nuryybabcdolr"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_to_an_app_over_https_that_would_rather_speak_http_2() {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let folder = Authority::new().folder();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(folder.path("tls.crt")).unwrap()],
                PrivateKeyDer::from_pem_file(folder.path("tls.key")).unwrap(),
            )
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = crate::harness::accept(&listener).await.unwrap();
        let stream = acceptor.accept(tcp).await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let ca = folder.path("ca.pem").display().to_string();
    let pillion =
        Pillion::with(&format!("[upstream]\nurl = \"https://{app}\"\n[upstream.tls]\nca = \"{ca}\"\n"));
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a.test/chat", tcp).await.unwrap();
    echoed(&mut socket, "hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_app_is_nobodys_silence() {
    let ws = websocket_app().await;
    // All limits on clients are short, but none applies to a slow app or to a silent WebSocket.
    let app = Script::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1200));
        ok("slow")
    });
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let short = "300ms";
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "header_timeout = \"{short}\"\nbody_timeout = \"{short}\"\nsend_timeout = \"{short}\"\nidle_timeout = \"{short}\"\n{TLS}\
             [upstream]\nurl = \"http://{}\"\n[upstreams.ws]\nurl = \"http://{ws}\"\nbody_timeout = \"{short}\"\n\
             response_timeout = \"{short}\"\n[[routes]]\nmatch = \"* /ws\"\nupstream = \"ws\"\n",
            app.address
        )),
    );
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a.test/ws", tcp).await.unwrap();
    echoed(&mut socket, "before").await;
    let https = format!("https://{}/", pillion.https.unwrap());
    tokio::task::block_in_place(|| {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            assert_eq!(curl(&[version, "-d", "x", &pillion.url("/")]), "slow", "{version}");
            let version = version.strip_suffix("-prior-knowledge").unwrap_or(version);
            assert_eq!(curl(&[version, "-d", "x", "--cacert", &ca, &https]), "slow", "{version} over TLS");
        }
    });
    echoed(&mut socket, "after").await;
}
