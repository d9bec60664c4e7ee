//! Upstream care: apps that die, hang, refuse, fill up or come late, and what their clients notice of
//! it. The origins are scripts where the fault must be exact, and real nginx where it must be real.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{
    Answer, Nginx, PATIENCE, Pillion, Request, Script, absent_app, connect, eventually, now, ok, read_answer,
};

/// One worker, so that there is one pool.
const ONE_WORKER: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n";

/// An app that says its name.
fn named(name: &'static str) -> Script {
    Script::answering(move |_| ok(name))
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n")
}

/// One request on a connection of its own.
#[track_caller]
fn send(pillion: &Pillion, method: &str, path: &str) -> Answer {
    let mut tcp = connect(pillion.http);
    tcp.write_all(request(method, path).as_bytes()).unwrap();
    read_answer(&mut tcp)
}

/// The one sample of `name` whose labels hold `label`.
fn sample(pillion: &Pillion, name: &str, label: &str) -> Option<f64> {
    let text = pillion.admin_get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn healthy(pillion: &Pillion, address: SocketAddr) -> bool {
    sample(pillion, "pillion_upstream_healthy", &format!("\"{address}\"")) == Some(1.0)
}

/// Raises a flag also when the test fails, so that the threads that wait for it end.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An app that reports each request and answers it only when told to.
fn holding() -> (Script, Receiver<String>, std::sync::mpsc::Sender<()>) {
    let (seen, requests) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    let app = Script::answering(move |request| {
        seen.send(request.line.split(' ').nth(1).unwrap().to_owned()).unwrap();
        let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        ok("held")
    });
    (app, requests, release)
}

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
    // Last in, first out: one client after a crowd of eight uses one connection, not eight in turn.
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
    // Every connection is good for one answer, and the app does not say so.
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
    // The app is restarted behind eight pooled connections: each resets upon its next request.
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
    // The app reads each request whole and dies; the second time it answers.
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
fn requests_beyond_the_cap_wait_in_order_and_the_line_is_bounded() {
    let (app, seen, release) = holding();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nmax_connections = 1\nmax_waiting = 2\nqueue_timeout = \"15s\"\n",
        app.address
    ));
    let mut clients: Vec<TcpStream> = Vec::new();
    for (at, waiting) in [(1, 0.0), (2, 1.0), (3, 2.0)] {
        let mut tcp = connect(pillion.http);
        tcp.write_all(request("GET", &format!("/{at}")).as_bytes()).unwrap();
        clients.push(tcp);
        if at == 1 {
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), "/1");
        }
        eventually("it waits", || {
            (sample(&pillion, "pillion_upstream_waiting", "") == Some(waiting)).then_some(())
        });
    }
    let refused = pillion.get("/4");
    assert_eq!(refused.status, 503, "the line is full");
    let after: u32 = refused.field("retry-after").expect("Retry-After").parse().unwrap();
    assert!(after >= 1);
    assert_eq!(refused.json()["type"], "urn:pillion:problem:busy");
    for (at, tcp) in (1..).zip(&mut clients) {
        release.send(()).unwrap();
        assert_eq!(read_answer(tcp).status, 200);
        if at < 3 {
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), format!("/{}", at + 1), "oldest first");
        }
    }
    assert!(app.connections.load(Ordering::SeqCst) <= 2, "one idle connection a worker at most");
    assert_eq!(sample(&pillion, "pillion_upstream_queue_refused_total", ""), Some(1.0));
}

#[test]
fn who_waits_longer_than_queue_timeout_gets_503() {
    let (app, seen, release) = holding();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nmax_connections = 1\nqueue_timeout = \"200ms\"\n",
        app.address
    ));
    let mut first = connect(pillion.http);
    first.write_all(request("GET", "/1").as_bytes()).unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    let since = now();
    let refused = pillion.get("/2");
    assert_eq!(refused.status, 503);
    assert!(refused.field("retry-after").is_some());
    assert!(
        (Duration::from_millis(200)..Duration::from_secs(2)).contains(&since.elapsed()),
        "{:?}",
        since.elapsed()
    );
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut first).status, 200);
    release.send(()).unwrap();
    assert_eq!(pillion.get("/3").status, 200, "the place is free again");
}

