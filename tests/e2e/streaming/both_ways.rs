//! Tests of responses that begin before their requests end.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use super::tools::head;
use crate::harness::{PATIENCE, Pillion, Script, accept, connect};

/// Starts an app that responds to each chunk at once with a chunk of its own.
fn conversation() -> Script {
    Script::new(|mut tcp| {
        if head(&mut tcp).is_none() {
            return;
        }
        tcp.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .unwrap();
        let mut reader = BufReader::new(tcp.try_clone().unwrap());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut data = vec![0u8; usize::from_str_radix(line.trim(), 16).unwrap() + 2];
            reader.read_exact(&mut data).unwrap();
            tcp.write_all(&[line.as_bytes(), &data].concat()).unwrap();
            if data.len() == 2 {
                return;
            }
        }
    })
}

#[test]
fn an_answer_may_begin_before_its_request_ends() {
    let app = conversation();
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert!(
        head(&mut tcp).unwrap().starts_with("http/1.1 200"),
        "the head comes before any content was sent"
    );
    for at in 0..50 {
        let chunk = format!("6\r\nnote{}{}\r\n", at / 10, at % 10);
        tcp.write_all(chunk.as_bytes()).unwrap();
        let mut heard = vec![0u8; chunk.len()];
        tcp.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), chunk);
    }
    tcp.write_all(b"0\r\n\r\n").unwrap();
    let mut end = [0u8; 5];
    tcp.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
    // The connection is fully reusable.
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(head(&mut tcp).unwrap().starts_with("http/1.1 200"));
}

/// Starts the same app over HTTP/2 with prior knowledge.
async fn conversation_over_http2() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = accept(&listener).await {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            tokio::spawn(async move {
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let head = http::Response::builder().header("content-type", "application/x-ndjson");
                        let mut told = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        let mut heard = request.into_body();
                        while let Some(Ok(data)) = heard.data().await {
                            heard.flow_control().release_capacity(data.len()).unwrap();
                            let _ = told.send_data(data, false);
                        }
                        let _ = told.send_data(bytes::Bytes::new(), true);
                    });
                }
            });
        }
    });
    address
}

/// Silence of a client, longer than an ordinary request allows. This silence is what the tests are about.
const SILENCE: Duration = Duration::from_millis(800);

fn converse_over_http1(address: std::net::SocketAddr) {
    let mut tcp = connect(address);
    tcp.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert!(head(&mut tcp).unwrap().starts_with("http/1.1 200"));
    for chunk in ["4\r\none.\r\n", "4\r\ntwo.\r\n", "0\r\n\r\n"] {
        std::thread::sleep(SILENCE);
        tcp.write_all(chunk.as_bytes()).unwrap();
        let mut heard = vec![0u8; chunk.len()];
        tcp.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), chunk);
    }
}

async fn converse_over_http2(address: std::net::SocketAddr) {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("http://a.test/").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    for note in ["one.", "two."] {
        tokio::time::sleep(SILENCE).await;
        upload.send_data(bytes::Bytes::from(note), false).unwrap();
        let heard = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(heard, note.as_bytes());
    }
}

/// A response that is a stream by its type turns its request into a stream too. From then on the client may be as
/// silent as the app, including the silence in which the response began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n4_7_a_client_may_be_silent_once_its_response_is_a_stream() {
    let app = conversation();
    for url in [format!("http://{}", app.address), format!("h2c://{}", conversation_over_http2().await)] {
        let pillion = Pillion::with(&format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nbody_timeout = \"300ms\"\n\
             [upstream]\nurl = \"{url}\"\nbody_timeout = \"300ms\"\n"
        ));
        let address = pillion.http;
        let over_http1 = tokio::task::spawn_blocking(move || converse_over_http1(address));
        converse_over_http2(address).await;
        over_http1.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_may_over_http_2() {
    let app = conversation();
    let pillion = Pillion::in_front_of(app.address);
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("http://a.test/").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    let mut body = answer.into_body();
    for at in 0..50 {
        let text = format!("note {at}");
        upload.send_data(bytes::Bytes::from(text.clone()), false).unwrap();
        let heard = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(heard, text.as_bytes());
        body.flow_control().release_capacity(heard.len()).unwrap();
    }
    upload.send_data(bytes::Bytes::new(), true).unwrap();
    let end = tokio::time::timeout(PATIENCE, async {
        // The end may arrive with an empty frame.
        while let Some(data) = body.data().await {
            assert!(data?.is_empty());
        }
        Ok::<_, h2::Error>(())
    });
    end.await.unwrap().unwrap();
}

/// A client that learns of the close sends its next request elsewhere; otherwise the request would be lost.
#[test]
fn n4_1_a_response_that_ends_before_its_request_announces_that_the_connection_ends() {
    // The app responds once it has the head, and reads on.
    let answer = |framed: &'static str| {
        Script::new(move |mut tcp| {
            if head(&mut tcp).is_some() {
                let _ = tcp.write_all(format!("HTTP/1.1 {framed}").as_bytes());
                let _ = std::io::copy(&mut tcp, &mut std::io::sink());
            }
        })
    };
    let long = format!("200 OK\r\ncontent-length: 300000\r\n\r\n{}", "x".repeat(300_000));
    for framed in [
        "413 Content Too Large\r\ncontent-length: 3\r\n\r\nno\n",
        "204 No Content\r\n\r\n",
        "200 OK\r\ncontent-length: 0\r\n\r\n",
        &*long.leak(),
    ] {
        let app = answer(framed);
        let pillion = Pillion::in_front_of(app.address);
        for upload in
            ["content-length: 200000\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
        {
            let case = format!("{} {upload}", framed.lines().next().unwrap());
            let mut tcp = connect(pillion.http);
            write!(tcp, "POST / HTTP/1.1\r\nHost: a\r\n{upload}").unwrap();
            let said = head(&mut tcp).unwrap();
            assert!(said.contains("\r\nconnection: close\r\n"), "{case}: {said}");
            // The connection is closed as announced.
            let mut rest = Vec::new();
            tcp.read_to_end(&mut rest).unwrap();
            let told = framed.split_once("\r\n\r\n").unwrap().1;
            assert_eq!(String::from_utf8_lossy(&rest), told, "{case}");
        }
    }
}
