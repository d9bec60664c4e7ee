//! Tests that one client never holds more than seven eighths of an upstream address's slots.

use std::io::Write;
use std::net::TcpStream;

use super::tools::{eventually_held, pillion};
use crate::harness::holding::holding;
use crate::harness::{Config, PATIENCE, Pillion, connect, read_answer};

fn ask(pillion: &Pillion, path: &str, client: &str) -> TcpStream {
    let mut tcp = connect(pillion.http);
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n");
    tcp.write_all(request.as_bytes()).unwrap();
    tcp
}

#[test]
fn n3_4_one_client_never_holds_all_places_and_the_freed_one_goes_to_who_holds_fewest() {
    let (app, seen, release) = holding();
    let server = "trusted_proxies = [\"127.0.0.1\"]\n";
    let pillion = pillion(app.address, server, "max_connections = 8\nqueue_timeout = \"15s\"\n");
    // Two networks of one subscriber count as one client, whose ten requests get seven slots.
    let mut greedy: Vec<TcpStream> = (0..10)
        .map(|at| {
            ask(&pillion, &format!("/greedy/{at}"), if at % 2 == 0 { "2001:db8::1" } else { "2001:db8::2:1" })
        })
        .collect();
    for _ in 0..7 {
        assert!(seen.recv_timeout(PATIENCE).unwrap().starts_with("/greedy/"));
    }
    eventually_held(&pillion, 7.0);
    // The eighth slot is for another client at once, although three requests wait.
    let mut first = ask(&pillion, "/other/1", "192.0.2.7");
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), "/other/1");
    // Its next requests queue behind the three, and are served before them.
    let mut second = ask(&pillion, "/other/2", "192.0.2.7");
    crate::harness::eventually("four wait", || {
        let text = pillion.admin_get("/metrics").text();
        text.lines()
            .any(|line| line.starts_with("pillion_upstream_waiting{") && line.ends_with(" 4"))
            .then_some(())
    });
    release.send(()).unwrap();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), "/other/2", "one against six or seven");
    (0..12).for_each(|_| release.send(()).unwrap());
    for tcp in greedy.iter_mut().chain([&mut first, &mut second]) {
        assert_eq!(read_answer(tcp).status, 200);
    }
    eventually_held(&pillion, 0.0);
}

/// Without trusted proxies, a client cannot claim to be several clients.
#[test]
fn n3_4_a_client_cannot_make_itself_many() {
    let (app, seen, release) = holding();
    let pillion = pillion(app.address, "", "max_connections = 8\nqueue_timeout = \"15s\"\n");
    let mut clients: Vec<TcpStream> =
        (0..9).map(|at| ask(&pillion, &format!("/{at}"), &format!("192.0.2.{at}"))).collect();
    (0..7).for_each(|_| drop(seen.recv_timeout(PATIENCE).unwrap()));
    eventually_held(&pillion, 7.0);
    assert!(seen.recv_timeout(std::time::Duration::from_millis(300)).is_err(), "seven of eight");
    (0..9).for_each(|_| release.send(()).unwrap());
    clients.iter_mut().for_each(|tcp| assert_eq!(read_answer(tcp).status, 200));
}

/// A client that used up its share waits. No other client may wait for it just because it was first.
#[test]
fn n3_4_nobody_waits_for_the_fetch_of_a_client_that_waits_for_its_own_share() {
    let (app, seen, release) = holding();
    let pillion = Config::new(app.address)
        .server("trusted_proxies", ["127.0.0.1"])
        .upstream("max_connections", 8)
        .upstream("queue_timeout", "15s")
        .route("GET /hot/**", r#"cache = { ttl = "60s", scope = "shared" }"#)
        .start();
    let mut clients: Vec<TcpStream> =
        (0..7).map(|at| ask(&pillion, &format!("/greedy/{at}"), "192.0.2.6")).collect();
    (0..7).for_each(|_| drop(seen.recv_timeout(PATIENCE).unwrap()));
    eventually_held(&pillion, 7.0);
    let waits = |count: usize| {
        let wanted = format!(" {count}");
        crate::harness::eventually(&format!("{count} wait"), || {
            let text = pillion.admin_get("/metrics").text();
            let mut lines = text.lines();
            lines
                .any(|line| line.starts_with("pillion_upstream_waiting{") && line.ends_with(&wanted))
                .then_some(())
        });
    };
    clients.push(ask(&pillion, "/hot/1", "192.0.2.6"));
    waits(1);
    // Its own next request joins that one, without a place in the queue.
    clients.push(ask(&pillion, "/hot/1", "192.0.2.6"));
    clients.push(ask(&pillion, "/hot/1", "192.0.2.7"));
    let asked = seen.recv_timeout(std::time::Duration::from_secs(5));
    assert_eq!(asked.as_deref(), Ok("/hot/1"), "there is a place for another client");
    // Other requests join its fetch, so they need no slot.
    clients.push(ask(&pillion, "/hot/1", "192.0.2.8"));
    crate::harness::eventually("two joined a fetch", || {
        let text = pillion.admin_get("/metrics").text();
        let joined = text.lines().filter(|line| line.contains("cache") && line.contains("\"collapsed\""));
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        (joined.map(count).sum::<u64>() == 2).then_some(())
    });
    waits(1);
    (0..9).for_each(|_| release.send(()).unwrap());
    clients.iter_mut().for_each(|tcp| assert_eq!(read_answer(tcp).status, 200));
    eventually_held(&pillion, 0.0);
    let last = seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(last, "/hot/1", "the request of the first one");
    assert!(seen.try_recv().is_err(), "nothing else");
}
