//! Tests of collapsed requests of which one client reads slowly or not at all: it neither stops the others nor is
//! disconnected for them, and the buffered content stays within `max_size`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use super::tools::sent;
use crate::harness::{PATIENCE, Pillion, Script, eventually, head, now, read_answer};

const PIECE: usize = 64 * 1024;
const MIB: usize = 1 << 20;

/// Starts an app that sends one of `pieces` pieces of each response. It sends the rest when told to, or at once when
/// the sender is dropped. The response has a length if `length` returns true for the target.
fn app(pieces: usize, length: fn(&str) -> bool) -> (Script, Arc<AtomicUsize>, Sender<()>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (go_on, waits) = channel();
    let (count, waits) = (asked.clone(), std::sync::Mutex::new(waits));
    let script = Script::new(move |mut tcp| {
        while let Some(request) = head(&mut tcp) {
            count.fetch_add(1, Ordering::SeqCst);
            let content = "x".repeat(PIECE);
            let (framing, piece, end) = match length(&request) {
                true => (format!("content-length: {}", pieces * PIECE), content, ""),
                false => (
                    "transfer-encoding: chunked".to_owned(),
                    format!("{PIECE:x}\r\n{content}\r\n"),
                    "0\r\n\r\n",
                ),
            };
            let head = format!("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\n{framing}\r\n\r\n{piece}");
            if tcp.write_all(head.as_bytes()).is_err() {
                return;
            }
            let _ = waits.lock().unwrap().recv_timeout(PATIENCE);
            if !(1..pieces).all(|_| tcp.write_all(piece.as_bytes()).is_ok()) {
                return;
            }
            let _ = tcp.write_all(end.as_bytes());
        }
    });
    (script, asked, go_on)
}

fn pillion(app: &Script, cache: &str) -> Pillion {
    Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nbuffer_response = \"64KiB\"\n\
         [upstream]\nurl = \"http://{}\"\n[cache]\n{cache}\n",
        app.address
    ))
}

fn ask(pillion: &Pillion, target: &str) -> TcpStream {
    sent(pillion.http, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

/// Starts a client that reads the head, and only what arrives with it of the rest.
fn begin(pillion: &Pillion, target: &str) -> TcpStream {
    let mut tcp = ask(pillion, target);
    head(&mut tcp).unwrap();
    tcp
}

/// Starts clients that join the fetch.
fn joined(pillion: &Pillion, target: &str, count: usize) -> Vec<TcpStream> {
    let followers = (0..count).map(|_| ask(pillion, target)).collect();
    eventually("they joined the fetch", || (collapsed(pillion) == count as f64).then_some(()));
    followers
}

fn collapsed(pillion: &Pillion) -> f64 {
    pillion.metric(
        "pillion_cache_operations_total{operation=\"lookup\",result=\"collapsed\",route=\"unmatched\"}",
    )
}

/// Returns the bytes accounted against `max_size`.
fn cached(pillion: &Pillion) -> usize {
    let bytes = pillion.admin_get("/cache/stats").json()["bytes"].as_u64().unwrap();
    usize::try_from(bytes).unwrap()
}

/// Reads the chunked rest of a response. Returns its content bytes, and whether it was complete.
fn rest(tcp: &mut TcpStream) -> (usize, bool) {
    let (mut count, mut end, mut buffer) = (0, Vec::new(), vec![0; MIB]);
    while !end.ends_with(b"0\r\n\r\n") {
        match tcp.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                count += buffer[..read].iter().filter(|byte| **byte == b'x').count();
                end.extend_from_slice(&buffer[read.saturating_sub(5)..read]);
                end.drain(..end.len().saturating_sub(5));
            }
            Err(error) => panic!("{error} after {count} bytes"),
        }
    }
    (count, end.ends_with(b"0\r\n\r\n"))
}

