//! Tests of clients that send slowly.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;

use super::tools::{ONE_PLACE, counting, eventually_held, h2_body, h2_client, held, pillion, sent};
use crate::harness::{PATIENCE, Script, connect, eventually, head, now, ok, read_answer};

/// Beginnings of requests, and the rests that follow late. No request may reach the app before its rest.
const DRIPPING: &[(&str, &str, &str, usize)] = &[
    ("a length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n", "x", 100),
    (
        "the longest that is waited for",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n",
        "x",
        65_536,
    ),
    ("a GET with content", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", "x", 10),
    (
        "words that mean nothing to this app",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 100\r\n\r\n",
        "x",
        100,
    ),
    (
        "nor do these",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\n",
        "x",
        100,
    ),
];

#[test]
fn n3_4_a_small_body_is_whole_before_a_place_is_asked_for() {
    let (app, seen) = counting();
    let pillion = pillion(app.address, "", ONE_PLACE);
    let mut clients: Vec<_> = DRIPPING.iter().map(|(_, head, ..)| sent(pillion.http, head)).collect();
    for tcp in &mut clients {
        tcp.write_all(b"x").unwrap();
    }
    // The earlier requests block nothing.
    let free = sent(pillion.http, "GET /free HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(read_answer(&mut { free }).status, 200);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "requests at the app beside the one that is whole");
    assert!(held(&pillion) < 1.0);
    for ((what, _, rest, length), tcp) in DRIPPING.iter().zip(&mut clients) {
        tcp.write_all(rest.repeat(length - 1).as_bytes()).unwrap();
        let answer = read_answer(tcp);
        assert_eq!((answer.status, answer.text()), (200, length.to_string()), "{what}");
    }
}

#[test]
fn n3_4_a_body_of_unknown_length_is_waited_for_until_its_end_or_a_pause() {
    let (app, seen) = counting();
    let pillion = pillion(app.address, "", ONE_PLACE);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut tcp = sent(pillion.http, head);
    // It never pauses for long, so nothing of it reaches the app for a second.
    let since = now();
    while since.elapsed() < Duration::from_secs(1) {
        tcp.write_all(b"1\r\nx\r\n").unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 0, "after {:?}", since.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    tcp.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut tcp).status, 200);
    // A body that pauses is forwarded as far as it arrived, because its client may wait for a response to that part.
    let (parts, came) = channel();
    let early = Script::new(move |mut tcp| {
        let head = head_of(&mut tcp);
        let mut first = [0u8; 6];
        tcp.read_exact(&mut first).unwrap();
        parts.send((head, first.to_vec())).unwrap();
        let _ = tcp.write_all(&ok("early"));
        let _ = tcp.read(&mut [0u8; 100]);
    });
    let pillion = super::tools::pillion(early.address, "", ONE_PLACE);
    let mut tcp = sent(pillion.http, head);
    tcp.write_all(b"1\r\nx\r\n").unwrap();
    let (head, first) = came.recv_timeout(PATIENCE).unwrap();
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    assert_eq!(first, b"1\r\nx\r\n");
    assert_eq!(read_answer(&mut tcp).text(), "early");
}

fn head_of(tcp: &mut impl Read) -> String {
    head(tcp).unwrap()
}

#[test]
fn n3_4_a_chunked_body_whose_end_is_here_goes_on_with_its_length_and_a_long_one_as_it_comes() {
    let app = Script::echo();
    let pillion = pillion(app.address, "", "");
    let mut tcp = sent(pillion.http, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    tcp.write_all(b"5\r\nhello\r\n").unwrap();
    tcp.write_all(b"1\r\n!\r\n0\r\n\r\n").unwrap();
    let seen = read_answer(&mut tcp).json();
    assert_eq!((&seen["body"], &seen["fields"]["content-length"]), (&"hello!".into(), &"6".into()));
    let long = "y".repeat(100_000);
    let chunk = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n",
        long.len()
    );
    tcp.write_all(chunk.as_bytes()).unwrap();
    tcp.write_all(b"0\r\n\r\n").unwrap();
    let seen = read_answer(&mut tcp).json();
    assert_eq!(seen["body"].as_str().unwrap().len(), 100_000);
    assert_eq!(seen["fields"]["transfer-encoding"], "chunked");
}

/// Above `buffer_request`, the request takes a slot before 100 (Continue) is sent; below, the body is read first.
#[test]
fn n3_4_a_large_body_is_asked_for_when_its_place_is_there() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let app = Script::answering(move |request| {
        if request.line.contains("/holds") {
            let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        }
        ok(&request.body.len().to_string())
    });
    let pillion = pillion(app.address, "", "max_connections = 1\nqueue_timeout = \"15s\"\n");
    let mut holds = sent(pillion.http, "GET /holds HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually_held(&pillion, 1.0);
    let expect = |length: usize| {
        format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut small = sent(pillion.http, &expect(10));
    assert!(head_of(&mut small).starts_with("HTTP/1.1 100"), "a small body needs no place");
    small.write_all(b"0123456789").unwrap();
    let mut large = sent(pillion.http, &expect(65_537));
    large.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    assert!(large.read(&mut [0]).is_err(), "a large body is not asked for before its place is there");
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut holds).status, 200);
    large.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(head_of(&mut large).starts_with("HTTP/1.1 100"));
    large.write_all(&[b'x'; 65_537]).unwrap();
    assert_eq!(read_answer(&mut large).text(), "65537");
    assert_eq!(read_answer(&mut small).text(), "10");
}

