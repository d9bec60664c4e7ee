//! Life and death: configuration that is replaced while clients are served, and processes that are
//! told to leave, start badly, or are watched doing so. Real signals to the real binary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{
    Answer, Folder, PATIENCE, Pillion, Request, Script, absent_app, binary, complete, connect, eventually,
    free_address, now, ok, read_answer,
};
use pillion::policy::SourceFile;

/// A `[server]` on free ports with more in it.
fn server(more: &str) -> String {
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{more}\n")
}

fn upstream(app: &Script) -> String {
    format!("[upstream]\nurl = \"http://{}\"\n", app.address)
}

const DENY: &str = "[[routes]]\nmatch = \"* /denied\"\ndeny = 404\n";

fn applied(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_config_reloads_total{result=\"applied\"}")
}

fn refused(pillion: &Pillion) -> f64 {
    pillion.metric("pillion_config_reloads_total{result=\"refused\"}")
}

/// Replaces the file as careful editors do: written beside it, renamed over it.
fn rename_over(folder: &Folder, config: &str) {
    let fresh = folder.write("fresh", complete(config));
    std::fs::rename(fresh, folder.path("pillion.toml")).unwrap();
}

/// One request on a kept connection.
#[track_caller]
fn ask(tcp: &mut TcpStream, path: &str) -> Answer {
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
    read_answer(tcp)
}

/// Reads until the other side closes; true if it said nothing more.
fn closes_silently(tcp: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tcp.read_to_end(&mut rest).is_ok() && rest.is_empty()
}

/// An app that reports each request and answers it only when told to.
fn holding() -> (Script, Receiver<()>, Sender<()>) {
    let (seen, requests) = channel();
    let (release, released) = channel();
    let released = Mutex::new(released);
    let app = Script::answering(move |_| {
        seen.send(()).unwrap();
        let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        ok("held")
    });
    (app, requests, release)
}

/// Raises a flag also when the test fails, so that the threads that wait for it end.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn pillion(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn sighup_applies_the_file_as_it_is_now() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    assert_eq!(pillion.get("/denied").status, 200);
    pillion.reload(&format!("{}{DENY}", upstream(&app)));
    assert_eq!(pillion.get("/denied").status, 404);
    assert_eq!((applied(&pillion), pillion.metric("pillion_config_generation")), (1.0, 2.0));
    pillion.reload(&upstream(&app));
    assert_eq!(pillion.get("/denied").status, 200);
}

#[test]
fn a_refused_file_changes_nothing_is_logged_and_counted() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{}{DENY}", upstream(&app)));
    let mut kept = connect(pillion.http);
    assert_eq!(ask(&mut kept, "/denied").status, 404);
    for (bad, said) in [
        ("[upstream]\nurl = \"http://127.0.0.1:1\"\nresponse_timout = \"1s\"\n", "response_timeout"),
        ("[upstream]\nurl = 7\n", "url"),
        ("[upstream\n", "pillion.toml"),
        ("", "upstream"),
    ] {
        pillion.reload(bad);
        eventually(&format!("{bad:?}: the log says {said:?}"), || pillion.log().contains(said).then_some(()));
        assert_eq!(ask(&mut kept, "/denied").status, 404);
        assert_eq!(ask(&mut kept, "/").status, 200);
    }
    std::fs::remove_file(pillion.folder.path("pillion.toml")).unwrap();
    pillion.process.signal("HUP");
    eventually("the missing file is refused", || (refused(&pillion) >= 5.0).then_some(()));
    assert_eq!(ask(&mut kept, "/denied").status, 404);
    assert_eq!((applied(&pillion), pillion.metric("pillion_config_generation")), (0.0, 1.0));
}

