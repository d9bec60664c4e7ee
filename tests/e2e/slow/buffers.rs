//! Tests of the buffers of HTTP/1 connections: their capacity is accounted and bounded. Whatever clients send and
//! however little they read, memory grows by no more than the accounted amount and a little for each connection.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::tools::pillion;
use crate::harness::{Pillion, Script, connect, eventually, head, now};

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
/// Memory of a waiting connection, its request and its place in the queue, in bytes.
const OF_A_CONNECTION: u64 = 32 * KIB;
/// By so much one worker may exceed what a client may hold: by one read of 128 KiB and what is queued of it, as their length
/// is not known before.
const READ: u64 = 288 * KIB;
/// What a response that finds no room holds in any case, so that its client gets on: 16 KiB that are counted for its
/// connection, and two reads of 4 KiB, one of which is being written and counted by half more, with an eighth more for the
/// allocator and the list they stand in.
const FLOOR: u64 = 28 * KIB;

/// An app that reads heads but no content, and never responds.
struct Deaf {
    script: Script,
    ended: Arc<AtomicBool>,
}

fn deaf() -> Deaf {
    let ended = Arc::new(AtomicBool::new(false));
    let ends = ended.clone();
    let script = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            while !ends.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    });
    Deaf { script, ended }
}

/// Starts an app whose responses may be stored, and have `length` bytes in chunks.
fn chunks(length: usize) -> Script {
    Script::new(move |mut tcp| {
        while head(&mut tcp).is_some() {
            let head = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunk = [b"4000\r\n", &[b'x'; 0x4000][..], b"\r\n"].concat();
            let mut wire = (0..length / 0x4000).map(|_| &chunk[..]).chain([&b"0\r\n\r\n"[..]]);
            if tcp.write_all(head).is_err() || wire.any(|piece| tcp.write_all(piece).is_err()) {
                return;
            }
        }
    })
}

/// Starts clients that sent their head and as much of `content` as is read, and read nothing.
fn clients(
    pillion: &Pillion,
    count: usize,
    head: impl Fn(usize) -> String,
    content: &[u8],
) -> Vec<TcpStream> {
    let client = |at| {
        let mut tcp = connect(pillion.http);
        tcp.write_all(head(at).as_bytes()).unwrap();
        tcp.set_nonblocking(true).unwrap();
        (tcp, content)
    };
    let mut clients: Vec<(TcpStream, &[u8])> = (0..count).map(client).collect();
    let mut last = now();
    eventually("none has taken anything for a while", || {
        for (tcp, left) in &mut clients {
            while let Ok(count @ 1..) = tcp.write(left) {
                *left = &left[count..];
                last = now();
            }
        }
        (last.elapsed().as_millis() > 700).then_some(())
    });
    clients.into_iter().map(|(tcp, _)| tcp).collect()
}

/// What is counted, once it does not change any more.
fn settled(pillion: &Pillion) -> u64 {
    let counted = || pillion.metric("pillion_buffered_bytes") as u64;
    let (mut last, mut since) = (counted(), now());
    eventually("it goes on changing", || {
        let counted = counted();
        if counted != last {
            (last, since) = (counted, now());
        }
        (since.elapsed().as_millis() > 700).then_some(last)
    })
}

/// By how much memory grows while `count` clients hang that sent `wire`: at most by what is counted and what as many
/// connections take. `beside`: bytes of the cache. `most`: bytes that may be counted.
#[track_caller]
fn holds(
    pillion: &Pillion,
    count: usize,
    (beside, most_counted): (u64, u64),
    head: impl Fn(usize) -> String,
    content: &[u8],
    end: impl FnOnce(),
) {
    pillion.wait_until_ready();
    let before = pillion.process.resident();
    let clients = clients(pillion, count, head, content);
    let (counted, grown) = (pillion.metric("pillion_buffered_bytes"), pillion.process.resident() - before);
    let most = counted as u64 / 10 * 11 + count as u64 * OF_A_CONNECTION + beside + 2 * MIB;
    assert!(grown <= most, "{} KiB more, {} KiB counted", grown / KIB, counted as u64 / KIB);
    assert!(counted as u64 <= most_counted, "{} KiB counted of {}", counted as u64 / KIB, most_counted / KIB);
    drop(clients);
    end();
    eventually("all is given back", || (pillion.metric("pillion_buffered_bytes") == 0.0).then_some(()));
}

const SERVER: &str = "buffer_memory = \"8MiB\"\n";
/// What one client may hold of that: 7/8.
const SHARE: u64 = 7 * MIB;
/// What requests may: a MiB beyond the limit, and one more for what is read meanwhile.
const OF_REQUESTS: u64 = 10 * MIB;

fn get(at: usize) -> String {
    format!("GET /{at} HTTP/1.1\r\nhost: a\r\n\r\n")
}

fn post(framing: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n")
}

