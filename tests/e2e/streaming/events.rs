//! Tests of server-sent events, which are never delayed.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::tools::head;
use crate::harness::{
    self, Config, HTTP1, HTTP1_0, HTTP2, PATIENCE, Pillion, Request, Script, cases, connect, now, ok,
};

/// Starts an app that sends an event for each word it gets, and ends when the sender is dropped.
fn events() -> (Script, Sender<String>) {
    let (sender, words) = channel::<String>();
    let words: Arc<Mutex<Receiver<String>>> = Arc::new(Mutex::new(words));
    let app = Script::new(move |mut tcp| {
        while let Some(request) = Request::read(&mut tcp) {
            if !request.line.contains("/events") {
                let _ = tcp.write_all(&ok("ordinary"));
                continue;
            }
            tcp.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .unwrap();
            while let Ok(word) = words.lock().unwrap().recv() {
                let event = format!("data: {word}\n\n");
                if tcp.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).is_err() {
                    return;
                }
            }
            let _ = tcp.write_all(b"0\r\n\r\n");
        }
    });
    (app, sender)
}

/// Returns the data of the next event in a chunked response.
fn next_event(reader: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return data.trim().to_owned();
        }
    }
}

/// Returns the time from sending each word to its arrival, one after the other.
fn delays(words: &Sender<String>, reader: &mut impl BufRead) -> Vec<Duration> {
    let mut delays = Vec::new();
    for at in 0..100 {
        let sent: Instant = now();
        words.send(at.to_string()).unwrap();
        // The next word is sent only after this one has arrived, so nothing later can push it out.
        assert_eq!(next_event(reader), at.to_string());
        delays.push(sent.elapsed());
    }
    delays.sort();
    delays
}

#[track_caller]
fn assert_prompt(delays: &[Duration], what: &str) {
    // A busy machine may be slow once in a while.
    assert!(delays[90] < Duration::from_millis(50), "{what}: {delays:?}");
}

#[test]
fn events_arrive_as_they_are_sent() {
    let (app, words) = events();
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(
        b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAccept-Encoding: gzip\r\n\r\n",
    )
    .unwrap();
    let mut reader = BufReader::new(tcp);
    let head = head(&mut reader).unwrap();
    assert!(head.contains("content-type: text/event-stream") && !head.contains("content-encoding"), "{head}");
    assert_prompt(&delays(&words, &mut reader), "HTTP/1.1");
}

#[test]
fn events_arrive_as_they_are_sent_over_http_2_too() {
    let (app, words) = events();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/events");
    let curl = Command::new("curl")
        .args(["-sN", "--http2-prior-knowledge", "--max-time", "60", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut curl = harness::Process(curl);
    let mut reader = BufReader::new(curl.0.stdout.take().unwrap());
    assert_prompt(&delays(&words, &mut reader), "HTTP/2");
}

#[test]
fn a_quiet_event_stream_outlives_body_timeout_and_takes_no_connection() {
    let (app, words) = events();
    let pillion = Config::new(app.address)
        .upstream("body_timeout", "300ms")
        .upstream("max_connections", 1)
        .upstream("queue_timeout", "100ms")
        .start();
    let mut streams = Vec::new();
    for at in 0..3 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut reader = BufReader::new(tcp);
        head(&mut reader).unwrap();
        if at == 0 {
            words.send("first".to_owned()).unwrap();
            assert_eq!(next_event(&mut reader), "first");
        }
        streams.push(reader);
    }
    assert_eq!(pillion.get("/").status, 200, "three open streams leave the one connection to others");
    // This silence is what the test is about: several times what an ordinary body allows.
    std::thread::sleep(Duration::from_millis(1200));
    words.send("after the silence".to_owned()).unwrap();
    assert_eq!(next_event(streams.first_mut().unwrap()), "after the silence");
}

fn a_quiet_event_stream_outlives_every_limit_on_clients(version: &str) {
    let short = "300ms";
    let (app, words) = events();
    let pillion = Config::new(app.address)
        .server("header_timeout", short)
        .server("body_timeout", short)
        .server("send_timeout", short)
        .server("idle_timeout", short)
        .upstream("body_timeout", short)
        .upstream("response_timeout", short)
        .upstream("keep_alive", short)
        .start();
    let url = pillion.url("/events");
    let mut curl = Command::new("curl");
    curl.args(["-sN", version, "--max-time", "20", &url]).stdout(Stdio::piped());
    let mut curl = harness::Process(curl.spawn().unwrap());
    let mut reader = BufReader::new(curl.0.stdout.take().unwrap());
    words.send("before".to_owned()).unwrap();
    assert_eq!(next_event(&mut reader), "before");
    // This silence is what the test is about.
    std::thread::sleep(Duration::from_millis(1200));
    words.send("after".to_owned()).unwrap();
    assert_eq!(next_event(&mut reader), "after", "{version}");
}

cases! { a_quiet_event_stream_outlives_every_limit_on_clients:
    a_quiet_event_stream_outlives_every_limit_on_clients_over_http1_0 => HTTP1_0;
    a_quiet_event_stream_outlives_every_limit_on_clients_over_http1 => HTTP1;
    a_quiet_event_stream_outlives_every_limit_on_clients_over_http2 => HTTP2;
}

#[test]
fn an_ordinary_body_that_falls_silent_is_cut_visibly() {
    let (silent, done) = channel::<()>();
    let done = Mutex::new(done);
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").unwrap();
            let _ = done.lock().unwrap().recv();
        }
    });
    let pillion = Config::new(app.address).upstream("body_timeout", "300ms").start();
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = head(&mut tcp).unwrap();
    assert!(head.contains("content-length: 10"), "{head}");
    let mut body = Vec::new();
    // The connection ends or is reset before the content is complete.
    let _ = tcp.read_to_end(&mut body);
    assert_eq!(body, b"hello");
    pillion.access("why", |line| !line["error"].is_null());
    drop(silent);
}

#[test]
fn event_streams_end_when_draining_starts() {
    let (app, words) = events();
    let mut pillion = Config::new(app.address).server("drain_timeout", "60s").start();
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut reader = BufReader::new(tcp);
    words.send("hello".to_owned()).unwrap();
    assert_eq!(next_event(&mut reader), "hello");
    let url = pillion.url("/events");
    let mut curl = Command::new("curl");
    curl.args(["-sN", "--http2-prior-knowledge", "--max-time", "60", &url]).stdout(Stdio::null());
    let mut curl = harness::Process(curl.spawn().unwrap());
    harness::eventually("both streams are open", || {
        (app.connections.load(Ordering::SeqCst) == 2).then_some(())
    });
    pillion.process.signal("TERM");
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "cut, so that the client connects again");
    curl.wait();
    assert!(pillion.process.wait().success());
}

#[test]
fn an_app_hears_that_its_reader_left() {
    let (sender, left) = channel::<()>();
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: hello\n\n")
                .unwrap();
            let _ = tcp.read(&mut [0u8; 1]);
            sender.send(()).unwrap();
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut reader = BufReader::new(connect(pillion.http));
    reader.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(next_event(&mut reader), "hello");
    drop(reader);
    left.recv_timeout(PATIENCE).expect("the app's connection ends although no event is sent");
}
