//! Tests of what one client's request may do to an upstream connection shared with other clients.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Response;
use tokio::sync::watch;

use super::tools::{Connection, ONE_WORKER, app, serve_all};
use crate::harness::{Pillion, connect, eventually, read_answer};

/// The way in which an app refuses a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Refusal {
    GoAway(h2::Reason),
    Close,
    Reset,
}

const REFUSALS: [Refusal; 4] = [
    Refusal::GoAway(h2::Reason::ENHANCE_YOUR_CALM),
    Refusal::GoAway(h2::Reason::INTERNAL_ERROR),
    Refusal::Close,
    Refusal::Reset,
];

/// The requests that an app has seen.
#[derive(Clone, Default)]
struct Seen {
    connections: Arc<AtomicUsize>,
    /// Number of requests that the app refused.
    refused: Arc<AtomicUsize>,
    /// Number of requests for `/held`.
    held: Arc<AtomicUsize>,
}

impl Seen {
    fn of(count: &Arc<AtomicUsize>) -> usize {
        count.load(Ordering::SeqCst)
    }
}

/// Refuses `/refused` and requests with more than 16 KiB of fields, except for `/taken`. Holds `/held` until it is
/// released.
async fn serve(mut connection: Connection, refusal: Refusal, seen: Seen, released: watch::Receiver<bool>) {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let size: usize = request.headers().values().map(|value| value.len()).sum();
        let path = request.uri().path().to_owned();
        if path == "/refused" || size > 16 * 1024 && path != "/taken" {
            seen.refused.fetch_add(1, Ordering::SeqCst);
            match refusal {
                Refusal::GoAway(reason) => connection.abrupt_shutdown(reason),
                Refusal::Close => return,
                Refusal::Reset => respond.send_reset(h2::Reason::ENHANCE_YOUR_CALM),
            }
            continue;
        }
        let mut released = released.clone();
        let held = seen.held.clone();
        tokio::spawn(async move {
            if path == "/held" {
                held.fetch_add(1, Ordering::SeqCst);
                let _ = released.wait_for(|released| *released).await;
            }
            let _ = respond.send_response(Response::new(()), true);
        });
    }
}

async fn refusing(refusal: Refusal) -> (SocketAddr, Seen, watch::Sender<bool>) {
    let (release, released) = watch::channel(false);
    let seen = Seen::default();
    let told = seen.clone();
    let address = app(move |connection, _| serve(connection, refusal, told.clone(), released.clone())).await;
    (address, seen, release)
}

fn pillion(app: SocketAddr) -> Pillion {
    Pillion::with(&format!(
        "{ONE_WORKER}[cache]\nenabled = false\n[upstream]\nurl = \"h2c://{app}\"\nkeep_alive = \"60s\"\n\
         [upstream.health]\nunhealthy_after = 1\n"
    ))
}

