//! Tests that complete responses waiting for clients that read nothing stay within `buffer_memory` too.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::oneshot;

use super::tools::{H2Client, h2_body, pillion};
use crate::harness::{PATIENCE, Pillion, Script, eventually, exchange, head};

const MIB: u64 = 1 << 20;

/// Starts an app that responds with these fields and with `size` bytes of content, written together with the head.
fn app(fields: &'static str, size: usize) -> Script {
    Script::new(move |mut tcp| {
        while head(&mut tcp).is_some() {
            let response =
                format!("HTTP/1.1 200 OK\r\n{fields}content-length: {size}\r\n\r\n{}", "x".repeat(size));
            if tcp.write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn buffered(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_buffered_bytes")
}

type Unread = Vec<http::Response<h2::RecvStream>>;

/// Sends `count` requests with these fields whose responses are not read.
async fn unread(client: &H2Client, count: usize, fields: &[(&str, &str)]) -> Unread {
    let mut client = client.clone().ready().await.unwrap();
    let mut responses = Vec::new();
    for _ in 0..count {
        client = client.ready().await.unwrap();
        let mut request = http::Request::get("http://a.test/").header("x-forwarded-for", "192.0.2.1");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        responses.push(client.send_request(request.body(()).unwrap(), true).unwrap().0);
    }
    let mut heads = Vec::new();
    for response in responses {
        heads.push(tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap());
    }
    heads
}

/// Connects a client whose windows are closed until it is told to open them.
async fn closed(address: SocketAddr) -> (H2Client, oneshot::Sender<()>) {
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    // The window of the connection does not matter here.
    let builder =
        h2::client::Builder::new().initial_window_size(0).initial_connection_window_size(1 << 26).clone();
    let (client, mut connection) = builder.handshake(tcp).await.unwrap();
    let (open, mut opened) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let _ = std::future::poll_fn(|cx| {
            if !opened.is_terminated() && matches!(Pin::new(&mut opened).poll(cx), Poll::Ready(Ok(()))) {
                connection.set_initial_window_size(1 << 20).unwrap();
            }
            Pin::new(&mut connection).poll(cx)
        })
        .await;
    });
    (client.ready().await.unwrap(), open)
}

/// Opens connections of `streams` requests each, from one client that reads nothing. Their memory stays within the
/// client's share, another client is served, and every response is complete once it is read.
async fn fill(
    app: &Script,
    (connections, streams): (usize, usize),
    fields: &[(&str, &str)],
    memory: u64,
    size: usize,
) {
    let server = format!("buffer_memory = \"{}MiB\"\ntrusted_proxies = [\"127.0.0.1\"]\n", memory / MIB);
    // Responses without room keep their slot, so further requests of this client find none.
    let pillion = pillion(app.address, &server, "max_connections = 64\nqueue_timeout = \"1s\"\n");
    pillion.wait_until_ready();
    let before = pillion.process.resident();
    let (mut clients, mut responses) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let client = closed(pillion.http).await;
        responses.push(unread(&client.0, streams, fields).await);
        clients.push(client);
    }
    let held = buffered(&pillion);
    let grown = pillion.process.resident().saturating_sub(before) / MIB;
    let share = (memory / 8 * 7) as f64;
    // Includes one piece of each response that waits at the app, and the streams beyond the first few.
    let most = share + 64.0 * 4096.0 + (connections * 4 * streams) as f64 * 1024.0;
    // A request that waited for a slot was accounted too, and freed a little room when it was refused.
    assert!((share * 0.99..most).contains(&held), "{held} bytes are counted, {grown} MiB more are resident");
    let other = "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 192.0.2.2\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(pillion.http, other).status, 200, "another client is served");
    let mut read = 0;
    for ((client, open), responses) in clients.into_iter().zip(&mut responses) {
        open.send(()).unwrap();
        for response in responses.iter_mut().filter(|response| response.status().is_success()) {
            assert_eq!(h2_body(response.body_mut()).await.len(), size);
            read += 1;
        }
        drop(client);
    }
    // Each response takes its stream in addition to its content.
    assert!(read as f64 * (size + 8192) as f64 >= share, "{read} responses came");
    drop(responses);
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_small_responses_that_came_with_their_head_are_bounded() {
    fill(&app("etag: \"1\"\r\n", 3000), (16, 120), &[], 4 * MIB, 3000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn n3_4_responses_that_were_gathered_for_a_tag_are_bounded() {
    fill(&app("", 30_000), (6, 120), &[], 16 * MIB, 30_000).await;
}

/// The app ignores Range, so a part of 100 bytes is cut out of 200 KiB.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_parts_that_were_cut_hold_no_more_than_they_count() {
    let app = app("etag: \"1\"\r\n", 200 << 10);
    let pillion = pillion(app.address, "", "");
    pillion.wait_until_ready();
    let before = pillion.process.resident();
    let (mut clients, mut responses) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let client = closed(pillion.http).await;
        for _ in 0..100 {
            responses.extend(unread(&client.0, 1, &[("range", "bytes=0-99")]).await);
        }
        clients.push(client);
    }
    // Slow content becomes complete, and is read no further than there is room.
    let parts = responses.iter().filter(|response| response.status() == 206).count();
    assert!(parts >= 200, "{parts} of 300 are parts");
    let grown = pillion.process.resident().saturating_sub(before) / MIB;
    assert!(grown < 30, "{grown} MiB more for {parts} parts of 100 bytes");
}
