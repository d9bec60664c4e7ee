//! Bodies that pass while they come: large ones in little memory, slow readers that slow their writers,
//! events that arrive when they are sent, answers that begin before their requests end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{PATIENCE, Pillion, Request, Script, connect, now, ok, read_answer};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
/// What passing a body of any size may add to the resident memory.
const ROOM: u64 = 16 * MIB;

fn head(tcp: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if tcp.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

/// Writes `size` bytes, adding to `written` as they leave; whether all did.
fn generate(tcp: &mut TcpStream, size: u64, written: &AtomicU64) -> bool {
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

/// Reads up to `size` bytes and gives how many came.
fn discard(from: &mut impl Read, size: u64) -> u64 {
    std::io::copy(&mut from.take(size), &mut std::io::sink()).unwrap_or(0)
}

/// An origin: GET answers `size` bytes, anything else says how many bytes came.
struct Bulk {
    app: Script,
    written: Arc<AtomicU64>,
}

impl Bulk {
    fn new(size: u64) -> Bulk {
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

fn discard_chunks(tcp: &mut TcpStream) -> u64 {
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

/// Runs `work` and gives what it gave and by how much the memory of `pillion` grew at its peak.
fn growth<T>(pillion: &Pillion, work: impl FnOnce() -> T) -> (T, u64) {
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
fn assert_flat(grown: u64, what: &str) {
    assert!(grown <= ROOM, "{what} took {} MiB", grown / MIB);
}

/// What must hold still: polled until it has not changed for a while.
fn standing(what: &str, value: impl Fn() -> u64) -> u64 {
    let mut last = (value(), now());
    harness::eventually(what, || {
        let seen = value();
        if seen != last.0 {
            last = (seen, now());
        }
        (last.1.elapsed() > Duration::from_millis(700)).then_some(seen)
    })
}

#[test]
fn a_download_of_a_gibibyte_takes_little_memory() {
    let origin = Bulk::new(GIB);
    let pillion = Pillion::in_front_of(origin.app.address);
    let ((), grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let head = head(&mut tcp).unwrap();
        assert!(head.contains("content-length: 1073741824"), "{head}");
        assert_eq!(discard(&mut tcp, GIB), GIB);
    });
    assert_flat(grown, "the download");
}

#[test]
fn an_upload_of_a_gibibyte_takes_little_memory() {
    let origin = Bulk::new(0);
    let pillion = Pillion::in_front_of(origin.app.address);
    let (answer, grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n");
        tcp.write_all(head.as_bytes()).unwrap();
        assert!(generate(&mut tcp, GIB, &AtomicU64::new(0)));
        read_answer(&mut tcp)
    });
    assert_eq!((answer.status, answer.text()), (200, GIB.to_string()));
    assert_flat(grown, "the upload");
}

#[test]
fn so_do_chunked_ones_and_those_of_http_2() {
    let size = 256 * MIB;
    let origin = Bulk::new(size);
    let pillion = Pillion::in_front_of(origin.app.address);
    let (url, log) = (pillion.url("/"), ["-sS", "--max-time", "60"]);
    let (said, grown) = growth(&pillion, || {
        let args =
            ["--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{size_download}", &url];
        harness::run("curl", &[&log[..], &args].concat())
    });
    assert_eq!(said, format!("2 {size}"));
    assert_flat(grown, "the download over HTTP/2");
    // From a pipe nobody knows the length.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let (said, grown) = growth(&pillion, || {
            let mut curl = Command::new("curl")
                .args(log)
                .args([version, "-T", "-", &url])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut pipe = curl.stdin.take().unwrap();
            std::io::copy(&mut std::io::repeat(b'u').take(size), &mut pipe).unwrap();
            drop(pipe);
            String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap()
        });
        assert_eq!(said, size.to_string(), "{version}");
        assert_flat(grown, &format!("the upload, {version}"));
    }
}

#[test]
fn so_do_those_over_tls_and_from_apps_over_http_2() {
    let size = 256 * MIB;
    let origin = Bulk::new(size);
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = Arc::new(harness::Folder::new());
    folder.write("tls.crt", key.cert.pem());
    folder.write("tls.key", key.signing_key.serialize_pem());
    let back = harness::Nginx::serving(&format!(
        "client_max_body_size 0; server {{ listen LISTEN http2; location / {{ proxy_pass http://{}; proxy_buffering off;\n\
         proxy_request_buffering off; proxy_http_version 1.1; }} }}",
        origin.app.address
    ));
    let pillion = Pillion::in_folder(
        folder,
        &format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
             certificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n[upstream]\nurl = \"http://{}\"\n\
             [upstreams.h2c]\nurl = \"h2c://{}\"\n[[routes]]\nmatch = \"* /h2c\"\nupstream = \"h2c\"\n",
            origin.app.address, back.address
        ),
    );
    let https = format!("https://{}/", pillion.https.unwrap());
    let file = pillion.folder.path("upload");
    std::fs::File::create(&file).unwrap().set_len(size).unwrap();
    let file = file.to_str().unwrap();
    for (url, version) in [
        (&https, "--http1.1"),
        (&https, "--http2"),
        (&pillion.url("/h2c"), "--http1.1"),
        (&pillion.url("/h2c"), "--http2-prior-knowledge"),
    ] {
        let args = ["-sSk", "--max-time", "60", version, url];
        let (said, grown) = growth(&pillion, || {
            harness::run("curl", &[&args[..], &["-o", "/dev/null", "-w", "%{size_download}"]].concat())
        });
        assert_eq!(said, size.to_string(), "{version} {url}");
        assert_flat(grown, &format!("the download, {version} {url}"));
        let (said, grown) = growth(&pillion, || harness::run("curl", &[&args[..], &["-T", file]].concat()));
        assert_eq!(said, size.to_string(), "{version} {url}");
        assert_flat(grown, &format!("the upload, {version} {url}"));
    }
}

