//! Tests of `min_body_rate`: a body that arrives too slowly ends its request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::tools::{eventually_held, h2_client, pillion, sent};
use crate::harness::{Script, eventually, head, now, ok, read_answer};

/// Sends `piece` repeatedly until a response arrives. Returns the response and the time.
fn drip(
    mut tcp: TcpStream,
    piece: &'static str,
    pause: Duration,
) -> std::thread::JoinHandle<(u16, Duration)> {
    let since: Instant = now();
    std::thread::spawn(move || {
        tcp.set_read_timeout(Some(pause)).unwrap();
        let mut byte = [0u8; 1];
        while since.elapsed() < Duration::from_secs(19) {
            let _ = tcp.write_all(piece.as_bytes());
            if matches!(tcp.peek(&mut byte), Ok(1)) {
                tcp.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
                return (read_answer(&mut tcp).status, since.elapsed());
            }
        }
        (0, since.elapsed())
    })
}

/// All run in parallel, because each takes ten seconds.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_a_body_slower_than_min_body_rate_is_408_after_ten_seconds() {
    let app = Script::new(|mut tcp| {
        let Some(head) = head(&mut tcp) else { return };
        if head.contains("/early") {
            // The response begins before the request has ended.
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun");
        }
        if head.contains("/unread") {
            // The app reads nothing for a while, which is not the client's fault.
            std::thread::sleep(Duration::from_secs(13));
        }
        let mut byte = [0u8; 4096];
        let mut last = Vec::new();
        while let Ok(count @ 1..) = tcp.read(&mut byte) {
            last.extend_from_slice(&byte[..count]);
            if last.ends_with(b"end") {
                let _ = tcp.write_all(&ok("done"));
            }
        }
    });
    let pillion = pillion(app.address, "min_body_rate = \"240B\"\n", "");
    let post = |path: &str, how: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{how}\r\n\r\n");
    let tenth = Duration::from_millis(100);
    let slow = [
        ("a small body", post("/", "Content-Length: 60000"), "x", tenth),
        ("a large one", post("/", "Content-Length: 6000000"), "x", tenth),
        ("of unknown length", post("/", "Transfer-Encoding: chunked"), "1\r\nx\r\n", tenth),
        (
            "claiming to be gRPC",
            post("/", "Content-Type: application/grpc\r\nContent-Length: 6000000"),
            "x",
            tenth,
        ),
        (
            "pausing after a part",
            post("/", "Content-Length: 6000000"),
            "xxxxxxxxxx",
            Duration::from_millis(900),
        ),
    ];
    let slow = slow.map(|(what, head, piece, pause)| (what, drip(sent(pillion.http, &head), piece, pause)));
    // 500 bytes a second are fast enough.
    let fast = drip(
        sent(pillion.http, &post("/", "Content-Length: 6000000")),
        {
            const FIFTY: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
            FIFTY
        },
        tenth,
    );
    let mut early = sent(pillion.http, &post("/early", "Content-Length: 6000000"));
    let mut head = [0u8; 12];
    early.read_exact(&mut head).unwrap();
    let mut unread = sent(pillion.http, &post("/unread", "Content-Length: 6000000"));
    let flood = unread.try_clone().unwrap();
    let flooding = std::thread::spawn(move || {
        let mut tcp = flood;
        let mut left = 6_000_000 - 3;
        while left > 0 {
            let piece = left.min(60_000);
            tcp.write_all(&vec![b'x'; piece]).unwrap();
            left -= piece;
        }
        tcp.write_all(b"end").unwrap();
    });
    // The same over HTTP/2.
    let since = now();
    let mut client = h2_client(pillion.http, 65_535).await;
    let request = http::Request::post("http://a.test/").header("content-length", "60000").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"x"), false).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(18), answer).await.expect("an answer").unwrap();
    assert_eq!(answer.status(), 408, "over HTTP/2");
    assert!((9..15).contains(&since.elapsed().as_secs()), "over HTTP/2 after {:?}", since.elapsed());
    for (what, thread) in slow {
        let (status, after) = thread.join().unwrap();
        // A gRPC client gets the error in trailers.
        let expected = if what.contains("gRPC") { 200 } else { 408 };
        assert_eq!(status, expected, "{what} after {after:?}");
        assert!((9..16).contains(&after.as_secs()), "{what} after {after:?}");
    }
    assert_eq!(fast.join().unwrap().0, 0, "500 bytes a second are fast enough");
    flooding.join().unwrap();
    assert_eq!(read_answer(&mut unread).status, 200, "time in which the app takes nothing does not count");
    // A response that has begun is not cut.
    early.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut rest = vec![0u8; 4096];
    let open = loop {
        match early.read(&mut rest) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(_) => break true,
        }
    };
    assert!(open, "a response that has begun is not cut by the rate of its request");
    drop((early, client));
    eventually("the places are free", || (super::tools::held(&pillion) <= 1.0).then_some(()));
    let _ = eventually_held;
}