#[test]
fn idle_connections_hold_no_permit_and_clients_that_leave_give_theirs_back() {
    let (app, seen, release) = holding();
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 2\n\
         [upstream]\nurl = \"http://{}\"\nmax_connections = 1\nqueue_timeout = \"15s\"\n",
        app.address
    ));
    // Two kept connections on two workers take turns over the one permit.
    let mut clients = [connect(pillion.http), connect(pillion.http)];
    for _ in 0..5 {
        for tcp in &mut clients {
            release.send(()).unwrap();
            tcp.write_all(request("GET", "/turn").as_bytes()).unwrap();
            assert_eq!(read_answer(tcp).status, 200);
            seen.recv_timeout(PATIENCE).unwrap();
        }
    }
    // Three leave while the app thinks; the next is served although the app never answered them.
    for one in 0..3 {
        let mut tcp = connect(pillion.http);
        // Each for itself: who asks for the same waits for the first one's answer.
        let path = format!("/leaves/{one}");
        tcp.write_all(request("GET", &path).as_bytes()).unwrap();
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), path);
    }
    for _ in 0..4 {
        release.send(()).unwrap();
    }
    assert_eq!(pillion.get("/stays").status, 200);
    eventually("no permit is held", || {
        (sample(&pillion, "pillion_upstream_connections_in_use", "") == Some(0.0)).then_some(())
    });
}

#[test]
fn a_refused_connection_is_502_and_says_nothing_of_where_the_app_is() {
    let nowhere = absent_app();
    let pillion = Pillion::in_front_of(nowhere);
    let answer = pillion.get("/");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["type"], "urn:pillion:problem:upstream-unreachable");
    assert!(
        !answer.text().contains(&nowhere.port().to_string()) && !answer.text().contains("127.0.0.1"),
        "{}",
        answer.text()
    );
    assert_eq!(sample(&pillion, "pillion_upstream_failures_total", "kind=\"connect\""), Some(1.0));
}

#[test]
fn an_app_that_thinks_too_long_is_504_and_a_route_may_give_it_more_or_less() {
    let app = Script::answering(|request| {
        let line = &request.line;
        std::thread::sleep(Duration::from_millis(if line.contains("/slow") { 700 } else { 0 }));
        ok("")
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nresponse_timeout = \"300ms\"\n\
         [[routes]]\nmatch = \"* /slow/patient\"\ntimeout = \"10s\"\n[[routes]]\nmatch = \"* /slow/hasty\"\ntimeout = \"50ms\"\n",
        app.address
    ));
    let since = now();
    let late = pillion.get("/slow");
    assert_eq!(late.status, 504);
    assert_eq!(late.json()["type"], "urn:pillion:problem:upstream-timeout");
    assert!(since.elapsed() < Duration::from_millis(680), "it was not tried again: {:?}", since.elapsed());
    assert_eq!(pillion.get("/slow/patient").status, 200);
    let since = now();
    assert_eq!(pillion.get("/slow/hasty").status, 504);
    assert!(since.elapsed() < Duration::from_millis(280), "{:?}", since.elapsed());
    assert_eq!(pillion.get("/fast").status, 200);
}

#[test]
fn the_response_timeout_runs_from_the_last_byte_of_the_request() {
    let app = Script::echo();
    let config = format!("[upstream]\nurl = \"http://{}\"\nresponse_timeout = \"300ms\"\n", app.address);
    let pillion = Pillion::with(&config);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n").unwrap();
    for byte in b"hello" {
        // A slow upload: each pause is shorter than the timeout, the whole is longer.
        std::thread::sleep(Duration::from_millis(120));
        tcp.write_all(&[*byte]).unwrap();
    }
    let answer = read_answer(&mut tcp);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["body"], "hello");
}

#[test]
fn an_answer_that_falls_silent_is_cut_visibly() {
    for (head, body) in [("content-length: 10", "hello"), ("transfer-encoding: chunked", "5\r\nhello\r\n")] {
        let app = Script::new(move |mut tcp| {
            if Request::read(&mut tcp).is_some() {
                let _ = tcp.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes());
                let _ = Request::read(&mut tcp);
            }
        });
        let config = format!("[upstream]\nurl = \"http://{}\"\nbody_timeout = \"300ms\"\n", app.address);
        let pillion = Pillion::with(&config);
        let since = now();
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        // A reset is as visible as a close.
        let _ = tcp.read_to_end(&mut seen);
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.ends_with(body), "{head}: what came was passed on, and no end: {seen:?}");
        assert!(since.elapsed() > Duration::from_millis(250) && since.elapsed() < Duration::from_secs(5));
        eventually("the permit is back", || {
            (sample(&pillion, "pillion_upstream_connections_in_use", "") == Some(0.0)).then_some(())
        });
    }
}

