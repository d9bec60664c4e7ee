//! Tests of `pillion demo`: every command that it prints does what its comment says.

use std::process::Command;
use std::sync::Arc;

use crate::harness::{self, Folder, Pillion, eventually, printed};

const CLINIC: &str = include_str!("../../examples/clinic.toml");

fn demo() -> Pillion {
    let folder = Arc::new(Folder::new());
    // The default configuration, except for its log.
    let config = format!("{CLINIC}\n[log]\nformat = \"json\"\naccess = \"off\"\n");
    let path = folder.write("demo.toml", config);
    let mut command = Command::new(harness::binary());
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(path);
    Pillion::start(folder, command)
}

/// Returns the printed commands, without their comments.
fn lines(pillion: &Pillion) -> Vec<String> {
    let text = eventually("the demo says how to stop it", || {
        let text = pillion.access_log();
        text.contains("Ctrl-C").then_some(text)
    });
    let commands = text
        .lines()
        .filter(|line| ["  curl ", "  tag=", "  ann="].iter().any(|start| line.starts_with(start)));
    commands.map(|line| line.split("  #").next().unwrap().trim().to_owned()).collect()
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", printed(&output.stderr));
    printed(&output.stdout)
}

#[test]
fn every_printed_line_does_what_it_says() {
    let pillion = demo();
    let lines = lines(&pillion);
    assert!(lines.len() >= 11, "{lines:#?}");
    let said: Vec<String> = lines.iter().map(|line| shell(line)).collect();
    let of = |part: &str| -> &str {
        let at = lines
            .iter()
            .position(|line| line.contains(part))
            .unwrap_or_else(|| panic!("no line with {part}"));
        &said[at]
    };
    assert!(of("head -c 300").contains("\"items\""));
    assert!(of("-si ").contains("x-request-id: "));
    let bytes = |part: &str| -> usize { of(part).trim_end_matches(" bytes\n").parse().unwrap() };
    assert!(bytes("--compressed") < bytes("s -w '%{size") / 5);
    assert!(of("If-None-Match").starts_with("HTTP/1.1 304 "));
    assert!(of("-X PUT").contains("Tromso"));
    assert!(of("--http2-prior-knowledge").contains("Bodo"), "the write is seen by the next read");
    let reports: Vec<f64> = lines
        .iter()
        .zip(&said)
        .filter(|(line, _)| line.contains("time_total"))
        .map(|(_, said)| said.trim_end_matches(" s\n").parse().unwrap())
        .collect();
    assert!(reports[0] >= 0.3, "a report takes 300 ms: {reports:?}");
    assert!(reports[1] < 0.2, "her copy of it does not: {reports:?}");
    assert!(of("cache-status").contains("x-cache: HIT"));
    assert!(of("'^x-cache'").contains("x-cache: MISS"));
    assert!(of("Bodo").contains("Bodo"));
    assert!(of("cache/lookup").contains("patient:7"));
    assert!(of("%2e%2e").contains("urn:pillion:problem:ambiguous-path"));
    assert!(of("/ready").contains("ready"));
    assert!(of("/metrics").contains("pillion_http_requests_total{"));
    assert!(pillion.stop().success());
}

#[test]
fn the_clinic_keeps_what_is_written_and_knows_nothing_of_caching() {
    let pillion = demo();
    let made = shell(&format!("curl -s -X POST {} -d '{{\"name\":\"Ada\"}}'", pillion.url("/api/patients")));
    let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["id"].as_u64().unwrap();
    let path = format!("/api/patients/{id}");
    let read = pillion.get(&path);
    assert_eq!((read.status, read.json()["name"].as_str()), (200, Some("Ada")));
    let said = pillion.access_log();
    let app = said.split("which is at http://").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let head =
        "GET /api/patients HTTP/1.1\r\nhost: app\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n";
    let read = harness::exchange(app.parse().unwrap(), head);
    for field in ["etag", "cache-control", "content-encoding", "last-modified"] {
        assert_eq!(read.field(field), None, "{field}");
    }
    let deleted =
        shell(&format!("curl -s -o /dev/null -w '%{{http_code}}' -X DELETE {}", pillion.url(&path)));
    assert_eq!(deleted, "204");
    assert_eq!(pillion.get(&path).status, 404);
    assert_eq!(pillion.get("/api/patients/7/visits").json()["items"].as_array().unwrap().len(), 3);
    assert!(pillion.get("/api/reports/billing").json()["open"].as_u64().unwrap() > 0);
}

/// The reads, and whether a write to patient 7, to a visit, to a bill or to a user invalidates each.
const READS: [(&str, [bool; 4]); 10] = [
    ("/api/patients", [true, true, true, false]),
    ("/api/patients/7", [true, true, true, false]),
    ("/api/patients/8", [false, true, true, false]),
    ("/api/patients/7/visits", [true, true, false, false]),
    ("/api/patients/8/visits", [true, true, false, false]),
    ("/api/patients/8/billing", [true, false, true, false]),
    ("/api/visits?page=1", [true, true, false, false]),
    ("/api/billing", [true, false, true, false]),
    ("/api/reports/visits", [true, true, true, true]),
    ("/api/reports/billing", [true, true, true, true]),
];

const ANN: &str = "authorization: Bearer ann\r\n";
const BOB: &str = "authorization: Bearer bob\r\n";

fn read(pillion: &Pillion, path: &str, who: &str) -> harness::Answer {
    let head = format!("GET {path} HTTP/1.1\r\nhost: clinic\r\n{who}connection: close\r\n\r\n");
    harness::exchange(pillion.http, &head)
}

