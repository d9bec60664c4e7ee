//! Tests of fetches: requests that collapse into one, clients that leave theirs, responses that are cut short, and bounds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::tools::{begin, gone, leave, wait_for};
use crate::harness::holding::Raise;
use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn one_fetch_for_a_thousand_who_ask_at_once() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = fetched.clone();
    let script = Script::new(move |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncache-control: max-age=60\r\ncontent-length: 2000\r\n\r\n";
            tcp.write_all(head.as_bytes()).unwrap();
            // The content arrives slowly, in pieces, and collapsed requests read it as it arrives.
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(20));
                tcp.write_all(&[b'x'; 100]).unwrap();
            }
        }
    });
    let pillion = Pillion::in_front_of(script.address);
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let data = pillion.http;
            std::thread::spawn(move || {
                let mut tcp = connect(data);
                for _ in 0..10 {
                    tcp.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                }
                for _ in 0..10 {
                    assert_eq!(read_answer(&mut tcp).body, vec![b'x'; 2000]);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(fetched.load(Ordering::SeqCst), 1);
}

#[test]
fn a_fetch_outlives_the_client_that_began_it() {
    let release = Arc::new(AtomicUsize::new(0));
    let (hold, asked) = (release.clone(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let script = Script::answering(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        eventually("the release", || (hold.load(Ordering::SeqCst) > 0).then_some(()));
        answer(request, "cache-control: max-age=60", "content")
    });
    let pillion = Pillion::in_front_of(script.address);
    let mut first = connect(pillion.http);
    first.write_all(b"GET /a HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
    eventually("the fetch", || (asked.load(Ordering::SeqCst) == 1).then_some(()));
    let mut second = connect(pillion.http);
    second.write_all(b"GET /a HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
    eventually("the second to wait", || {
        (pillion.metric(
            "pillion_cache_operations_total{operation=\"lookup\",result=\"collapsed\",route=\"unmatched\"}",
        ) >= 1.0)
            .then_some(())
    });
    drop(first);
    eventually("the first to be gone", || {
        (pillion.metric("pillion_client_connections") <= 2.0).then_some(())
    });
    release.store(1, Ordering::SeqCst);
    assert_eq!(read_answer(&mut second).text(), "content");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(status_of(&get(&pillion, "/a")).contains("hit"));
}

#[test]
fn what_is_cut_short_is_not_stored() {
    let count = AtomicUsize::new(0);
    let script = Script::new(move |mut tcp: TcpStream| {
        while Request::read(&mut tcp).is_some() {
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 10\r\n\r\n";
            tcp.write_all(head.as_bytes()).unwrap();
            let whole = count.fetch_add(1, Ordering::SeqCst) > 0;
            std::thread::sleep(Duration::from_millis(50));
            tcp.write_all(if whole { b"0123456789" } else { b"01234" }).unwrap();
            if !whole {
                return;
            }
        }
    });
    let pillion = Pillion::in_front_of(script.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET /a HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").unwrap();
    let mut raw = Vec::new();
    let _ = tcp.read_to_end(&mut raw);
    assert!(!raw.ends_with(b"0123456789"));
    assert_eq!(get(&pillion, "/a").text(), "0123456789");
    assert!(status_of(&get(&pillion, "/a")).contains("hit"));
}

/// Regression: 256 fetches continued where 32 are promised, because fetches past their head were not counted.
#[test]
fn n3_5_reads_whose_clients_left_are_bounded_wherever_they_are() {
    const CLIENTS: usize = 50;
    let (began, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (start, end) = (began.clone(), broken.clone());
    let script = Script::new(move |mut tcp| {
        let Some(head) = script::head(&mut tcp) else { return };
        start.fetch_add(1, Ordering::SeqCst);
        if head.contains("/body") {
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nbegin";
            let _ = tcp.write_all(head.as_bytes());
        }
        while matches!(std::io::Read::read(&mut tcp, &mut [0]), Ok(1..)) {}
        end.fetch_add(1, Ordering::SeqCst);
    });
    let config = |more: &str| {
        format!(
            "[upstream]\nurl = \"http://{}\"\n{more}[[routes]]\nmatch = \"GET /**\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n",
            script.address
        )
    };
    for (more, most) in [("", 32), ("max_connections = 128\n", 16)] {
        let pillion = Pillion::with(&config(more));
        let before = [&began, &broken].map(|count| count.load(Ordering::SeqCst));
        let ask = |path: &str| begin(&pillion, &format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n"));
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(ask(&format!("/head/{number}")));
            let mut client = ask(&format!("/body/{number}"));
            assert!(script::head(&mut client).unwrap().starts_with("HTTP/1.1 200"));
            clients.push(client);
        }
        wait_for("all are asked for", &began, before[0] + 2 * CLIENTS);
        clients.into_iter().for_each(leave);
        gone(&pillion);
        wait_for("the others are given up", &broken, before[1] + 2 * CLIENTS - most);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(broken.load(Ordering::SeqCst), before[1] + 2 * CLIENTS - most, "and these go on");
    }
}

/// A fetch in the background, while stale responses are served, never has a client.
#[test]
fn n3_5_fetches_in_the_background_are_bounded_too() {
    let (held, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, released) = (held.clone(), release.clone());
    let script = Script::answering(move |request| {
        if request.field("if-none-match").is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            while !released.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        answer(request, "cache-control: max-age=0, stale-while-revalidate=600\r\netag: \"1\"", "content")
    });
    let pillion = Pillion::in_front_of(script.address);
    let _released = Raise(&release);
    let all =
        || (0..60).for_each(|number| assert_eq!(get(&pillion, &format!("/{number}")).text(), "content"));
    all();
    all();
    wait_for("the first of them", &held, 32);
    all();
    assert_eq!(held.load(Ordering::SeqCst), 32);
    release.store(true, Ordering::SeqCst);
    eventually("the others have their turn", || {
        all();
        (held.load(Ordering::SeqCst) >= 60).then_some(())
    });
}
