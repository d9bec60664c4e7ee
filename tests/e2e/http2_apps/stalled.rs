//! Tests of streams whose clients read or send nothing, beside other streams of the same connection.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::clients::h2_client;
use super::tools::{ONE_WORKER, app};
use crate::harness::{PATIENCE, Pillion, Script, connect, eventually, ok, read_answer};

/// More bytes than any window allows.
const MUCH: usize = 32 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn n4_3_clients_that_read_nothing_stop_no_other_response() {
    let app = app(|mut connection, _| async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let length = if request.uri().path() == "/large" { MUCH } else { 5 };
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let _ = stream.send_data(vec![b'x'; length].into(), true);
        }
    })
    .await;
    let pillion =
        Pillion::with(&format!("{ONE_WORKER}[cache]\nenabled = false\n[upstream]\nurl = \"h2c://{app}\"\n"));
    tokio::task::block_in_place(|| {
        let stalled: Vec<_> = (0..16)
            .map(|_| {
                let mut tcp = connect(pillion.http);
                tcp.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                // The response has begun.
                tcp.read_exact(&mut [0; 100]).unwrap();
                tcp
            })
            .collect();
        // By then all windows are used up.
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..10 {
            let mut tcp = connect(pillion.http);
            tcp.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            tcp.write_all(b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            let answer = read_answer(&mut tcp);
            assert_eq!((answer.status, answer.body.len()), (200, 5));
        }
        drop(stalled);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_3_uploads_that_nobody_reads_stop_no_other_upload() {
    let app = Script::new(|mut tcp| {
        let Some(head) = crate::harness::head(&mut tcp) else { return };
        if head.starts_with("POST /stalled") {
            // The client reads nothing more.
            std::thread::sleep(PATIENCE);
            return;
        }
        let mut content = vec![0; 300_000];
        if tcp.read_exact(&mut content).is_ok() {
            let _ = tcp.write_all(&ok("taken"));
        }
    });
    let pillion = Pillion::with(&format!("{ONE_WORKER}[upstream]\nurl = \"http://{}\"\n", app.address));
    let mut client = h2_client(pillion.http).await;
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let request = http::Request::post("http://a.test/stalled").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        // The library sends as much as the windows allow.
        body.send_data(Bytes::from(vec![b'x'; MUCH]), true).unwrap();
        stalled.push((response, body));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let request = http::Request::post("http://a.test/other").header("content-length", 300_000);
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::from(vec![b'y'; 300_000]), true).unwrap();
    let response =
        tokio::time::timeout(Duration::from_secs(5), response).await.expect("it is not stopped").unwrap();
    assert_eq!(response.status(), 200);
}

/// Streams beyond the app's limit (RFC 9113 5.1.2) would wait behind streams whose clients read nothing.
#[tokio::test(flavor = "multi_thread")]
async fn n4_3_streams_beyond_the_apps_limit_do_not_wait_behind_stalled_ones() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection =
                    builder.max_concurrent_streams(2).handshake::<_, Bytes>(tcp).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let length = if request.uri().path() == "/large" { MUCH } else { 5 };
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    let _ = stream.send_data(vec![b'x'; length].into(), true);
                }
            });
        }
    });
    let pillion =
        Pillion::with(&format!("{ONE_WORKER}[cache]\nenabled = false\n[upstream]\nurl = \"h2c://{app}\"\n"));
    tokio::task::block_in_place(|| {
        assert_eq!(pillion.get("/small").status, 200);
        let stalled: Vec<_> = (0..5)
            .map(|_| {
                let mut tcp = connect(pillion.http);
                tcp.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                tcp.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                tcp.read_exact(&mut [0; 100]).unwrap();
                tcp
            })
            .collect();
        assert_eq!(pillion.get("/small").status, 200);
        drop(stalled);
    });
}

/// Servers close a connection on which the peer resets too many streams (CVE-2023-44487), with all requests of other
/// clients.
#[tokio::test(flavor = "multi_thread")]
async fn n4_3_requests_that_their_clients_leave_are_spread_over_connections() {
    const LEFT: usize = 250;
    const ALLOWED: usize = 120;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let counts = seen.clone();
    let app = app(move |mut connection, number| {
        let counts = counts.clone();
        async move {
            let mut waiting = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if request.uri().path() == "/left" {
                    let mut counts = counts.lock().unwrap();
                    let most = counts.len().max(number + 1);
                    counts.resize(most, 0);
                    counts[number] += 1;
                    waiting.push(respond);
                } else {
                    respond.send_response(Response::new(()), true).unwrap();
                }
            }
        }
    })
    .await;
    let pillion =
        Pillion::with(&format!("{ONE_WORKER}[cache]\nenabled = false\n[upstream]\nurl = \"h2c://{app}\"\n"));
    tokio::task::block_in_place(|| {
        let all = || seen.lock().unwrap().iter().sum::<usize>();
        for nth in 0..LEFT {
            let mut tcp = connect(pillion.http);
            tcp.write_all(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            eventually("the app has it", || (all() > nth).then_some(()));
            drop(tcp);
        }
        assert_eq!(pillion.get("/other").status, 200);
    });
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|count| *count <= ALLOWED), "{seen:?}");
}