#[test]
fn what_needs_a_restart_is_refused_by_name() {
    let app = Script::echo();
    let base = format!("{}{}", server("workers = 1"), upstream(&app));
    let pillion = Pillion::with(&base);
    for (config, name) in [
        (base.replace("workers = 1", "workers = 2"), "server.workers"),
        (base.replace("listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.2:0\"]"), "server.listen"),
        (base.replace("admin = \"127.0.0.1:0\"", "admin = \"127.0.0.2:0\""), "server.admin"),
        (base.replace("workers = 1", "workers = 1\nprobes = \"127.0.0.1:0\""), "server.probes"),
        (format!("[log]\nformat = \"pretty\"\n{base}"), "log.format"),
    ] {
        pillion.reload(&config);
        eventually(&format!("the log says that {name} needs a restart"), || {
            pillion.log().lines().any(|line| line.contains(name) && line.contains("restart")).then_some(())
        });
    }
    assert_eq!(refused(&pillion), 5.0);
    assert_eq!(pillion.get("/").status, 200);
}

#[test]
fn reloads_under_load_drop_no_request_and_no_connection() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // One connection for all of it: it ends only when the client ends it.
                let mut tcp = connect(pillion.http);
                while !stop.load(Ordering::SeqCst) {
                    let answer = ask(&mut tcp, "/");
                    assert_eq!((answer.status, answer.field("connection")), (200, None));
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let _stop = Raise(&stop);
        for at in 0..20 {
            let deny = if at % 2 == 0 { DENY } else { "" };
            let more = format!("max_connections = {}\n", 50 + at);
            pillion.reload(&format!("{}{more}{deny}", upstream(&app)));
            let goal = served.load(Ordering::SeqCst) + 20;
            eventually("requests go on", || (served.load(Ordering::SeqCst) >= goal).then_some(()));
        }
    });
    assert_eq!(applied(&pillion), 20.0);
}

#[test]
fn a_request_in_flight_survives_a_reload_that_takes_its_upstream_away() {
    let (app, seen, release) = holding();
    let other = Script::answering(|_| ok("other"));
    let pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    pillion.reload(&upstream(&other));
    assert_eq!(pillion.get("/").text(), "other");
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut tcp).text(), "held");
    assert_eq!(ask(&mut tcp, "/").text(), "other", "the next on the same connection goes by the new file");
}

#[test]
fn certificates_are_read_again_at_a_reload() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let issue = |name: &str| {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        folder.write("tls.key", issued.signing_key.serialize_pem());
        folder.write("tls.crt", issued.cert.pem());
        folder.write(name, issued.cert.pem())
    };
    let (old, config) = (
        issue("old.pem"),
        format!(
            "{}[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{{ cert = \"tls.crt\", key = \"tls.key\" }}]\n{}",
            server(""),
            upstream(&app)
        ),
    );
    let pillion = Pillion::in_folder(folder.clone(), &config);
    let port = pillion.https.unwrap().port();
    let trusts = |ca: &std::path::Path| {
        let url = format!("https://localhost:{port}/");
        let resolve = format!("localhost:{port}:127.0.0.1");
        let ca = ca.to_str().unwrap();
        let curl = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "--resolve", &resolve, "--cacert", ca, &url])
            .status();
        curl.unwrap().success()
    };
    assert!(trusts(&old));
    let new = issue("new.pem");
    pillion.reload(&config);
    assert!(trusts(&new) && !trusts(&old), "the new certificate is served");
    folder.write("tls.crt", "no certificate");
    pillion.reload(&config);
    assert_eq!(refused(&pillion), 1.0);
    assert!(trusts(&new), "a certificate that cannot be read changes nothing");
}

#[test]
fn a_file_renamed_over_the_old_one_is_loaded_without_being_asked() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    assert_eq!(pillion.get("/denied").status, 200);
    rename_over(&pillion.folder, &format!("{}{DENY}", upstream(&app)));
    eventually("it is applied", || (pillion.get("/denied").status == 404).then_some(()));
    rename_over(&pillion.folder, "[upstream\n");
    eventually("a bad one is refused", || (refused(&pillion) == 1.0).then_some(()));
    assert_eq!(pillion.get("/denied").status, 404);
    rename_over(&pillion.folder, &upstream(&app));
    eventually("the next is applied", || (pillion.get("/denied").status == 200).then_some(()));
}

