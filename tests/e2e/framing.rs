//! Tests of message framing: input that two parsers could read differently is refused with a readable error, and none
//! of it reaches the upstream. The tests use raw sockets, because no client library sends such input.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use crate::harness::{self, Config, Pillion, Script, connect, ok, raw};

/// Heads that are refused, each with its status. HOST stands for a valid `Host` line.
const REFUSED: &[(&str, &str, u16)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "both lengths, other order",
        "POST / HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "differing lengths",
        "POST / HTTP/1.1\r\nHOST\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        400,
    ),
    ("a signed length", "POST / HTTP/1.1\r\nHOST\r\nContent-Length: +4\r\n\r\nabcd", 400),
    ("a hexadecimal length", "POST / HTTP/1.1\r\nHOST\r\nContent-Length: 0x4\r\n\r\nabcd", 400),
    ("a folded line", "GET / HTTP/1.1\r\nHOST\r\nX: a\r\n b\r\n\r\n", 400),
    ("a space before the colon", "GET / HTTP/1.1\r\nHOST\r\nX : a\r\n\r\n", 400),
    ("NUL in a value", "GET / HTTP/1.1\r\nHOST\r\nX: a\0b\r\n\r\n", 400),
    ("a bare CR in a value", "GET / HTTP/1.1\r\nHOST\r\nX: a\rb\r\n\r\n", 400),
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHOST\r\nHOST\r\n\r\n", 400),
    ("gzip, chunked", "POST / HTTP/1.1\r\nHOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("chunked twice", "POST / HTTP/1.1\r\nHOST\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("identity", "POST / HTTP/1.1\r\nHOST\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("chunked in 1.0", "POST / HTTP/1.0\r\nHOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a version to come", "GET / HTTP/3.0\r\nHOST\r\n\r\n", 505),
    ("an encoded dot segment", "GET /a/%2e%2e/b HTTP/1.1\r\nHOST\r\nConnection: close\r\n\r\n", 400),
    ("an encoded NUL", "GET /a%00b HTTP/1.1\r\nHOST\r\nConnection: close\r\n\r\n", 400),
    ("a backslash", "GET /a\\b HTTP/1.1\r\nHOST\r\nConnection: close\r\n\r\n", 400),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHOST\r\n\r\n", 405),
    ("garbage", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
];

#[test]
fn bad_heads_are_refused_readably_and_never_reach_the_app() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    for (name, head, status) in REFUSED {
        let sent = head.replace("HOST", "Host: test");
        let smuggled = format!("{sent}GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = harness::Answer::parse(&raw(pillion.http, smuggled));
        assert_eq!(answer.status, *status, "{name}: {}", answer.head);
        let problem = answer.json();
        assert_eq!(answer.field("content-type").unwrap(), "application/problem+json", "{name}");
        assert_eq!(problem["status"], *status, "{name}");
        assert!(problem["type"].as_str().unwrap().starts_with("urn:pillion:problem:"), "{name}");
        assert_eq!(answer.field("x-request-id").unwrap(), problem["request_id"], "{name}");
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "{name}");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 0, "nothing reached the app");
    let refused =
        pillion.metric("pillion_http_requests_total{method=\"GET\",route=\"refused\",status=\"400\"}");
    assert!(refused >= 15.0, "refusals are counted: {refused}");
    pillion.access("refusals are logged", |line| {
        line["error"] == "both Content-Length and Transfer-Encoding are present"
    });
}

#[test]
fn oversized_heads_are_431() {
    let app = Script::echo();
    let pillion =
        Config::new(app.address).server("max_header_size", "8KiB").server("max_headers", 20).start();
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(20));
    for head in [long, many] {
        assert_eq!(harness::Answer::parse(&raw(pillion.http, head)).status, 431);
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn a_body_that_goes_bad_never_looks_complete_to_the_app() {
    let (sender, bodies) = std::sync::mpsc::channel();
    let app = Script::new(move |mut tcp| {
        let mut seen = Vec::new();
        let _ = tcp.read_to_end(&mut seen);
        sender.send(String::from_utf8_lossy(&seen).into_owned()).unwrap();
    });
    let pillion = Pillion::in_front_of(app.address);
    for bad in ["5\r\nhelloX", "zz\r\n", "5\nhello\r\n", "-1\r\n", "5 5\r\nhello\r\n"] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let mut tcp = connect(pillion.http);
        let before = app.connections.load(Ordering::SeqCst);
        // Malformed from the start: nothing reaches the app.
        let mut at_once = connect(pillion.http);
        at_once.write_all(format!("{head}{bad}").as_bytes()).unwrap();
        assert_eq!(harness::read_answer(&mut at_once).status, 400, "{bad:?}");
        assert_eq!(app.connections.load(Ordering::SeqCst), before, "{bad:?}");
        // Malformed after a pause: the app has the beginning.
        tcp.write_all(head.as_bytes()).unwrap();
        harness::eventually("the app has the beginning", || {
            (app.connections.load(Ordering::SeqCst) > before).then_some(())
        });
        tcp.write_all(bad.as_bytes()).unwrap();
        let answer = harness::read_answer(&mut tcp);
        assert_eq!(answer.status, 400, "{bad:?}");
        let seen = bodies.recv_timeout(harness::PATIENCE).unwrap();
        assert!(!seen.ends_with("0\r\n\r\n"), "{bad:?} looked complete: {seen:?}");
    }
}

#[test]
fn too_long_bodies_are_413_by_length_and_by_count() {
    let app = Script::echo();
    let pillion = Config::new(app.address).route("* /small", r#"max_body_size = "1KiB""#).start();
    let declared =
        format!("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n{}", "a".repeat(200_000));
    assert_eq!(
        harness::Answer::parse(&raw(pillion.http, declared)).status,
        413,
        "readable although unread input is left"
    );
    let counted = format!(
        "POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        format!("400\r\n{}\r\n", "a".repeat(1024)).repeat(3)
    );
    assert_eq!(harness::Answer::parse(&raw(pillion.http, counted)).status, 413);
    let fits = format!(
        "POST /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1024\r\n\r\n{}",
        "a".repeat(1024)
    );
    assert_eq!(harness::Answer::parse(&raw(pillion.http, fits)).status, 200);
}

#[test]
fn slow_heads_are_408_and_idle_connections_close_silently() {
    let app = Script::echo();
    let pillion =
        Config::new(app.address).server("header_timeout", "300ms").server("idle_timeout", "300ms").start();
    assert_eq!(harness::Answer::parse(&raw(pillion.http, "GET / HTTP/1.1\r\nHost: a\r\nX: ")).status, 408);
    assert!(raw(pillion.http, "").is_empty(), "who said nothing is told nothing");
}

#[test]
fn an_app_that_answers_413_early_and_closes_is_relayed() {
    let app = Script::refusing_early();
    let pillion = Pillion::in_front_of(app.address);
    let body = "a".repeat(3_000_000);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut tcp = connect(pillion.http);
    // The write may fail, depending on how much the kernel of the app has read.
    let _ = tcp.write_all(request.as_bytes());
    let answer = harness::read_answer(&mut tcp);
    assert_eq!((answer.status, answer.text().as_str()), (413, "no\n"));
}

#[test]
fn malformed_answers_of_the_app_are_502_and_truncated_ones_are_seen() {
    for (answer, what) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", "differing lengths"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "a foreign coding"),
        ("HTTP/1.1 abc\r\n\r\n", "no status"),
        ("\0\0\0\0\r\n\r\n", "no HTTP"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "a 101 response to a request without Upgrade",
        ),
        ("", "nothing at all"),
    ] {
        let app = Script::new(move |mut tcp| {
            if harness::Request::read(&mut tcp).is_some() {
                let _ = tcp.write_all(answer.as_bytes());
            }
        });
        assert_eq!(Pillion::in_front_of(app.address).get("/").status, 502, "{what}");
    }
    let app = Script::new(|mut tcp| {
        if harness::Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
        }
    });
    let seen = raw(Pillion::in_front_of(app.address).http, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        String::from_utf8_lossy(&seen).contains("hello") && !seen.ends_with(b"0\r\n\r\n"),
        "cut short, and visibly"
    );
}

