//! Tests of upstream connections: reuse, closing, and retries after a connection breaks.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::tools::{ONE_WORKER, sample, send};
use crate::harness::{self, PATIENCE, Pillion, Request, Script, absent_app, connect, now, ok, read_answer};

#[test]
fn many_clients_one_after_the_other_share_one_connection_to_the_app() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{ONE_WORKER}[upstream]\nurl = \"http://{}\"\n", app.address));
    for _ in 0..50 {
        assert_eq!(pillion.get("/").status, 200);
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn after_a_crowd_only_the_last_used_connections_stay_in_use() {
    // Last in, first out: after a crowd of eight, one client uses one connection, not eight in turn.
    let used = Arc::new(Mutex::new(Vec::new()));
    let (note, crowd) = (used.clone(), Arc::new(std::sync::Barrier::new(8)));
    let app = Script::new(move |mut tcp| {
        let port = tcp.peer_addr().unwrap().port();
        while let Some(request) = Request::read(&mut tcp) {
            if request.line.contains("/crowd") {
                crowd.wait();
            } else {
                note.lock().unwrap().push(port);
            }
            let _ = tcp.write_all(&ok(""));
        }
    });
    let pillion = Pillion::with(&format!("{ONE_WORKER}[upstream]\nurl = \"http://{}\"\n", app.address));
    std::thread::scope(|scope| {
        for one in 0..8 {
            let pillion = &pillion;
            scope.spawn(move || assert_eq!(pillion.get(&format!("/crowd/{one}")).status, 200));
        }
    });
    assert_eq!(app.connections.load(Ordering::SeqCst), 8);
    for _ in 0..10 {
        pillion.get("/alone");
    }
    let mut used = used.lock().unwrap().clone();
    used.dedup();
    assert_eq!(used.len(), 1, "{used:?}");
}

#[test]
fn idle_connections_are_closed_after_keep_alive_or_what_the_app_says() {
    for (keep_alive, field, least, most) in [
        ("300ms", "", 300, 2500),
        ("20s", "keep-alive: timeout=2\r\n", 1000, 3500),
        ("20s", "keep-alive: timeout=1\r\n", 0, 900),
        ("20s", "connection: close\r\n", 0, 900),
        ("0s", "", 0, 900),
    ] {
        let (closed, after) = channel();
        let app = Script::new(move |mut tcp| {
            Request::read(&mut tcp).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\n{field}content-length: 0\r\n\r\n");
            tcp.write_all(head.as_bytes()).unwrap();
            let since = now();
            assert!(Request::read(&mut tcp).is_none());
            closed.send(since.elapsed()).unwrap();
        });
        let config = format!(
            "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nkeep_alive = \"{keep_alive}\"\n",
            app.address
        );
        let pillion = Pillion::with(&config);
        assert_eq!(pillion.get("/").status, 200);
        let after = after.recv_timeout(PATIENCE).unwrap();
        let span = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(span.contains(&after), "{keep_alive:?} {field:?}: closed after {after:?}");
    }
}

#[test]
fn an_app_that_closes_idle_connections_shows_no_error() {
    // Every connection serves one response, and the app does not announce the close.
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("once"));
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    for at in 0..200 {
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut tcp).status, 200, "request {at}");
    }
}

#[test]
fn an_app_that_closes_upon_the_next_request_shows_no_error_on_get() {
    // The unluckiest moment: the close crosses the request on the wire.
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("once"));
            let _ = Request::read(&mut tcp);
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    for at in 0..100 {
        assert_eq!(pillion.get("/").status, 200, "request {at}");
    }
}

