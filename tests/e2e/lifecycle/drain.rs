//! Tests of shutdown: draining, signals and clients that are still connected.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tools::{ask, closes_silently, server, upstream};
use crate::harness::holding::{Raise, holding};
use crate::harness::{
    self, Folder, PATIENCE, Pillion, Request, Script, connect, eventually, free_address, now, read_answer,
};

#[test]
fn sigterm_lets_requests_in_flight_finish_and_exits_0() {
    for signal in ["TERM", "INT"] {
        let (app, seen, release) = holding();
        let mut pillion = Pillion::with(&upstream(&app));
        let mut idle = connect(pillion.http);
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        seen.recv_timeout(PATIENCE).unwrap();
        pillion.process.signal(signal);
        eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
        assert_eq!(pillion.admin_get("/live").status, 200, "leaving is not dead");
        assert!(closes_silently(&mut idle), "who asks nothing is let go");
        eventually("nobody new is served", || TcpStream::connect(pillion.http).is_err().then_some(()));
        release.send(()).unwrap();
        let answer = read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text().as_str()), (200, "held"), "{signal}");
        assert_eq!(answer.field("connection").as_deref(), Some("close"));
        assert!(closes_silently(&mut tcp));
        assert_eq!(pillion.process.wait().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_body_in_flight_is_delivered_whole_while_draining() {
    let (go_on, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let app = Script::new(move |mut tcp| {
        if Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello");
            let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
            let _ = tcp.write_all(b"world");
        }
    });
    let mut pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        let mut byte = [0u8];
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    pillion.process.signal("TERM");
    eventually("it drains", || TcpStream::connect(pillion.http).is_err().then_some(()));
    go_on.send(()).unwrap();
    tcp.read_to_end(&mut seen).unwrap();
    assert!(seen.ends_with(b"helloworld"));
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn drain_timeout_cuts_what_does_not_end() {
    let (app, seen, _release) = holding();
    let mut pillion = Pillion::with(&format!("{}{}", server("drain_timeout = \"400ms\""), upstream(&app)));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    let since = now();
    pillion.process.signal("TERM");
    assert_eq!(pillion.process.wait().code(), Some(0));
    assert!(
        (Duration::from_millis(350)..Duration::from_secs(3)).contains(&since.elapsed()),
        "{:?}",
        since.elapsed()
    );
    assert!(pillion.log().contains("drain_timeout"), "it is said that something was cut");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        for delay in ["0s", "15s"] {
            let (app, seen, _release) = holding();
            let mut pillion = Pillion::with(&format!(
                "{}{}",
                server(&format!("drain_delay = \"{delay}\"")),
                upstream(&app)
            ));
            let mut tcp = connect(pillion.http);
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            seen.recv_timeout(PATIENCE).unwrap();
            pillion.process.signal(first);
            eventually("it leaves", || (pillion.admin_get("/ready").status == 503).then_some(()));
            let since = now();
            pillion.process.signal(second);
            pillion.process.wait();
            assert!(
                since.elapsed() < Duration::from_secs(3),
                "{first} {second} {delay}: {:?}",
                since.elapsed()
            );
        }
    }
}

#[test]
fn sigterm_under_load_with_a_drain_delay_loses_no_request() {
    // A balancer that needs 250 ms to notice, and clients that respect `Connection: close`.
    let app = Script::echo();
    let mut pillion = Pillion::with(&format!("{}{}", server("drain_delay = \"500ms\""), upstream(&app)));
    let address = pillion.http;
    let (noticed, told, served) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // The balancer opens new connections here until it notices.
                while !noticed.load(Ordering::SeqCst) {
                    let mut tcp = connect(address);
                    loop {
                        let answer = ask(&mut tcp, "/");
                        assert_eq!(answer.status, 200);
                        served.fetch_add(1, Ordering::SeqCst);
                        if answer.field("connection").as_deref() == Some("close") {
                            told.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                    }
                }
            });
        }
        let _noticed = Raise(&noticed);
        eventually("load", || (served.load(Ordering::SeqCst) >= 200).then_some(()));
        let since = now();
        pillion.process.signal("TERM");
        eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
        assert!(since.elapsed() < Duration::from_millis(250), "at once: {:?}", since.elapsed());
        std::thread::sleep(Duration::from_millis(250).saturating_sub(since.elapsed()));
    });
    assert!(told.load(Ordering::SeqCst) >= 4, "every client was told that its connection ends");
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn an_idle_connection_may_ask_once_more_during_the_delay_and_is_closed_after_it() {
    let app = Script::echo();
    let mut pillion = Pillion::with(&format!("{}{}", server("drain_delay = \"800ms\""), upstream(&app)));
    let (mut asks, mut silent) = (connect(pillion.http), connect(pillion.http));
    assert_eq!(ask(&mut asks, "/").status, 200);
    assert_eq!(ask(&mut silent, "/").status, 200);
    let since = now();
    pillion.process.signal("TERM");
    eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
    let answer = ask(&mut asks, "/");
    assert_eq!((answer.status, answer.field("connection").as_deref()), (200, Some("close")));
    assert!(closes_silently(&mut silent));
    assert!(
        since.elapsed() >= Duration::from_millis(750),
        "not before the delay is over: {:?}",
        since.elapsed()
    );
    assert_eq!(pillion.process.wait().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn event_streams_are_closed_when_draining_starts() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
            let _ = Request::read(&mut tcp);
        }
    });
    let mut pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data: 1\n\n") {
        let mut byte = [0u8];
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let since = now();
    pillion.process.signal("TERM");
    let _ = tcp.read_to_end(&mut seen);
    assert_eq!(pillion.process.wait().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(3), "not held up for drain_timeout: {:?}", since.elapsed());
}