#[test]
fn killing_one_of_three_replicas_under_load_costs_no_client_an_error() {
    let serve = |name: &str| {
        Nginx::serving(&format!("server {{ listen LISTEN; location / {{ return 200 \"{name}\"; }} }}"))
    };
    let (first, mut second, third) = (serve("first"), serve("second"), serve("third"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\", \"http://{}\"]\n\
         [upstream.health]\ninterval = \"200ms\"\n",
        first.address, second.address, third.address
    ));
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut tcp = connect(pillion.http);
                while !stop.load(Ordering::SeqCst) {
                    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
                    let answer = read_answer(&mut tcp);
                    served.fetch_add(1, Ordering::SeqCst);
                    if answer.status != 200 {
                        failures.lock().unwrap().push((answer.status, answer.text()));
                    }
                }
            });
        }
        let _stop = Raise(&stop);
        let more = |count: usize| {
            let goal = served.load(Ordering::SeqCst) + count;
            eventually("more are served", || (served.load(Ordering::SeqCst) >= goal).then_some(()));
        };
        more(500);
        second.process.signal("KILL");
        second.process.wait();
        eventually("it is ejected", || (!healthy(&pillion, second.address)).then_some(()));
        more(500);
        second.restart();
        eventually("it is back", || healthy(&pillion, second.address).then_some(()));
        more(500);
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} of {} failed: {:?}",
        failures.len(),
        served.load(Ordering::SeqCst),
        failures.first()
    );
    assert!(pillion.log().contains("ejected") && pillion.log().contains("back: it answers again"));
    let mut names: Vec<String> = (0..30).map(|_| pillion.get("/").text()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["first", "second", "third"], "it is used again");
}

#[test]
fn the_last_address_is_never_ejected_and_is_used_as_soon_as_it_is_back() {
    let (one, other) = (absent_app(), absent_app());
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{one}\"\nreplicas = [\"http://{other}\"]\n[upstream.health]\ninterval = \"10s\"\n"
    ));
    for _ in 0..20 {
        assert_eq!(pillion.get("/").status, 502);
    }
    let (one_in, other_in) = (healthy(&pillion, one), healthy(&pillion, other));
    assert!(one_in ^ other_in, "one is out, the other is the last: {one_in} {other_in}");
    let last = if one_in { one } else { other };
    let _app = Script::on(TcpListener::bind(last).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("back"));
        }
    });
    assert_eq!(pillion.get("/").status, 200, "without waiting for a probe");
}

#[test]
fn an_app_that_starts_late_is_found() {
    let address = absent_app();
    let pillion = Pillion::in_front_of(address);
    assert_eq!(pillion.get("/").status, 502);
    let _app = Script::on(TcpListener::bind(address).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("late"));
        }
    });
    assert_eq!(pillion.get("/").text(), "late");
    assert_eq!(pillion.admin_get("/ready").status, 200);
}

#[test]
fn an_app_that_says_it_is_sick_gets_no_requests_until_it_is_well() {
    let serve = |name: &str| {
        Nginx::serving(&format!(
            "server {{ listen LISTEN; location / {{ return 200 \"{name}\"; }}\n\
             location = /healthz {{ if (-f FOLDER/sick) {{ return 500; }} return 200 \"well\"; }} }}"
        ))
    };
    let (well, sick) = (serve("well"), serve("sick"));
    sick.folder.write("sick", "");
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n\
         [upstream.health]\npath = \"/healthz\"\ninterval = \"50ms\"\nunhealthy_after = 2\nhealthy_after = 2\n",
        sick.address, well.address
    ));
    eventually("it is out", || (!healthy(&pillion, sick.address)).then_some(()));
    for _ in 0..20 {
        assert_eq!(pillion.get("/").text(), "well");
    }
    std::fs::remove_file(sick.folder.path("sick")).unwrap();
    eventually("it is in", || healthy(&pillion, sick.address).then_some(()));
    eventually("it is used", || (pillion.get("/").text() == "sick").then_some(()));
}