fn is_hit(answer: &harness::Answer) -> bool {
    answer.field("cache-status").unwrap().contains("; hit")
}

fn write(pillion: &Pillion, path: &str, city: &str) {
    let body = format!("{{\"city\":\"{city}\"}}");
    let length = body.len();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: clinic\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    assert_eq!(harness::exchange(pillion.http, &head).status, 200);
}

#[test]
fn n5_8_a_write_drops_exactly_what_the_rules_name_for_all_users() {
    let pillion = demo();
    for (path, _) in READS {
        for who in [ANN, BOB] {
            assert!(!is_hit(&read(&pillion, path, who)), "{path}: each user has a copy of their own");
            assert!(is_hit(&read(&pillion, path, who)), "{path}");
        }
        read(&pillion, path, "");
        assert_eq!(read(&pillion, path, "").field("x-cache").as_deref(), Some("BYPASS"), "{path}: nobody");
    }
    let writes = ["/api/patients/7", "/api/visits/20", "/api/billing/20", "/api/users/1"];
    for (at, written) in writes.into_iter().enumerate() {
        write(&pillion, written, "Tromso");
        for (path, dropped) in READS {
            for who in [ANN, BOB] {
                assert_eq!(!is_hit(&read(&pillion, path, who)), dropped[at], "{written}: {path}");
            }
        }
    }
}

#[test]
fn two_hundred_readers_see_every_write_once_it_is_answered() {
    let pillion = demo();
    let written = std::sync::atomic::AtomicUsize::new(0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    use std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for reader in 0..200 {
            let (pillion, written, stop) = (&pillion, &written, &stop);
            scope.spawn(move || {
                let paths = ["/api/patients/7", "/api/patients"];
                let mut tcp = harness::connect(pillion.http);
                while !stop.load(SeqCst) {
                    let before = written.load(SeqCst);
                    let who = [ANN, BOB][reader / 2 % 2];
                    let head = format!("GET {} HTTP/1.1\r\nhost: clinic\r\n{who}\r\n", paths[reader % 2]);
                    std::io::Write::write_all(&mut tcp, head.as_bytes()).unwrap();
                    let answer = harness::read_answer(&mut tcp).json();
                    let patient = if reader % 2 == 0 { &answer } else { &answer["items"][6] };
                    let city = patient["city"].as_str().unwrap();
                    let seen: usize = city.strip_prefix("city-").map_or(0, |number| number.parse().unwrap());
                    assert!(seen >= before, "saw {seen} after {before} was answered");
                }
            });
        }
        for number in 1..=40 {
            write(&pillion, "/api/patients/7", &format!("city-{number}"));
            written.store(number, SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        stop.store(true, SeqCst);
    });
    let hits = pillion.admin_get("/cache/stats").json()["operations"]["lookup hit"].as_u64().unwrap();
    assert!(hits > 200, "{hits}");
}

/// Three addresses in a row that are free, as far as anybody knows.
fn three_free() -> std::net::SocketAddr {
    eventually("three ports in a row are free", || {
        let first = harness::free_address();
        let bind =
            |number: u16| std::net::TcpListener::bind((first.ip(), first.port().checked_add(number)?)).ok();
        [bind(0), bind(1), bind(2)].iter().all(Option::is_some).then_some(first)
    })
}

#[test]
fn every_printed_line_of_the_fleet_does_what_it_says_and_nothing_stays_behind() {
    let folder = Folder::new();
    let output = folder.path("output");
    let mut command = Command::new(harness::binary());
    let (listen, admin) = (three_free().to_string(), three_free().to_string());
    command.args(["demo", "--fleet", "--listen", &listen, "--admin", &admin]).env("TMPDIR", &folder.0);
    command.stdout(std::fs::File::create(&output).unwrap()).stderr(std::process::Stdio::null());
    let mut demo = harness::Process(command.spawn().unwrap());
    let text = eventually("the demo says how to stop it", || {
        let text = std::fs::read_to_string(&output).unwrap();
        text.contains("Ctrl-C").then_some(text)
    });
    eventually("all see three", || {
        let ports = (0..3).map(|number| admin.parse::<std::net::SocketAddr>().unwrap().port() + number);
        let count =
            |port| shell(&format!("curl -s http://127.0.0.1:{port}/fleet")).matches("\"live\":true").count();
        ports.map(count).all(|count| count == 3).then_some(())
    });
    let said: Vec<String> = text.lines().filter(|line| line.starts_with("  ")).map(shell).collect();
    let [fleet, copies, read, limited, reset, stopped] = said.as_slice() else { panic!("{text}\n{said:#?}") };
    assert_eq!(fleet.matches("\"live\":true").count(), 3, "{fleet}");
    assert_eq!(copies.matches("HIT").count(), 1, "{copies}");
    assert!(read.contains("Bodo"), "{read}");
    assert_eq!((limited.matches("200").count(), limited.matches("429").count()), (10, 5), "{limited}");
    assert!(reset.contains("\"shared\":true"), "{reset}");
    assert!(stopped.starts_with("200 "), "{stopped}");
    let id = rustix::process::Pid::from_raw(demo.0.id() as i32).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(demo.0.wait().unwrap().success());
    let left: Vec<_> =
        std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["output"], "the folder of the demo is gone");
    assert!(std::net::TcpStream::connect(&admin).is_err(), "and so are its processes");
}

#[test]
fn fleet_without_a_redis_says_what_to_install() {
    let output =
        Command::new(harness::binary()).args(["demo", "--fleet"]).env("PATH", "/nowhere").output().unwrap();
    let said = printed(&output.stderr);
    assert!(!output.status.success() && said.contains("install one, or give --redis URL"), "{said}");
}
