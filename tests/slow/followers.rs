//! Several clients read one fetch of content that turns out too long to be stored, and one of them does not read.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::harness::{PATIENCE, Pillion, Script, head, now};
use crate::tools::sent;

const PIECE: usize = 64 * 1024;
const GET: &str = "GET /long HTTP/1.1\r\nHost: a\r\n\r\n";

/// An app whose responses have no known length: one piece, and `pieces` more once it is told to go on.
fn app(pieces: usize) -> (Script, Arc<AtomicUsize>, Sender<()>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (go_on, waits) = channel();
    let (count, waits) = (asked.clone(), std::sync::Mutex::new(waits));
    let script = Script::new(move |mut tcp| {
        while head(&mut tcp).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n";
            let piece = format!("{PIECE:x}\r\n{}\r\n", "x".repeat(PIECE));
            if tcp.write_all(format!("{head}{piece}").as_bytes()).is_err() {
                return;
            }
            let _ = waits.lock().unwrap().recv_timeout(PATIENCE);
            if !(0..pieces).all(|_| tcp.write_all(piece.as_bytes()).is_ok()) {
                return;
            }
            let _ = tcp.write_all(b"0\r\n\r\n");
        }
    });
    (script, asked, go_on)
}

fn pillion(app: &Script) -> Pillion {
    Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nbuffer_response = \"64KiB\"\n\
         [upstream]\nurl = \"http://{}\"\n[cache]\nmax_object_size = \"1MiB\"\n",
        app.address
    ))
}

/// Reads the head, and no more of the rest than comes with it.
fn begin(pillion: &Pillion) -> (TcpStream, String) {
    let mut tcp = sent(pillion.http, GET);
    let head = head(&mut tcp).unwrap();
    (tcp, head)
}

/// The chunked rest of a response: its content bytes, and whether it came to its end.
fn rest(tcp: &mut TcpStream) -> (usize, bool) {
    let (mut raw, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    while !raw.ends_with(b"0\r\n\r\n") {
        match tcp.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => raw.extend_from_slice(&buffer[..count]),
            Err(error) => panic!("{error} after {} bytes", raw.len()),
        }
    }
    (raw.iter().filter(|byte| **byte == b'x').count(), raw.ends_with(b"0\r\n\r\n"))
}

#[test]
fn n3_4_a_client_that_reads_nothing_does_not_stop_those_who_joined_its_fetch() {
    const PIECES: usize = 500;
    let (app, asked, go_on) = app(PIECES);
    let pillion = pillion(&app);
    let (mut leader, _) = begin(&pillion);
    let mut followers: Vec<TcpStream> = (0..3)
        .map(|_| {
            let (follower, head) = begin(&pillion);
            assert!(head.contains("collapsed"), "{head}");
            follower
        })
        .collect();
    go_on.send(()).unwrap();
    let since = now();
    for tcp in &mut followers {
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let readers: Vec<_> =
        followers.into_iter().map(|mut tcp| std::thread::spawn(move || rest(&mut tcp))).collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), ((PIECES + 1) * PIECE, true));
    }
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 1, "one fetch served them all");
    // The leader has what was sent to it, and no end that would make that look whole.
    let (_, whole) = rest(&mut leader);
    assert!(!whole);
    assert!(pillion.log().contains("a client that read too slowly"), "{}", pillion.log());
}

/// Who is no further behind than what may be stored gets all of it.
#[test]
fn n3_4_a_client_that_pauses_gets_the_whole_of_what_others_read_before() {
    const PIECES: usize = 18;
    let (app, asked, go_on) = app(PIECES);
    let pillion = pillion(&app);
    let (mut leader, _) = begin(&pillion);
    let (mut follower, head) = begin(&pillion);
    assert!(head.contains("collapsed"), "{head}");
    go_on.send(()).unwrap();
    assert_eq!(rest(&mut follower), ((PIECES + 1) * PIECE, true));
    assert_eq!(rest(&mut leader), ((PIECES + 1) * PIECE, true));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