#[test]
fn requests_that_succeed_do_not_outvote_a_health_path_that_fails() {
    // The app answers everything but its health path: what it says of itself counts.
    let app = || {
        Script::answering(|request| match request.line.contains("/healthz") {
            true => b"HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n".to_vec(),
            false => ok("sick"),
        })
    };
    let (sick, well) = (app(), named("well"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n\
         [upstream.health]\npath = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 3\n",
        sick.address, well.address
    ));
    eventually("it is out under traffic", || {
        (0..20).for_each(|_| assert_eq!(pillion.get("/").status, 200));
        (!healthy(&pillion, sick.address)).then_some(())
    });
}

#[test]
fn writes_go_to_the_primary_and_reads_are_spread() {
    let (primary, one, two) = (named("primary"), named("one"), named("two"));
    let upstream = format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\", \"http://{}\"]\n",
        primary.address, one.address, two.address
    );
    let pillion = Pillion::with(&format!("{ONE_WORKER}{upstream}"));
    for method in ["POST", "PUT", "PATCH", "DELETE", "PURGE"] {
        for _ in 0..6 {
            assert_eq!(send(&pillion, method, "/").text(), "primary", "{method}");
        }
    }
    for method in ["GET", "OPTIONS", "QUERY"] {
        let names: Vec<String> = (0..30).map(|_| send(&pillion, method, "/").text()).collect();
        for name in ["primary", "one", "two"] {
            let share = names.iter().filter(|answered| *answered == name).count();
            assert!(share >= 5, "{method}: {name} got {share} of 30");
        }
    }
    let pillion = Pillion::with(&format!("{ONE_WORKER}{upstream}writes_to = \"any\"\n"));
    let mut names: Vec<String> = (0..30).map(|_| send(&pillion, "POST", "/").text()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["one", "primary", "two"], "writes_to = \"any\"");
}

#[test]
fn reads_go_to_the_least_busy() {
    let (slow, seen, release) = holding();
    let quick = named("quick");
    let config =
        format!("[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\n", slow.address, quick.address);
    let pillion = Pillion::with(&config);
    // Until one hangs in the slow one ...
    let mut hanging = loop {
        let mut tcp = connect(pillion.http);
        tcp.write_all(request("GET", "/").as_bytes()).unwrap();
        if seen.recv_timeout(Duration::from_millis(200)).is_ok() {
            break tcp;
        }
        assert_eq!(read_answer(&mut tcp).text(), "quick");
    };
    // ... and then all go to the other.
    for _ in 0..20 {
        assert_eq!(pillion.get("/other").text(), "quick");
    }
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut hanging).text(), "held");
}

#[test]
fn routes_name_their_app() {
    let (main, media) = (named("main"), named("media"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[upstreams.media]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"* /media/**\"\nupstream = \"media\"\n[[routes]]\nmatch = \"GET media.test/**\"\nupstream = \"media\"\n",
        main.address, media.address
    ));
    for (path, app) in [
        ("/", "main"),
        ("/media", "media"),
        ("/media/a/b", "media"),
        ("/mediax", "main"),
        ("//media//x", "media"),
    ] {
        assert_eq!(pillion.get(path).text(), app, "{path}");
    }
    let by_host = "GET /x HTTP/1.1\r\nhost: media.test\r\nconnection: close\r\n\r\n";
    assert_eq!(harness::exchange(pillion.http, by_host).text(), "media");
}