/// Regression: read buffers grew to 128 KiB for each connection without being accounted.
#[test]
fn n3_4_uploads_of_very_small_chunks_are_counted_by_their_buffers() {
    let app = deaf();
    let end = || app.ended.store(true, Ordering::SeqCst);
    let pillion = pillion(app.script.address, SERVER, "");
    holds(
        &pillion,
        100,
        (0, OF_REQUESTS),
        |_| post("transfer-encoding: chunked"),
        &b"1\r\nx\r\n".repeat(30_000),
        end,
    );
}

/// Regression: each chunk after a large one was queued as a slice of its own, 64 bytes for one.
#[test]
fn n3_4_very_small_chunks_behind_a_large_one_are_queued_in_one_buffer() {
    let app = deaf();
    let end = || app.ended.store(true, Ordering::SeqCst);
    let pillion = pillion(app.script.address, SERVER, "");
    let large = [b"80000\r\n", &[b'x'; 0x80000][..], b"\r\n"].concat().repeat(8);
    let small = b"1\r\nx\r\n".repeat(80_000);
    // Memory that the allocator keeps for buffers of this size.
    let beside = 3 * MIB;
    holds(
        &pillion,
        12,
        (beside, OF_REQUESTS),
        |_| post("transfer-encoding: chunked"),
        &[large, small].concat(),
        end,
    );
}

/// Content that the app does not read waits in a queue of up to 256 KiB for each connection.
#[test]
fn n3_4_uploads_that_the_app_does_not_read_are_counted() {
    let app = deaf();
    let end = || app.ended.store(true, Ordering::SeqCst);
    let pillion = pillion(app.script.address, SERVER, "");
    holds(&pillion, 60, (0, OF_REQUESTS), |_| post("content-length: 100000000"), &vec![b'x'; 16 << 20], end);
}

/// Regression: 40 KB of 60 KB took pieces of 16 KiB while waiting, beside an enlarged read buffer.
#[test]
fn n3_4_uploads_that_pause_are_counted_by_their_buffers() {
    let app = deaf();
    let end = || app.ended.store(true, Ordering::SeqCst);
    let pillion = pillion(app.script.address, SERVER, "");
    holds(&pillion, 180, (0, OF_REQUESTS), |_| post("content-length: 60000"), &[b'x'; 33_000], end);
}

/// Regression: a head of 60 KB kept its read buffer of 84 KiB or more.
#[test]
fn n3_1_large_heads_hold_no_more_than_is_counted() {
    let app = deaf();
    let end = || app.ended.store(true, Ordering::SeqCst);
    let pillion = pillion(app.script.address, SERVER, "max_connections = 16\n");
    let rest = format!("x-a: {}\r\n\r\n", "x".repeat(60_000));
    holds(
        &pillion,
        130,
        (0, OF_REQUESTS),
        |at| format!("GET /{at} HTTP/1.1\r\nhost: a\r\n"),
        rest.as_bytes(),
        end,
    );
}

/// Regression: refused connections stay for two seconds, and kept what they had sent.
#[test]
fn n3_6_half_heads_that_are_refused_hold_no_buffers() {
    let app = deaf();
    let end = || app.ended.store(true, Ordering::SeqCst);
    let pillion = pillion(app.script.address, SERVER, "");
    let rest = format!("x-a: {}", "x".repeat(60_000));
    holds(
        &pillion,
        500,
        (0, OF_REQUESTS),
        |at| format!("GET /{at} HTTP/1.1\r\nhost: a\r\n"),
        rest.as_bytes(),
        end,
    );
}

/// With a small cache, which has no room for all that `app` sends.
fn with_small_cache(app: &Script) -> Pillion {
    Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{SERVER}[upstream]\nurl = \"http://{}\"\n\
         [cache]\nmax_size = \"4MiB\"\nmax_object_size = \"4MiB\"\n",
        app.address
    ))
}

/// Regression: each response without room in the cache held 128 KiB that was not accounted.
#[test]
fn n3_4_objects_that_find_no_room_in_the_cache_are_counted() {
    let app = chunks(4 << 20);
    let pillion = with_small_cache(&app);
    let most = SHARE + 2 * READ + 200 * FLOOR;
    holds(&pillion, 200, (14 * MIB, most), get, b"", || ());
}

/// The worst order: a few clients use up the memory before the others come.
#[test]
fn n3_4_a_response_that_finds_no_room_holds_one_small_piece() {
    let app = chunks(4 << 20);
    let pillion = with_small_cache(&app);
    pillion.wait_until_ready();
    let few = clients(&pillion, 40, get, b"");
    let before = settled(&pillion);
    assert!(before <= SHARE + 2 * READ + 40 * FLOOR, "{} KiB counted", before / KIB);
    let many = clients(&pillion, 100, |at| get(1000 + at), b"");
    // On a busy machine the first of them may come after a while in which nothing changed.
    eventually("the many are counted", || {
        let counted = pillion.metric("pillion_buffered_bytes") as u64;
        (counted > before + 100 * FLOOR / 2).then_some(())
    });
    let more = settled(&pillion).saturating_sub(before);
    assert!(more > 100 * FLOOR / 2 && more <= 100 * FLOOR, "{} KiB more", more / KIB);
    drop((few, many));
    eventually("all is given back", || (pillion.metric("pillion_buffered_bytes") == 0.0).then_some(()));
}
