//! Tests that a request's own claims lift no limit, but its route can.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::tools::sample;
use crate::harness::holding::holding;
use crate::harness::{
    Answer, Config, PATIENCE, Pillion, Script, connect, eventually, ok, printed, read_answer,
};

/// Claims by which a request may look like a stream.
const WORDS: [&str; 5] = [
    "content-type: application/grpc\r\n",
    "content-type: application/grpc+proto\r\n",
    "content-type: text/event-stream\r\n",
    "accept: text/event-stream\r\n",
    "connection: upgrade\r\nupgrade: x\r\n",
];

fn send(pillion: &Pillion, head: &str, words: &str) -> Answer {
    let mut tcp = connect(pillion.http);
    write!(tcp, "{head} HTTP/1.1\r\nhost: a\r\n{words}\r\n").unwrap();
    read_answer(&mut tcp)
}

#[test]
fn n3_3_words_of_a_request_lift_neither_max_connections_nor_response_timeout() {
    for words in WORDS {
        let (app, requests, release) = holding();
        let pillion = Config::new(app.address)
            .upstream("max_connections", 1)
            .upstream("queue_timeout", "100ms")
            .upstream("response_timeout", "2s")
            .upstream("retries", 0)
            .cache("enabled", false)
            .start();
        std::thread::scope(|scope| {
            let held = scope.spawn(|| send(&pillion, "GET /held", words));
            requests.recv_timeout(PATIENCE).unwrap();
            assert_eq!(send(&pillion, "GET /other", "").status, 503, "{words:?} holds the only place");
            assert_eq!(held.join().unwrap().status, 504, "{words:?}");
        });
        drop(release);
    }
}

#[test]
fn n3_3_words_of_a_request_do_not_pass_the_gate() {
    for words in ["content-type: application/grpc\r\n", "connection: upgrade\r\nupgrade: x\r\n"] {
        let (app, requests, release) = holding();
        let pillion = Config::new(app.address)
            .upstream("adaptive_concurrency", true)
            .upstream("queue_timeout", "100ms")
            .cache("enabled", false)
            .start();
        let most = pillion.metric("pillion_upstream_concurrency_limit{upstream=\"upstream\"}") as usize;
        std::thread::scope(|scope| {
            for _ in 0..most + 2 {
                scope.spawn(|| send(&pillion, "GET /held", words));
            }
            eventually("the rest is turned away", || {
                (pillion.metric("pillion_upstream_shed_total{upstream=\"upstream\"}") >= 2.0).then_some(())
            });
            drop(release);
        });
        assert_eq!(requests.try_iter().count(), most, "{words:?}");
    }
}

#[test]
fn n3_3_words_of_a_request_do_not_lift_body_timeout() {
    let app = Script::echo();
    let pillion =
        Config::new(app.address).server("body_timeout", "300ms").route("* /stream", "stream = true").start();
    for words in WORDS {
        let mut tcp = connect(pillion.http);
        write!(tcp, "POST /x HTTP/1.1\r\nhost: a\r\n{words}content-length: 100000\r\n\r\nbegin").unwrap();
        let answer = read_answer(&mut tcp);
        // A request that looks like gRPC gets a gRPC error.
        let refused = answer.status == 408 || answer.field("grpc-status").as_deref() == Some("13");
        assert!(refused, "{words:?}: {}", answer.head);
    }
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nbegin").unwrap();
    // This silence is what the test is about.
    std::thread::sleep(Duration::from_millis(700));
    tcp.write_all(b" end").unwrap();
    assert_eq!(read_answer(&mut tcp).json()["body"], "begin end", "its route allows it");
}

#[test]
fn n3_3_a_route_says_that_its_requests_are_streams() {
    let (app, requests, release) = holding();
    let pillion = Config::new(app.address)
        .upstream("max_connections", 1)
        .upstream("max_streams", 1)
        .upstream("queue_timeout", "100ms")
        .upstream("response_timeout", "300ms")
        .upstream("adaptive_concurrency", true)
        .route("GET /stream", "stream = true")
        .start();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| send(&pillion, "GET /stream", ""));
        requests.recv_timeout(PATIENCE).unwrap();
        let second = send(&pillion, "GET /stream", "");
        assert_eq!((second.status, second.field("retry-after").as_deref()), (503, Some("1")), "max_streams");
        assert_eq!(send(&pillion, "GET /other", "").status, 504, "there is a place for others");
        release.send(()).unwrap();
        assert_eq!(held.join().unwrap().status, 200, "response_timeout does not hold");
    });
    release.send(()).unwrap();
    release.send(()).unwrap();
    eventually("its place is free", || (send(&pillion, "GET /stream", "").status == 200).then_some(()));
    drop(release);
    assert_eq!(sample(&pillion, "pillion_upstream_failures_total", "kind=\"timeout\""), Some(1.0));
}

#[test]
fn n3_3_a_stream_of_a_route_may_be_silent_between_its_bytes() {
    let connections: Arc<AtomicUsize> = Arc::default();
    let count = connections.clone();
    let app = Script::new(move |mut tcp| {
        count.fetch_add(1, Ordering::SeqCst);
        let Some(head) = crate::harness::head(&mut tcp) else { return };
        if head.starts_with("GET /whole") {
            let _ = tcp.write_all(&ok("whole"));
            return;
        }
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegin\r\n");
        std::thread::sleep(Duration::from_millis(700));
        let _ = tcp.write_all(b"4\r\n end\r\n0\r\n\r\n");
    });
    let pillion = Config::new(app.address)
        .upstream("max_connections", 1)
        .upstream("body_timeout", "300ms")
        .route("GET /stream", "stream = true")
        .start();
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| send(&pillion, "GET /stream", ""));
        eventually("it is on its way", || (connections.load(Ordering::SeqCst) == 1).then_some(()));
        assert_eq!(send(&pillion, "GET /whole", "").text(), "whole");
        assert_eq!(stream.join().unwrap().text(), "begin end");
    });
}

#[test]
fn n3_3_check_refuses_streams_that_are_none() {
    for (route, complaint) in [
        ("deny = 404\nstream = true", "stream on a route that sends nothing to an upstream"),
        ("cache = { ttl = \"1m\" }\nstream = true", "a route with stream = true has a cache"),
    ] {
        let folder = crate::harness::Folder::new();
        let config =
            format!("[upstream]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\nmatch = \"GET /\"\n{route}\n");
        let path = folder.write("pillion.toml", config);
        let output =
            std::process::Command::new(crate::harness::binary()).arg("check").arg(path).output().unwrap();
        let said = printed(&output.stderr) + &printed(&output.stdout);
        assert!(!output.status.success() && said.contains(complaint), "{said}");
    }
}
