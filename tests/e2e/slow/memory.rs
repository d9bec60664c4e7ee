//! Tests that all buffers together stay within `buffer_memory`, and those of one client within seven eighths of it.

use std::io::Write;
use std::net::TcpStream;

use super::tools::{H2Client, h2_body, h2_client, pillion};
use crate::harness::{Config, PATIENCE, Pillion, Script, eventually, head, now, read_answer};

const MIB: u64 = 1 << 20;
/// Size of one response in bytes.
const SIZE: usize = 200 * 1024;
/// The value of `buffer_memory` in bytes.
const MEMORY: u64 = 16 * MIB;

fn app() -> Script {
    Script::new(|mut tcp| {
        while head(&mut tcp).is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: {SIZE}\r\n\r\n");
            if tcp.write_all(answer.as_bytes()).is_err() || tcp.write_all(&vec![b'x'; SIZE]).is_err() {
                return;
            }
        }
    })
}

fn buffered(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_buffered_bytes")
}

async fn slow_streams(
    client: &mut H2Client,
    count: usize,
    client_address: &str,
) -> Vec<http::Response<h2::RecvStream>> {
    let mut answers = Vec::new();
    for _ in 0..count {
        *client = client.clone().ready().await.unwrap();
        let request = http::Request::get("http://a.test/").header("x-forwarded-for", client_address);
        let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
        answers.push(answer);
    }
    let mut heads = Vec::new();
    for answer in answers {
        heads.push(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap());
    }
    heads
}

/// Tests several numbers of streams that read nothing, and the memory they take.
#[tokio::test(flavor = "multi_thread")]
async fn n3_4_slow_readers_of_http_2_share_a_bounded_memory() {
    let server = "buffer_memory = \"16MiB\"\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let app = app();
    let pillion = pillion(app.address, server, "");
    let before = pillion.process.resident();
    let mut clients = Vec::new();
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut client = h2_client(pillion.http, 1024).await;
        slow.extend(slow_streams(&mut client, 100, "192.0.2.1").await);
        clients.push(client);
    }
    // 200 responses of 200 KiB would be 39 MiB.
    eventually("one client's share is used up", || {
        let share = (MEMORY / 8 * 7) as f64;
        let bytes = buffered(&pillion);
        // Includes the memory of the connections and their streams.
        (bytes >= share && bytes <= share + 2560.0 * 1024.0).then_some(())
    });
    // Another client still has room.
    let mut last = (buffered(&pillion), now());
    let held = eventually("it holds still", || {
        let bytes = buffered(&pillion);
        if bytes != last.0 {
            last = (bytes, now());
        }
        (last.1.elapsed().as_millis() > 500).then_some(bytes)
    });
    let mut other = h2_client(pillion.http, 1024).await;
    let others = slow_streams(&mut other, 2, "192.0.2.2").await;
    eventually("the other client's is read ahead", || (buffered(&pillion) > held + 300_000.0).then_some(()));
    let grown = pillion.process.resident().saturating_sub(before);
    assert!(grown < 32 * MIB, "{} KiB for 202 slow streams", grown / 1024);
    // Every response is complete once it is read.
    for mut answer in slow.into_iter().take(6).chain(others) {
        assert_eq!(h2_body(answer.body_mut()).await.len(), SIZE);
    }
    drop((clients, other));
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

#[test]
fn n3_4_slow_readers_of_http_1_share_it_too() {
    let app = app();
    let pillion = pillion(app.address, "buffer_memory = \"16MiB\"\n", "");
    let before = pillion.process.resident();
    let slow = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&pillion.http.into()).unwrap();
        let mut tcp: TcpStream = socket.into();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        tcp
    };
    let mut clients: Vec<TcpStream> = (0..150).map(|_| slow()).collect();
    eventually("the share is used up", || (buffered(&pillion) >= (MEMORY / 8 * 7) as f64).then_some(()));
    let grown = pillion.process.resident().saturating_sub(before);
    assert!(grown < 32 * MIB, "{} KiB for 150 slow clients", grown / 1024);
    assert!(buffered(&pillion) < (MEMORY + MIB) as f64, "{}", buffered(&pillion));
    let readers: Vec<_> = clients
        .drain(..)
        .map(|mut tcp| std::thread::spawn(move || assert_eq!(read_answer(&mut tcp).body.len(), SIZE)))
        .collect();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

/// Bodies that are part of a cache key are accounted too.
#[test]
fn n3_4_content_of_a_cache_key_is_counted_too() {
    let app = Script::echo();
    let pillion = Config::new(app.address)
        .route("POST /key", r#"cache = { ttl = "1m", scope = "shared", key_body = true }"#)
        .start();
    let before = pillion.process.resident();
    let uploads: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut tcp = crate::harness::connect(pillion.http);
            tcp.write_all(b"POST /key HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n").unwrap();
            tcp.write_all(&[b'x'; 40_000]).unwrap();
            tcp
        })
        .collect();
    // Three pieces of 16 KiB each, the overhead of the allocator, and the connection.
    eventually("they are counted", || {
        (20.0 * 40_000.0..20.0 * 72.0 * 1024.0).contains(&buffered(&pillion)).then_some(())
    });
    let grown = pillion.process.resident().saturating_sub(before);
    assert!(grown < 12 * MIB, "{} KiB for 20 uploads of 40 KB", grown / 1024);
    for mut tcp in uploads {
        tcp.write_all(&[b'x'; 20_000]).unwrap();
        assert_eq!(read_answer(&mut tcp).json()["body"].as_str().unwrap().len(), 60_000);
    }
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}

/// Request bodies are accounted as they arrive, in pieces of any size.
#[test]
fn n3_4_request_bodies_are_counted_as_they_come() {
    let app = Script::echo();
    let pillion = pillion(app.address, "buffer_memory = \"4MiB\"\n", "");
    let mut uploads: Vec<TcpStream> = Vec::new();
    let before = pillion.process.resident();
    for at in 0..20 {
        let mut tcp = crate::harness::connect(pillion.http);
        if at % 2 == 0 {
            tcp.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n").unwrap();
            tcp.write_all(&[b'x'; 40_000]).unwrap();
        } else {
            // One byte in each chunk: 10,000 pieces.
            tcp.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            tcp.write_all("1\r\nx\r\n".repeat(10_000).as_bytes()).unwrap();
        }
        uploads.push(tcp);
    }
    // Bodies of unknown length pause and are forwarded; the others are buffered completely.
    eventually("they are counted", || {
        (10.0 * 40_000.0..10.0 * 72.0 * 1024.0).contains(&buffered(&pillion)).then_some(())
    });
    let grown = pillion.process.resident().saturating_sub(before);
    assert!(grown < 16 * MIB, "{} KiB for 20 uploads of 40 KB", grown / 1024);
    drop(uploads);
    eventually("all is given back", || (buffered(&pillion) == 0.0).then_some(()));
}
