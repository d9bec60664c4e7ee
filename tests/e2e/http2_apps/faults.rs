//! Tests that a client's error is attributed to the client, whatever protocol the upstream uses.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::clients::{Authority, h2_client};
use super::tools::{app, echo, tls_app};
use crate::harness::{Config, Folder, PATIENCE, Pillion, Script, connect, eventually, read_answer};

/// Errors of a client, and the status it gets; `None` if the client is gone.
const FAULTS: [(&str, &str, Option<u16>); 7] = [
    ("bad chunk", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", Some(400)),
    ("bad trailer", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nno field\r\n\r\n", Some(400)),
    ("overrun", "transfer-encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", Some(400)),
    ("silence", "content-length: 10\r\n\r\nhel", Some(408)),
    ("too large", "transfer-encoding: chunked\r\n\r\nc8\r\n", Some(413)),
    ("gone while sending", "content-length: 10\r\n\r\nhel", None),
    ("gone while waiting", "content-length: 5\r\n\r\nhello", None),
];

/// Echoes requests; holds `/wait`; sends an endless response at `/read`; starts its response at once at `/early`.
async fn serve<T>(mut connection: h2::server::Connection<T, Bytes>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut held = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        match request.uri().path() {
            "/wait" => held.push((request, respond)),
            "/early" => drop(tokio::spawn(async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data("begun".into(), false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                }
            })),
            "/read" => drop(tokio::spawn(async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                loop {
                    stream.reserve_capacity(1000);
                    let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                    if !matches!(room, Some(Ok(_)))
                        || stream.send_data(vec![b'x'; 1000].into(), false).is_err()
                    {
                        return;
                    }
                }
            })),
            _ => drop(tokio::spawn(echo(request, respond))),
        }
    }
}

fn http1_app() -> Script {
    Script::new(|mut tcp| {
        let mut peeked = [0; 11];
        while matches!(tcp.peek(&mut peeked), Ok(1..)) {
            if peeked.starts_with(b"POST /early") {
                let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun");
                let _ = std::io::Read::read_to_end(&mut tcp, &mut Vec::new());
                return;
            }
            let Some(request) = crate::harness::Request::read(&mut tcp) else { return };
            let path = request.line.split(' ').nth(1).unwrap().to_owned();
            match path.as_str() {
                "/wait" => {
                    let _ = std::io::Read::read(&mut tcp, &mut [0]);
                    return;
                }
                "/early" => unreachable!("it is answered before it is whole"),
                "/read" => {
                    let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                    while tcp.write_all(&[b'x'; 1000]).is_ok() {}
                    return;
                }
                _ => {
                    let body = String::from_utf8(request.body).unwrap();
                    if tcp.write_all(&crate::harness::ok(&body)).is_err() {
                        return;
                    }
                }
            }
        }
    })
}

fn pillion(folder: Arc<Folder>, url: &str) -> Pillion {
    let tls = if url.starts_with("https") { "[upstream.tls]\nca = \"ca.pem\"\n" } else { "" };
    Pillion::in_folder(
        folder,
        &format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\nbody_timeout = \"300ms\"\n\
             stream_idle_timeout = \"300ms\"\nmax_body_size = \"100B\"\n[upstream]\nurl = \"{url}\"\nbody_timeout = \"500ms\"\n\
             {tls}[upstream.health]\nunhealthy_after = 1\n"
        ),
    )
}

/// Asserts that no error of a client was attributed to the app.
#[track_caller]
fn assert_unharmed(pillion: &Pillion, case: &str) {
    assert_eq!(pillion.admin_get("/ready").status, 200, "{case}: the app is not held to be ill");
    let text = pillion.admin_get("/metrics").text();
    let failed: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("pillion_upstream_failures_total{") && !line.ends_with(" 0"))
        .filter(|line| !line.contains("kind=\"client\""))
        .collect();
    assert!(failed.is_empty(), "{case}: {failed:?}");
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST /after HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nfresh").unwrap();
    let answer = read_answer(&mut tcp);
    assert_eq!((answer.status, answer.text().as_str()), (200, "fresh"), "{case}");
}

