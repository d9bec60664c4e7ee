//! Tests that HTTP/2 connections stay within `buffer_memory` beside their requests: unread uploads, endless heads, the
//! HPACK table, and many streams.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

use super::tools::{h2_body, h2_client, pillion};
use crate::harness::{Pillion, Request, Script, connect, eventually, ok};

const MIB: u64 = 1 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
}

/// Waits until the server announces its windows. Until then they are 64 KiB for the whole connection.
fn wait_for_windows(tcp: &mut TcpStream) {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    // A WINDOW_UPDATE of the connection.
    while !read.windows(9).any(|header| header == [0, 0, 4, 8, 0, 0, 0, 0, 0]) {
        let count = tcp.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "it closed");
        read.extend_from_slice(&buffer[..count]);
    }
}

/// Encodes a literal field, with or without adding it to the table (RFC 7541 6.2).
fn literal(first: u8, name: &str, value: &str) -> Vec<u8> {
    let length = value.len();
    let mut field = vec![first, name.len() as u8];
    field.extend(name.as_bytes());
    if length < 127 {
        field.push(length as u8);
    } else {
        field.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            field.push(rest as u8 | 0x80);
            rest /= 128;
        }
        field.push(rest as u8);
    }
    field.extend(value.as_bytes());
    field
}

fn buffered(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_buffered_bytes")
}

/// Starts an app that reads nothing of an upload to `/deaf`, never responds to `/hang`, and reports the length of any
/// other upload.
fn app() -> Script {
    Script::new(|mut tcp| {
        let mut begin = [0; 9];
        while tcp.peek(&mut begin).is_ok_and(|count| count > 0) {
            if begin.starts_with(b"POST /dea") {
                std::thread::park_timeout(crate::harness::PATIENCE);
                return;
            }
            let Some(request) = Request::read(&mut tcp) else { return };
            if begin.starts_with(b"GET /hang") {
                let _ = tcp.read(&mut [0]);
                return;
            }
            if tcp.write_all(&ok(&request.body.len().to_string())).is_err() {
                return;
            }
        }
    })
}

