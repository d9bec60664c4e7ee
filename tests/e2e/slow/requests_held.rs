//! Tests that requests waiting for the upstream stay within `buffer_memory`, however few bytes on the wire they were
//! made of.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::tools::pillion;
use crate::harness::{Pillion, Script, connect, eventually, exchange, head, ok};

const MIB: u64 = 1 << 20;

const REFUSED: &str = "pillion_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"503\"}";

/// The metric of requests refused before their route is determined.
const REFUSED_AT_ONCE: &str = "pillion_http_requests_total{method=\"GET\",route=\"refused\",status=\"503\"}";

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Starts an app that responds at once under `/free`, and never under any other path.
fn app() -> Script {
    Script::new(|mut tcp| {
        while let Some(head) = head(&mut tcp) {
            if !head.starts_with("GET /free") {
                let _ = tcp.read(&mut [0]);
                return;
            }
            if tcp.write_all(&ok("free")).is_err() {
                return;
            }
        }
    })
}

/// Opens a connection whose requests have, `times` over, the field that `first` adds to the HPACK table.
fn indexed(pillion: &Pillion, streams: u32, first: &[u8], times: usize) -> TcpStream {
    let mut tcp = connect(pillion.http);
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    wire.extend(frame(SETTINGS, 0, 0, &[]));
    // The fields GET, http and `/`, and an authority that is not added to the table.
    let request = b"\x82\x86\x84\x01\x01a";
    for at in 0..streams {
        let field = if at == 0 { first } else { b"" };
        let block = [&request[..], field, &vec![0xbe; times]].concat();
        wire.extend(frame(HEADERS, END_STREAM | END_HEADERS, 2 * at + 1, &block));
    }
    // Responses that refuse requests in the meantime do not matter here.
    tcp.write_all(&wire).unwrap();
    tcp
}

/// Encodes `name: value` for the table. `name` is given as literal or index bytes.
fn put_into_table(name: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = value.len() - 127;
    [name, &[0x7f, (rest & 0x7f) as u8 | 0x80, (rest >> 7) as u8], value].concat()
}

/// Opens connections of `streams` requests each. Their memory is bounded, and other clients are served.
#[track_caller]
fn flood(first: &[u8], times: usize) {
    let app = app();
    let server = "buffer_memory = \"16MiB\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let pillion = pillion(app.address, server, "queue_timeout = \"60s\"\n");
    pillion.wait_until_ready();
    let before = pillion.process.resident();
    let clients: Vec<TcpStream> = (0..10).map(|_| indexed(&pillion, 100, first, times)).collect();
    let requests = "pillion_http_requests_in_flight";
    eventually("they wait, or are refused", || {
        let refused = pillion.metric(REFUSED) + pillion.metric(REFUSED_AT_ONCE);
        (pillion.metric(requests) + refused >= 1000.0).then_some(())
    });
    let (held, grown) = (pillion.metric("pillion_buffered_bytes"), pillion.process.resident() - before);
    assert!(grown < 40 * MIB, "{} MiB more, {held} bytes counted", grown / MIB);
    assert!((12e6..17.0 * MIB as f64).contains(&held), "{held} bytes are counted");
    let other = "GET /free HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.9\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(pillion.http, other).status, 200, "another client is served");
    drop(clients);
    eventually("all is given back", || (pillion.metric("pillion_buffered_bytes") == 0.0).then_some(()));
}

#[test]
fn n3_4_crumbs_of_cookies_that_wait_are_counted() {
    // 16 times 3,900 bytes, each of one byte on the wire (RFC 9113 8.2.3, RFC 7541 6.1).
    flood(&put_into_table(b"\x60", &[b'x'; 3900]), 15);
}

#[test]
fn n3_4_many_small_fields_that_wait_are_counted() {
    // 250 fields of a few bytes, each of which takes a hundred bytes in a map.
    flood(b"\x40\x01x\x01y", 250);
}

#[test]
fn n3_4_large_heads_of_http_1_that_wait_are_counted() {
    let app = app();
    let server = "buffer_memory = \"4MiB\"\n";
    let pillion = pillion(app.address, server, "queue_timeout = \"60s\"\nmax_connections = 16\n");
    pillion.wait_until_ready();
    let large = format!("GET /held HTTP/1.1\r\nhost: a\r\ncookie: a={}\r\n\r\n", "x".repeat(60_000));
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(large.as_bytes()).unwrap();
        clients.push(tcp);
    }
    eventually("they wait", || (pillion.metric("pillion_buffered_bytes") > 3e6).then_some(()));
    // 200 heads of 60 KB are 12 MB.
    eventually("the rest is refused", || (pillion.metric(REFUSED) > 100.0).then_some(()));
    assert!(pillion.metric("pillion_buffered_bytes") < 5.0 * MIB as f64 + 65e3);
    drop(clients);
    eventually("all is given back", || (pillion.metric("pillion_buffered_bytes") == 0.0).then_some(()));
    let request = format!(
        "GET /free HTTP/1.1\r\nhost: a\r\ncookie: a={}\r\nconnection: close\r\n\r\n",
        "x".repeat(60_000)
    );
    assert_eq!(exchange(pillion.http, &request).status, 200);
}

/// Incomplete heads are accounted like complete ones, and one too many is refused.
#[test]
fn n3_4_half_heads_of_http_1_are_counted() {
    let app = app();
    let pillion = pillion(app.address, "buffer_memory = \"4MiB\"\n", "");
    pillion.wait_until_ready();
    let half = format!("GET /half HTTP/1.1\r\nhost: a\r\nx-large: {}", "x".repeat(60 * 1024));
    let clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut tcp = connect(pillion.http);
            // A refused connection may be closed before everything was written.
            let _ = tcp.write_all(half.as_bytes());
            tcp
        })
        .collect();
    let held = eventually("some are held and others refused", || {
        let (held, refused) = (pillion.metric("pillion_buffered_bytes"), pillion.metric(REFUSED_AT_ONCE));
        (held / 61e3 + refused >= 95.0).then_some(held)
    });
    assert!((3e6..4.0 * MIB as f64).contains(&held), "{held} bytes are counted");
    drop(clients);
    eventually("all is given back", || (pillion.metric("pillion_buffered_bytes") == 0.0).then_some(()));
}