#[test]
fn a_client_that_takes_nothing_for_send_timeout_is_let_go() {
    let (sender, ended) = channel::<()>();
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").unwrap();
            if !generate(&mut tcp, GIB, &AtomicU64::new(0)) {
                sender.send(()).unwrap();
            }
        }
    });
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nsend_timeout = \"500ms\"\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    ended.recv_timeout(PATIENCE).expect("the app's connection ends");
    // The same over HTTP/2: a preface, settings that allow 32 MiB in flight, and never a read.
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x04\x02\0\0\0").unwrap();
    tcp.write_all(b"\0\0\x04\x08\0\0\0\0\0\x02\0\0\0").unwrap();
    // HPACK: GET, http, /, and :authority "a" as a literal.
    tcp.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x01\x01a").unwrap();
    ended.recv_timeout(PATIENCE).expect("the app's connection ends, HTTP/2");
}

#[test]
fn a_client_that_does_not_read_slows_the_app() {
    let origin = Bulk::new(GIB / 4);
    let pillion = Pillion::in_front_of(origin.app.address);
    let ((), grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        head(&mut tcp).unwrap();
        let written = standing("the app is held back", || origin.written.load(Ordering::SeqCst));
        // Sockets' buffers are the kernel's; beyond them nothing goes.
        assert!(written < 32 * MIB, "{} MiB were taken for a client that reads nothing", written / MIB);
        assert_eq!(discard(&mut tcp, GIB / 4), GIB / 4, "and all of it comes when it reads");
    });
    assert_flat(grown, "a client that does not read");
}

