//! Tests of backpressure: a slow side slows down the other side.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tools::{Bulk, GIB, MIB, assert_flat, discard, generate, growth, head, standing};
use crate::harness::{Config, PATIENCE, Pillion, Script, connect, ok, read_answer};

#[test]
fn a_client_that_takes_nothing_for_send_timeout_is_let_go() {
    let (sender, ended) = channel::<()>();
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").unwrap();
            if !generate(&mut tcp, GIB, &AtomicU64::new(0)) {
                sender.send(()).unwrap();
            }
        }
    });
    let pillion = Config::new(app.address).server("send_timeout", "500ms").start();
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    ended.recv_timeout(PATIENCE).expect("the app's connection ends");
    // The same over HTTP/2: a preface, settings that allow 32 MiB in flight, and never a read.
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\x02\0\0\0").unwrap();
    tcp.write_all(b"\0\0\x04\x08\0\0\0\0\0\x02\0\0\0").unwrap();
    // HPACK: GET, http, /, and :authority "a" as a literal.
    tcp.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x01\x01a").unwrap();
    ended.recv_timeout(PATIENCE).expect("the app's connection ends, HTTP/2");
}

#[test]
fn a_client_that_does_not_read_slows_the_app() {
    let origin = Bulk::new(GIB / 4);
    let pillion = Pillion::in_front_of(origin.app.address);
    let ((), grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        head(&mut tcp).unwrap();
        let written = standing("the app is held back", || origin.written.load(Ordering::SeqCst));
        // The socket buffers belong to the kernel; nothing is sent beyond them.
        assert!(written < 32 * MIB, "{} MiB were taken for a client that reads nothing", written / MIB);
        assert_eq!(discard(&mut tcp, GIB / 4), GIB / 4, "and all of it comes when it reads");
    });
    assert_flat(grown, "a client that does not read");
}

#[test]
fn an_app_that_does_not_read_slows_the_client() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            wait.lock().unwrap().recv().unwrap();
            let came = discard(&mut tcp, GIB / 4);
            let _ = tcp.write_all(&ok(&came.to_string()));
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let (answer, grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", GIB / 4);
        tcp.write_all(head.as_bytes()).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let (mut writer, count) = (tcp.try_clone().unwrap(), sent.clone());
        let uploading = std::thread::spawn(move || generate(&mut writer, GIB / 4, &count));
        let taken = standing("the client is held back", || sent.load(Ordering::SeqCst));
        assert!(taken < 32 * MIB, "{} MiB were taken for an app that reads nothing", taken / MIB);
        go.send(()).unwrap();
        assert!(uploading.join().unwrap());
        read_answer(&mut tcp)
    });
    assert_eq!(answer.text(), (GIB / 4).to_string());
    assert_flat(grown, "an app that does not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_2_that_is_not_read_slows_its_app_and_not_its_neighbours() {
    let origin = Bulk::new(GIB / 4);
    let quick = Script::echo();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[upstreams.quick]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"* /quick\"\nupstream = \"quick\"\n",
        origin.app.address, quick.address
    ));
    let before = pillion.process.resident();
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_connection_window_size(4 * 1024 * 1024)
        .handshake::<_, bytes::Bytes>(tcp)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let get = |path: &str| http::Request::get(format!("http://a.test{path}")).body(()).unwrap();
    let (slow, _) = client.send_request(get("/bulk"), true).unwrap();
    let slow = slow.await.unwrap();
    let written = tokio::task::block_in_place(|| {
        standing("the app is held back", || origin.written.load(Ordering::SeqCst))
    });
    assert!(written < 32 * MIB, "{} MiB", written / MIB);
    for _ in 0..5 {
        let (answer, _) = client.send_request(get("/quick"), true).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    let mut body = slow.into_body();
    let (mut came, mut peak) = (0, 0);
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        came += data.len() as u64;
        body.flow_control().release_capacity(data.len()).unwrap();
        peak = peak.max(pillion.process.resident());
    }
    assert_eq!(came, GIB / 4);
    assert_flat(peak.saturating_sub(before), "the stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_http_2_gets_the_last_of_a_whole_answer() {
    // The app finishes at once, and the rest waits for the client's windows: longer than `idle_timeout` in total, but
    // never silent for as long as `send_timeout`.
    let app = Script::answering(|_| ok(&"x".repeat(120_000)));
    let pillion =
        Config::new(app.address).server("idle_timeout", "200ms").server("send_timeout", "5s").start();
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(8 * 1024)
        .handshake::<_, bytes::Bytes>(tcp)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let (answer, _) =
        client.send_request(http::Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut came = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap_or_else(|error| panic!("{error} after {came} bytes"));
        came += data.len();
        // This slowness is what the test is about.
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(came, 120_000);
}

/// A slow client that reads steadily takes data of its streams in turns. Each stream is unread for longer than
/// `send_timeout`, but none is cut.
#[tokio::test(flavor = "multi_thread")]
async fn many_streams_of_a_slow_but_steady_reader_of_http_2_all_end() {
    const STREAMS: usize = 12;
    const SIZE: usize = 200_000;
    let app = Script::answering(|_| ok(&"x".repeat(SIZE)));
    let pillion = Config::new(app.address).server("send_timeout", "500ms").start();
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(16 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .handshake::<_, bytes::Bytes>(tcp)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        let request = http::Request::get("http://a.test/").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        bodies.push((answer.await.unwrap().into_body(), 0));
    }
    while bodies.iter().any(|(_, came)| *came < SIZE) {
        for (body, came) in bodies.iter_mut().filter(|(_, came)| *came < SIZE) {
            let data = body.data().await.unwrap().unwrap_or_else(|error| panic!("{error} after {came}"));
            *came += data.len();
            // This slowness is what the test is about: one turn of all streams takes longer than `send_timeout`.
            tokio::time::sleep(Duration::from_millis(45)).await;
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    }
}
