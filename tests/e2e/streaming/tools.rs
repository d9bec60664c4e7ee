//! Helpers that several of these tests use.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::{self, Pillion, Script, now, ok};

pub(crate) const MIB: u64 = 1024 * 1024;

pub(crate) const GIB: u64 = 1024 * MIB;

/// Maximum growth of resident memory while a body of any size passes.
pub(crate) const ROOM: u64 = 16 * MIB;

/// Reads a head and converts it to lower case.
pub(crate) fn head(tcp: &mut impl Read) -> Option<String> {
    harness::head(tcp).map(|head| head.to_ascii_lowercase())
}

/// Writes `size` bytes and adds to `written` as they leave. Returns whether all were written.
pub(crate) fn generate(tcp: &mut TcpStream, size: u64, written: &AtomicU64) -> bool {
    let block = vec![b'x'; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let some = usize::try_from(left.min(block.len() as u64)).unwrap();
        if tcp.write_all(&block[..some]).is_err() {
            return false;
        }
        written.fetch_add(some as u64, Ordering::SeqCst);
        left -= some as u64;
    }
    true
}

/// Reads up to `size` bytes and returns how many arrived.
pub(crate) fn discard(from: &mut impl Read, size: u64) -> u64 {
    std::io::copy(&mut from.take(size), &mut std::io::sink()).unwrap_or(0)
}

/// An origin: GET responds with `size` bytes, anything else with the number of bytes received.
pub(crate) struct Bulk {
    pub app: Script,
    pub written: Arc<AtomicU64>,
}

impl Bulk {
    pub(crate) fn new(size: u64) -> Bulk {
        let written = Arc::new(AtomicU64::new(0));
        let count = written.clone();
        let app = Script::new(move |mut tcp| {
            while let Some(head) = head(&mut tcp) {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if head.starts_with("get") {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
                    if tcp.write_all(answer.as_bytes()).is_err() || !generate(&mut tcp, size, &count) {
                        return;
                    }
                } else if let Some(length) = length {
                    let came = discard(&mut tcp, length.trim().parse().unwrap());
                    if tcp.write_all(&ok(&came.to_string())).is_err() {
                        return;
                    }
                } else {
                    let came = discard_chunks(&mut tcp);
                    let _ = tcp.write_all(&ok(&came.to_string()));
                }
            }
        });
        Bulk { app, written }
    }
}

pub(crate) fn discard_chunks(tcp: &mut TcpStream) -> u64 {
    let mut reader = BufReader::with_capacity(64 * 1024, tcp);
    let mut came = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let size = u64::from_str_radix(line.trim(), 16).unwrap();
        came += discard(&mut reader, size);
        let mut end = [0u8; 2];
        reader.read_exact(&mut end).unwrap();
        if size == 0 {
            return came;
        }
    }
}

/// Runs `work` and returns its result, with the peak growth of Pillion's memory.
pub(crate) fn growth<T>(pillion: &Pillion, work: impl FnOnce() -> T) -> (T, u64) {
    let before = pillion.process.resident();
    let peak = AtomicU64::new(before);
    let done = AtomicBool::new(false);
    let value = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                peak.fetch_max(pillion.process.resident(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        value
    });
    let grown = peak.load(Ordering::SeqCst).saturating_sub(before);
    (value.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), grown)
}

#[track_caller]
pub(crate) fn assert_flat(grown: u64, what: &str) {
    assert!(grown <= ROOM, "{what} took {} MiB", grown / MIB);
}

/// Polls a value until it has not changed for a while, and returns it.
pub(crate) fn standing(what: &str, value: impl Fn() -> u64) -> u64 {
    let mut last = (value(), now());
    harness::eventually(what, || {
        let seen = value();
        if seen != last.0 {
            last = (seen, now());
        }
        (last.1.elapsed() > Duration::from_millis(700)).then_some(seen)
    })
}