#[test]
fn an_app_that_does_not_read_slows_the_client() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            wait.lock().unwrap().recv().unwrap();
            let came = discard(&mut tcp, GIB / 4);
            let _ = tcp.write_all(&ok(&came.to_string()));
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let (answer, grown) = growth(&pillion, || {
        let mut tcp = connect(pillion.http);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", GIB / 4);
        tcp.write_all(head.as_bytes()).unwrap();
        let sent = Arc::new(AtomicU64::new(0));
        let (mut writer, count) = (tcp.try_clone().unwrap(), sent.clone());
        let uploading = std::thread::spawn(move || generate(&mut writer, GIB / 4, &count));
        let taken = standing("the client is held back", || sent.load(Ordering::SeqCst));
        assert!(taken < 32 * MIB, "{} MiB were taken for an app that reads nothing", taken / MIB);
        go.send(()).unwrap();
        assert!(uploading.join().unwrap());
        read_answer(&mut tcp)
    });
    assert_eq!(answer.text(), (GIB / 4).to_string());
    assert_flat(grown, "an app that does not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_2_that_is_not_read_slows_its_app_and_not_its_neighbours() {
    let origin = Bulk::new(GIB / 4);
    let quick = Script::echo();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[upstreams.quick]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"* /quick\"\nupstream = \"quick\"\n",
        origin.app.address, quick.address
    ));
    let before = pillion.process.resident();
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_connection_window_size(4 * 1024 * 1024)
        .handshake::<_, bytes::Bytes>(tcp)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let get = |path: &str| http::Request::get(format!("http://a.test{path}")).body(()).unwrap();
    let (slow, _) = client.send_request(get("/bulk"), true).unwrap();
    let slow = slow.await.unwrap();
    let written = tokio::task::block_in_place(|| {
        standing("the app is held back", || origin.written.load(Ordering::SeqCst))
    });
    assert!(written < 32 * MIB, "{} MiB", written / MIB);
    for _ in 0..5 {
        let (answer, _) = client.send_request(get("/quick"), true).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    let mut body = slow.into_body();
    let (mut came, mut peak) = (0, 0);
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        came += data.len() as u64;
        body.flow_control().release_capacity(data.len()).unwrap();
        peak = peak.max(pillion.process.resident());
    }
    assert_eq!(came, GIB / 4);
    assert_flat(peak.saturating_sub(before), "the stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_of_http_2_gets_the_last_of_a_whole_answer() {
    // The app is done at once, what is left waits for the client's windows: longer than idle_timeout in all,
    // but never silent for as long as send_timeout.
    let app = Script::answering(|_| ok(&"x".repeat(120_000)));
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nidle_timeout = \"200ms\"\nsend_timeout = \"5s\"\n\
         [upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(8 * 1024)
        .handshake::<_, bytes::Bytes>(tcp)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let (answer, _) =
        client.send_request(http::Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let mut came = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap_or_else(|error| panic!("{error} after {came} bytes"));
        came += data.len();
        // The slowness is the scenario.
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(came, 120_000);
}

/// A slow client that reads steadily takes the pieces of its streams in turns: each of them is unread for
/// longer than send_timeout, and none is cut.
#[tokio::test(flavor = "multi_thread")]
async fn many_streams_of_a_slow_but_steady_reader_of_http_2_all_end() {
    const STREAMS: usize = 12;
    const SIZE: usize = 200_000;
    let app = Script::answering(|_| ok(&"x".repeat(SIZE)));
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nsend_timeout = \"500ms\"\n\
         [upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(16 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .handshake::<_, bytes::Bytes>(tcp)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        let request = http::Request::get("http://a.test/").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        bodies.push((answer.await.unwrap().into_body(), 0));
    }
    while bodies.iter().any(|(_, came)| *came < SIZE) {
        for (body, came) in bodies.iter_mut().filter(|(_, came)| *came < SIZE) {
            let data = body.data().await.unwrap().unwrap_or_else(|error| panic!("{error} after {came}"));
            *came += data.len();
            // The slowness is the scenario: a turn of all streams takes longer than send_timeout.
            tokio::time::sleep(Duration::from_millis(45)).await;
            body.flow_control().release_capacity(data.len()).unwrap();
        }
    }
}

// Server-sent events.

/// An app that says an event for each word it is given, and ends when no more can come.
fn events() -> (Script, Sender<String>) {
    let (sender, words) = channel::<String>();
    let words: Arc<Mutex<Receiver<String>>> = Arc::new(Mutex::new(words));
    let app = Script::new(move |mut tcp| {
        while let Some(request) = Request::read(&mut tcp) {
            if !request.line.contains("/events") {
                let _ = tcp.write_all(&ok("ordinary"));
                continue;
            }
            tcp.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            )
            .unwrap();
            while let Ok(word) = words.lock().unwrap().recv() {
                let event = format!("data: {word}\n\n");
                if tcp.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).is_err() {
                    return;
                }
            }
            let _ = tcp.write_all(b"0\r\n\r\n");
        }
    });
    (app, sender)
}

