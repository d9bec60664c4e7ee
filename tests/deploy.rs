//! What deployments stand on: the commands that probes and packagers run, and what supervisors are told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use harness::*;

fn pillion(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn health_tells_probes_by_its_exit_status() {
    let app = Script::echo();
    let running = Pillion::in_front_of(app.address);
    let admin = running.admin.to_string();
    for arguments in [&[][..], &["--live"], &["--ready"], &["memory"]] {
        let output = pillion(&[&["health", "--admin", &admin], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    }
    let output = pillion(&["health", "--admin", &admin, "workers"]);
    assert!(said(&output).starts_with("healthy"), "{}", said(&output));
    let output = pillion(&["health", "--admin", &admin, "wrokers"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(pillion(&["drain", "--admin", &admin]).status.code(), Some(0));
    assert_eq!(pillion(&["health", "--admin", &admin, "--ready"]).status.code(), Some(1));
    assert_eq!(pillion(&["health", "--admin", &admin, "--live"]).status.code(), Some(0));

    let sick = Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n", absent_app()));
    let admin = sick.admin.to_string();
    let output = eventually("its app is found to be down", || {
        sick.get("/");
        let output = pillion(&["health", "--admin", &admin]);
        (output.status.code() == Some(1)).then_some(output)
    });
    assert!(said(&output).contains("upstream unhealthy"), "{}", said(&output));
    assert_eq!(sick.stop().code(), Some(0));
    let output = pillion(&["health", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(1), "nobody is there");
    assert!(said(&output).contains(&admin), "{}", said(&output));
}

#[test]
fn health_asks_where_probes_ask_if_there_is_no_admin_listener() {
    let app = Script::echo();
    let probes = free_address();
    let folder = Arc::new(Folder::new());
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"\"\nprobes = \"{probes}\"\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    );
    let file = folder.write("pillion.toml", text);
    let file = file.to_str().unwrap();
    let child = Command::new(binary())
        .args(["run", "--config", file])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _process = Process(child);
    eventually("it is well", || {
        (pillion(&["health", "--config", file]).status.code() == Some(0)).then_some(())
    });
    let output = pillion(&["drain", "--config", file]);
    assert_eq!(output.status.code(), Some(1), "probes take no orders: {}", said(&output));
}

#[test]
fn quit_ends_it_as_sigterm_does() {
    let app = Script::echo();
    let mut running = Pillion::in_front_of(app.address);
    let admin = running.admin.to_string();
    let output = pillion(&["quit", "--admin", &admin]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(running.process.wait().code(), Some(0));
}

#[test]
fn packagers_get_completions_and_a_man_page() {
    for shell in ["bash", "zsh", "fish"] {
        let output = pillion(&["completions", shell]);
        assert!(output.status.success() && said(&output).contains("explain"), "{shell}");
    }
    let page = said(&pillion(&["man"]));
    for part in [".TH pillion 1", "pillion\\-keys", "\\-\\-upstream"] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn systemd_is_told() {
    let app = Script::echo();
    let folder = Arc::new(Folder::new());
    let socket = folder.path("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut message = [0u8; 4096];
        let length = systemd.recv(&mut message).unwrap();
        String::from_utf8(message[..length].to_vec()).unwrap()
    };
    let wait_for = |word: &str| loop {
        let message = hear();
        if message.lines().any(|line| line.starts_with(word)) {
            return message;
        }
        assert_eq!(message.trim(), "WATCHDOG=1", "{word}");
    };
    let text = format!("[upstream]\nurl = \"http://{}\"\n", app.address);
    let path = folder.write("pillion.toml", complete(&text));
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(&path);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "3000000");
    let running = Pillion::start(folder.clone(), command);
    assert!(wait_for("READY=1").contains("STATUS=serving by configuration 1"));
    wait_for("WATCHDOG=1");

    running.process.signal("HUP");
    assert!(wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    assert!(wait_for("READY=1").contains("configuration 2"));
    folder.write("pillion.toml", "[upstream]\nulr = \"\"\n");
    running.process.signal("HUP");
    wait_for("RELOADING=1");
    assert!(wait_for("READY=1").contains("refused"));
    assert_eq!(running.stop().code(), Some(0));
    wait_for("STOPPING=1");
}

/// Three of them behind a balancer that knows TCP alone and asks `/ready`, replaced one after another.
#[test]
fn a_rolling_restart_under_load_fails_no_request() {
    let app = Script::answering(|_| ok("served"));
    let places: Vec<(SocketAddr, SocketAddr)> = (0..3).map(|_| (free_address(), free_address())).collect();
    let start = |(http, probes): (SocketAddr, SocketAddr)| {
        Pillion::with(&format!(
            "[server]\nlisten = [\"{http}\"]\nadmin = \"127.0.0.1:0\"\nprobes = \"{probes}\"\ndrain_delay = \"1s\"\n\
             drain_timeout = \"5s\"\n[upstream]\nurl = \"http://{}\"\n",
            app.address
        ))
    };
    let mut running: Vec<Option<Pillion>> = places.iter().map(|place| Some(start(*place))).collect();
    let balancer = free_address();
    let servers: String = places
        .iter()
        .enumerate()
        .map(|(at, (http, probes))| {
            format!("  server s{at} {http} check port {} inter 100ms fall 1 rise 1\n", probes.port())
        })
        .collect();
    let folder = Folder::new();
    let config = folder.write(
        "haproxy.cfg",
        format!(
            "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 30s\n  timeout server 30s\n\
             frontend in\n  bind {balancer}\n  default_backend pillions\n\
             backend pillions\n  balance roundrobin\n  option httpchk GET /ready\n{servers}"
        ),
    );
    let child = Command::new("haproxy").arg("-f").arg(config).stderr(Stdio::null()).spawn().unwrap();
    let _balancer = Process(child);
    eventually("the balancer listens", || std::net::TcpStream::connect(balancer).ok());

    let stop = AtomicBool::new(false);
    let (failed, served) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut kept: Option<std::net::TcpStream> = None;
                while !stop.load(Ordering::Relaxed) {
                    let mut tcp = kept.take().unwrap_or_else(|| connect(balancer));
                    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                        read_answer(&mut tcp)
                    }));
                    match asked {
                        Ok(answer) if answer.status == 200 => {
                            served.fetch_add(1, Ordering::Relaxed);
                            // Handed back: a well-behaved client goes elsewhere.
                            let closed = answer.field("connection").is_some_and(|value| value == "close");
                            kept = (!closed).then_some(tcp);
                        }
                        other => failed.lock().unwrap().push(format!("{other:?}")),
                    }
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
        }
        for (place, old) in places.iter().zip(&mut running) {
            assert_eq!(old.take().unwrap().stop().code(), Some(0));
            let new = old.insert(start(*place));
            eventually("it is ready again", || (new.admin_get("/ready").status == 200).then_some(()));
            let before = served.load(Ordering::Relaxed);
            eventually("requests go on", || (served.load(Ordering::Relaxed) > before + 200).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {:?}: {:?}", failed.len(), served, &failed[..failed.len().min(3)]);
}