fn run_table(protocol: &str, url: &str, folder: Arc<Folder>) {
    let pillion = pillion(folder, url);
    for (number, (fault, rest, expected)) in FAULTS.iter().enumerate() {
        let case = format!("{fault} x {protocol}");
        let path =
            if *fault == "gone while waiting" { "/wait".to_owned() } else { format!("/echo/{number}") };
        let mut tcp = connect(pillion.http);
        write!(tcp, "POST {path} HTTP/1.1\r\nhost: a\r\n{rest}").unwrap();
        if *fault == "too large" {
            tcp.write_all("x".repeat(200).as_bytes()).unwrap();
            tcp.write_all(b"\r\n").unwrap();
        }
        match expected {
            Some(status) => {
                let answer = read_answer(&mut tcp);
                assert_eq!(answer.status, *status, "{case}: {}", answer.text());
            }
            None => {
                // By then the app has the request.
                std::thread::sleep(Duration::from_millis(100));
                drop(tcp);
                let line = pillion.access(&case, |line| line["path"] == path && line["status"] == 499);
                assert_eq!(line["fault"], "client", "{case}: {line}");
            }
        }
        assert_unharmed(&pillion, &case);
    }
    let case = format!("bad chunk after the response began x {protocol}");
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST /early HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    // A body that pauses is forwarded, and the response begins.
    std::io::Read::read_exact(&mut tcp, &mut [0; 100]).unwrap();
    tcp.write_all(b"zz\r\n").unwrap();
    let line = pillion.access(&case, |line| line["path"] == "/early");
    assert_eq!((&line["status"], &line["fault"]), (&200.into(), &"client".into()), "{case}: {line}");
    assert_unharmed(&pillion, &case);
    let case = format!("gone while reading x {protocol}");
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET /read HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    std::io::Read::read_exact(&mut tcp, &mut [0; 2000]).unwrap();
    drop(tcp);
    let line = pillion.access(&case, |line| line["path"] == "/read");
    assert_eq!((&line["status"], &line["fault"]), (&200.into(), &"client".into()), "{case}: {line}");
    assert_unharmed(&pillion, &case);
}

#[test]
fn n4_1_the_clients_fault_over_http1() {
    let app = http1_app();
    run_table("HTTP/1.1", &format!("http://{}", app.address), Authority::new().folder());
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_1_the_clients_fault_over_h2c() {
    let app = app(|connection, _| serve(connection)).await;
    tokio::task::block_in_place(|| run_table("h2c", &format!("h2c://{app}"), Authority::new().folder()));
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_1_the_clients_fault_over_https_by_alpn() {
    let folder = Authority::new().folder();
    let app = tls_app(&folder, serve).await;
    tokio::task::block_in_place(|| run_table("https by ALPN", &format!("https://{app}"), folder));
}

/// Makes one gRPC call that sends `content` and declares `declared` bytes. The call then ends, falls silent, or is
/// reset.
async fn call(
    address: SocketAddr,
    path: &str,
    declared: Option<usize>,
    content: &[u8],
    reset: bool,
) -> Result<Response<h2::RecvStream>, h2::Error> {
    let mut client = h2_client(address).await;
    let mut request = http::Request::post(format!("http://a.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(declared) = declared {
        request = request.header("content-length", declared);
    }
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(Bytes::copy_from_slice(content), false).unwrap();
    if reset {
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.send_reset(h2::Reason::CANCEL);
    }
    tokio::time::timeout(PATIENCE, response).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_1_the_clients_fault_in_grpc() {
    let app = app(|connection, _| serve(connection)).await;
    let pillion = tokio::task::block_in_place(|| pillion(Authority::new().folder(), &format!("h2c://{app}")));
    let unharmed = |case: &str| tokio::task::block_in_place(|| assert_unharmed(&pillion, case));
    let logged = |path: &str, status: u16| {
        tokio::task::block_in_place(|| {
            let line = pillion.access(path, |line| line["path"] == path);
            assert_eq!((&line["status"], &line["fault"]), (&status.into(), &"client".into()), "{line}");
        });
    };

    let response = call(pillion.http, "/large", None, &[b'x'; 200], false).await.unwrap();
    let status =
        |response: &Response<h2::RecvStream>| response.headers()["grpc-status"].to_str().unwrap().to_owned();
    assert_eq!((response.status().as_u16(), status(&response).as_str()), (200, "8"), "RESOURCE_EXHAUSTED");
    logged("/large", 413);
    unharmed("too large");

    let response = call(pillion.http, "/silent", None, b"hel", false).await.unwrap();
    assert_eq!((response.status().as_u16(), status(&response).as_str()), (200, "13"));
    logged("/silent", 408);
    unharmed("silence");

    let error = call(pillion.http, "/overrun", Some(3), b"hello", false).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::PROTOCOL_ERROR), "RFC 9113 8.1.1");
    logged("/overrun", 400);
    unharmed("overrun");

    assert!(call(pillion.http, "/gone", None, b"hel", true).await.is_err());
    logged("/gone", 499);
    unharmed("gone while sending");
}

/// hyper treats a reset with NO_ERROR as the end of a body, so the app would take the part for the whole.
#[tokio::test(flavor = "multi_thread")]
async fn n4_1_an_upload_that_is_reset_never_looks_whole() {
    let (heads, whole): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let counts = (heads.clone(), whole.clone());
    let app = Script::new(move |mut tcp| {
        if crate::harness::head(&mut tcp).is_none() {
            return;
        }
        counts.0.fetch_add(1, Ordering::SeqCst);
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut tcp, &mut rest);
        counts.1.fetch_add(usize::from(rest.ends_with(b"0\r\n\r\n")), Ordering::SeqCst);
    });
    let pillion = Pillion::in_front_of(app.address);
    for (number, reason) in
        [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR].iter().enumerate()
    {
        let mut client = h2_client(pillion.http).await;
        let request = http::Request::post(format!("http://a.test/up/{number}")).body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"the first half of it"), false).unwrap();
        tokio::task::block_in_place(|| {
            eventually("the app has the head", || (heads.load(Ordering::SeqCst) > number).then_some(()));
        });
        body.send_reset(*reason);
        assert!(response.await.is_err());
        tokio::task::block_in_place(|| {
            let line = pillion.access("it", |line| line["path"] == format!("/up/{number}"));
            assert_eq!(
                (&line["status"], &line["fault"]),
                (&499.into(), &"client".into()),
                "{reason:?}: {line}"
            );
        });
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
}

