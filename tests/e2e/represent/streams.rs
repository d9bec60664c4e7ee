//! Tests of responses that are streams by their media type.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use super::tools::{get, items, saying};
use crate::harness::{Pillion, Request, Script, connect, eventually};

const LIVE: [&str; 6] = [
    "text/event-stream",
    "Text/Event-Stream; charset=utf-8",
    "application/grpc",
    "Application/gRPC+proto",
    "application/grpc+json",
    "application/grpc-web+proto",
];

const STREAMS: [&str; 8] = [
    "multipart/x-mixed-replace; boundary=frame",
    "application/X-NDJSON",
    "application/stream+json",
    "application/json-seq",
    "application/connect+json",
    "application/json;stream=watch",
    "application/vnd.docker.raw-stream",
    "application/vnd.docker.multiplexed-stream",
];

/// This holds even if all content arrived at once, and whatever permits storing.
#[test]
fn n4_7_live_streams_are_never_coded_nor_stored() {
    let codings = "[compression]\ntypes = [\"text/*\", \"application/*\", \"multipart/*\"]\n";
    let route = "[[routes]]\nmatch = \"* /**\"\ncache = { ttl = \"1m\", scope = \"shared\", override = \"no-store\" }\n";
    for kind in LIVE {
        let fields: &'static str = format!("content-type: {kind}\r\ncache-control: max-age=60\r\n").leak();
        let app = saying(&items(100), fields);
        let config = format!("[upstream]\nurl = \"http://{}\"\n{route}{codings}", app.address);
        let pillion = Pillion::with(&config);
        for _ in 0..3 {
            let answer = get(&pillion, "/", "accept-encoding: gzip\r\n");
            assert_eq!((answer.status, answer.field("content-encoding")), (200, None), "{kind}");
            assert_eq!(answer.field("etag"), None, "{kind}");
            let status = answer.field("cache-status").unwrap();
            assert!(status.contains("fwd=") && !status.contains("stored"), "{kind}: {status}");
            assert_eq!(answer.body, items(100).into_bytes());
        }
    }
    // Other media types may be stored if all content arrived.
    for kind in STREAMS {
        let fields: &'static str = format!("content-type: {kind}\r\ncache-control: max-age=60\r\n").leak();
        let app = saying(&items(100), fields);
        let config = format!("[upstream]\nurl = \"http://{}\"\n{codings}", app.address);
        let pillion = Pillion::with(&config);
        let first = get(&pillion, "/", "accept-encoding: gzip\r\n");
        let found = (first.field("content-encoding"), first.field("etag"));
        assert_eq!(found, (Some("gzip".to_owned()), None), "{kind}");
        eventually("it is stored", || {
            get(&pillion, "/", "").field("cache-status").filter(|status| status.contains("hit"))
        });
    }
}

/// Starts an app that sends one piece, pauses, and sends another.
fn pausing(kind: &'static str, pause: Duration) -> Script {
    Script::new(move |mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        write!(
            tcp,
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        )
        .unwrap();
        std::thread::sleep(pause);
        let _ = tcp.write_all(b"4\r\nlast\r\n0\r\n\r\n");
    })
}

#[test]
fn n4_7_streams_have_the_time_limits_of_streams() {
    let ask = |kind: &'static str| {
        let app = pausing(kind, Duration::from_millis(1500));
        let config = format!("[upstream]\nurl = \"http://{}\"\nbody_timeout = \"500ms\"\n", app.address);
        let pillion = Pillion::with(&config);
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap().contains("last")
    };
    let asking = LIVE.into_iter().chain(STREAMS).map(|kind| std::thread::spawn(move || (kind, ask(kind))));
    let asking: Vec<_> = asking.collect();
    for one in asking {
        let (kind, lives) = one.join().unwrap();
        assert!(lives, "{kind} was cut after the time limit of other content");
    }
    assert!(!ask("application/json"), "which holds for that");
}

/// The part of a stream that has arrived can be decoded at once, although the app pauses for long.
#[test]
fn n4_7_a_coded_stream_is_flushed() {
    for kind in ["application/stream+json", "application/json; stream=watch", "application/connect+json"] {
        for coding in ["gzip", "br", "zstd"] {
            let app = pausing(kind, Duration::from_secs(60));
            let pillion = Pillion::in_front_of(app.address);
            let mut curl = Command::new("curl")
                .args(["-sN", "--compressed", "-H", &format!("Accept-Encoding: {coding}"), &pillion.url("/")])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut first = [0; 5];
            curl.stdout.take().unwrap().read_exact(&mut first).unwrap();
            assert_eq!(&first, b"first", "{kind} {coding}");
            curl.kill().unwrap();
            curl.wait().unwrap();
            assert_eq!(
                pillion.metric(&format!("pillion_content_total{{result=\"{coding}\"}}")),
                1.0,
                "{kind}"
            );
        }
    }
}

/// A storable stream may be endless, so it is not read on for the cache when its last reader has left.
#[test]
fn n4_7_a_stream_ends_with_its_last_reader() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let app = Script::new(move |mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        let head = "content-type: application/x-ndjson\r\ncache-control: max-age=60";
        write!(tcp, "HTTP/1.1 200 OK\r\n{head}\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{{}}\n\r\n")
            .unwrap();
        // Returns when Pillion closes the connection.
        let end = tcp.read(&mut [0]);
        sender.lock().unwrap().send(end.is_ok_and(|count| count == 0)).unwrap();
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"{}\n") {
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    drop(tcp);
    assert!(receiver.recv_timeout(Duration::from_secs(10)).unwrap(), "Pillion leaves");
}
