//! Tests of clients that read nothing of an HTTP/2 upstream's responses, and of uploads that the app does not read:
//! memory stays bounded, and other clients are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};

use super::tools::{Connection, app};
use crate::harness::{PATIENCE, Pillion, connect, eventually, now};

const MIB: f64 = (1 << 20) as f64;
/// The value of `buffer_memory`. Unsolicited data may add half a MiB at most. One client's share is 7/8.
const MEMORY: f64 = 16.0 * MIB;
const SHARE: f64 = 16.5 * MIB / 8.0 * 7.0;
/// Memory that each worker may hold briefly before it is accounted and released.
const MOMENT: f64 = MIB;

type Client = h2::client::SendRequest<Bytes>;

/// Starts Pillion with one worker, so that all requests share one upstream connection.
fn pillion(app: std::net::SocketAddr) -> Pillion {
    Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\nbuffer_memory = \"16MiB\"\n\
         trusted_proxies = [\"127.0.0.1\"]\n[cache]\nenabled = false\n[upstream]\nurl = \"h2c://{app}\"\n"
    ))
}

fn buffered(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_buffered_bytes")
}

/// Sends `length` bytes, or an endless response, in frames of `piece` bytes. `sent` counts the bytes that flow control
/// allowed.
async fn pour(
    mut respond: h2::server::SendResponse<Bytes>,
    media: &str,
    piece: usize,
    length: Option<usize>,
    sent: Arc<AtomicUsize>,
) {
    let head = Response::builder().header("content-type", media).header("cache-control", "no-store");
    let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) else { return };
    let mut left = length.unwrap_or(usize::MAX);
    while left > 0 {
        stream.reserve_capacity(piece.min(left));
        while stream.capacity() == 0 {
            let more = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            if !matches!(more, Some(Ok(_))) {
                return;
            }
        }
        let now = stream.capacity().min(piece).min(left);
        left -= now;
        if stream.send_data(vec![b'x'; now].into(), left == 0).is_err() {
            return;
        }
        sent.fetch_add(now, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

/// Starts an app whose paths select the response: `/grpc/PIECE` endless, `/blob/LENGTH` with a length.
async fn pouring() -> (std::net::SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (sent, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (poured, opened) = (sent.clone(), connections.clone());
    let app = app(move |mut connection: Connection, number| {
        let poured = poured.clone();
        opened.fetch_max(number + 1, Ordering::Relaxed);
        async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (_, path) = request.uri().path().split_at(1);
                let (kind, size) = path.split_once('/').unwrap_or((path, "16384"));
                let size: usize = size.parse().unwrap_or(16_384);
                let poured = poured.clone();
                if kind == "grpc" {
                    tokio::spawn(pour(respond, "application/grpc", size, None, poured));
                } else {
                    tokio::spawn(pour(respond, "application/octet-stream", 16_384, Some(size), poured));
                }
            }
        }
    })
    .await;
    (app, sent, connections)
}

/// Returns the number of bytes sent, once it does not change any more.
fn settled(sent: &AtomicUsize) -> usize {
    let mut last = (sent.load(Ordering::Relaxed), now());
    eventually("it holds still", || {
        let count = sent.load(Ordering::Relaxed);
        if count != last.0 {
            last = (count, now());
        }
        (last.1.elapsed() > Duration::from_millis(500)).then_some(count)
    })
}

/// Connects an HTTP/2 client with this window for each stream.
async fn client(pillion: &Pillion, window: u32) -> Client {
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size(1 << 26)
        .handshake(tcp)
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

/// Starts `count` requests and reads only the heads of their responses.
async fn begin(
    client: &mut Client,
    method: &str,
    path: &str,
    address: &str,
    count: usize,
) -> Vec<h2::RecvStream> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        *client = client.clone().ready().await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(format!("http://a.test{path}"))
            .header("content-type", "application/grpc")
            .header("x-forwarded-for", address);
        let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
        bodies.push(response.into_body());
    }
    bodies
}

