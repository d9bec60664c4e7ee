//! Tests of entity tags that Pillion makes, and of apps' validators beside them.

use std::io::{Read, Write};
use std::time::Duration;

use super::tools::{JSON, curl, field, get, head_of, items, saying};
use crate::harness::{Pillion, Request, Script, connect, eventually, now, read_answer};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// An app that sends only dates, in private, personal and shared responses. Regression: a tag made by Pillion hid its
/// 304s.
#[test]
fn n4_16_a_response_with_only_a_date_keeps_its_304() {
    let app = Script::answering(|request: &Request| {
        let cookie = if request.line.contains("cookie") { "set-cookie: a=b\r\n" } else { "" };
        let policy = match request.line.split(' ').nth(1).unwrap() {
            "/private" => "cache-control: private, max-age=60\r\n",
            "/stored" => "cache-control: max-age=60\r\n",
            "/stale" => "cache-control: max-age=0\r\n",
            _ => "",
        };
        let head = format!("last-modified: {DATE}\r\n{JSON}{policy}{cookie}");
        if request.field("if-modified-since") == Some(DATE) {
            return format!("HTTP/1.1 304 Not Modified\r\n{head}x-by: app\r\n\r\n").into_bytes();
        }
        let (length, body) =
            (items(50).len(), if request.line.starts_with("HEAD ") { String::new() } else { items(50) });
        format!("HTTP/1.1 200 OK\r\n{head}content-length: {length}\r\n\r\n{body}").into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    for path in ["/plain", "/private", "/cookie", "/stored", "/stale"] {
        for credentials in ["", "authorization: Bearer x\r\n", "cookie: session=1\r\n"] {
            for accept in ["", "accept-encoding: gzip\r\n"] {
                let fields = format!("{credentials}{accept}");
                let first = get(&pillion, path, &fields);
                let found = (first.status, first.field("etag"), first.field("last-modified"));
                assert_eq!(found, (200, None, Some(DATE.to_owned())), "{path} {fields}");
                // Clients may have a tag from before the app sent dates.
                for tags in [
                    "",
                    "if-none-match: W/\"pillion-00\"\r\n",
                    "if-none-match: W/\"pillion-0\", W/\"pillion-1\"\r\n",
                ] {
                    for _ in 0..3 {
                        let fields = format!("{fields}{tags}if-modified-since: {DATE}\r\n");
                        let answers = [get(&pillion, path, &fields), head_of(&pillion, path, &fields)];
                        assert_eq!(answers.map(|answer| answer.status), [304, 304], "{path} {fields}");
                    }
                }
                let other = format!("{fields}if-none-match: \"x\"\r\nif-modified-since: {DATE}\r\n");
                // A tag that may be the app's takes precedence over the date (RFC 9110 13.1.3). This app evaluates only
                // the date.
                assert!(matches!(get(&pillion, path, &other).status, 200 | 304));
            }
        }
    }
    let by_app = get(&pillion, "/private", &format!("if-modified-since: {DATE}\r\n"));
    assert_eq!(by_app.field("x-by").as_deref(), Some("app"), "the date reaches the app");
}

/// Starts an app that sends its head, then its content in pieces, each after a pause.
fn slow(framing: &'static str, fields: &'static str, pieces: &'static [&'static str], pause: u64) -> Script {
    Script::new(move |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            write!(tcp, "HTTP/1.1 200 OK\r\n{framing}\r\n{fields}\r\n").unwrap();
            for piece in pieces {
                std::thread::sleep(Duration::from_millis(pause));
                if tcp.write_all(piece.as_bytes()).is_err() {
                    return;
                }
            }
        }
    })
}

#[test]
fn n5_2_made_tags_do_not_depend_on_timing() {
    let tag = |app: &Script| {
        let pillion = Pillion::in_front_of(app.address);
        let tags: Vec<_> = (0..3).map(|_| get(&pillion, "/", "").field("etag")).collect();
        assert!(tags.iter().all(|tag| *tag == tags[0]), "{tags:?}");
        tags[0].clone()
    };
    let at_once = tag(&saying("0123456789", JSON));
    assert!(at_once.is_some());
    assert_eq!(tag(&slow("content-length: 10", JSON, &["01234", "56789"], 0)), at_once);
    assert_eq!(
        tag(&slow("content-length: 10", JSON, &["01234", "56789"], 50)),
        at_once,
        "held until its end"
    );
    // A response with a validator of the app, with no-store, or above the size limit gets no tag, however fast it
    // arrives.
    for fields in ["last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "cache-control: No-Store\r\n"] {
        assert_eq!(tag(&saying("0123456789", fields)), None, "{fields}");
    }
    let long = "x".repeat(64 * 1024 + 1);
    assert_eq!(tag(&saying(&long, JSON)), None);
    assert!(tag(&saying(&long[1..], JSON)).is_some());
    // The same if it is stored, and therefore complete here.
    assert_eq!(tag(&saying(&long, "cache-control: max-age=60\r\n")), None);
}