#[test]
fn a_whole_pool_gone_stale_at_once_shows_no_error_on_get() {
    // The app restarts while eight connections are pooled; each is reset on its next request.
    let crowd = Arc::new(std::sync::Barrier::new(8));
    let app = Script::new(move |mut tcp| {
        let first = Request::read(&mut tcp);
        if first.is_some_and(|request| request.line.contains("/crowd")) {
            crowd.wait();
            let _ = tcp.write_all(&ok("crowd"));
            let _ = Request::read(&mut tcp);
            return;
        }
        let _ = tcp.write_all(&ok("fresh"));
    });
    let pillion = Pillion::with(&format!("{ONE_WORKER}[upstream]\nurl = \"http://{}\"\n", app.address));
    std::thread::scope(|scope| {
        for one in 0..8 {
            let pillion = &pillion;
            scope.spawn(move || assert_eq!(pillion.get(&format!("/crowd/{one}")).status, 200));
        }
    });
    let answer = pillion.get("/next");
    assert_eq!((answer.status, answer.text().as_str()), (200, "fresh"));
}

#[test]
fn a_post_is_never_sent_twice_and_a_get_is() {
    // The app reads each request completely and dies; the second time it responds.
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let note = seen.clone();
    let app = Script::new(move |mut tcp| {
        let Some(request) = Request::read(&mut tcp) else { return };
        let mut seen = note.lock().unwrap();
        seen.push(request.line.clone());
        if seen.iter().filter(|line| **line == request.line).count() > 1 {
            let _ = tcp.write_all(&ok("again"));
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let count = |method: &str| seen.lock().unwrap().iter().filter(|line| line.starts_with(method)).count();
    for (method, status, times) in
        [("POST", 502, 1), ("PATCH", 502, 1), ("GET", 200, 2), ("HEAD", 200, 2), ("DELETE", 200, 2)]
    {
        let head = format!("{method} / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        let body = if matches!(method, "POST" | "PATCH") { "content-length: 4\r\n\r\nbody" } else { "\r\n" };
        let answer = harness::exchange(pillion.http, &format!("{head}{body}"));
        assert_eq!((answer.status, count(method)), (status, times), "{method}");
    }
    assert_eq!(send(&pillion, "POST", "/empty").status, 502);
    assert_eq!(
        seen.lock().unwrap().iter().filter(|line| line.contains("/empty")).count(),
        1,
        "not even without a body"
    );
}

#[test]
fn a_post_on_a_kept_connection_that_dies_is_not_sent_twice_either() {
    let posts = Arc::new(AtomicUsize::new(0));
    let count = posts.clone();
    let app = Script::new(move |mut tcp| {
        while let Some(request) = Request::read(&mut tcp) {
            if request.line.starts_with("POST") {
                count.fetch_add(1, Ordering::SeqCst);
                return;
            }
            let _ = tcp.write_all(&ok(""));
        }
    });
    let pillion = Pillion::with(&format!("{ONE_WORKER}[upstream]\nurl = \"http://{}\"\n", app.address));
    assert_eq!(pillion.get("/").status, 200);
    assert_eq!(send(&pillion, "POST", "/").status, 502);
    assert_eq!(posts.load(Ordering::SeqCst), 1);
}

#[test]
fn a_fleet_that_fails_everything_is_not_buried_in_retries() {
    let tries = Arc::new(AtomicUsize::new(0));
    let failing = || {
        let tries = tries.clone();
        Script::new(move |mut tcp| {
            if Request::read(&mut tcp).is_some() {
                tries.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let (one, two, three) = (failing(), failing(), failing());
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\", \"http://{}\"]\n",
        one.address, two.address, three.address
    ));
    let (requests, since) = (400, now());
    let mut tcp = connect(pillion.http);
    for _ in 0..requests {
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut tcp).status, 502);
    }
    let more = tries.load(Ordering::SeqCst) - requests;
    let allowed = requests as f64 * 0.2 + 3.0 * (since.elapsed().as_secs_f64() + 1.0) + 1.0;
    assert!(more as f64 <= allowed, "{more} further tries of {requests} requests, at most {allowed}");
    assert!(more >= requests / 5 - 5, "the budget is used: {more}");
    assert!(sample(&pillion, "pillion_upstream_retries_refused_total", "").unwrap() > 0.0);
}

#[test]
fn the_app_may_listen_on_a_unix_socket_and_be_restarted_there() {
    let folder = harness::Folder::new();
    let path = folder.path("app.sock");
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"unix:{}\"\n", path.display()));
    assert_eq!(pillion.get("/").status, 502, "not there yet");
    for generation in ["first", "second"] {
        let _ = std::fs::remove_file(&path);
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            // One request on each of any number of connections, until told to end.
            loop {
                let (mut app, _) = listener.accept().unwrap();
                app.set_read_timeout(Some(PATIENCE)).unwrap();
                let Some(request) = Request::read(&mut app) else { continue };
                let _ = app.write_all(&ok(generation));
                if request.line.contains("/end") {
                    return;
                }
            }
        });
        assert_eq!(pillion.get("/").text(), generation);
        assert_eq!(pillion.get("/end").text(), generation);
        server.join().unwrap();
    }
}

