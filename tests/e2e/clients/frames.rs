//! Tests with hand-written HTTP/2 frames, for inputs that no library sends.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::{Pillion, Script, connect, raw};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns the next frame: type, flags, stream and payload.
fn read_frame(tcp: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0u8; 9];
    tcp.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0u8; length];
    tcp.read_exact(&mut payload).ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, payload))
}

#[test]
fn n4_10_request_trailers_with_a_pseudo_field_reset_their_stream_alone() {
    let (sender, seen) = std::sync::mpsc::channel();
    let app = Script::new(move |mut tcp| {
        let mut all = Vec::new();
        let mut some = [0u8; 1024];
        while let Ok(count @ 1..) = tcp.read(&mut some) {
            all.extend_from_slice(&some[..count]);
            if all.starts_with(b"GET ") && all.ends_with(b"\r\n\r\n") {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                all.clear();
            }
        }
        let _ = sender.send(String::from_utf8_lossy(&all).into_owned());
    });
    let pillion = Pillion::in_front_of(app.address);
    // `:status: 200` and `:path: /`, from the static table and as literals.
    for pseudo in [&b"\x88"[..], b"\x84", b"\x00\x05:path\x02/x", b"\x00\x01t\x01v\x84"] {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        tcp.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
        tcp.write_all(&frame(HEADERS, END_HEADERS, 1, b"\x83\x86\x84\x41\x01a")).unwrap();
        tcp.write_all(&frame(DATA, 0, 1, b"body")).unwrap();
        tcp.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, pseudo)).unwrap();
        let (mut reset, mut answered) = (None, None);
        tcp.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x82\x86\x84\xbe")).unwrap();
        while reset.is_none() || answered.is_none() {
            let (kind, _, stream, payload) = read_frame(&mut tcp).expect("the connection goes on");
            match (kind, stream) {
                (RST_STREAM, 1) => reset = Some(payload),
                (HEADERS, 3) => answered = Some(payload[0]),
                _ => {}
            }
        }
        assert_eq!(reset, Some(vec![0, 0, 0, 1]), "PROTOCOL_ERROR: {pseudo:x?}");
        assert_eq!(answered, Some(0x88), "200 for the other stream: {pseudo:x?}");
    }
    // The app never saw the end of such a request.
    while let Ok(request) = seen.recv_timeout(std::time::Duration::from_millis(500)) {
        assert!(!request.ends_with("0\r\n\r\n"), "it looked whole: {request}");
    }
}

#[test]
fn n4_10_response_trailers_with_a_pseudo_field_never_look_whole() {
    let app = Script::new(|mut tcp| {
        let _ = tcp.read_exact(&mut [0u8; 24]);
        let _ = tcp.write_all(&frame(SETTINGS, 0, 0, &[]));
        while let Some((kind, _, stream, _)) = read_frame(&mut tcp) {
            if kind != HEADERS {
                continue;
            }
            // The second stream has ordinary trailers.
            let trailers = if stream == 1 { &b"\x84"[..] } else { b"\x00\x01t\x01v" };
            let _ = tcp.write_all(&frame(HEADERS, END_HEADERS, stream, b"\x08\x03103"));
            let _ = tcp.write_all(&frame(HEADERS, END_HEADERS, stream, b"\x88"));
            let _ = tcp.write_all(&frame(DATA, 0, stream, b"body"));
            let _ = tcp.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers));
        }
    });
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
         [upstream]\nurl = \"h2c://{}\"\n",
        app.address
    ));
    let get = || {
        let request = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: close, te\r\n\r\n";
        String::from_utf8_lossy(&raw(pillion.http, request)).into_owned()
    };
    let broken = get();
    assert!(!broken.ends_with("0\r\n\r\n"), "{broken}");
    let whole = get();
    assert!(whole.ends_with("0\r\nt: v\r\n\r\n"), "{whole}");
}