#[test]
fn routes_rewrite_refuse_redirect_and_edit() {
    let app = Script::answering(|request| {
        let mut answer = ok(&request.to_json().to_string());
        let at = answer.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        answer.splice(at..at, *b"server: secret/1.0\r\nx-kind: app\r\n");
        answer
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"* /v1/**\"\nrewrite = \"/api/**\"\n\
         deprecated = {{ since = \"2026-01-01\", sunset = \"2026-12-31\", link = \"https://example.com/v2\" }}\n\
         [[routes]]\nmatch = \"GET /u/{{id}}/p/{{page}}\"\nrewrite = \"/pages/{{page}}/of/{{id}}\"\n\
         [[routes]]\nmatch = \"* /api/edited\"\nset_request = {{ x-tenant = \"clinic\", accept = \"text/plain\" }}\nremove_request = [\"x-secret\"]\n\
         set_response = {{ x-kind = \"edited\" }}\nremove_response = [\"server\"]\n\
         [[routes]]\nmatch = \"* /internal/**\"\ndeny = 404\n\
         [[routes]]\nmatch = \"* /gone\"\ndeny = 410\n\
         [[routes]]\nmatch = \"GET /old/**\"\nredirect = {{ to = \"https://example.com/new/**\", status = 301 }}\n",
        app.address
    ));
    let answer = pillion.get("/v1/patients/7?x=1");
    assert_eq!(answer.json()["target"], "/api/patients/7?x=1");
    assert_eq!(answer.field("deprecation").unwrap(), "@1767225600");
    assert_eq!(answer.field("sunset").unwrap(), "Thu, 31 Dec 2026 00:00:00 GMT");
    let link = answer.field("link").unwrap();
    assert!(link.contains("<https://example.com/v2>"), "{link}");
    assert_eq!(pillion.get("/u/a%2Fb/p/9").json()["target"], "/pages/9/of/a%2Fb");

    let edited =
        "GET /v1/edited HTTP/1.1\r\nhost: test\r\nx-secret: 1\r\naccept: */*\r\nconnection: close\r\n\r\n";
    let answer = harness::exchange(pillion.http, edited);
    let fields = answer.json()["fields"].clone();
    assert_eq!(
        (fields["x-tenant"].as_str(), fields["accept"].as_str()),
        (Some("clinic"), Some("text/plain"))
    );
    assert!(fields.get("x-secret").is_none());
    assert_eq!(answer.fields("x-kind"), ["edited"]);
    assert!(
        answer.field("server").is_none() && answer.field("deprecation").is_some(),
        "edits of both routes: {}",
        answer.head
    );

    let before = app.connections.load(Ordering::SeqCst);
    assert_eq!(pillion.get("/internal").status, 404);
    assert_eq!(pillion.get("/internal/a/../../internal/b").status, 404);
    assert_eq!(pillion.get("/%69nternal/x").status, 404, "unreserved octets are decoded before matching");
    assert_eq!(pillion.get("/gone").status, 410);
    let moved = pillion.get("/old/a/b?c=d");
    assert_eq!(
        (moved.status, moved.field("location").unwrap().as_str()),
        (301, "https://example.com/new/a/b?c=d")
    );
    assert_eq!(app.connections.load(Ordering::SeqCst), before, "nothing of it reached the app");
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
fn a_name_that_does_not_resolve_is_502_and_no_reason_not_to_start() {
    let pillion = Pillion::in_front_of("no-such-host.invalid:80");
    let answer = pillion.get("/");
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("invalid"), "no internals: {}", answer.text());
    assert_eq!(sample(&pillion, "pillion_upstream_failures_total", "kind=\"resolve\""), Some(1.0));
}

#[test]
fn a_replica_whose_name_does_not_resolve_costs_nobody_anything() {
    let app = named("app");
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://localhost:{}\"\nreplicas = [\"http://no-such-host.invalid:80\"]\n",
        app.address.port()
    ));
    for _ in 0..20 {
        assert_eq!(pillion.get("/").text(), "app");
    }
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
            // One request each on as many connections as come, until told to end.
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
fn a_hanging_app_does_not_hold_up_another() {
    let (hanging, seen, release) = holding();
    let quick = named("quick");
    let pillion = Pillion::with(&format!(
        "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nmax_connections = 2\nqueue_timeout = \"10s\"\n\
         [upstreams.other]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"* /quick\"\nupstream = \"other\"\n",
        hanging.address, quick.address
    ));
    let mut stuck: Vec<TcpStream> = (0..6)
        .map(|one| {
            let mut tcp = connect(pillion.http);
            tcp.write_all(request("GET", &format!("/hang/{one}")).as_bytes()).unwrap();
            tcp
        })
        .collect();
    (0..2).for_each(|_| assert!(seen.recv_timeout(PATIENCE).unwrap().starts_with("/hang/")));
    let since = now();
    for _ in 0..50 {
        assert_eq!(pillion.get("/quick").text(), "quick");
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    (0..6).for_each(|_| release.send(()).unwrap());
    for tcp in &mut stuck {
        assert_eq!(read_answer(tcp).status, 200);
    }
}

#[test]
fn an_answer_that_drips_is_bounded_by_the_response_timeout_as_a_whole() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_some() {
            // A byte at a time, each well within the timeout.
            for byte in "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".bytes() {
                if tcp.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nresponse_timeout = \"400ms\"\n",
        app.address
    ));
    let since = now();
    assert_eq!(pillion.get("/").status, 504);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
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
fn a_replica_that_hangs_is_ejected_after_a_few_timeouts() {
    let hanging = Script::new(|mut tcp| while Request::read(&mut tcp).is_some() {});
    let well = named("well");
    let pillion = Pillion::with(&format!(
        "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{}\"]\nresponse_timeout = \"100ms\"\n\
         [upstream.health]\ninterval = \"1h\"\n",
        hanging.address, well.address
    ));
    let statuses: Vec<u16> = (0..20).map(|_| pillion.get("/").status).collect();
    let late = statuses.iter().filter(|status| **status == 504).count();
    assert_eq!(late, 3, "unhealthy_after: {statuses:?}");
    assert!(!healthy(&pillion, hanging.address) && healthy(&pillion, well.address));
}

#[test]
fn writes_are_not_sent_elsewhere_when_the_primary_is_dead() {
    let (primary, replica) = (absent_app(), named("replica"));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{primary}\"\nreplicas = [\"http://{}\"]\n[upstream.health]\ninterval = \"100ms\"\n",
        replica.address
    ));
    for _ in 0..10 {
        assert_eq!(pillion.get("/").text(), "replica");
        assert_eq!(send(&pillion, "POST", "/").status, 502);
    }
    assert!(!healthy(&pillion, primary));
    let _app = Script::on(TcpListener::bind(primary).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(&ok("primary"));
        }
    });
    assert_eq!(send(&pillion, "POST", "/").text(), "primary", "ejected or not, there is no other for writes");
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
    // Four clients write; the app drops every fifth request after it has read it, in every which way.
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

