//! Tests that no content is delayed.

use std::io::{BufReader, Read, Write};
use std::process::Command;
use std::time::Duration;

use super::tools::{JSON, get, items};
use crate::harness::{Pillion, Request, Script, connect, now};

/// Starts an app that sends a chunk when it is told to.
fn paced(fields: &'static str) -> (Script, std::sync::mpsc::Sender<String>) {
    let (sender, receiver) = std::sync::mpsc::channel::<String>();
    let receiver = std::sync::Mutex::new(receiver);
    let app = Script::new(move |mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        write!(tcp, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{fields}\r\n").unwrap();
        let receiver = receiver.lock().unwrap();
        while let Ok(words) = receiver.recv() {
            write!(tcp, "{:x}\r\n{words}\r\n", words.len()).unwrap();
        }
        let _ = tcp.write_all(b"0\r\n\r\n");
    });
    (app, sender)
}

/// A client that reads as a browser does returns the content that it could decode so far.
#[test]
fn what_the_app_says_is_decodable_soon_although_it_goes_on_later() {
    for coding in ["gzip", "br", "zstd"] {
        let (app, say) = paced(JSON);
        let pillion = Pillion::in_front_of(app.address);
        let mut curl = Command::new("curl")
            .args(["-sN", "--compressed", "-H", &format!("Accept-Encoding: {coding}"), &pillion.url("/")])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(curl.stdout.take().unwrap());
        // The first chunk decides that compression is worthwhile.
        for words in [items(50), "soon".to_owned(), items(3), "and so on".to_owned()] {
            let since = now();
            say.send(words.clone()).unwrap();
            let mut read = vec![0; words.len()];
            reader.read_exact(&mut read).unwrap();
            assert!(read == words.as_bytes(), "{coding}");
            assert!(since.elapsed() < Duration::from_secs(2), "{coding}: {:?}", since.elapsed());
        }
        drop(say);
        assert!(curl.wait().unwrap().success(), "{coding}");
        assert!(pillion.metric(&format!("pillion_content_total{{result=\"{coding}\"}}")) == 1.0);
    }
}

#[test]
fn content_of_unknown_length_is_judged_by_its_beginning() {
    // Less than `min_size`, then a pause: sent without a coding.
    let (app, say) = paced(JSON);
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\n\r\n").unwrap();
    say.send("[1,".to_owned()).unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"[1,") {
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let head = String::from_utf8(seen).unwrap();
    assert!(!head.contains("content-encoding") && head.contains("vary: accept-encoding"), "{head}");
    drop(say);

    // Less than `min_size`, then the end: sent with a length and a tag.
    let small = Script::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n3\r\n[1]\r\n0\r\n\r\n".to_vec()
    });
    let pillion = Pillion::in_front_of(small.address);
    let answer = get(&pillion, "/", "accept-encoding: gzip\r\n");
    assert_eq!(answer.field("content-length").as_deref(), Some("3"));
    assert!(answer.field("etag").is_some() && answer.field("content-encoding").is_none());
}

/// An app that stalls in the middle of content of known length: the beginning is forwarded without a tag, instead of
/// being held until a tag can be made.
#[test]
fn nothing_is_held_back_for_a_tag() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning").unwrap();
        // Waits until the client has seen the beginning and leaves.
        let _ = tcp.read(&mut [0]);
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"beginning") {
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(!String::from_utf8(seen).unwrap().contains("etag"));
}

/// Regression: 60 KB of unclosed quotes blocked a worker for half a second, because each was searched for to the end of
/// the value.
#[test]
fn n3_1_a_long_header_value_takes_linear_time() {
    /// Returns the CPU time of all threads in the kernel's ticks.
    fn ticks(pillion: &Pillion) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pillion.process.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
    const REQUESTS: usize = 40;
    // Reads as fast as it can, and sends the Cache-Control that the path names.
    let app = Script::new(|mut tcp| {
        let mut head = Vec::new();
        let mut piece = vec![0; 128 * 1024];
        while let Ok(count) = tcp.read(&mut piece) {
            head.extend_from_slice(&piece[..count]);
            if count == 0 {
                return;
            }
            if head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&head[..20]).into_owned();
                let length: usize = text[5..].split(' ').next().unwrap().parse().unwrap();
                let said = "\"\\".repeat(length / 2);
                write!(tcp, "HTTP/1.1 200 OK\r\ncache-control: {said}\r\ncontent-length: 2\r\n\r\nhi")
                    .unwrap();
                head.clear();
            }
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let cost = |names: &[&str], length: usize| {
        let value = "\"\\".repeat(length / 2 / names.len().max(1));
        let fields: String = names.iter().map(|name| format!("{name}: {value}\r\n")).collect();
        let said = if names.is_empty() { length } else { 0 };
        let request = format!("GET /{said} HTTP/1.1\r\nhost: t\r\n{fields}\r\n");
        let run = |_| {
            let before = ticks(&pillion);
            let mut tcp = connect(pillion.http);
            for _ in 0..REQUESTS {
                tcp.write_all(request.as_bytes()).unwrap();
                let mut answer = Vec::new();
                let mut piece = vec![0; 128 * 1024];
                while !answer.ends_with(b"hi") {
                    let count = tcp.read(&mut piece).unwrap();
                    assert!(count > 0);
                    answer.extend_from_slice(&piece[..count]);
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..100]));
            }
            ticks(&pillion) - before
        };
        (0..3).map(run).min().unwrap()
    };
    for names in [
        &[][..],
        &["cache-control"],
        &["accept-encoding"],
        &["pragma"],
        &["if-none-match", "if-match"],
        &["range", "if-range"],
        &["cookie", "x-forwarded-for", "forwarded"],
    ] {
        let (small, large) = (cost(names, 7_500), cost(names, 60_000));
        // Eight times the bytes. One or two ticks are inaccuracy of the clock.
        assert!(large <= 12 * small.max(2), "{names:?}: {small} and {large} ticks for {REQUESTS} requests");
    }
}