/// Opens a connection with uploads that nobody reads.
fn uploads(pillion: &Pillion, streams: u32) -> TcpStream {
    let mut tcp = connect(pillion.http);
    tcp.write_all(&preface()).unwrap();
    wait_for_windows(&mut tcp);
    let mut wire = Vec::new();
    for at in 0..streams {
        // The fields POST, http and `/deaf`.
        let mut block = b"\x83\x86\x04\x05/deaf\x01\x01a".to_vec();
        block.extend(literal(0, "content-length", "10000000"));
        wire.extend(frame(HEADERS, END_HEADERS, 2 * at + 1, &block));
        for _ in 0..4 {
            wire.extend(frame(DATA, 0, 2 * at + 1, &[b'x'; 15_000]));
        }
    }
    // Data without room is not read and waits in the kernel.
    tcp.set_nonblocking(true).unwrap();
    let mut sent = 0;
    eventually("all of it is sent, or the kernel holds what it can", || {
        match tcp.write(&wire[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Some(()),
            Err(error) => panic!("{error} after {sent} bytes"),
        }
        (sent == wire.len()).then_some(())
    });
    tcp
}

/// Six connections with 100 uploads of 60 KB would be 36 MB.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_uploads_of_http_2_that_nobody_reads_are_counted() {
    let app = app();
    let pillion =
        pillion(app.address, "buffer_memory = \"8MiB\"\n", "max_connections = 4\nqueue_timeout = \"60s\"\n");
    pillion.wait_until_ready();
    let before = pillion.process.resident();
    let clients: Vec<TcpStream> = (0..6).map(|_| uploads(&pillion, 100)).collect();
    eventually("the client's share is used up", || (buffered(&pillion) >= 7.0 * MIB as f64).then_some(()));
    let mut last = (pillion.process.resident(), crate::harness::now());
    let grown = eventually("it holds still", || {
        let resident = pillion.process.resident();
        if resident > last.0 + MIB / 4 {
            last = (resident, crate::harness::now());
        }
        (last.1.elapsed().as_millis() > 500).then_some(resident - before)
    });
    let held = buffered(&pillion);
    assert!(held < 9.0 * MIB as f64, "{held} bytes are counted");
    assert!(grown < 18 * MIB, "{} KiB more, {held} bytes counted", grown / 1024);
    drop(clients);
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

/// If a client used up its memory elsewhere, its connection is read only as its own uploads are consumed.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_an_upload_of_http_2_goes_on_where_there_is_no_memory() {
    let app = app();
    let upstreams = format!(
        "max_connections = 4\nqueue_timeout = \"60s\"\n[upstreams.other]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"POST /other\"\nupstream = \"other\"\n",
        app.address
    );
    let pillion = pillion(app.address, "buffer_memory = \"2MiB\"\n", &upstreams);
    pillion.wait_until_ready();
    let held: Vec<TcpStream> = (0..50).map(|_| uploads(&pillion, 1)).collect();
    eventually("the client's share is used up", || (buffered(&pillion) >= 1.75 * MIB as f64).then_some(()));
    let client = h2_client(pillion.http, 1 << 20).await;
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("http://a/other").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    let mut left = 400_000;
    while left > 0 {
        body.reserve_capacity(left.min(16_000));
        let poll = std::future::poll_fn(|cx| body.poll_capacity(cx));
        let room = tokio::time::timeout(crate::harness::PATIENCE, poll).await.expect("it is read");
        let size = room.unwrap().unwrap().min(left);
        left -= size;
        body.send_data(Bytes::from(vec![b'x'; size]), left == 0).unwrap();
    }
    let answer = tokio::time::timeout(crate::harness::PATIENCE, answer).await.expect("it ends").unwrap();
    assert_eq!(answer.status(), 200);
    drop(held);
    eventually("what was left behind is free", || (buffered(&pillion) < MIB as f64).then_some(()));
}

/// Endless heads are accounted as in HTTP/1, and one too many ends its connection.
#[test]
fn n3_4_half_heads_of_http_2_are_counted() {
    let app = app();
    let pillion = pillion(app.address, "buffer_memory = \"4MiB\"\n", "");
    pillion.wait_until_ready();
    let before = pillion.process.resident();
    let mut block = b"\x82\x86\x84\x01\x01a".to_vec();
    (0..58).for_each(|at| block.extend(literal(0, &format!("x{at}"), &"v".repeat(1000))));
    let mut wire = preface();
    for (at, piece) in block.chunks(16_384).enumerate() {
        wire.extend(frame(if at == 0 { HEADERS } else { CONTINUATION }, 0, 1, piece));
    }
    let clients: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut tcp = connect(pillion.http);
            // A refused connection may be closed before everything was written.
            let _ = tcp.write_all(&wire);
            tcp
        })
        .collect();
    let refused = "pillion_http_requests_total{method=\"GET\",route=\"refused\",status=\"503\"}";
    let held = eventually("some are held and others refused", || {
        let (held, refused) = (buffered(&pillion), pillion.metric(refused));
        (refused >= 100.0).then_some(held)
    });
    let grown = pillion.process.resident() - before;
    assert!((5e5..4.5 * MIB as f64).contains(&held), "{held} bytes are counted");
    assert!(grown < 12 * MIB, "{} KiB more, {held} bytes counted", grown / 1024);
    drop(clients);
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