/// The next event's data off a chunked answer.
fn next_event(reader: &mut impl BufRead) -> String {
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(data) = line.strip_prefix("data: ") {
            return data.trim().to_owned();
        }
    }
}

/// From each word's sending to its arrival, one after the other.
fn delays(words: &Sender<String>, reader: &mut impl BufRead) -> Vec<Duration> {
    let mut delays = Vec::new();
    for at in 0..100 {
        let sent: Instant = now();
        words.send(at.to_string()).unwrap();
        // The next is not sent before this has come: nothing can push it out.
        assert_eq!(next_event(reader), at.to_string());
        delays.push(sent.elapsed());
    }
    delays.sort();
    delays
}

#[track_caller]
fn assert_prompt(delays: &[Duration], what: &str) {
    // A machine that is busy with something else may take its time once in a while.
    assert!(delays[90] < Duration::from_millis(50), "{what}: {delays:?}");
}

#[test]
fn events_arrive_as_they_are_sent() {
    let (app, words) = events();
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(
        b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAccept-Encoding: gzip\r\n\r\n",
    )
    .unwrap();
    let mut reader = BufReader::new(tcp);
    let head = head(&mut reader).unwrap();
    assert!(head.contains("content-type: text/event-stream") && !head.contains("content-encoding"), "{head}");
    assert_prompt(&delays(&words, &mut reader), "HTTP/1.1");
}

#[test]
fn events_arrive_as_they_are_sent_over_http_2_too() {
    let (app, words) = events();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/events");
    let curl = Command::new("curl")
        .args(["-sN", "--http2-prior-knowledge", "--max-time", "60", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut curl = harness::Process(curl);
    let mut reader = BufReader::new(curl.0.stdout.take().unwrap());
    assert_prompt(&delays(&words, &mut reader), "HTTP/2");
}

#[test]
fn a_quiet_event_stream_outlives_body_timeout_and_takes_no_connection() {
    let (app, words) = events();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\nbody_timeout = \"300ms\"\nmax_connections = 1\nqueue_timeout = \"100ms\"\n",
        app.address
    ));
    let mut streams = Vec::new();
    for at in 0..3 {
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut reader = BufReader::new(tcp);
        head(&mut reader).unwrap();
        if at == 0 {
            words.send("first".to_owned()).unwrap();
            assert_eq!(next_event(&mut reader), "first");
        }
        streams.push(reader);
    }
    assert_eq!(pillion.get("/").status, 200, "three open streams leave the one connection to others");
    // The silence is the scenario: several times what an ordinary body may be silent.
    std::thread::sleep(Duration::from_millis(1200));
    words.send("after the silence".to_owned()).unwrap();
    assert_eq!(next_event(streams.first_mut().unwrap()), "after the silence");
}

#[test]
fn a_quiet_event_stream_outlives_every_limit_on_clients() {
    let short = "300ms";
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let (app, words) = events();
        let pillion = Pillion::with(&format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nheader_timeout = \"{short}\"\nbody_timeout = \"{short}\"\n\
             send_timeout = \"{short}\"\nidle_timeout = \"{short}\"\n[upstream]\nurl = \"http://{}\"\nbody_timeout = \"{short}\"\n\
             response_timeout = \"{short}\"\nkeep_alive = \"{short}\"\n",
            app.address
        ));
        let url = pillion.url("/events");
        let mut curl = Command::new("curl");
        curl.args(["-sN", version, "--max-time", "20", &url]).stdout(Stdio::piped());
        let mut curl = harness::Process(curl.spawn().unwrap());
        let mut reader = BufReader::new(curl.0.stdout.take().unwrap());
        words.send("before".to_owned()).unwrap();
        assert_eq!(next_event(&mut reader), "before");
        // The silence is the scenario.
        std::thread::sleep(Duration::from_millis(1200));
        words.send("after".to_owned()).unwrap();
        assert_eq!(next_event(&mut reader), "after", "{version}");
    }
}