/// Reads HTTP/2 frames (RFC 9113 4.1): type, flags and stream.
struct Frames(TcpStream);

impl Frames {
    fn open(address: SocketAddr) -> Frames {
        let mut tcp = connect(address);
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        Frames(tcp)
    }

    /// Sends GET / with :authority test.
    fn get(&mut self, stream: u8) {
        let block = b"\x82\x86\x84\x41\x04test";
        let mut frame = vec![0, 0, block.len() as u8, 1, 0x5, 0, 0, 0, stream];
        frame.extend_from_slice(block);
        self.0.write_all(&frame).unwrap();
    }

    /// Returns the next frame; `None` at the end of the connection.
    fn next(&mut self) -> Option<(u8, u8, u32)> {
        let mut head = [0u8; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut content = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        self.0.read_exact(&mut content).unwrap();
        if head[3] == 4 && head[4] & 1 == 0 {
            self.0.write_all(b"\0\0\0\x04\x01\0\0\0\0").unwrap();
        }
        if head[3] == 6 && head[4] & 1 == 0 {
            let mut pong = vec![0, 0, 8, 6, 1, 0, 0, 0, 0];
            pong.extend_from_slice(&content);
            self.0.write_all(&pong).unwrap();
        }
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
    }
}

#[test]
fn http2_is_told_by_goaway_and_its_streams_finish() {
    let (app, seen, release) = holding();
    let mut pillion = Pillion::with(&upstream(&app));
    let (mut busy, mut idle) = (Frames::open(pillion.http), Frames::open(pillion.http));
    busy.get(1);
    seen.recv_timeout(PATIENCE).unwrap();
    pillion.process.signal("TERM");
    let mut kinds = Vec::new();
    while let Some((kind, ..)) = idle.next() {
        kinds.push(kind);
    }
    assert!(kinds.contains(&7), "an idle connection is told by GOAWAY and closed: {kinds:?}");
    let mut kinds = Vec::new();
    let mut release = Some(release);
    while let Some((kind, flags, stream)) = busy.next() {
        kinds.push((kind, flags, stream));
        if kind == 7
            && let Some(release) = release.take()
        {
            release.send(()).unwrap();
        }
    }
    assert!(kinds.iter().any(|(kind, ..)| *kind == 7), "GOAWAY: {kinds:?}");
    assert!(kinds.iter().any(|(kind, _, stream)| *kind == 1 && *stream == 1), "the head: {kinds:?}");
    assert!(
        kinds.iter().any(|(kind, flags, stream)| *kind <= 1 && flags & 1 == 1 && *stream == 1),
        "whole: {kinds:?}"
    );
    assert!(!kinds.iter().any(|(kind, ..)| *kind == 3), "no stream was reset: {kinds:?}");
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn sighup_while_draining_neither_kills_nor_revives() {
    let (app, seen, release) = holding();
    let mut pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    pillion.process.signal("TERM");
    eventually("it drains", || TcpStream::connect(pillion.http).is_err().then_some(()));
    pillion.process.signal("HUP");
    assert_eq!(pillion.admin_get("/ready").status, 503);
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut tcp).text(), "held");
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn a_request_that_waits_in_line_is_served_while_draining() {
    let (app, seen, release) = holding();
    let mut pillion =
        Pillion::with(&format!("{}max_connections = 1\nqueue_timeout = \"15s\"\n", upstream(&app)));
    let mut clients = [connect(pillion.http), connect(pillion.http)];
    for (tcp, path) in clients.iter_mut().zip(["/a", "/b"]) {
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
    }
    seen.recv_timeout(PATIENCE).unwrap();
    eventually("the other waits", || {
        pillion
            .admin_get("/metrics")
            .text()
            .lines()
            .any(|line| line.starts_with("pillion_upstream_waiting{") && line.ends_with(" 1"))
            .then_some(())
    });
    pillion.process.signal("TERM");
    eventually("it drains", || TcpStream::connect(pillion.http).is_err().then_some(()));
    (0..2).for_each(|_| release.send(()).unwrap());
    for tcp in &mut clients {
        assert_eq!(read_answer(tcp).status, 200);
    }
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn clients_that_never_finish_a_handshake_do_not_hold_up_the_end() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    folder.write("tls.key", issued.signing_key.serialize_pem());
    folder.write("tls.crt", issued.cert.pem());
    let tls = "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{ cert = \"tls.crt\", key = \"tls.key\" }]\n";
    let mut held_up = false;
    let tls_client = "\x16\x03\x01\x02\0\x01\0";
    for (secure, sent) in [(true, ""), (true, tls_client), (false, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")] {
        let mut pillion = Pillion::in_folder(
            folder.clone(),
            &format!("{}{tls}{}", server("drain_timeout = \"5s\""), upstream(&app)),
        );
        let mut begun = connect(if secure { pillion.https.unwrap() } else { pillion.http });
        begun.write_all(sent.as_bytes()).unwrap();
        eventually("it is connected", || (pillion.metric("pillion_client_connections") == 1.0).then_some(()));
        let since = now();
        pillion.process.signal("TERM");
        assert_eq!(pillion.process.wait().code(), Some(0));
        let after = since.elapsed();
        println!("secure: {secure}, sent {sent:?}: {after:?}");
        held_up |= after > Duration::from_secs(3);
    }
    assert!(!held_up, "see above");
}

#[test]
fn http2_connections_are_handed_back_during_the_delay() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    assert_eq!(pillion.admin_post("/drain").status, 202);
    eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
    let mut frames = Frames::open(pillion.http);
    frames.get(1);
    let mut kinds = Vec::new();
    while let Some(frame) = frames.next() {
        kinds.push(frame);
    }
    assert!(
        kinds.iter().any(|(kind, flags, stream)| *kind <= 1 && flags & 1 == 1 && *stream == 1),
        "answered whole: {kinds:?}"
    );
    assert!(kinds.iter().any(|(kind, ..)| *kind == 7), "GOAWAY: {kinds:?}");
    assert_eq!(pillion.get("/").status, 200, "new connections are still served");
}

#[test]
fn a_successor_can_listen_at_once() {
    let app = Script::echo();
    let (http, admin) = (free_address(), free_address());
    let config = format!("[server]\nlisten = [\"{http}\"]\nadmin = \"{admin}\"\n{}", upstream(&app));
    for _ in 0..3 {
        let pillion = Pillion::with(&config);
        let mut kept = connect(http);
        assert_eq!(ask(&mut kept, "/").status, 200);
        assert_eq!(pillion.stop().code(), Some(0));
    }
}

/// A broken ConfigMap arrives, then the pod is deleted: the preStop hook reads the broken file and must drain anyway.
#[test]
fn a_file_that_has_become_wrong_does_not_keep_the_process_from_being_drained() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let pillion =
        Pillion::in_folder(folder.clone(), &format!("[upstream]\nurl = \"http://{}\"\n", app.address));
    let broken = format!("[server]\nadmin = \"{}\"\nlisten = 7\n[upstrem]\n", pillion.admin);
    let path = folder.write("broken.toml", broken);
    harness::run(harness::binary(), &["drain", "--config", path.to_str().unwrap()]);
    assert_eq!(pillion.admin_get("/ready").status, 503);
}
