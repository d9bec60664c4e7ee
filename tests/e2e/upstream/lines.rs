//! Tests of the queue in front of a busy upstream.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::tools::{ONE_WORKER, named, request, sample};
use crate::harness::holding::holding;
use crate::harness::{Config, PATIENCE, Pillion, connect, eventually, now, read_answer};

#[test]
fn requests_beyond_the_cap_wait_in_order_and_the_line_is_bounded() {
    let (app, seen, release) = holding();
    let pillion = Config::new(app.address)
        .upstream("max_connections", 1)
        .upstream("max_waiting", 2)
        .upstream("queue_timeout", "15s")
        .start();
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
    let pillion =
        Config::new(app.address).upstream("max_connections", 1).upstream("queue_timeout", "200ms").start();
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
    let pillion = Config::new(app.address)
        .server("workers", 2)
        .upstream("max_connections", 1)
        .upstream("queue_timeout", "15s")
        .start();
    // Two open connections on two workers take turns at the single permit.
    let mut clients = [connect(pillion.http), connect(pillion.http)];
    for _ in 0..5 {
        for tcp in &mut clients {
            release.send(()).unwrap();
            tcp.write_all(request("GET", "/turn").as_bytes()).unwrap();
            assert_eq!(read_answer(tcp).status, 200);
            seen.recv_timeout(PATIENCE).unwrap();
        }
    }
    // Three clients leave while the app works. The next is served although the app never responded to them.
    for one in 0..3 {
        let mut tcp = connect(pillion.http);
        // Different URLs, because equal concurrent requests would be collapsed.
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
fn who_leaves_the_line_makes_room_in_it() {
    let (app, seen, release) = holding();
    let pillion = Config::new(app.address)
        .upstream("max_connections", 1)
        .upstream("max_waiting", 1)
        .upstream("queue_timeout", "15s")
        .cache("enabled", false)
        .start();
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