/// Starts calls from one address whose responses are not read, over as many connections as they need.
async fn unread_calls(
    pillion: &Pillion,
    path: &str,
    count: usize,
    address: &str,
) -> Vec<(Client, Vec<h2::RecvStream>)> {
    let mut all = Vec::new();
    for _ in 0..count / 100 {
        let mut client = client(pillion, 1024).await;
        let bodies = begin(&mut client, "POST", path, address, 100).await;
        all.push((client, bodies));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_grpc_responses_that_nobody_reads_stay_within_the_clients_share() {
    let (app, sent, _) = pouring().await;
    let pillion = pillion(app);
    let before = pillion.process.resident();
    let calls = unread_calls(&pillion, "/grpc/16384", 1200, "192.0.2.1").await;
    settled(&sent);
    // Windows of 128 KiB for 1,200 streams would take 150 MiB.
    let grown = (pillion.process.resident() - before) as f64;
    assert!(grown < 3.0 * MEMORY, "{grown} bytes more");
    let held = buffered(&pillion);
    // The slots of 1,200 streams of client connections are accounted, but not refused.
    assert!(held > SHARE / 2.0 && held <= SHARE + MOMENT + 1200.0 * 1024.0, "{held} bytes are counted");
    // Responses were given up because of the client itself, which notices when it reads.
    let mut readers = tokio::task::JoinSet::new();
    let (clients, bodies): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    for mut body in bodies.into_iter().flatten() {
        readers.spawn(async move {
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
        });
    }
    tokio::time::timeout(PATIENCE, readers.join_next()).await.expect("one ended").unwrap().unwrap();
    let line = pillion.access("one was given up", |line| {
        line["error"].as_str().is_some_and(|error| error.contains("read too little of the response"))
    });
    assert_eq!((&line["fault"], &line["status"]), (&"client".into(), &200.into()), "{line}");
    drop((clients, readers));
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_a_slow_reader_gets_all_beside_one_that_reads_nothing() {
    const STREAMS: usize = 100;
    const LENGTH: usize = 200_000;
    let (app, _, _) = pouring().await;
    let pillion = pillion(app);
    let calls = unread_calls(&pillion, "/grpc/16384", 600, "192.0.2.1").await;
    eventually("most of its share is used up", || (buffered(&pillion) > SHARE / 2.0).then_some(()));
    let mut slow = client(&pillion, 1024).await;
    let bodies = begin(&mut slow, "GET", &format!("/blob/{LENGTH}"), "192.0.2.2", STREAMS).await;
    let mut readers = tokio::task::JoinSet::new();
    for mut body in bodies {
        readers.spawn(async move {
            let mut length = 0;
            while let Some(data) = body.data().await {
                let data = data.unwrap_or_else(|error| panic!("{error} after {length} bytes"));
                length += data.len();
                // 100 of them need some MiB a second.
                tokio::time::sleep(Duration::from_millis(20)).await;
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            length
        });
    }
    // The other client is still served.
    let more = unread_calls(&pillion, "/grpc/16384", 200, "192.0.2.1").await;
    while let Some(length) = readers.join_next().await {
        assert_eq!(length.unwrap(), LENGTH, "{}", pillion.access_log());
    }
    let held = buffered(&pillion);
    assert!(held <= SHARE + MOMENT, "{held} bytes are counted");
    drop((calls, more));
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_upstreams_send_less_while_memory_is_scarce() {
    let (app, sent, _) = pouring().await;
    let pillion = pillion(app);
    let mut calls = client(&pillion, 0).await;
    let first = begin(&mut calls, "POST", "/grpc/16384", "192.0.2.1", 80).await;
    eventually("more than half is used", || (buffered(&pillion) > MEMORY / 2.0).then_some(()));
    let before = settled(&sent);
    let second = begin(&mut calls, "POST", "/grpc/16384", "192.0.2.1", 16).await;
    let more = settled(&sent) - before;
    // Data that waits for its client, and a piece in transit.
    assert!(more <= 16 * 3 * 16_384, "{more} bytes came for 16 responses");
    // Once memory is free again, the app may send more.
    drop((first, second));
    drop(calls);
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
    let mut other = client(&pillion, 0).await;
    let third = begin(&mut other, "POST", "/grpc/16384", "192.0.2.1", 2).await;
    let third = (third, begin(&mut other, "POST", "/grpc/16384", "192.0.2.1", 2).await);
    eventually("windows are large", || (buffered(&pillion) > 4.0 * 100_000.0).then_some(()));
    drop(third);
}

/// The library closes a connection on which too many small frames wait.
#[tokio::test(flavor = "multi_thread")]
async fn n4_3_small_frames_that_nobody_reads_end_no_connection() {
    let (app, sent, connections) = pouring().await;
    let pillion = pillion(app);
    let mut reader = client(&pillion, 65_535).await;
    let mut body = begin(&mut reader, "GET", "/blob/10000000", "192.0.2.2", 1).await.remove(0);
    let mut calls = client(&pillion, 0).await;
    let unread = begin(&mut calls, "POST", "/grpc/10", "192.0.2.1", 10).await;
    settled(&sent);
    let mut length = 0;
    while let Some(data) = tokio::time::timeout(PATIENCE, body.data()).await.expect("it goes on") {
        let data = data.unwrap_or_else(|error| panic!("{error} after {length} bytes"));
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!((length, connections.load(Ordering::Relaxed)), (10_000_000, 1));
    // Joined pieces are accounted as they are stored.
    let held = buffered(&pillion);
    assert!(held < 3.0 * MIB, "{held} bytes for ten windows of 128 KiB");
    drop(unread);
}

/// Data that an app does not read although its windows are open waits here, and is accounted.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_uploads_that_an_app_does_not_read_are_counted() {
    const UPLOADS: usize = 200;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(16).unwrap();
    let app = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let mut builder = h2::server::Builder::new();
            builder.initial_window_size(1 << 24).initial_connection_window_size(1 << 30);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(tcp).await else { continue };
            // The app reads its first request and nothing more.
            let first = connection.accept().await;
            connections.push((connection, first));
        }
    });
    let pillion = pillion(app);
    let before = pillion.process.resident();
    tokio::task::block_in_place(|| {
        let uploads: Vec<_> = (0..UPLOADS)
            .map(|_| {
                let mut tcp = connect(pillion.http);
                std::io::Write::write_all(
                    &mut tcp,
                    b"POST / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.1\r\ncontent-length: 10000000\r\n\r\n",
                )
                .unwrap();
                tcp.set_nonblocking(true).unwrap();
                tcp
            })
            .collect();
        let piece = vec![b'x'; 65_536];
        let mut most = 0.0_f64;
        eventually("it is counted", || {
            for mut tcp in &uploads {
                let _ = std::io::Write::write(&mut tcp, &piece);
            }
            most = most.max(buffered(&pillion));
            (most > MEMORY / 2.0).then_some(())
        });
        assert!(most <= SHARE + MOMENT, "{most} bytes are counted");
        let grown = (pillion.process.resident() - before) as f64;
        assert!(grown < 4.0 * MEMORY, "{grown} bytes more");
    });
}