/// Reads this many bytes, or fewer if the connection ends.
fn read(tcp: &mut TcpStream, mut bytes: usize) -> bool {
    let mut buffer = vec![0; MIB];
    while bytes > 0 {
        match tcp.read(&mut buffer[..bytes.min(MIB)]) {
            Ok(0) | Err(_) => return false,
            Ok(read) => bytes -= read,
        }
    }
    true
}

/// The content is too long to be stored, so each client gets a response of its own.
#[test]
fn n3_4_a_client_that_reads_nothing_neither_stops_others_nor_is_cut_off_for_them() {
    const PIECES: usize = 500;
    let (app, asked, go_on) = app(PIECES, |_| false);
    let pillion = pillion(&app, "max_object_size = \"1MiB\"");
    let mut leader = begin(&pillion, "/long");
    let followers = joined(&pillion, "/long", 3);
    drop(go_on);
    let since = now();
    let readers: Vec<_> = followers
        .into_iter()
        .map(|mut tcp| {
            tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            std::thread::spawn(move || (head(&mut tcp).is_some(), rest(&mut tcp)))
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), (true, (PIECES * PIECE, true)));
    }
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(rest(&mut leader), (PIECES * PIECE, true), "it was only slow");
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    // No request waits for the next one in vain.
    let mut next = begin(&pillion, "/long");
    assert_eq!(collapsed(&pillion), 3.0);
    assert_eq!(rest(&mut next), (PIECES * PIECE, true));
}