#[test]
fn an_ordinary_body_that_falls_silent_is_cut_visibly() {
    let (silent, done) = channel::<()>();
    let done = Mutex::new(done);
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").unwrap();
            let _ = done.lock().unwrap().recv();
        }
    });
    let pillion =
        Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\nbody_timeout = \"300ms\"\n", app.address));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let head = head(&mut tcp).unwrap();
    assert!(head.contains("content-length: 10"), "{head}");
    let mut body = Vec::new();
    // An end or a reset, but before the content is whole.
    let _ = tcp.read_to_end(&mut body);
    assert_eq!(body, b"hello");
    pillion.access("why", |line| !line["error"].is_null());
    drop(silent);
}

#[test]
fn event_streams_end_when_draining_starts() {
    let (app, words) = events();
    let mut pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ndrain_timeout = \"60s\"\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut reader = BufReader::new(tcp);
    words.send("hello".to_owned()).unwrap();
    assert_eq!(next_event(&mut reader), "hello");
    let url = pillion.url("/events");
    let mut curl = Command::new("curl");
    curl.args(["-sN", "--http2-prior-knowledge", "--max-time", "60", &url]).stdout(Stdio::null());
    let mut curl = harness::Process(curl.spawn().unwrap());
    harness::eventually("both streams are open", || {
        (app.connections.load(Ordering::SeqCst) == 2).then_some(())
    });
    pillion.process.signal("TERM");
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "cut, so that the client connects again");
    curl.wait();
    assert!(pillion.process.wait().success());
}

#[test]
fn an_app_hears_that_its_reader_left() {
    let (sender, left) = channel::<()>();
    let app = Script::new(move |mut tcp| {
        if head(&mut tcp).is_some() {
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: hello\n\n")
                .unwrap();
            let _ = tcp.read(&mut [0u8; 1]);
            sender.send(()).unwrap();
        }
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut reader = BufReader::new(connect(pillion.http));
    reader.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(next_event(&mut reader), "hello");
    drop(reader);
    left.recv_timeout(PATIENCE).expect("the app's connection ends although no event is sent");
}

// Both ways at once.

/// An app that answers each chunk as it comes with a chunk of its own.
fn conversation() -> Script {
    Script::new(|mut tcp| {
        if head(&mut tcp).is_none() {
            return;
        }
        tcp.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .unwrap();
        let mut reader = BufReader::new(tcp.try_clone().unwrap());
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut data = vec![0u8; usize::from_str_radix(line.trim(), 16).unwrap() + 2];
            reader.read_exact(&mut data).unwrap();
            tcp.write_all(&[line.as_bytes(), &data].concat()).unwrap();
            if data.len() == 2 {
                return;
            }
        }
    })
}

#[test]
fn an_answer_may_begin_before_its_request_ends() {
    let app = conversation();
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert!(
        head(&mut tcp).unwrap().starts_with("http/1.1 200"),
        "the head comes before any content was sent"
    );
    for at in 0..50 {
        let chunk = format!("6\r\nnote{}{}\r\n", at / 10, at % 10);
        tcp.write_all(chunk.as_bytes()).unwrap();
        let mut heard = vec![0u8; chunk.len()];
        tcp.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard), chunk);
    }
    tcp.write_all(b"0\r\n\r\n").unwrap();
    let mut end = [0u8; 5];
    tcp.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
    // The connection is as good as new.
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    assert!(head(&mut tcp).unwrap().starts_with("http/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_may_over_http_2() {
    let app = conversation();
    let pillion = Pillion::in_front_of(app.address);
    let tcp = tokio::net::TcpStream::connect(pillion.http).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("http://a.test/").body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    let mut body = answer.into_body();
    for at in 0..50 {
        let text = format!("note {at}");
        upload.send_data(bytes::Bytes::from(text.clone()), false).unwrap();
        let heard = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(heard, text.as_bytes());
        body.flow_control().release_capacity(heard.len()).unwrap();
    }
    upload.send_data(bytes::Bytes::new(), true).unwrap();
    let end = tokio::time::timeout(PATIENCE, async {
        // The end may ride on an empty frame.
        while let Some(data) = body.data().await {
            assert!(data?.is_empty());
        }
        Ok::<_, h2::Error>(())
    });
    end.await.unwrap().unwrap();
}