#[test]
fn requests_in_a_pipeline_are_answered_in_order() {
    let app = Script::answering(|request| ok(request.line.split(' ').nth(1).unwrap()));
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    let requests: String = (0..50).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    tcp.write_all(requests.as_bytes()).unwrap();
    for at in 0..50 {
        assert_eq!(harness::read_answer(&mut tcp).text(), format!("/{at}"));
    }
}

/// Parsing a head that arrives byte by byte must cost one parse a line, not one a byte. Slow clients are common, and a
/// hostile one could cause quadratic work with few bytes.
#[test]
fn a_head_sent_byte_by_byte_is_taken() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    for byte in format!("GET /slow HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(2000)).bytes() {
        tcp.write_all(&[byte]).unwrap();
    }
    assert_eq!(harness::read_answer(&mut tcp).json()["target"], "/slow");
}

/// Old clients send an empty line after a body, which is to be ignored (RFC 9112 2.2). It starts no request, so no 408
/// may follow it.
#[test]
fn an_empty_line_between_requests_is_nothing() {
    let app = Script::echo();
    let pillion =
        Config::new(app.address).server("header_timeout", "200ms").server("idle_timeout", "600ms").start();
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx\r\n").unwrap();
    assert_eq!(harness::read_answer(&mut tcp).status, 200);
    tcp.write_all(b"\r\nGET /b HTTP/1.1\r\nhost: a\r\n\r\n\r\n").unwrap();
    assert_eq!(harness::read_answer(&mut tcp).json()["target"], "/b");
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "closed in silence: {:?}", String::from_utf8_lossy(&rest));
}