/// Storable content is fetched once for all clients, however they read it.
#[test]
fn n3_4_a_client_that_reads_nothing_leaves_the_whole_to_those_who_joined_it() {
    for length in [|_: &str| false, |_: &str| true] {
        const PIECES: usize = 100;
        let (app, asked, go_on) = app(PIECES, length);
        let pillion = pillion(&app, "");
        let mut leader = begin(&pillion, "/a");
        let followers = joined(&pillion, "/a", 3);
        drop(go_on);
        for mut follower in followers {
            let answer = read_answer(&mut follower);
            assert!(answer.field("cache-status").unwrap().contains("collapsed"), "{:?}", answer);
            assert_eq!(answer.body.len(), PIECES * PIECE);
        }
        assert!(read(&mut leader, PIECES * PIECE));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}

/// Clients wait at most five seconds for slow content of unknown length.
#[test]
fn n3_4_nobody_waits_for_the_end_of_a_response_for_longer_than_a_while() {
    let (app, asked, go_on) = app(3, |_| false);
    let pillion = pillion(&app, "");
    let mut leader = begin(&pillion, "/slow");
    let since = now();
    let mut follower = joined(&pillion, "/slow", 1).remove(0);
    assert!(head(&mut follower).is_some());
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let since = now();
    let mut next = begin(&pillion, "/slow");
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    drop(go_on);
    for tcp in [&mut leader, &mut follower, &mut next] {
        assert_eq!(rest(tcp), (3 * PIECE, true));
    }
}

/// If fetches in progress take all memory, none is shared, so no client waits for another.
#[test]
fn n3_4_where_there_is_no_room_for_the_content_nobody_shares_it() {
    const PIECES: usize = 96;
    let (app, asked, go_on) = app(PIECES, |_| true);
    let pillion = pillion(&app, "max_size = \"8MiB\"");
    let mut first = begin(&pillion, "/first");
    let mut leader = begin(&pillion, "/second");
    let mut follower = ask(&pillion, "/second");
    eventually("the app has them", || (asked.load(Ordering::SeqCst) == 3).then_some(()));
    drop(go_on);
    assert_eq!(read_answer(&mut follower).body.len(), PIECES * PIECE);
    for tcp in [&mut first, &mut leader] {
        assert!(read(tcp, PIECES * PIECE));
    }
    assert!(cached(&pillion) <= 8 * MIB, "{}", cached(&pillion));
}

/// Two clients of each URL read at equal speed until the content is too long to be stored; then one continues.
#[test]
fn n3_4_what_a_slow_client_has_not_read_yet_stays_within_max_size() {
    const PIECES: usize = 200;
    const URLS: usize = 16;
    let (app, _, go_on) = app(PIECES, |_| false);
    let pillion = pillion(&app, "max_size = \"8MiB\"\nmax_object_size = \"4MiB\"");
    drop(go_on);
    let before = pillion.process.resident();
    let mut clients = Vec::new();
    for number in 0..URLS {
        let target = format!("/long?{number}");
        let level = 4 * MIB + 300_000;
        let (mut fast, mut slow) = (ask(&pillion, &target), ask(&pillion, &target));
        let reader = std::thread::spawn(move || {
            assert!(read(&mut slow, level));
            slow
        });
        assert!(read(&mut fast, level));
        clients.push((fast, reader.join().unwrap()));
    }
    for (fast, _) in &mut clients {
        assert!(read(fast, 3 * MIB));
    }
    let (held, grown) = (cached(&pillion), pillion.process.resident().saturating_sub(before));
    assert!(held <= 8 * MIB + 2 * URLS * PIECE, "{held} bytes");
    // The cache, and the data read ahead for each client.
    assert!(grown < 32 * MIB as u64, "{grown} bytes");
    for (mut fast, mut slow) in clients {
        assert!(rest(&mut fast).1 && rest(&mut slow).1);
    }
}

/// Every connection has a fetch of its own, and no client reads its response.
#[test]
fn n3_4_clients_that_read_nothing_of_what_is_too_long_hold_no_more_than_max_size() {
    const CLIENTS: usize = 60;
    let (app, asked, go_on) = app(200, |_| false);
    let pillion = pillion(&app, "max_size = \"8MiB\"\nmax_object_size = \"4MiB\"");
    drop(go_on);
    let clients: Vec<TcpStream> =
        (0..CLIENTS).map(|number| begin(&pillion, &format!("/long?{number}"))).collect();
    eventually("all of them are on their way", || (asked.load(Ordering::SeqCst) == CLIENTS).then_some(()));
    let mut last = (0, now());
    let held = eventually("it holds still", || {
        let bytes = cached(&pillion);
        if bytes != last.0 {
            last = (bytes, now());
        }
        (last.1.elapsed().as_millis() > 500).then_some(bytes)
    });
    assert!(held <= 8 * MIB + CLIENTS * PIECE, "{held} bytes");
    for mut tcp in clients.into_iter().take(6) {
        assert_eq!(rest(&mut tcp), (200 * PIECE, true));
    }
}

/// A client that joined a fetch counts like the one whose request started it.
#[test]
fn n3_5_a_fetch_goes_on_for_those_who_wait_for_its_end() {
    const PIECES: usize = 20;
    let (app, asked, go_on) = app(PIECES, |_| false);
    let pillion = pillion(&app, "");
    let leader = begin(&pillion, "/a");
    let mut follower = joined(&pillion, "/a", 1).remove(0);
    drop(leader);
    eventually("the first has gone", || (pillion.metric("pillion_client_connections") <= 1.0).then_some(()));
    drop(go_on);
    assert_eq!(read_answer(&mut follower).body.len(), PIECES * PIECE);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// A waiting client gets nothing that was invalidated in the meantime.
#[test]
fn n1_1_who_waits_for_the_end_takes_nothing_that_was_invalidated_meanwhile() {
    const PIECES: usize = 3;
    let (app, asked, go_on) = app(PIECES, |request| request.starts_with("POST"));
    let pillion = pillion(&app, "");
    let mut leader = begin(&pillion, "/a");
    let mut follower = joined(&pillion, "/a", 1).remove(0);
    let write = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let mut write = sent(pillion.http, write);
    eventually("the app has the write", || (asked.load(Ordering::SeqCst) == 2).then_some(()));
    go_on.send(()).unwrap();
    go_on.send(()).unwrap();
    assert!(head(&mut write).is_some());
    assert_eq!(rest(&mut leader), (PIECES * PIECE, true));
    drop(go_on);
    assert_eq!(read_answer(&mut follower).body.len(), PIECES * PIECE);
    assert_eq!(asked.load(Ordering::SeqCst), 3, "it was fetched anew");
}