fn send(pillion: &Pillion, path: &str, size: usize) -> TcpStream {
    let mut tcp = connect(pillion.http);
    write!(tcp, "GET {path} HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(size)).unwrap();
    tcp
}

fn get(pillion: &Pillion, path: &str, size: usize) -> u16 {
    read_answer(&mut send(pillion, path, size)).status
}

#[track_caller]
fn assert_ready(pillion: &Pillion, case: &str) {
    let ready = pillion.admin_get("/ready");
    assert_eq!(ready.status, 200, "{case}: {}", ready.text());
}

/// Starts a relay to an app that closes a connection after more than `limit` bytes from Pillion.
fn limited_to(app: SocketAddr, limit: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, ended) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = ended.clone();
    std::thread::spawn(move || {
        while let Ok((mut here, _)) = listener.accept() {
            let mut there = TcpStream::connect(app).unwrap();
            let (mut back, mut forth) = (there.try_clone().unwrap(), here.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
            let count = count.clone();
            std::thread::spawn(move || {
                let (mut passed, mut buffer) = (0, [0; 4096]);
                while let Ok(read @ 1..) = here.read(&mut buffer) {
                    passed += read;
                    if passed > limit {
                        count.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    let _ = there.write_all(&buffer[..read]);
                }
                let _ = (here.shutdown(Shutdown::Both), there.shutdown(Shutdown::Both));
            });
        }
    });
    (address, ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_a_head_that_is_larger_than_the_app_announces_is_431_and_not_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let greeting = h2::server::Builder::new().max_header_list_size(16 * 1024).handshake(tcp);
            tokio::spawn(async move {
                if let Ok(connection) = greeting.await {
                    serve_all(connection).await;
                }
            });
        }
    });
    tokio::task::block_in_place(|| {
        let (way, ended) = limited_to(app, 24 * 1024);
        let pillion = pillion(way);
        // Before the settings of the app are known, and afterwards.
        for size in [62_000, 17_000, 62_000] {
            let answer = read_answer(&mut send(&pillion, "/", size));
            assert_eq!(answer.status, 431, "{size}: {}", answer.text());
            assert!(answer.text().contains("16384 bytes"), "{}", answer.text());
            assert_eq!(get(&pillion, "/", 10), 200);
        }
        for (fields, status) in [(10, 200), (20, 431)] {
            let mut tcp = connect(pillion.http);
            let head = "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n";
            let trailers: String =
                (10..10 + fields).map(|n| format!("x-{n}: {}\r\n", "x".repeat(790))).collect();
            write!(tcp, "{head}2\r\nhi\r\n0\r\n{trailers}\r\n").unwrap();
            assert_eq!(read_answer(&mut tcp).status, status, "{fields} trailers");
        }
        assert_eq!(ended.load(Ordering::SeqCst), 0, "nothing of it reached the app");
        assert_ready(&pillion, "announced");
        let failed = pillion.access("it is the client's fault", |line| line["status"] == 431);
        assert_eq!(failed["fault"], "client", "{failed}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_a_head_that_an_app_ends_connections_for_ends_nobody_elses() {
    for refusal in REFUSALS {
        let case = format!("{refusal:?}");
        let (app, seen, release) = refusing(refusal).await;
        tokio::task::block_in_place(|| {
            let pillion = pillion(app);
            let mut held = send(&pillion, "/held", 10);
            eventually("it is held", || (Seen::of(&seen.held) == 1).then_some(()));
            for count in 1..=3 {
                assert_eq!(get(&pillion, "/", 62_000), 502, "{case}");
                assert_eq!(Seen::of(&seen.refused), count, "{case}: it is not tried again");
                assert_ready(&pillion, &case);
            }
            assert_eq!(Seen::of(&seen.connections), 4, "{case}: each on a connection of its own");
            release.send(true).unwrap();
            assert_eq!(read_answer(&mut held).status, 200, "{case}");
            assert_eq!(Seen::of(&seen.held), 1, "{case}: on the connection that it was sent on");
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_large_heads_share_a_connection_where_the_app_is_known_to_take_them() {
    let (app, seen, _release) = refusing(Refusal::Close).await;
    tokio::task::block_in_place(|| {
        let pillion = pillion(app);
        assert_eq!(get(&pillion, "/taken", 10), 200);
        for size in [30_000, 30_000, 20_000, 9_000] {
            assert_eq!(get(&pillion, "/taken", size), 200);
        }
        assert_eq!(Seen::of(&seen.connections), 2, "one more, for the first large head");
        assert_eq!(get(&pillion, "/taken", 40_000), 200);
        assert_eq!(Seen::of(&seen.connections), 3, "and one for a larger one");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_a_request_that_an_app_ends_connections_for_is_tried_once_more_and_alone() {
    for refusal in REFUSALS {
        let case = format!("{refusal:?}");
        let (app, seen, release) = refusing(refusal).await;
        tokio::task::block_in_place(|| {
            let pillion = pillion(app);
            assert_eq!(get(&pillion, "/", 10), 200);
            let mut held: Vec<TcpStream> = (0..2).map(|_| send(&pillion, "/held", 10)).collect();
            eventually("they are held", || (Seen::of(&seen.held) == 2).then_some(()));
            assert_eq!(get(&pillion, "/refused", 10), 502, "{case}");
            assert_eq!(Seen::of(&seen.refused), 2, "{case}: once more");
            assert_ready(&pillion, &case);
            release.send(true).unwrap();
            for tcp in &mut held {
                assert_eq!(read_answer(tcp).status, 200, "{case}: who shared its connection is served");
            }
            assert_eq!(get(&pillion, "/", 10), 200, "{case}");
            for _ in 0..3 {
                assert_eq!(get(&pillion, "/refused", 10), 502, "{case}");
                assert_ready(&pillion, &case);
            }
        });
    }
}
