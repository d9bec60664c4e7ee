//! Tables for heads, framing and chunks, and the laws of the chunk decoder.

use bytes::BytesMut;
use http::{Method, StatusCode};
use proptest::prelude::*;

use super::chunked::{Decoded, Decoder};
use super::framing::{Framing, FramingError};
use super::head::{HeadLimits, parse_request, parse_response};
use super::head_error::HeadError;

const LIMITS: HeadLimits = HeadLimits { size: 4096, fields: 16 };

fn request(head: &str) -> Result<Option<Box<super::head::RequestHead>>, HeadError> {
    parse_request(&mut BytesMut::from(head), LIMITS)
}

/// The first line of Expect counts, and none that Connection names.
#[test]
fn expectations_of_100_continue() {
    for (fields, wanted) in [
        ("", false),
        ("Expect: 100-continue\r\n", true),
        ("expect: 100-Continue\r\n", true),
        ("Expect: 100-continue, other\r\n", false),
        ("Expect: 100-continue\r\nExpect: other\r\n", true),
        ("Expect: other\r\nExpect: 100-continue\r\n", false),
        ("Expect: 100-continue\r\nConnection: expect\r\n", false),
        ("Connection: close, Expect\r\nExpect: 100-continue\r\n", false),
    ] {
        let of = |version: &str| {
            let head = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
            request(&head).unwrap().unwrap().expects_continue
        };
        assert_eq!((of("1.1"), of("1.0")), (wanted, false), "{fields:?}");
    }
}

#[test]
fn heads_that_are_refused() {
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(5000));
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(16));
    let cases: &[(&str, HeadError)] = &[
        ("GET / HTTP/1.1\r\n\r\n", HeadError::Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HeadError::Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\nHost: a\r\n\r\n", HeadError::Host),
        ("GET / HTTP/1.0\r\nHost: a\r\nx: y\r\nHost: a\r\n\r\n", HeadError::Host),
        ("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n", HeadError::Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", HeadError::Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HeadError::Host),
        ("GET / HTTP/2.7\r\nHost: a\r\n\r\n", HeadError::Version),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", HeadError::Malformed("a field name is malformed")),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", HeadError::Malformed("a field name is malformed")),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nx: a\0b\r\n\r\n",
            HeadError::Malformed("a field value holds a control character"),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nx: a\rb\r\n\r\n",
            HeadError::Malformed("a field value holds a control character"),
        ),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Malformed("the request target is malformed")),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Malformed("the request target is malformed")),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::Malformed("the request target is malformed")),
        (
            "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            HeadError::Malformed("a fragment does not belong in the request target"),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::Framing(FramingError::LengthAndEncoding),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            HeadError::Framing(FramingError::LengthAndEncoding),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            HeadError::Framing(FramingError::DifferingLengths),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n",
            HeadError::Framing(FramingError::DifferingLengths),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            HeadError::Framing(FramingError::MalformedLength),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
            HeadError::Framing(FramingError::MalformedLength),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            HeadError::Framing(FramingError::MalformedLength),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            HeadError::Framing(FramingError::UnsupportedEncoding),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::Framing(FramingError::UnsupportedEncoding),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n",
            HeadError::Malformed("a field value holds a control character"),
        ),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::Framing(FramingError::EncodingInHttp10),
        ),
        (&long, HeadError::TooLarge),
        (&many, HeadError::TooManyFields),
    ];
    for (head, expected) in cases {
        match request(head) {
            Err(error) => assert_eq!(error, *expected, "{head:?}"),
            Ok(parsed) => panic!("{head:?} was taken as {parsed:?}"),
        }
    }
}

/// A head with more fields than the usual slots hold is parsed like any other, up to its limit.
#[test]
fn heads_of_many_fields_are_whole() {
    let limits = HeadLimits { size: 64 * 1024, fields: 256 };
    for count in [1, 63, 64, 65, 200, 256, 257] {
        let fields: String = (1..count).map(|at| format!("x-{at}: {at}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\nrest");
        let mut input = BytesMut::from(&*head);
        let request = parse_request(&mut input, limits).map(|head| head.unwrap().parts.headers.len());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{fields}\r\nrest");
        let mut reply = BytesMut::from(&*head);
        let response =
            parse_response(&mut reply, &Method::GET, limits).map(|head| head.unwrap().parts.headers.len());
        if count > limits.fields {
            assert_eq!((request, response), (Err(HeadError::TooManyFields), Err(HeadError::TooManyFields)));
        } else {
            assert_eq!((request, response), (Ok(count), Ok(count)));
            assert_eq!((&input[..], &reply[..]), (&b"rest"[..], &b"rest"[..]), "{count}");
        }
    }
}

#[test]
fn heads_that_are_taken() {
    let cases: &[(&str, Framing, bool)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0), true),
        ("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0), true),
        ("OPTIONS * HTTP/1.1\r\nHost: a:80\r\n\r\n", Framing::Length(0), true),
        ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0), false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Framing::Length(0), true),
        ("GET / HTTP/1.1\r\nHost: [::1]\r\nConnection: x, Close\r\n\r\n", Framing::Length(0), false),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Framing::Length(5), true),
        ("PURGE /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunked, true),
    ];
    for (head, framing, keep_alive) in cases {
        let parsed = request(head).expect(head).expect(head);
        assert_eq!(parsed.framing, *framing, "{head:?}");
        assert_eq!(parsed.keep_alive, *keep_alive, "{head:?}");
    }
}