#[test]
fn a_file_made_later_is_another_whatever_its_inode() {
    // Where a refused file came between, the next one may have the inode of the one in force.
    let folder = Folder::new();
    let first = SourceFile::now(&folder.write("a", ""));
    eventually("another is told from it", || {
        std::fs::remove_file(folder.path("a")).unwrap();
        (!SourceFile::now(&folder.write("a", "")).is_same_file(&first)).then_some(())
    });
}

#[test]
fn a_file_replaced_right_after_a_reload_is_not_overlooked() {
    // Two replacements in quick succession, the second just when the first was applied.
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    rename_over(&pillion.folder, &format!("{}{DENY}", upstream(&app)));
    eventually("the first is applied", || (applied(&pillion) >= 1.0).then_some(()));
    rename_over(
        &pillion.folder,
        &format!("{}[[routes]]\nmatch = \"* /second\"\ndeny = 410\n", upstream(&app)),
    );
    eventually("the second is applied too", || (pillion.get("/second").status == 410).then_some(()));
}

#[test]
fn a_config_map_whose_link_is_swapped_is_loaded() {
    // As the kubelet does it: pillion.toml -> ..data/pillion.toml, ..data -> ..generation.
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let generation = |name: &str, config: &str| {
        std::fs::create_dir(folder.path(name)).unwrap();
        folder.write(&format!("{name}/pillion.toml"), complete(config));
        std::os::unix::fs::symlink(name, folder.path("..data_tmp")).unwrap();
        std::fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    };
    generation("..1", &upstream(&app));
    std::os::unix::fs::symlink("..data/pillion.toml", folder.path("pillion.toml")).unwrap();
    let pillion = Pillion::from_file(folder.clone(), &folder.path("pillion.toml"));
    assert_eq!(pillion.get("/denied").status, 200);
    generation("..2", &format!("{}{DENY}", upstream(&app)));
    std::fs::remove_dir_all(folder.path("..1")).unwrap();
    eventually("it is applied", || (pillion.get("/denied").status == 404).then_some(()));
    assert_eq!(refused(&pillion), 0.0);
}