#[test]
fn an_app_that_dies_within_its_head_is_502_for_a_post_and_tried_again_for_a_get() {
    let died = Arc::new(AtomicUsize::new(0));
    let count = died.clone();
    let app = Script::new(move |mut tcp| {
        if let Some(request) = Request::read(&mut tcp) {
            if request.line.starts_with("POST") || count.fetch_add(1, Ordering::SeqCst) == 0 {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-le");
            } else {
                let _ = tcp.write_all(&ok("whole"));
            }
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    assert_eq!(send(&pillion, "POST", "/").status, 502);
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
    assert_eq!(pillion.get("/").text(), "whole");
}

#[test]
fn a_write_of_which_nothing_was_sent_is_tried_at_another_address_with_its_body() {
    let (dead, well) = (absent_app(), Script::echo());
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{dead}\"\nreplicas = [\"http://{}\"]\nwrites_to = \"any\"\n\
         [upstream.health]\nunhealthy_after = 1000\n",
        well.address
    ));
    let body = "b".repeat(100_000);
    for framing in [
        format!("content-length: {}\r\n\r\n{body}", body.len()),
        format!("transfer-encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n"),
    ] {
        for at in 0..10 {
            let mut tcp = connect(pillion.http);
            tcp.write_all(format!("POST / HTTP/1.1\r\nhost: test\r\n{framing}").as_bytes()).unwrap();
            let answer = read_answer(&mut tcp);
            assert_eq!(answer.status, 200, "{at}: {}", answer.text());
            assert_eq!(answer.json()["body"].as_str().unwrap().len(), body.len());
        }
    }
}

#[test]
fn no_write_arrives_twice_however_the_app_dies() {
    // Four clients write, and the app drops every fifth request after reading it, in several ways.
    let seen = Arc::new(Mutex::new(Vec::<String>::new()));
    let note = seen.clone();
    let app = Script::new(move |mut tcp| {
        while let Some(request) = Request::read(&mut tcp) {
            let at = {
                let mut seen = note.lock().unwrap();
                seen.push(request.line.clone());
                seen.len()
            };
            match at % 15 {
                0 => return,
                5 => drop(tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhal")),
                10 => drop(tcp.write_all(b"HTTP/1.1 2")),
                _ => {
                    let _ = tcp.write_all(&ok("written"));
                    continue;
                }
            }
            return;
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let lost = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (pillion, lost) = (&pillion, &lost);
            scope.spawn(move || {
                for at in 0..100 {
                    let mut tcp = connect(pillion.http);
                    let head = format!("POST /{client}/{at} HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
                    tcp.write_all(head.as_bytes()).unwrap();
                    let mut answer = Vec::new();
                    let _ = tcp.read_to_end(&mut answer);
                    assert!(!answer.is_empty(), "an answer, or the part of one that came");
                    if !answer.ends_with(b"written") {
                        lost.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let mut lines = seen.lock().unwrap().clone();
    assert_eq!(lines.len(), 400, "each write arrived once");
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 400);
    assert_eq!(lost.load(Ordering::SeqCst), 80, "who got no whole answer knows it");
}