#[test]
fn connection_fields_never_reach_the_stack() {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-secret, upgrade, host\r\nX-Secret: 1\r\n\
                Upgrade: websocket\r\nKeep-Alive: timeout=5\r\nTE: gzip, trailers\r\n\
                Proxy-Connection: x\r\nProxy-Authorization: x\r\nX-Kept: 1\r\n\r\n";
    let parsed = request(head).expect("valid").expect("whole");
    let names: Vec<&str> = parsed.parts.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["host", "x-kept"]);
    assert!(parsed.takes_trailers);
    assert_eq!(parsed.upgrade.expect("named by Connection"), "websocket");
}

#[test]
fn a_head_in_pieces_is_not_whole_until_its_end() {
    let head = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 0..head.len() {
        assert!(request(&head[..cut]).expect("a prefix is no error").is_none(), "{cut}");
    }
}

#[test]
fn responses_are_read() {
    let get = Method::GET;
    let cases: &[(&str, &Method, Framing, bool)] = &[
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", &get, Framing::Length(3), true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", &Method::HEAD, Framing::Length(0), true),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", &get, Framing::Length(0), true),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", &get, Framing::Chunked, true),
        // With both length fields the chunks count, and the connection is not used again.
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            &get,
            Framing::Chunked,
            false,
        ),
        ("HTTP/1.0 200 OK\r\n\r\n", &get, Framing::Close, false),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            &get,
            Framing::Length(0),
            false,
        ),
    ];
    for (head, method, framing, keep_alive) in cases {
        let parsed = parse_response(&mut BytesMut::from(*head), method, LIMITS).expect(head).expect(head);
        assert_eq!((parsed.framing, parsed.keep_alive), (*framing, *keep_alive), "{head:?}");
    }
    let differing = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n";
    assert!(parse_response(&mut BytesMut::from(differing), &get, LIMITS).is_err());
    let ok = parse_response(&mut BytesMut::from("HTTP/1.1 204 \r\n\r\n"), &get, LIMITS);
    assert_eq!(ok.expect("valid").expect("whole").parts.status, StatusCode::NO_CONTENT);
}

fn decode(wire: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, bool), &'static str> {
    let mut decoder = Decoder::default();
    let mut input = BytesMut::new();
    let mut content = Vec::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([wire.len()]) {
        input.extend_from_slice(&wire[from..cut]);
        from = cut;
        loop {
            match decoder.decode(&mut input)? {
                Decoded::Data(data) => content.extend_from_slice(&data),
                Decoded::End(_) => return Ok((content, true)),
                Decoded::NeedMore => break,
            }
        }
    }
    Ok((content, false))
}

#[test]
fn chunks_that_are_refused() {
    for wire in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "0x5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "\r\nhello",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "ffffffffffffffff\r\n",
        "5;a\nb\r\nhello\r\n",
        "5;\x01\r\nhello\r\n",
        "0\r\nbad name: x\r\n\r\n",
    ] {
        assert!(decode(wire.as_bytes(), &[]).is_err(), "{wire:?}");
    }
    assert!(decode("1;".repeat(5000).as_bytes(), &[]).is_err());
}

#[test]
fn trailers_are_taken_and_dangerous_ones_dropped() {
    let mut input = BytesMut::from("5;x=y\r\nhello\r\n0\r\ngrpc-status: 0\r\ncontent-length: 9\r\n\r\nnext");
    let mut decoder = Decoder::default();
    assert_eq!(decoder.decode(&mut input), Ok(Decoded::Data("hello".into())));
    let Ok(Decoded::End(Some(trailers))) = decoder.decode(&mut input) else { panic!("no trailers") };
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(&input[..], b"next");
}

proptest! {
    #[test]
    fn what_was_chunked_is_decoded_however_it_arrives(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut wire = BytesMut::new();
        for chunk in &chunks {
            super::encode::chunk_size(&mut wire, chunk.len());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        super::encode::last_chunk(&mut wire, None);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(decode(&wire, &cuts), Ok((chunks.concat(), true)));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes, &[]);
        let _ = parse_request(&mut BytesMut::from(&bytes[..]), LIMITS);
        let _ = parse_response(&mut BytesMut::from(&bytes[..]), &Method::GET, LIMITS);
    }
}