#[test]
fn a_save_in_place_is_not_loaded_half_written_nor_with_watch_off() {
    let app = Script::echo();
    for (watch, half) in [("", true), ("watch = false", false)] {
        let config = format!("{}{}", server(watch), upstream(&app));
        let pillion = Pillion::with(&config);
        if half {
            pillion.folder.write("pillion.toml", "[upst");
        } else {
            rename_over(&pillion.folder, &format!("{config}{DENY}"));
        }
        // Longer than two looks of the watch.
        let until = now() + Duration::from_millis(3500);
        while now() < until {
            assert_eq!((applied(&pillion), refused(&pillion)), (0.0, 0.0), "{watch:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        pillion.reload(&format!("{config}{DENY}"));
        assert_eq!(pillion.get("/denied").status, 404, "SIGHUP does it");
    }
}

#[test]
fn the_reload_and_drain_commands_reach_the_process_by_address_and_by_file() {
    let app = Script::echo();
    let admin = free_address();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"{admin}\"\nadmin_token = \"s3cret\"\n{}",
        upstream(&app)
    );
    let running = Pillion::with(&config);
    let file = running.folder.path("pillion.toml");
    let (address, file) = (admin.to_string(), file.to_str().unwrap().to_owned());

    let output = pillion(&["reload", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1), "no token");
    assert!(stderr(&output).contains("token"), "{}", stderr(&output));
    assert_eq!(pillion(&["reload", "--admin", &address, "--token", "wrong!"]).status.code(), Some(1));
    assert_eq!(applied(&running), 0.0);

    running.folder.write("pillion.toml", complete(&format!("{config}{DENY}")));
    let output = pillion(&["reload", "--admin", &address, "--token", "s3cret"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("routes"), "what changed is shown: {output:?}");
    assert_eq!(running.get("/denied").status, 404);

    running.folder.write("pillion.toml", complete(&config));
    assert_eq!(
        pillion(&["reload", "--config", &file]).status.code(),
        Some(0),
        "address and token from the file"
    );
    assert_eq!(running.get("/denied").status, 200);

    running.folder.write("pillion.toml", complete(&config.replace("url", "ulr")));
    let output = pillion(&["reload", "--admin", &address, "--token", "s3cret"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("did you mean") || stderr(&output).contains("url"),
        "{}",
        stderr(&output)
    );
    running.folder.write("pillion.toml", complete(&config));

    assert_eq!(running.admin_get("/ready").status, 200);
    assert_eq!(pillion(&["drain", "--config", &file]).status.code(), Some(0));
    assert_eq!(running.admin_get("/ready").status, 503);
    let mut tcp = connect(running.http);
    let answer = ask(&mut tcp, "/");
    assert_eq!(
        (answer.status, answer.field("connection").as_deref()),
        (200, Some("close")),
        "served, and handed back"
    );
    assert_eq!(
        pillion(&["drain", "--admin", &address, "--token", "s3cret"]).status.code(),
        Some(0),
        "again is no error"
    );
    assert_eq!(running.stop().code(), Some(0));
    let output = pillion(&["drain", "--admin", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address), "who cannot be reached is named: {}", stderr(&output));
}

#[test]
fn a_token_in_the_file_may_be_changed_by_the_reload_command() {
    // The operator edits the file and runs `pillion reload --config`: the process still has the old token.
    let app = Script::echo();
    let admin = free_address();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"{admin}\"\nadmin_token = \"first\"\n{}",
        upstream(&app)
    );
    let running = Pillion::with(&config);
    running.folder.write("pillion.toml", complete(&config.replace("first", "second")));
    let file = running.folder.path("pillion.toml");
    let with_old = pillion(&["reload", "--config", file.to_str().unwrap(), "--token", "first"]);
    assert_eq!(with_old.status.code(), Some(0), "{}", stderr(&with_old));
    let with_new = pillion(&["reload", "--config", file.to_str().unwrap()]);
    assert_eq!(with_new.status.code(), Some(0), "{}", stderr(&with_new));
}

#[test]
fn sigterm_lets_requests_in_flight_finish_and_exits_0() {
    for signal in ["TERM", "INT"] {
        let (app, seen, release) = holding();
        let mut pillion = Pillion::with(&upstream(&app));
        let mut idle = connect(pillion.http);
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        seen.recv_timeout(PATIENCE).unwrap();
        pillion.process.signal(signal);
        eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
        assert_eq!(pillion.admin_get("/live").status, 200, "leaving is not dead");
        assert!(closes_silently(&mut idle), "who asks nothing is let go");
        eventually("nobody new is served", || TcpStream::connect(pillion.http).is_err().then_some(()));
        release.send(()).unwrap();
        let answer = read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text().as_str()), (200, "held"), "{signal}");
        assert_eq!(answer.field("connection").as_deref(), Some("close"));
        assert!(closes_silently(&mut tcp));
        assert_eq!(pillion.process.wait().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_body_in_flight_is_delivered_whole_while_draining() {
    let (go_on, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let app = Script::new(move |mut tcp| {
        if Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello");
            let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
            let _ = tcp.write_all(b"world");
        }
    });
    let mut pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"hello") {
        let mut byte = [0u8];
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    pillion.process.signal("TERM");
    eventually("it drains", || TcpStream::connect(pillion.http).is_err().then_some(()));
    go_on.send(()).unwrap();
    tcp.read_to_end(&mut seen).unwrap();
    assert!(seen.ends_with(b"helloworld"));
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn drain_timeout_cuts_what_does_not_end() {
    let (app, seen, _release) = holding();
    let mut pillion = Pillion::with(&format!("{}{}", server("drain_timeout = \"400ms\""), upstream(&app)));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    let since = now();
    pillion.process.signal("TERM");
    assert_eq!(pillion.process.wait().code(), Some(0));
    assert!(
        (Duration::from_millis(350)..Duration::from_secs(3)).contains(&since.elapsed()),
        "{:?}",
        since.elapsed()
    );
    assert!(pillion.log().contains("drain_timeout"), "it is said that something was cut");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT")] {
        for delay in ["0s", "15s"] {
            let (app, seen, _release) = holding();
            let mut pillion = Pillion::with(&format!(
                "{}{}",
                server(&format!("drain_delay = \"{delay}\"")),
                upstream(&app)
            ));
            let mut tcp = connect(pillion.http);
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            seen.recv_timeout(PATIENCE).unwrap();
            pillion.process.signal(first);
            eventually("it leaves", || (pillion.admin_get("/ready").status == 503).then_some(()));
            let since = now();
            pillion.process.signal(second);
            pillion.process.wait();
            assert!(
                since.elapsed() < Duration::from_secs(3),
                "{first} {second} {delay}: {:?}",
                since.elapsed()
            );
        }
    }
}

#[test]
fn sigterm_under_load_with_a_drain_delay_loses_no_request() {
    // A balancer that needs 250 ms to notice, and clients that honour Connection: close.
    let app = Script::echo();
    let mut pillion = Pillion::with(&format!("{}{}", server("drain_delay = \"500ms\""), upstream(&app)));
    let address = pillion.http;
    let (noticed, told, served) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // The balancer opens new connections here until it noticed.
                while !noticed.load(Ordering::SeqCst) {
                    let mut tcp = connect(address);
                    loop {
                        let answer = ask(&mut tcp, "/");
                        assert_eq!(answer.status, 200);
                        served.fetch_add(1, Ordering::SeqCst);
                        if answer.field("connection").as_deref() == Some("close") {
                            told.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                    }
                }
            });
        }
        let _noticed = Raise(&noticed);
        eventually("load", || (served.load(Ordering::SeqCst) >= 200).then_some(()));
        let since = now();
        pillion.process.signal("TERM");
        eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
        assert!(since.elapsed() < Duration::from_millis(250), "at once: {:?}", since.elapsed());
        std::thread::sleep(Duration::from_millis(250).saturating_sub(since.elapsed()));
    });
    assert!(told.load(Ordering::SeqCst) >= 4, "every client was told that its connection ends");
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn an_idle_connection_may_ask_once_more_during_the_delay_and_is_closed_after_it() {
    let app = Script::echo();
    let mut pillion = Pillion::with(&format!("{}{}", server("drain_delay = \"800ms\""), upstream(&app)));
    let (mut asks, mut silent) = (connect(pillion.http), connect(pillion.http));
    assert_eq!(ask(&mut asks, "/").status, 200);
    assert_eq!(ask(&mut silent, "/").status, 200);
    let since = now();
    pillion.process.signal("TERM");
    eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
    let answer = ask(&mut asks, "/");
    assert_eq!((answer.status, answer.field("connection").as_deref()), (200, Some("close")));
    assert!(closes_silently(&mut silent));
    assert!(
        since.elapsed() >= Duration::from_millis(750),
        "not before the delay is over: {:?}",
        since.elapsed()
    );
    assert_eq!(pillion.process.wait().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[test]
fn event_streams_are_closed_when_draining_starts() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_some() {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
            let _ = Request::read(&mut tcp);
        }
    });
    let mut pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("data: 1\n\n") {
        let mut byte = [0u8];
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let since = now();
    pillion.process.signal("TERM");
    let _ = tcp.read_to_end(&mut seen);
    assert_eq!(pillion.process.wait().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(3), "not held up for drain_timeout: {:?}", since.elapsed());
}