#[test]
fn a_reload_keeps_connections_and_what_is_known_of_health() {
    let (dead, well) = (absent_app(), Script::echo());
    let config = format!(
        "{ONE_WORKER}[upstream]\nurl = \"http://{}\"\nreplicas = [\"http://{dead}\"]\nkeep_alive = \"20s\"\n[upstream.health]\ninterval = \"1h\"\n",
        well.address
    );
    let pillion = Pillion::with(&config);
    eventually("it is ejected", || {
        assert_eq!(pillion.get("/").status, 200);
        (!healthy(&pillion, dead)).then_some(())
    });
    let before = well.connections.load(Ordering::SeqCst);
    pillion.reload(&format!("{config}[[routes]]\nmatch = \"* /new\"\ndeny = 404\n"));
    assert!(!healthy(&pillion, dead), "still out");
    assert_eq!(pillion.get("/").status, 200);
    assert_eq!(well.connections.load(Ordering::SeqCst), before, "no new connection");
}

#[test]
fn one_address_that_hangs_does_not_delay_the_probes_of_the_others() {
    let hanging = || Script::new(|mut tcp| while Request::read(&mut tcp).is_some() {});
    let hang = [hanging(), hanging(), hanging(), hanging()];
    let sick = Script::answering(|_| b"HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n".to_vec());
    let well = named("well");
    let urls: Vec<String> =
        hang.iter().chain([&sick]).map(|app| format!("\"http://{}\"", app.address)).collect();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nreplicas = [{}]\n\
         [upstream.health]\npath = \"/healthz\"\ninterval = \"200ms\"\ntimeout = \"1s\"\nunhealthy_after = 2\n",
        well.address,
        urls.join(", ")
    ));
    let since = now();
    eventually("the sick one is out", || (!healthy(&pillion, sick.address)).then_some(()));
    assert!(since.elapsed() < Duration::from_secs(3), "probed every interval: {:?}", since.elapsed());
}

#[test]
fn who_leaves_the_line_makes_room_in_it() {
    let (app, seen, release) = holding();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nmax_connections = 1\nmax_waiting = 1\nqueue_timeout = \"15s\"\n\
         [cache]\nenabled = false\n",
        app.address
    ));
    let waiting = |count: f64| {
        eventually("so many wait", || {
            (sample(&pillion, "pillion_upstream_waiting", "") == Some(count)).then_some(())
        });
    };
    let ask = |path: &str| {
        let mut tcp = connect(pillion.http);
        tcp.write_all(request("GET", path).as_bytes()).unwrap();
        tcp
    };
    let mut first = ask("/first");
    seen.recv_timeout(PATIENCE).unwrap();
    for _ in 0..3 {
        let leaves = ask("/leaves");
        waiting(1.0);
        drop(leaves);
        waiting(0.0);
    }
    let mut stays = ask("/stays");
    waiting(1.0);
    (0..2).for_each(|_| release.send(()).unwrap());
    assert_eq!(read_answer(&mut first).status, 200);
    assert_eq!(read_answer(&mut stays).status, 200);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), "/stays", "who left was never sent on");
}