/// A table entry of a few bytes keeps the whole buffer it was read from, for as long as it is in the table.
#[test]
fn n3_4_what_the_hpack_table_keeps_is_counted() {
    let app = app();
    let pillion = pillion(app.address, "buffer_memory = \"4MiB\"\n", "");
    pillion.wait_until_ready();
    let before = pillion.process.resident();
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..4 {
        let mut tcp = connect(pillion.http);
        let mut wire = preface();
        for at in 0..40u32 {
            let mut block = b"\x82\x86\x84\x01\x01a".to_vec();
            block.extend(literal(0x40, "x", "y"));
            (0..14).for_each(|at| block.extend(literal(0, &format!("x{at}"), &"v".repeat(1000))));
            wire.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * at + 1, &block));
        }
        let _ = tcp.write_all(&wire);
        clients.push(tcp);
    }
    // 4 times 40 times 15 KB are 2.4 MB.
    eventually("they are counted", || (buffered(&pillion) >= 2e6).then_some(()));
    eventually("no request is left", || {
        (pillion.metric("pillion_http_requests_in_flight") == 0.0).then_some(())
    });
    let (held, grown) = (buffered(&pillion), pillion.process.resident() - before);
    assert!((2e6..4.5 * MIB as f64).contains(&held), "{held} bytes are counted");
    assert!(grown < 14 * MIB, "{} KiB more, {held} bytes counted", grown / 1024);
    drop(clients);
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

/// Many small streams are accounted from their start to their end.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_many_streams_are_counted_until_they_end() {
    let app = app();
    let server = "buffer_memory = \"1MiB\"\n";
    let pillion = pillion(app.address, server, "max_connections = 4\nqueue_timeout = \"60s\"\n");
    pillion.wait_until_ready();
    let mut clients = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..8 {
        let mut client = h2_client(pillion.http, 0).await;
        for _ in 0..100 {
            client = client.ready().await.unwrap();
            let request = http::Request::get("http://a/hang").body(()).unwrap();
            answers.push(client.send_request(request, true).unwrap().0);
        }
        clients.push(client);
    }
    // 800 streams take more than 2 MiB, the minimum that requests may take. Requests without room are refused and hold
    // nothing.
    let refused = "pillion_http_requests_total{method=\"GET\",route=\"refused\",status=\"503\"}";
    eventually("they wait, or are refused", || {
        let waiting = pillion.metric("pillion_http_requests_in_flight");
        (waiting + pillion.metric(refused) >= 800.0).then_some(())
    });
    let held = buffered(&pillion);
    assert!((1.5e6..2.5 * MIB as f64).contains(&held), "{held} bytes are counted");
    // The windows of the client are closed, so only a response without content ends.
    let last = answers.pop().unwrap();
    let mut answer = tokio::time::timeout(crate::harness::PATIENCE, last).await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(h2_body(answer.body_mut()).await, b"");
    drop((clients, answers, answer));
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

/// Idle connections take memory too. If memory is short, an idle one makes room for a new one.
#[test]
fn n3_4_idle_connections_of_http_2_make_room() {
    let app = app();
    let pillion = pillion(app.address, "buffer_memory = \"1MiB\"\n", "");
    pillion.wait_until_ready();
    // A table entry of a few bytes keeps the 15 KB that were read with it.
    let mut block = b"\x82\x86\x84\x01\x01a".to_vec();
    block.extend(literal(0x40, "x", "y"));
    (0..14).for_each(|at| block.extend(literal(0, &format!("x{at}"), &"v".repeat(1000))));
    let clients: Vec<TcpStream> = (0..120)
        .map(|_| {
            let mut tcp = connect(pillion.http);
            let wire = [preface(), frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)].concat();
            tcp.write_all(&wire).unwrap();
            wait_for_windows(&mut tcp);
            tcp
        })
        .collect();
    let held = eventually("those beyond the memory are closed", || {
        let idle = pillion.metric("pillion_http_requests_in_flight") == 0.0;
        Some(buffered(&pillion)).filter(|held| idle && *held < 1.25 * MIB as f64)
    });
    assert!(held > 0.5 * MIB as f64, "{held} bytes are counted");
    let open = pillion.metric("pillion_client_connections");
    assert!((15.0..110.0).contains(&open), "{open} connections");
    drop(clients);
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}
