//! Tests of log lines during shutdown, and with readers that do not read them.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tools::{ask, upstream};
use crate::harness::{
    self, Answer, Folder, Pillion, Script, absent_app, binary, connect, eventually, exchange, free_address,
};

#[test]
fn every_request_answered_before_the_end_is_in_the_access_log() {
    let app = Script::echo();
    let mut pillion = Pillion::with(&upstream(&app));
    for at in 0..50 {
        assert_eq!(pillion.get(&format!("/logged/{at}")).status, 200);
    }
    pillion.process.signal("TERM");
    assert_eq!(pillion.process.wait().code(), Some(0));
    eventually("50 lines", || (pillion.access_log().matches("/logged/").count() == 50).then_some(()));
}

#[test]
fn requests_that_end_at_once_are_all_in_the_access_log_soon() {
    let pillion = Pillion::with(
        "[upstream]\nurl = \"http://127.0.0.1:9\"\n[[routes]]\nmatch = \"GET /**\"\ndeny = 403\n",
    );
    // More requests than are reported in one batch, from one client that stays.
    let requests: String =
        (0..200).map(|at| format!("GET /logged/{at} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let mut tcp = connect(pillion.http);
    tcp.write_all(requests.as_bytes()).unwrap();
    eventually("200 lines, each of another one", || {
        let log = pillion.access_log();
        (0..200).all(|at| log.matches(&format!("\"/logged/{at}\"")).count() == 1).then_some(())
    });
}

#[test]
fn a_worker_that_never_waits_writes_lines_too() {
    // An endless response, sent as fast as the client reads: its encoder always has work and must yield to others.
    let app = Script::new(|mut tcp| {
        let Some(head) = harness::head(&mut tcp) else { return };
        if head.starts_with("GET /endless") {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n");
            while tcp.write_all(&[b'a'; 65536]).is_ok() {}
        } else {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let pillion = Pillion::with(&format!("[server]\nworkers = 1\n{}", upstream(&app)));
    let mut endless = connect(pillion.http);
    endless.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\nAccept-Encoding: br\r\n\r\n").unwrap();
    std::thread::spawn(move || std::io::copy(&mut endless, &mut std::io::sink()));
    eventually("it is being read", || {
        (pillion.metric("pillion_http_requests_in_flight") > 0.0).then_some(())
    });
    assert_eq!(pillion.get("/short").status, 200);
    eventually("the line of the other one", || pillion.access_log().contains("/short").then_some(()));
}

/// Starts a process whose output nobody reads unless the test does. The test keeps its end of the pipes.
fn unread(log: &str, config: &str) -> (harness::Process, Folder, SocketAddr) {
    started(Stdio::piped(), "", log, config)
}

/// Starts a process whose access log goes to `output`.
fn started(output: Stdio, admin: &str, log: &str, config: &str) -> (harness::Process, Folder, SocketAddr) {
    let folder = Folder::new();
    let address = free_address();
    let config = format!("[server]\nlisten = [\"{address}\"]\nadmin = \"{admin}\"\n[log]\n{log}\n{config}");
    let path = folder.write("pillion.toml", config);
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(path).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    let process = harness::Process(command.spawn().unwrap());
    eventually("it listens", || TcpStream::connect(address).is_ok().then_some(()));
    (process, folder, address)
}

#[test]
fn a_client_that_leaves_is_logged_with_the_app_that_was_silent() {
    let asked = Arc::new(AtomicUsize::new(0));
    let heard = asked.clone();
    let app = Script::new(move |mut tcp| {
        if harness::head(&mut tcp).is_some() {
            heard.fetch_add(1, Ordering::SeqCst);
            // Waits until Pillion closes the connection.
            let _ = tcp.read(&mut [0]);
        }
    });
    let routes = "[[routes]]\nmatch = \"GET /kept\"\ncache = { ttl = \"1m\" }\n";
    let pillion = Pillion::with(&format!("{}{routes}", upstream(&app)));
    // A request that nobody waits for is aborted, but not one that others may join, or that may have been executed.
    for (at, (method, path)) in [("GET", "/silent"), ("GET", "/kept"), ("POST", "/done")].iter().enumerate() {
        let mut tcp = connect(pillion.http);
        tcp.write_all(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        eventually("the app is asked", || (asked.load(Ordering::SeqCst) > at).then_some(()));
        drop(tcp);
        let line = pillion.access("it left", |line| line["path"] == *path);
        let address = app.address.to_string();
        assert_eq!((&line["status"], &line["upstream"]), (&499.into(), &address.into()), "{line}");
        assert!(line["upstream_ms"].is_number(), "{line}");
    }
}

#[test]
fn lines_for_people_mask_secrets_and_fit_a_terminal() {
    let app = Script::echo();
    let (mut process, _folder, address) = unread("format = \"pretty\"", &upstream(&app));
    assert_eq!(ask(&mut connect(address), "/for/people?token=S3CRET").status, 200);
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(0));
    let mut log = String::new();
    process.0.stdout.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains(" 200 ") && log.contains("ms GET    /for/people?token=*** "), "{log}");
    assert!(log.lines().all(|line| line.chars().count() <= 100), "{log}");
}

fn admin_get(admin: SocketAddr, path: &str) -> Answer {
    exchange(admin, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
}

#[test]
fn lines_that_a_full_disk_does_not_take_are_counted() {
    let (app, admin) = (Script::echo(), free_address());
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (_process, _folder, address) =
        started(full.into(), &admin.to_string(), "format = \"json\"", &upstream(&app));
    let mut tcp = connect(address);
    for _ in 0..3 {
        assert_eq!(ask(&mut tcp, "/lost").status, 200);
    }
    eventually("they are counted", || {
        admin_get(admin, "/metrics").text().contains("pillion_log_dropped_total 3\n").then_some(())
    });
    assert_eq!(ask(&mut tcp, "/served").status, 200);
}

#[test]
fn the_disk_that_logs_go_to_is_a_check() {
    let app = Script::echo();
    let folder = Folder::new();
    let path = folder.path("access.log");
    for (degraded_at, states) in [("1.0", ["healthy"].as_slice()), ("0.0", &["degraded", "unhealthy"])] {
        let admin = free_address();
        let config = format!("[health]\ndegraded_at = {degraded_at}\n{}", upstream(&app));
        let file = File::create(&path).unwrap();
        let (_process, _folder, _address) =
            started(file.into(), &admin.to_string(), "format = \"json\"", &config);
        let disk = admin_get(admin, "/health/disk").json();
        assert!(states.iter().any(|state| disk["status"] == *state), "{disk}");
        let detail = disk["detail"].as_str().unwrap();
        let numbers: Vec<f64> = detail.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [used, total] = numbers[..] else { panic!("{detail}") };
        assert!(detail.ends_with("bytes used on the disk that standard output goes to"), "{detail}");
        let shown = harness::run("df", &["--output=pcent", path.to_str().unwrap()]);
        let percent: f64 = shown.lines().last().unwrap().trim().trim_end_matches('%').parse().unwrap();
        assert!((used / total * 100.0 - percent).abs() < 2.0, "{detail}, {percent} % by df");
    }
    // A pipe uses no disk.
    let pillion = Pillion::with(&upstream(&app));
    let disk = pillion.admin_get("/health/disk").json();
    assert_eq!(
        (&disk["status"], &disk["detail"]),
        (&"healthy".into(), &"no log is written to a file".into())
    );
}

#[test]
fn a_reader_of_the_access_log_that_hangs_or_leaves_stops_nothing() {
    let app = Script::echo();
    for leaves in [false, true] {
        let (mut process, _folder, address) = unread("format = \"json\"", &upstream(&app));
        if leaves {
            drop(process.0.stdout.take());
        }
        let mut tcp = connect(address);
        // More than the pipe and the buffer can hold.
        let long = format!("/{}", "a".repeat(3000));
        for _ in 0..800 {
            assert_eq!(ask(&mut tcp, &long).status, 200);
        }
        drop(tcp);
        process.signal("TERM");
        assert_eq!(process.wait().code(), Some(0), "and it ends, reader or not (leaves: {leaves})");
    }
}

#[test]
fn a_reader_of_the_error_log_that_hangs_or_leaves_stops_nothing() {
    for leaves in [true, false] {
        let (mut process, _folder, address) =
            unread("access = \"off\"", &format!("[upstream]\nurl = \"http://{}\"\n", absent_app()));
        if leaves {
            drop(process.0.stderr.take());
        }
        let mut tcp = connect(address);
        // Each is a warning of more than a hundred bytes; the pipe holds 64 KiB.
        for at in 0..1500 {
            assert_eq!(ask(&mut tcp, "/").status, 502, "request {at} (leaves: {leaves})");
        }
        drop(tcp);
        process.signal("TERM");
        assert_eq!(process.wait().code(), Some(0), "(leaves: {leaves})");
    }
}