/// Frames of HTTP/2 (RFC 9113 4.1) as they come: type, flags, stream.
struct Frames(TcpStream);

impl Frames {
    fn open(address: SocketAddr) -> Frames {
        let mut tcp = connect(address);
        tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        Frames(tcp)
    }

    /// GET / with :authority test.
    fn get(&mut self, stream: u8) {
        let block = b"\x82\x86\x84\x41\x04test";
        let mut frame = vec![0, 0, block.len() as u8, 1, 0x5, 0, 0, 0, stream];
        frame.extend_from_slice(block);
        self.0.write_all(&frame).unwrap();
    }

    /// `None` at the end of the connection.
    fn next(&mut self) -> Option<(u8, u8, u32)> {
        let mut head = [0u8; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut content = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        self.0.read_exact(&mut content).unwrap();
        if head[3] == 4 && head[4] & 1 == 0 {
            self.0.write_all(b"\0\0\0\x04\x01\0\0\0\0").unwrap();
        }
        if head[3] == 6 && head[4] & 1 == 0 {
            let mut pong = vec![0, 0, 8, 6, 1, 0, 0, 0, 0];
            pong.extend_from_slice(&content);
            self.0.write_all(&pong).unwrap();
        }
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
    }
}

#[test]
fn http2_is_told_by_goaway_and_its_streams_finish() {
    let (app, seen, release) = holding();
    let mut pillion = Pillion::with(&upstream(&app));
    let (mut busy, mut idle) = (Frames::open(pillion.http), Frames::open(pillion.http));
    busy.get(1);
    seen.recv_timeout(PATIENCE).unwrap();
    pillion.process.signal("TERM");
    let mut kinds = Vec::new();
    while let Some((kind, ..)) = idle.next() {
        kinds.push(kind);
    }
    assert!(kinds.contains(&7), "an idle connection is told by GOAWAY and closed: {kinds:?}");
    let mut kinds = Vec::new();
    let mut release = Some(release);
    while let Some((kind, flags, stream)) = busy.next() {
        kinds.push((kind, flags, stream));
        if kind == 7
            && let Some(release) = release.take()
        {
            release.send(()).unwrap();
        }
    }
    assert!(kinds.iter().any(|(kind, ..)| *kind == 7), "GOAWAY: {kinds:?}");
    assert!(kinds.iter().any(|(kind, _, stream)| *kind == 1 && *stream == 1), "the head: {kinds:?}");
    assert!(
        kinds.iter().any(|(kind, flags, stream)| *kind <= 1 && flags & 1 == 1 && *stream == 1),
        "whole: {kinds:?}"
    );
    assert!(!kinds.iter().any(|(kind, ..)| *kind == 3), "no stream was reset: {kinds:?}");
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn what_prevents_a_start_is_said_in_one_clear_line() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = |server: &str, more: &str| {
        format!("[server]\n{server}\n[upstream]\nurl = \"http://127.0.0.1:1\"\n{more}")
    };
    let free = "listen = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"";
    let on_taken = config(&format!("listen = [\"{address}\"]\nadmin = \"127.0.0.1:0\""), "");
    let admin_taken = config(&format!("listen = [\"127.0.0.1:0\"]\nadmin = \"{address}\""), "");
    let tls = "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{ cert = \"none.crt\", key = \"none.key\" }]\n";
    folder.write("garbage.crt", "garbage");
    let garbage = tls.replace("none.", "garbage.");
    for (name, content, said, lines) in [
        ("taken.toml", Some(on_taken), vec![address.to_string(), "server.listen".to_owned()], 1),
        ("admin.toml", Some(admin_taken), vec![address.to_string(), "server.admin".to_owned()], 1),
        ("tls.toml", Some(config(free, tls)), vec!["none.crt".to_owned()], 20),
        ("garbage.toml", Some(config(free, &garbage)), vec!["garbage.crt".to_owned()], 20),
        ("missing.toml", None, vec!["missing.toml".to_owned()], 1),
        (
            "bad.toml",
            Some(config(free, "retry = 3\n")),
            vec!["bad.toml:".to_owned(), "retries".to_owned()],
            20,
        ),
    ] {
        let path = folder.path(name);
        if let Some(content) = content {
            folder.write(name, content);
        }
        let output = pillion(&["run", "--config", path.to_str().unwrap()]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(text.starts_with("pillion: "), "{name}: {text}");
        for said in said {
            assert!(text.contains(&said), "{name} says {said}: {text}");
        }
        assert!(text.lines().count() <= lines && !text.contains("panicked"), "{name}: {text}");
    }
}

#[test]
fn check_is_0_for_a_good_file_and_2_with_every_problem_of_a_bad_one() {
    let folder = Folder::new();
    let good = folder.write("good.toml", "[upstream]\nurl = \"http://127.0.0.1:3000\"\n");
    let bad = folder.write(
        "bad.toml",
        "[server]\nlisen = [\"127.0.0.1:0\"]\n[upstream]\nurl = \"http://127.0.0.1:3000\"\nretries = \"two\"\nqueue_timeout = \"1 fortnight\"\n",
    );
    let output = pillion(&["check", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = pillion(&["check", bad.to_str().unwrap()]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for said in ["bad.toml:2:1", "listen", "bad.toml:5:", "bad.toml:6:", "3 problems"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let missing = pillion(&["check", folder.path("missing.toml").to_str().unwrap()]);
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
}

#[test]
fn a_storm_of_signals_ends_with_the_last_file() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    for at in 0..30 {
        let config = format!("{}[[routes]]\nmatch = \"* /storm\"\ndeny = {}\n", upstream(&app), 400 + at);
        rename_over(&pillion.folder, &config);
        pillion.process.signal("HUP");
    }
    eventually("the last file is in force", || (pillion.get("/storm").status == 429).then_some(()));
    assert_eq!(refused(&pillion), 0.0);
}

#[test]
fn sighup_while_draining_neither_kills_nor_revives() {
    let (app, seen, release) = holding();
    let mut pillion = Pillion::with(&upstream(&app));
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    pillion.process.signal("TERM");
    eventually("it drains", || TcpStream::connect(pillion.http).is_err().then_some(()));
    pillion.process.signal("HUP");
    assert_eq!(pillion.admin_get("/ready").status, 503);
    release.send(()).unwrap();
    assert_eq!(read_answer(&mut tcp).text(), "held");
    assert_eq!(pillion.process.wait().code(), Some(0));
}

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

/// A process whose output nobody reads, its end of the pipes kept.
fn unread(access: &str, config: &str) -> (harness::Process, Folder, SocketAddr) {
    let folder = Folder::new();
    let address = free_address();
    let config = format!(
        "[server]\nlisten = [\"{address}\"]\nadmin = \"\"\n[log]\nformat = \"json\"\naccess = \"{access}\"\n{config}"
    );
    let path = folder.write("pillion.toml", config);
    let mut command = Command::new(binary());
    command
        .args(["run", "--config"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let process = harness::Process(command.spawn().unwrap());
    eventually("it listens", || TcpStream::connect(address).is_ok().then_some(()));
    (process, folder, address)
}

#[test]
fn a_reader_of_the_access_log_that_hangs_or_leaves_stops_nothing() {
    let app = Script::echo();
    for leaves in [false, true] {
        let (mut process, _folder, address) = unread("all", &upstream(&app));
        if leaves {
            drop(process.0.stdout.take());
        }
        let mut tcp = connect(address);
        // More than the pipe and the buffer behind it hold.
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
            unread("off", &format!("[upstream]\nurl = \"http://{}\"\n", absent_app()));
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

#[test]
fn a_request_that_waits_in_line_is_served_while_draining() {
    let (app, seen, release) = holding();
    let mut pillion =
        Pillion::with(&format!("{}max_connections = 1\nqueue_timeout = \"15s\"\n", upstream(&app)));
    let mut clients = [connect(pillion.http), connect(pillion.http)];
    for (tcp, path) in clients.iter_mut().zip(["/a", "/b"]) {
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
    }
    seen.recv_timeout(PATIENCE).unwrap();
    eventually("the other waits", || {
        pillion
            .admin_get("/metrics")
            .text()
            .lines()
            .any(|line| line.starts_with("pillion_upstream_waiting{") && line.ends_with(" 1"))
            .then_some(())
    });
    pillion.process.signal("TERM");
    eventually("it drains", || TcpStream::connect(pillion.http).is_err().then_some(()));
    (0..2).for_each(|_| release.send(()).unwrap());
    for tcp in &mut clients {
        assert_eq!(read_answer(tcp).status, 200);
    }
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn clients_that_never_finish_a_handshake_do_not_hold_up_the_end() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    folder.write("tls.key", issued.signing_key.serialize_pem());
    folder.write("tls.crt", issued.cert.pem());
    let tls = "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [{ cert = \"tls.crt\", key = \"tls.key\" }]\n";
    let mut held_up = false;
    let tls_client = "\x16\x03\x01\x02\0\x01\0";
    for (secure, sent) in [(true, ""), (true, tls_client), (false, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")] {
        let mut pillion = Pillion::in_folder(
            folder.clone(),
            &format!("{}{tls}{}", server("drain_timeout = \"5s\""), upstream(&app)),
        );
        let mut begun = connect(if secure { pillion.https.unwrap() } else { pillion.http });
        begun.write_all(sent.as_bytes()).unwrap();
        eventually("it is connected", || (pillion.metric("pillion_client_connections") == 1.0).then_some(()));
        let since = now();
        pillion.process.signal("TERM");
        assert_eq!(pillion.process.wait().code(), Some(0));
        let after = since.elapsed();
        println!("secure: {secure}, sent {sent:?}: {after:?}");
        held_up |= after > Duration::from_secs(3);
    }
    assert!(!held_up, "see above");
}

#[test]
fn http2_under_load_survives_reloads() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    let url = pillion.url("/");
    std::thread::scope(|scope| {
        let load =
            scope.spawn(|| harness::run("h2load", &["-n", "4000", "-c", "4", "-m", "10", "-t", "1", &url]));
        let mut at = 0;
        while !load.is_finished() {
            at += 1;
            pillion.reload(&format!("{}{}", upstream(&app), if at % 2 == 0 { "" } else { DENY }));
        }
        let report = load.join().unwrap();
        assert!(report.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{report}");
        assert!(report.contains("4000 2xx"), "{report}");
    });
    assert!(applied(&pillion) >= 1.0);
}

#[test]
fn http2_connections_are_handed_back_during_the_delay() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    assert_eq!(pillion.admin_post("/drain").status, 202);
    eventually("/ready is 503", || (pillion.admin_get("/ready").status == 503).then_some(()));
    let mut frames = Frames::open(pillion.http);
    frames.get(1);
    let mut kinds = Vec::new();
    while let Some(frame) = frames.next() {
        kinds.push(frame);
    }
    assert!(
        kinds.iter().any(|(kind, flags, stream)| *kind <= 1 && flags & 1 == 1 && *stream == 1),
        "answered whole: {kinds:?}"
    );
    assert!(kinds.iter().any(|(kind, ..)| *kind == 7), "GOAWAY: {kinds:?}");
    assert_eq!(pillion.get("/").status, 200, "new connections are still served");
}

#[test]
fn a_successor_can_listen_at_once() {
    let app = Script::echo();
    let (http, admin) = (free_address(), free_address());
    let config = format!("[server]\nlisten = [\"{http}\"]\nadmin = \"{admin}\"\n{}", upstream(&app));
    for _ in 0..3 {
        let pillion = Pillion::with(&config);
        let mut kept = connect(http);
        assert_eq!(ask(&mut kept, "/").status, 200);
        assert_eq!(pillion.stop().code(), Some(0));
    }
}

/// A bad ConfigMap arrives, then the pod is deleted: the preStop hook reads the broken file and must drain
/// all the same.
#[test]
fn a_file_that_has_become_wrong_does_not_keep_the_process_from_being_drained() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let pillion =
        Pillion::in_folder(folder.clone(), &format!("[upstream]\nurl = \"http://{}\"\n", app.address));
    let broken = format!("[server]\nadmin = \"{}\"\nlisten = 7\n[upstrem]\n", pillion.admin);
    let path = folder.write("broken.toml", broken);
    harness::run(harness::binary(), &["drain", "--config", path.to_str().unwrap()]);
    assert_eq!(pillion.admin_get("/ready").status, 503);
}
