//! Tests of the memory that responses take while slow clients read them, and afterwards.

use std::fmt::Write as _;
use std::io::{Read, Write};

use super::tools::get;
use crate::harness::{Pillion, Script, connect, eventually};

/// Regression: ranges of a stored response were copied for each client, so 50 slow clients of 4 MiB took 206 MiB.
#[test]
fn n3_2_several_ranges_are_slices_of_what_is_stored() {
    const SIZE: usize = 4 << 20;
    let content: Vec<u8> = (0..SIZE).map(|at| (at / 1000) as u8).collect();
    let bytes = content.clone();
    let app = Script::answering(move |_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: video/x\r\ncache-control: max-age=600\r\ncontent-length: {SIZE}\r\n\r\n"
        );
        [head.as_bytes(), &bytes].concat()
    });
    let pillion = Pillion::in_front_of(app.address);
    eventually("it is stored", || {
        let hit = get(&pillion, "/", "").field("cache-status").unwrap().contains("hit");
        hit.then_some(())
    });
    let before = pillion.process.resident();
    let ranges = "range: bytes=0-2097151,2097153-4194303";
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let mut tcp = connect(pillion.http);
            write!(tcp, "GET / HTTP/1.1\r\nhost: test\r\n{ranges}\r\nconnection: close\r\n\r\n").unwrap();
            let mut start = [0; 12];
            tcp.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 206");
            tcp
        })
        .collect();
    let grown = pillion.process.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{} MiB for 50 clients", grown >> 20);
    // The content they finally get is correct.
    let mut answer = Vec::new();
    clients.into_iter().next().unwrap().read_to_end(&mut answer).unwrap();
    let find = |part: &[u8]| answer.windows(part.len()).position(|found| found == part);
    assert!(find(b"Content-Range: bytes 0-2097151/4194304\r\n\r\n").is_some());
    let at = find(b"Content-Range: bytes 2097153-4194303/4194304\r\n\r\n").unwrap() + 48;
    assert!(answer[at..].starts_with(&content[2_097_153..]));
}

/// Regression: 1,000 responses with trailers of 15 KB and content of two bytes were accounted as 2 MiB, but took 16
/// MiB.
#[test]
fn n3_2_trailers_are_weighed() {
    let app = Script::answering(|_| {
        let mut trailers = String::new();
        (0..15).for_each(|at| write!(trailers, "x-trailer-{at}: {}\r\n", "t".repeat(1000)).unwrap());
        let fields = "cache-control: max-age=600\r\ntransfer-encoding: chunked\r\ntrailer: x-trailer-0";
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n2\r\nhi\r\n0\r\n{trailers}\r\n").into_bytes()
    });
    let config = format!("[upstream]\nurl = \"http://{}\"\n[cache]\nmax_size = \"2MiB\"\n", app.address);
    let pillion = Pillion::with(&config);
    for at in 0..300 {
        assert_eq!(get(&pillion, &format!("/{at}"), "").text(), "hi");
    }
    eventually("all are stored", || (pillion.metric("pillion_cache_evictions_total") > 100.0).then_some(()));
    let (bytes, keys) = (pillion.metric("pillion_cache_bytes"), pillion.metric("pillion_cache_keys"));
    assert!(bytes <= (2 << 20) as f64 && keys * 15_000.0 < (2 << 20) as f64, "{keys} keys in {bytes} bytes");
}
