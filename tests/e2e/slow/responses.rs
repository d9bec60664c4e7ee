//! Tests of clients that read slowly, or not at all.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::tools::{ONE_PLACE, eventually_held, h2_body, h2_client, held, pillion, sent};
use crate::harness::{
    self, Config, HTTP1, HTTP2, PATIENCE, Pillion, Script, cases, eventually, head, ok, read_answer,
};

const SIZE: usize = 200 * 1024;

/// Starts an app that sends its responses in two parts, so that none arrives completely with its head.
fn in_two_parts(size: usize, fields: &'static str) -> Script {
    Script::new(move |mut tcp| {
        while let Some(head) = head(&mut tcp) {
            let size = if head.contains("/free") { 10 } else { size };
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {size}\r\n\r\n");
            if tcp.write_all(answer.as_bytes()).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
            if tcp.write_all(&vec![b'x'; size]).is_err() {
                return;
            }
        }
    })
}

/// Opens a connection with small kernel buffers, so that the kernel takes little data off Pillion.
fn reading_nothing(pillion: &Pillion, request: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&pillion.http.into()).unwrap();
    let mut tcp: TcpStream = socket.into();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(request.as_bytes()).unwrap();
    tcp
}

#[test]
fn n3_4_a_client_that_does_not_read_frees_the_place_when_the_apps_last_byte_is_here() {
    for fields in ["", "etag: \"1\"\r\n", "content-type: text/plain\r\ncontent-encoding: gzip\r\n"] {
        let app = in_two_parts(SIZE, fields);
        let pillion = pillion(app.address, "", ONE_PLACE);
        let mut slow: Vec<TcpStream> = Vec::new();
        for _ in 0..4 {
            slow.push(reading_nothing(
                &pillion,
                "GET /slow HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n",
            ));
            eventually_held(&pillion, 0.0);
        }
        assert_eq!(pillion.get("/free").status, 200, "{fields}");
        for tcp in &mut slow {
            assert_eq!(read_answer(tcp).body.len(), SIZE, "{fields}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_nor_does_one_of_http_2_hold_the_place() {
    for fields in ["etag: \"1\"\r\n", "content-type: application/octet-stream\r\ncache-control: no-store\r\n"]
    {
        let app = in_two_parts(SIZE, fields);
        let pillion = pillion(app.address, "", ONE_PLACE);
        // No window at all, and a window for a part of the content.
        for window in [0, 16 * 1024] {
            let mut client = h2_client(pillion.http, window).await;
            let mut slow = Vec::new();
            for _ in 0..4 {
                client = client.ready().await.unwrap();
                let request = http::Request::get("http://a.test/slow").body(()).unwrap();
                let (answer, _) = client.send_request(request, true).unwrap();
                slow.push(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap());
                eventually_held(&pillion, 0.0);
            }
            assert_eq!(pillion.get("/free").status, 200);
            if window > 0 {
                for answer in &mut slow {
                    assert_eq!(h2_body(answer.body_mut()).await.len(), SIZE);
                }
            }
        }
    }
}

/// The slot of an HTTP/2 upstream is freed in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_the_place_at_an_app_of_http_2_is_free_too() {
    let app = in_two_parts(SIZE, "etag: \"1\"\r\n");
    let back = harness::Nginx::serving(&format!(
        "server {{ listen LISTEN http2; location / {{ proxy_pass http://{}; }} }}",
        app.address
    ));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"h2c://{}\"\n{ONE_PLACE}[cache]\nenabled = false\n",
        back.address
    ));
    let mut client = h2_client(pillion.http, 16 * 1024).await;
    let request = || http::Request::get("http://a.test/slow").body(()).unwrap();
    let (answer, _) = client.send_request(request(), true).unwrap();
    let mut over_http2 = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    eventually_held(&pillion, 0.0);
    let mut over_http1 = reading_nothing(&pillion, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually_held(&pillion, 0.0);
    assert_eq!(pillion.get("/free").status, 200);
    assert_eq!(h2_body(over_http2.body_mut()).await.len(), SIZE);
    assert_eq!(read_answer(&mut over_http1).body.len(), SIZE);
}

/// A response longer than `buffer_response` holds its slot until the rest fits.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_a_longer_response_is_read_ahead_no_further_than_buffer_response() {
    let app = in_two_parts(32 << 20, "etag: \"1\"\r\n");
    let pillion = pillion(app.address, "buffer_response = \"64KiB\"\n", "");
    let before = pillion.process.resident();
    let mut client = h2_client(pillion.http, 16 * 1024).await;
    let request = http::Request::get("http://a.test/slow").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    let _http1 = reading_nothing(&pillion, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually_held(&pillion, 2.0);
    let grown = pillion.process.resident().saturating_sub(before);
    assert!(grown < 6 << 20, "{grown} bytes for two responses of which 64 KiB each are read ahead");
    assert_eq!(held(&pillion), 2.0);
    assert_eq!(h2_body(answer.body_mut()).await.len(), 32 << 20);
}

/// Each event reaches its client before the next one is sent.
fn n3_4_nothing_is_held_that_the_client_would_take(version: &str) {
    let app = Script::new(|mut tcp| {
        if head(&mut tcp).is_some() {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\n")
                .unwrap();
            for byte in b"abcdef" {
                std::thread::sleep(Duration::from_millis(60));
                tcp.write_all(&[*byte]).unwrap();
            }
        }
    });
    let pillion = Config::new(app.address)
        .cache("enabled", false)
        .table("[etag]", "generate = false")
        .table("[compression]", "enabled = false")
        .start();
    let url = pillion.url("/");
    let args = ["-sSN", version, "--max-time", "20", "--trace-time", "--trace-ascii", "-", "-o", "/dev/null"];
    let trace = harness::run("curl", &[&args[..], &[&url]].concat());
    let pieces = trace.lines().filter(|line| line.contains("<= Recv data")).count();
    assert!(pieces >= 5, "{pieces} pieces: {trace}");
}

cases! { n3_4_nothing_is_held_that_the_client_would_take:
    n3_4_nothing_is_held_that_the_client_would_take_over_http1 => HTTP1;
    n3_4_nothing_is_held_that_the_client_would_take_over_http2 => HTTP2;
}

/// Data that was read ahead does not count as delivered to a client that leaves.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_a_client_that_leaves_what_was_read_ahead_is_logged_as_gone() {
    let app = in_two_parts(SIZE, "etag: \"1\"\r\n");
    let pillion = pillion(app.address, "", ONE_PLACE);
    let mut client = h2_client(pillion.http, 1024).await;
    let request = http::Request::get("http://a.test/left").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    eventually_held(&pillion, 0.0);
    drop((answer, client));
    let line = pillion.access("it is logged", |line| line["path"] == "/left" || line["target"] == "/left");
    assert!(line.to_string().contains("the client disconnected before the response ended"), "{line}");
    eventually("its memory is free", || (pillion.metric("pillion_buffered_bytes") == 0.0).then_some(()));
}

#[test]
fn n3_4_a_response_without_room_still_comes_whole() {
    let app = Script::answering(|_| ok(&"x".repeat(3 << 20)));
    let pillion = pillion(app.address, "buffer_memory = \"0B\"\nbuffer_response = \"0B\"\n", "");
    let mut tcp = sent(pillion.http, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(read_answer(&mut tcp).body.len(), 3 << 20);
    let url = pillion.url("/");
    let size = harness::run(
        "curl",
        &[
            "-sS",
            "--max-time",
            "20",
            "--http2-prior-knowledge",
            "-o",
            "/dev/null",
            "-w",
            "%{size_download}",
            &url,
        ],
    );
    assert_eq!(size, (3 << 20).to_string());
}