/// The same for responses: a reset response is incomplete, whatever the reason, and is not stored.
#[tokio::test(flavor = "multi_thread")]
async fn n4_1_a_response_that_is_reset_never_looks_whole() {
    let app = app(|mut connection, _| async move {
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let reason = match request.uri().path() {
                "/none" => h2::Reason::NO_ERROR,
                _ => h2::Reason::CANCEL,
            };
            let response = Response::builder().header("cache-control", "max-age=60").body(()).unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data("half of it".into(), false).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.send_reset(reason);
            });
        }
    })
    .await;
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\nretries = 0\n"));
    tokio::task::block_in_place(|| {
        for path in ["/none", "/cancel"] {
            for _ in 0..2 {
                let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
                let answer = String::from_utf8(crate::harness::raw(pillion.http, request)).unwrap();
                assert!(!answer.ends_with("0\r\n\r\n"), "{path} looks whole: {answer}");
                assert!(!answer.contains("; hit"), "{path}: {answer}");
            }
        }
    });
}

/// An upstream that uses HTTP/1 gets a gRPC call as an ordinary request.
#[tokio::test(flavor = "multi_thread")]
async fn n3_3_a_grpc_call_to_an_app_over_http1_holds_a_place() {
    let (app, requests, release) = crate::harness::holding::holding();
    let pillion = Config::new(app.address)
        .upstream("max_connections", 1)
        .upstream("queue_timeout", "100ms")
        .upstream("response_timeout", "2s")
        .upstream("retries", 0)
        .start();
    let mut client = h2_client(pillion.http).await;
    let request = || {
        http::Request::post("http://a.test/call").header("content-type", "application/grpc").body(()).unwrap()
    };
    let (held, _) = client.send_request(request(), true).unwrap();
    tokio::task::block_in_place(|| requests.recv_timeout(PATIENCE).unwrap());
    let (second, _) = client.send_request(request(), true).unwrap();
    assert_eq!(second.await.unwrap().headers()["grpc-status"], "14", "it holds the only place");
    assert_eq!(held.await.unwrap().headers()["grpc-status"], "4", "response_timeout holds");
    drop(release);
}
