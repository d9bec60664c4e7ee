//! Tests of upstream connections that die silently.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;

use super::tools::{ONE_WORKER, app, serve_all};
use crate::harness::{Pillion, connect, exchange, now, read_answer};

/// A path to the app that swallows everything, without a FIN, on connections made before `fall_silent`.
struct Wire {
    address: SocketAddr,
    silent: Arc<AtomicBool>,
    /// Number of PINGs that passed, without acknowledgements.
    pings: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Wire {
    fn to(app: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire =
            Wire { address, silent: Arc::default(), pings: Arc::default(), connections: Arc::default() };
        let (silent, pings, connections) =
            (wire.silent.clone(), wire.pings.clone(), wire.connections.clone());
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let Ok(here) = tcp else { return };
                // Pillion connects without sending a byte to check that the app is there; such a connection does not
                // count.
                if matches!(here.peek(&mut [0]), Ok(0)) {
                    continue;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let there = TcpStream::connect(app).unwrap();
                // Connections made after the silence began are healthy.
                let mine = if silent.load(Ordering::SeqCst) { Arc::default() } else { silent.clone() };
                let pings = pings.clone();
                copy(here.try_clone().unwrap(), there.try_clone().unwrap(), mine.clone(), Some(pings));
                copy(there, here, mine, None);
            }
        });
        wire
    }

    fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, silent: Arc<AtomicBool>, pings: Option<Arc<AtomicUsize>>) {
    std::thread::spawn(move || {
        let mut frames = Frames::default();
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(pings) = &pings {
                pings.fetch_add(frames.pings(&buffer[..count]), Ordering::SeqCst);
            }
            if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        if !silent.load(Ordering::SeqCst) {
            let _ = to.shutdown(Shutdown::Both);
        }
    });
}

/// Finds PINGs in the bytes that an HTTP/2 client sends.
#[derive(Default)]
struct Frames {
    read: Vec<u8>,
    begun: bool,
}

impl Frames {
    fn pings(&mut self, bytes: &[u8]) -> usize {
        self.read.extend_from_slice(bytes);
        if !self.begun && self.read.len() >= 24 {
            self.begun = true;
            self.read.drain(..24);
        }
        let mut pings = 0;
        while self.begun && self.read.len() >= 9 {
            let length =
                usize::from(self.read[0]) << 16 | usize::from(self.read[1]) << 8 | usize::from(self.read[2]);
            if self.read.len() < 9 + length {
                break;
            }
            // Type 6 is PING, and flag 1 is an acknowledgement (RFC 9113 6.7).
            pings += usize::from(self.read[3] == 6 && self.read[4] & 1 == 0);
            self.read.drain(..9 + length);
        }
        pings
    }
}

fn get(pillion: &Pillion, method: &str, content: &str) -> u16 {
    let mut tcp = connect(pillion.http);
    let length = content.len();
    write!(tcp, "{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{content}").unwrap();
    read_answer(&mut tcp).status
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_2_a_dead_connection_is_found_and_left() {
    let app = app(|connection, _| serve_all(connection)).await;
    let wire = Wire::to(app);
    let pillion = Pillion::with(&format!(
        "{ONE_WORKER}[cache]\nenabled = false\n[upstream]\nurl = \"h2c://{}\"\nkeep_alive = \"60s\"\n[upstream.health]\nunhealthy_after = 1\n",
        wire.address
    ));
    tokio::task::block_in_place(|| {
        assert_eq!(get(&pillion, "GET", ""), 200);
        wire.fall_silent();
        let since = now();
        std::thread::scope(|scope| {
            let reads: Vec<_> = (0..28).map(|_| scope.spawn(|| get(&pillion, "PUT", "small"))).collect();
            let write = scope.spawn(|| get(&pillion, "POST", "small"));
            for read in reads {
                assert_eq!(read.join().unwrap(), 200, "what is safe is sent again");
            }
            assert_eq!(write.join().unwrap(), 502, "of a POST nobody knows what became of it");
        });
        assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
        assert_eq!(wire.pings.load(Ordering::SeqCst), 1);
        assert_eq!(get(&pillion, "POST", "small"), 200);
        assert_eq!(pillion.admin_get("/ready").status, 200);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn n4_2_silence_alone_ends_nothing() {
    let app = app(|mut connection, _| async move {
        let mut number = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            number += 1;
            let quiet = number == 1;
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            tokio::spawn(async move {
                stream.send_data("begin ".into(), false).unwrap();
                if quiet {
                    tokio::time::sleep(Duration::from_secs(12)).await;
                }
                stream.send_data("end".into(), true).unwrap();
            });
        }
    })
    .await;
    let wire = Wire::to(app);
    let pillion = Pillion::with(&format!("{ONE_WORKER}[upstream]\nurl = \"h2c://{}\"\n", wire.address));
    tokio::task::block_in_place(|| {
        let answer = exchange(pillion.http, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert_eq!((answer.status, answer.text().as_str()), (200, "begin end"));
        assert_eq!(wire.pings.load(Ordering::SeqCst), 1, "one PING in twelve seconds of silence");
        assert_eq!(wire.connections.load(Ordering::SeqCst), 1);
    });
}
