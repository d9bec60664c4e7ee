//! Tests of requests that are retried with their content.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::tools::ONE_WORKER;
use crate::harness::{Pillion, Request, Script, connect, ok, read_answer};

/// Starts an app whose first connection breaks at its second request, once that request is complete.
fn breaking() -> Script {
    let connections: Arc<AtomicUsize> = Arc::default();
    Script::new(move |mut tcp| {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        let mut requests = 0;
        while let Some(request) = Request::read(&mut tcp) {
            requests += 1;
            if first && requests == 2 {
                return;
            }
            let body = String::from_utf8_lossy(&request.body).into_owned();
            if tcp.write_all(&ok(&body)).is_err() {
                return;
            }
        }
    })
}

#[test]
fn n4_13_a_small_body_is_replayable_however_it_came() {
    const LENGTH: &str = "content-length: 11\r\n\r\n";
    const CHUNKED: &str = "transfer-encoding: chunked\r\n\r\n";
    for (case, method, head, pieces, expected) in [
        ("with the head", "PUT", LENGTH, &["hello", " again"][..], Some("hello again")),
        (
            "without a length",
            "PUT",
            CHUNKED,
            &["5\r\nhello\r\n", "6\r\n again\r\n", "0\r\n\r\n"],
            Some("hello again"),
        ),
        ("DELETE", "DELETE", LENGTH, &["hello", " again"], Some("hello again")),
        ("POST", "POST", LENGTH, &["hello", " again"], None),
    ] {
        for pause in [0, 5, 60] {
            let app = breaking();
            let pillion =
                Pillion::with(&format!("{ONE_WORKER}[upstream]\nurl = \"http://{}\"\n", app.address));
            assert_eq!(pillion.get("/").status, 200);
            let mut tcp = connect(pillion.http);
            let mut wire = format!("{method} / HTTP/1.1\r\nhost: a\r\n{head}");
            for piece in pieces {
                if pause > 0 {
                    tcp.write_all(wire.as_bytes()).unwrap();
                    wire.clear();
                    // This pause is what the test is about.
                    std::thread::sleep(Duration::from_millis(pause));
                }
                wire.push_str(piece);
            }
            tcp.write_all(wire.as_bytes()).unwrap();
            let answer = read_answer(&mut tcp);
            match expected {
                Some(text) => {
                    assert_eq!((answer.status, answer.text().as_str()), (200, text), "{case}, {pause} ms")
                }
                None => assert_eq!(answer.status, 502, "{case}, {pause} ms"),
            }
        }
    }
}

/// If the first replica cannot take the content, the next one gets it, however large it is, because nothing was sent
/// yet.
#[test]
fn n4_13_a_body_that_was_not_taken_is_sent_elsewhere() {
    // A port that nothing listens on.
    let nowhere: SocketAddr = {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        listener.local_addr().unwrap()
    };
    let app = Script::answering(|request| ok(&request.body.len().to_string()));
    let pillion = Pillion::with(&format!(
        "{ONE_WORKER}[upstream]\nurl = \"http://{nowhere}\"\nreplicas = [\"http://{}\"]\nwrites_to = \"any\"\n",
        app.address
    ));
    for _ in 0..4 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 200000\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        tcp.write_all(&[b'x'; 200_000]).unwrap();
        let answer = read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text().as_str()), (200, "200000"));
    }
}