#[test]
fn n3_4_refusals_come_before_any_100() {
    let (app, seen) = counting();
    let pillion = crate::harness::Config::new(app.address)
        .route("* /denied", "deny = 403")
        .route("* /small", r#"max_body_size = "10B""#)
        .table("[rate_limit.tiers.free.limits]", r#"one = { rate = "1/h", burst = 1, on = "named" }"#)
        .route("* /limited", r#"limits = ["one"]"#)
        .start();
    assert_eq!(pillion.get("/limited").status, 200);
    for (path, status) in [("/denied", 403), ("/small", 413), ("/limited", 429)] {
        for length in [100, 100_000] {
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
            );
            let answer = read_answer(&mut sent(pillion.http, &head));
            assert_eq!(answer.status, status, "{path}, {length} bytes");
        }
    }
    // With an unknown length the limit is detected on arrival, and nothing reaches the app.
    let mut tcp = sent(pillion.http, "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    tcp.write_all(b"b\r\n01234567890\r\n").unwrap();
    assert_eq!(read_answer(&mut tcp).status, 413);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

/// Content that arrived with the head and content that arrived later are retried alike.
#[test]
fn n3_4_a_body_that_came_after_its_head_can_be_sent_again() {
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = tries.clone();
    let app = Script::new(move |mut tcp| {
        while let Some(request) = crate::harness::Request::read(&mut tcp) {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                return;
            }
            let _ = tcp.write_all(&ok(&String::from_utf8_lossy(&request.body)));
        }
    });
    let pillion = pillion(app.address, "", "");
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    tcp.write_all(b"again").unwrap();
    let answer = read_answer(&mut tcp);
    assert_eq!((answer.status, answer.text()), (200, "again".to_owned()));
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

/// Two HTTP/2 connections have 256 streams, as many as an upstream has slots.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_dripping_uploads_over_http_2_hold_no_place() {
    let (app, seen) = counting();
    let pillion = pillion(app.address, "", ONE_PLACE);
    let mut uploads = Vec::new();
    for _ in 0..2 {
        let mut client = h2_client(pillion.http, 65_535).await;
        for at in 0..128 {
            client = client.ready().await.unwrap();
            let mut request = http::Request::post("http://a.test/");
            if at % 2 == 0 {
                request = request.header("content-length", "100");
            }
            let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"x"), false).unwrap();
            uploads.push((at, answer, body));
        }
        // The connections live as long as their uploads.
        std::mem::forget(client);
    }
    // A stream reset before it was processed may count as part of a reset flood, which ends its connection.
    eventually("all of them came", || {
        let text = pillion.admin_get("/metrics").text();
        let counts = |line: &&str| {
            line.starts_with("pillion_http_requests_total")
                || line.starts_with("pillion_http_requests_in_flight")
        };
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        (text.lines().filter(counts).map(count).sum::<f64>() >= uploads.len() as f64).then_some(())
    });
    // Bodies of unknown length pause. One of these requests holds the slot; the others wait for it and are refused.
    let (sized, unsized_) = uploads.into_iter().partition::<Vec<_>, _>(|(at, ..)| at % 2 == 0);
    drop(unsized_);
    eventually_held(&pillion, 0.0);
    let seen_before = seen.load(Ordering::SeqCst);
    let answer = pillion.get("/free");
    assert_eq!(answer.status, 200);
    assert_eq!(seen.load(Ordering::SeqCst), seen_before + 1, "none of the dripping ones reached the app");
    for (_, answer, mut body) in sized.into_iter().take(16) {
        body.send_data(Bytes::from(vec![b'x'; 99]), true).unwrap();
        let mut answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(h2_body(answer.body_mut()).await, b"100");
    }
}

#[test]
fn n3_4_a_body_behind_an_upgrade_waits_like_any_other() {
    let (app, seen) = counting();
    let pillion = pillion(app.address, "", ONE_PLACE);
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 10\r\n\r\n";
    let mut tcp = sent(pillion.http, head);
    tcp.write_all(b"01234").unwrap();
    assert_eq!(pillion.get("/free").status, 200, "it holds no place");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    tcp.write_all(b"56789").unwrap();
    assert_eq!(read_answer(&mut tcp).text(), "10");
}

#[test]
fn n3_4_without_memory_a_body_is_sent_on_as_it_comes() {
    let (app, seen) = counting();
    let pillion = pillion(app.address, "buffer_memory = \"0B\"\n", "");
    let mut tcp = sent(pillion.http, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    tcp.write_all(b"01234").unwrap();
    eventually("it reaches the app", || (seen.load(Ordering::SeqCst) == 1).then_some(()));
    tcp.write_all(b"56789").unwrap();
    assert_eq!(read_answer(&mut tcp).text(), "10");
}