/// Buffering is limited in time: the response of a slower app is forwarded without a tag.
#[test]
fn n5_2_nothing_is_held_for_long() {
    let app = slow("content-length: 10", JSON, &["01234", "56789"], 700);
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let since = now();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"01234") {
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(since.elapsed() < Duration::from_millis(1300), "before the rest came: {:?}", since.elapsed());
    assert!(!String::from_utf8(seen).unwrap().contains("etag"));
}

#[test]
fn n5_2_head_has_the_tag_of_what_is_stored() {
    let app = saying(&items(50), "content-type: application/json\r\ncache-control: max-age=60\r\n");
    let pillion = Pillion::in_front_of(app.address);
    for accept in ["", "accept-encoding: gzip\r\n"] {
        let tag = get(&pillion, "/", accept).field("etag").unwrap();
        eventually("it is stored", || {
            head_of(&pillion, "/", accept).field("cache-status").filter(|status| status.contains("hit"))
        });
        for _ in 0..4 {
            let head = head_of(&pillion, "/", accept);
            assert_eq!((head.status, head.field("etag").as_ref()), (200, Some(&tag)), "{accept}");
            let known = head_of(&pillion, "/", &format!("{accept}if-none-match: {tag}\r\n"));
            assert_eq!((known.status, known.field("etag").as_ref()), (304, Some(&tag)), "{accept}");
            let other = head_of(&pillion, "/", &format!("{accept}if-none-match: W/\"pillion-0\"\r\n"));
            assert_eq!(other.status, 200, "{accept}");
        }
        let (status, _, head) =
            curl(&pillion.url("/"), &["-I", "--http2-prior-knowledge", "-H", "Host: test"]);
        assert_eq!((status.as_str(), field(&head, "etag").is_some()), ("200", true));
    }
}

/// Pages of PHP and WordPress arrive in chunks, and their end arrives at once.
#[test]
fn n4_19_chunks_that_end_at_once_are_as_content_with_a_length() {
    const CHUNKED: &str = "transfer-encoding: chunked";
    // A machine that is busy for 20 ms delays it.
    let in_time = |ask: &dyn Fn() -> Option<String>| eventually("it comes in time", ask);
    let small = slow(CHUNKED, JSON, &["5\r\n01234\r\n", "5\r\n56789\r\n", "0\r\n\r\n"], 2);
    let pillion = Pillion::in_front_of(small.address);
    let tag = get(&Pillion::in_front_of(saying("0123456789", JSON).address), "/", "").field("etag").unwrap();
    for accept in ["", "accept-encoding: gzip\r\n"] {
        let found = in_time(&|| {
            let answer = get(&pillion, "/", accept);
            assert_eq!((answer.text().as_str(), answer.field("content-encoding")), ("0123456789", None));
            assert_eq!(answer.field("content-length").is_some(), answer.field("etag").is_some(), "{accept}");
            answer.field("content-length").zip(answer.field("etag")).map(|(length, tag)| length + &tag)
        });
        assert_eq!(found, format!("10{tag}"), "{accept}");
    }
    // Only the length is determined, so a POST response gets one too.
    let plain = slow(CHUNKED, "content-type: image/x\r\netag: \"x\"\r\n", &["3\r\nabc\r\n", "0\r\n\r\n"], 2);
    let pillion = Pillion::in_front_of(plain.address);
    assert_eq!(in_time(&|| get(&pillion, "/", "").field("content-length")), "3");
    let posted = || {
        let (_, _, head) = curl(&pillion.url("/"), &["--http2-prior-knowledge", "-d", "x"]);
        field(&head, "content-length").map(str::to_owned)
    };
    assert_eq!(in_time(&posted), "3");
    // With a later end, the content has an unknown length, as before.
    let late = slow(CHUNKED, JSON, &["5\r\n01234\r\n", "5\r\n56789\r\n0\r\n\r\n"], 400);
    let answer = get(&Pillion::in_front_of(late.address), "/", "");
    assert_eq!((answer.field("content-length"), answer.field("etag")), (None, None));
    assert_eq!(answer.text(), "0123456789");
}

/// With Nagle's algorithm, data that an app writes after the head waits for an acknowledgement, which the kernel delays
/// by 40 ms on a reused connection.
#[test]
fn n5_2_what_an_app_writes_apart_is_acknowledged_at_once() {
    let app = Script::new(|mut tcp| {
        tcp.set_nodelay(false).unwrap();
        while Request::read(&mut tcp).is_some() {
            for part in ["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "2\r\nhi\r\n", "0\r\n\r\n"]
            {
                tcp.write_all(part.as_bytes()).unwrap();
            }
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    let lengths = (0..40).filter(|_| {
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        read_answer(&mut tcp).field("content-length").is_some()
    });
    // All arrived within the 20 ms limit, unless the machine was busy.
    let count = lengths.count();
    assert!(count >= 30, "{count} of 40 came at once");
    assert_eq!(app.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "on one connection");
}
