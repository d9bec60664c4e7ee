//! Tests of `pillion tail`: live decisions of the running process, filtered there, masked as in the log, and bounded.

use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::harness::wire::ask;
use crate::harness::*;

/// A `pillion tail` that is running.
struct Tail {
    process: Process,
    output: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
}

fn gather(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let into = text.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            *into.lock().unwrap() += &(line + "\n");
        }
    });
    text
}

impl Tail {
    /// Starts the command; returns when the process under test has the reader.
    #[track_caller]
    fn start(pillion: &Pillion, args: &[&str]) -> Tail {
        let before = pillion.metric("pillion_tail_readers");
        let admin = pillion.admin.to_string();
        let mut command = Command::new(binary());
        command.args(["tail", "--admin", &admin]).args(args).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (output, errors) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
        let tail = Tail { process: Process(child), output, errors };
        eventually("the reader is there", || (pillion.metric("pillion_tail_readers") > before).then_some(()));
        tail
    }

    fn text(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    fn documents(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the documents until one has this path.
    #[track_caller]
    fn until(&self, path: &str) -> Vec<Value> {
        eventually(&format!("{path} is shown"), || {
            Some(self.documents()).filter(|all| all.iter().any(|line| line["path"] == path))
        })
    }
}

/// In front of an app whose responses depend on the path.
fn started(log: &str) -> (Pillion, Script) {
    let app = Script::answering(|request| match request.line.split([' ', '?']).nth(1).unwrap_or("") {
        "/api/broken" => b"HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/api/missing" => b"HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/api/slow" => {
            std::thread::sleep(Duration::from_millis(250));
            ok("slow")
        }
        _ => ok("fine"),
    });
    let config = Config::new(app.address)
        .route("GET /stored/{id}", "cache = { ttl = \"1h\", scope = \"shared\" }")
        .route("GET /mine/{id}", "cache = { ttl = \"1h\", scope = \"user\" }")
        .route("GET /reset/{token}", "")
        .table("[identity]", "principal = [\"header:authorization\"]")
        .table("[log]", &format!("format = \"json\"\n{log}"));
    (config.start(), app)
}

/// Sends one request of each kind, and then `/last`, which every filter of the cases takes by itself or not at all.
fn requests(pillion: &Pillion) {
    for path in ["/stored/1", "/stored/1", "/api/broken", "/api/missing", "/api/slow", "/other?x=1"] {
        pillion.get(path);
    }
    ask(pillion.http, "POST /api/things", "");
    ask(pillion.http, "GET /mine/7", "authorization: Bearer ann\r\n");
}

/// Checks that a filter shows these requests, by method and path, and no other.
fn shows_only(args: &[&str], expected: &[&str]) {
    let (pillion, _app) = started("access = \"off\"");
    let tail = Tail::start(&pillion, &[&["--format", "json"], args].concat());
    let all = Tail::start(&pillion, &["--format", "json"]);
    requests(&pillion);
    all.until("/mine/7");
    let shown = eventually("the requests are shown", || {
        let shown: Vec<String> = tail
            .documents()
            .iter()
            .map(|line| format!("{} {}", line["method"].as_str().unwrap(), line["path"].as_str().unwrap()))
            .collect();
        (shown.len() >= expected.len()).then_some(shown)
    });
    assert_eq!(shown, expected);
    assert_eq!(pillion.access_log(), "", "the log is off");
}

cases! { shows_only:
    status_class_shows_its_responses => &["--status", "5xx"], &["GET /api/broken"];
    status_shows_its_responses => &["--status", "404", "--status", "500"], &["GET /api/broken", "GET /api/missing"];
    route_shows_its_requests => &["--route", "/stored/*"], &["GET /stored/1", "GET /stored/1"];
    method_shows_its_requests => &["--method", "POST"], &["POST /api/things"];
    path_shows_its_requests => &["--path", "/api/*"],
        &["GET /api/broken", "GET /api/missing", "GET /api/slow", "POST /api/things"];
    slow_shows_requests_that_took_as_long => &["--slow", "200ms"], &["GET /api/slow"];
    cache_word_shows_its_requests => &["--cache", "hit", "--cache", "write"], &["GET /stored/1", "POST /api/things"];
    reason_shows_its_requests => &["--reason", "no-lifetime", "--path", "/other"], &["GET /other?x=1"];
    conditions_hold_together => &["--path", "/api/*", "--status", "2xx", "--method", "GET"], &["GET /api/slow"];
}

#[test]
fn user_hash_shows_requests_of_one_user() {
    let (pillion, _app) = started("");
    ask(pillion.http, "GET /mine/7", "authorization: Bearer ann\r\n");
    let line = pillion.access("the request of ann", |line| line["path"] == "/mine/7");
    let hash = line["principal"].as_str().unwrap();
    let tail = Tail::start(&pillion, &["--format", "json", "--user-hash", hash]);
    ask(pillion.http, "GET /mine/8", "authorization: Bearer bob\r\n");
    ask(pillion.http, "GET /mine/9", "authorization: Bearer ann\r\n");
    let shown = tail.until("/mine/9");
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["cache"], "miss");
}

#[test]
fn line_is_that_of_the_log_without_the_address_of_the_client() {
    let (pillion, _app) = started("");
    let tail = Tail::start(&pillion, &["--format", "json"]);
    let with_address = Tail::start(&pillion, &["--format", "json", "--address"]);
    ask(pillion.http, "GET /stored/1?x=1", "authorization: Bearer S3CRET\r\n");
    ask(pillion.http, "GET /reset/S3CRET?password=S3CRET&x=2", "cookie: session=S3CRET\r\n");
    let masked = "/reset/***?password=***&x=2";
    for (shown, path) in [(tail.until(masked), "/stored/1?x=1"), (with_address.until(masked), masked)] {
        let found = |line: &&Value| line["path"] == path;
        let mut shown = shown.iter().find(found).unwrap().clone();
        let mut logged = pillion.access(path, |line| line["path"] == path);
        if path != masked {
            assert_eq!(logged.as_object_mut().unwrap().remove("client").unwrap(), "127.0.0.1");
        }
        assert_eq!(shown.take(), logged);
    }
    for text in [tail.text(), with_address.text()] {
        assert!(!text.contains("S3CRET"), "{text}");
    }
}

#[test]
fn log_that_is_off_leaves_decisions_of_limits_in_the_stream() {
    let app = Script::answering(|_| ok("fine"));
    let pillion = Config::new(app.address)
        .limit("all", "requests", "rate = \"1/h\", burst = 2")
        .table("[rate_limit]", "default = \"all\"")
        .table("[log]", "format = \"json\"\naccess = \"off\"")
        .start();
    let tail = Tail::start(&pillion, &["--format", "json", "--reason", "limited"]);
    let statuses: Vec<u16> = (0..3).map(|at| pillion.get(&format!("/{at}")).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let shown = tail.until("/2");
    assert_eq!((shown.len(), &shown[0]["limit"], &shown[0]["tier"]), (1, &"limited".into(), &"all".into()));
    assert_eq!(shown[0]["limits"], serde_json::json!(["requests"]));
}

#[test]
fn lines_for_people_are_aligned_and_have_no_colors_in_a_pipe() {
    let (pillion, _app) = started("access = \"off\"");
    let tail = Tail::start(&pillion, &["--path", "/api/*"]);
    pillion.get("/api/missing");
    pillion.get("/api/broken?with=a&long=query&that=is&cut=in-its-middle");
    pillion.get("/api/last");
    let text = eventually("three lines", || Some(tail.text()).filter(|text| text.lines().count() == 3));
    assert!(!text.contains('\u{1b}'), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    for (line, status) in lines.iter().zip([" 404 ", " 500 ", " 200 "]) {
        let columns: Vec<char> = line.chars().collect();
        assert_eq!(columns[12..17].iter().collect::<String>(), status, "{line}");
        assert_eq!(columns[35..40].iter().collect::<String>(), "/api/", "{line}");
        let id: String = columns[98 - 1..129].iter().collect();
        assert!(
            id.trim().len() == 32 && id.trim().bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id} in {line}"
        );
    }
    assert!(lines[0].contains(" GET ") && lines[0].ends_with(" no-lifetime"), "{text}");
    assert!(lines[1].contains('\u{2026}'), "{text}");
}

#[test]
fn fifth_reader_is_refused_until_one_leaves() {
    let (pillion, _app) = started("");
    let mut readers: Vec<Tail> = (0..4).map(|_| Tail::start(&pillion, &[])).collect();
    let refused = pillion.admin_get("/tail");
    assert_eq!(
        (refused.status, refused.field("content-type").unwrap().as_str()),
        (503, "application/problem+json")
    );
    assert!(refused.json()["detail"].as_str().unwrap().contains("4 readers"), "{}", refused.text());
    let output =
        Command::new(binary()).args(["tail", "--admin", &pillion.admin.to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output.stderr).contains("4 readers"), "{}", printed(&output.stderr));
    readers.pop();
    eventually("the reader that left is gone", || {
        (pillion.metric("pillion_tail_readers") == 3.0).then_some(())
    });
    readers.push(Tail::start(&pillion, &[]));
}

#[test]
fn token_is_required_where_there_is_one() {
    let app = Script::answering(|_| ok("fine"));
    let config = Config::new(app.address).server("admin_token", "s3cret-token");
    let pillion = config.start();
    assert_eq!(pillion.admin_get("/tail").status, 401);
    let admin = pillion.admin.to_string();
    let output = Command::new(binary()).args(["tail", "--admin", &admin]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output.stderr).contains("admin token"), "{}", printed(&output.stderr));
    let tail = Tail::start(&pillion, &["--token", "s3cret-token", "--format", "json"]);
    pillion.get("/x");
    tail.until("/x");
    // Off loopback there is always a token: Pillion does not start without one.
    let folder = Folder::new();
    let file = folder
        .write("open.toml", "[server]\nadmin = \"0.0.0.0:0\"\n[upstream]\nurl = \"http://127.0.0.1:9\"\n");
    let output = Command::new(binary()).arg("check").arg(file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output.stderr).contains("admin_token"), "{}", printed(&output.stderr));
}

#[test]
fn wrong_filter_is_named_with_the_remedy() {
    let (pillion, _app) = started("");
    for (args, said) in [
        (["--status", "6xx"], "status is \"6xx\"; expected a status (404) or a class (5xx)"),
        (["--cache", "hot"], "cache is \"hot\"; expected one of hit, stale"),
        (["--reason", "ugly"], "reason is \"ugly\"; expected one of"),
        (["--slow", "200"], "slow is \"200\"; expected a duration (200ms, 2s)"),
        (["--user-hash", "ann"], "expected 32 hexadecimal digits"),
        (["--path", "api"], "expected a path without a query"),
    ] {
        let admin = pillion.admin.to_string();
        let output = Command::new(binary()).args(["tail", "--admin", &admin]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let errors = printed(&output.stderr);
        assert!(errors.starts_with("pillion: ") && errors.contains(said), "{args:?}: {errors}");
    }
    assert_eq!(pillion.admin_get("/tail?colour=red").status, 400);
    assert_eq!(pillion.metric("pillion_tail_readers"), 0.0);
}

#[test]
fn reader_that_is_too_slow_loses_lines_and_is_told_and_requests_go_on() {
    let (pillion, _app) = started("access = \"off\"");
    let mut reader = TcpStream::connect(pillion.admin).unwrap();
    std::io::Write::write_all(&mut reader, b"GET /tail HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
    eventually("the reader is there", || (pillion.metric("pillion_tail_readers") == 1.0).then_some(()));
    // Long lines, and more of them than the sockets and the queue have room for.
    let mut client = connect(pillion.http);
    let long = "x".repeat(8000);
    let request = format!("GET /stored/1?x={long} HTTP/1.1\r\nhost: test\r\n\r\n");
    let sent = eventually("lines are dropped", || {
        for _ in 0..100 {
            std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
            assert_eq!(read_answer(&mut client).status, 200);
        }
        let dropped = pillion.metric("pillion_tail_dropped_total");
        (dropped > 100.0).then_some(dropped)
    });
    assert!(sent > 100.0);
    assert_eq!(pillion.get("/other").status, 200);
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut told = 0;
    for line in BufReader::new(reader).lines() {
        let document: Value = match line.unwrap() {
            line if line.starts_with('{') => serde_json::from_str(&line).unwrap(),
            _ => continue,
        };
        told += document["not_shown"].as_u64().unwrap_or(0);
        if told as f64 >= sent {
            break;
        }
    }
}

#[test]
fn reader_that_takes_nothing_is_ended() {
    let app = Script::answering(|_| ok("fine"));
    let pillion = Config::new(app.address)
        .server("send_timeout", "500ms")
        .route("GET /stored/{id}", "cache = { ttl = \"1h\", scope = \"shared\" }")
        .start();
    let mut reader = TcpStream::connect(pillion.admin).unwrap();
    std::io::Write::write_all(&mut reader, b"GET /tail HTTP/1.0\r\nhost: localhost\r\n\r\n").unwrap();
    eventually("the reader is there", || (pillion.metric("pillion_tail_readers") == 1.0).then_some(()));
    let long = "x".repeat(8000);
    let request = format!("GET /stored/1?x={long} HTTP/1.1\r\nhost: test\r\n\r\n");
    let mut client = connect(pillion.http);
    eventually("the reader is ended", || {
        for _ in 0..100 {
            std::io::Write::write_all(&mut client, request.as_bytes()).unwrap();
            assert_eq!(read_answer(&mut client).status, 200);
        }
        (pillion.metric("pillion_tail_readers") == 0.0).then_some(())
    });
}

#[test]
fn burst_beyond_a_thousand_a_second_is_sampled_and_told() {
    let (pillion, _app) = started("access = \"off\"");
    let tail = Tail::start(&pillion, &["--path", "/stored/*"]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = connect(pillion.http);
                let request = b"GET /stored/1 HTTP/1.1\r\nhost: test\r\n\r\n".repeat(50);
                eventually("lines are not shown", || {
                    std::io::Write::write_all(&mut client, &request).unwrap();
                    (0..50).for_each(|_| assert_eq!(read_answer(&mut client).status, 200));
                    tail.text().contains(" more not shown").then_some(())
                });
            });
        }
    });
    let text = tail.text();
    let shown = text.lines().filter(|line| line.contains(" /stored/1 ")).count();
    assert!(shown > 100, "{shown} lines of\n{text}");
}

#[test]
fn lines_not_shown_are_counted_in_words() {
    let app = Script::new(|mut tcp| {
        // Reads the command's request, and responds as the admin listener would.
        let head = head(&mut tcp).unwrap();
        assert!(head.starts_with("GET /tail?status=5xx HTTP/1.0\r\n"), "{head}");
        let lines = "HTTP/1.1 200 OK\r\n\r\n\n{\"not_shown\":1234}\n{\"end\":\"draining\"}\n";
        std::io::Write::write_all(&mut tcp, lines.as_bytes()).unwrap();
    });
    let admin = app.address.to_string();
    let output =
        Command::new(binary()).args(["tail", "--admin", &admin, "--status", "5xx"]).output().unwrap();
    assert_eq!(printed(&output.stdout), "1,234 more not shown\n");
    assert_eq!(printed(&output.stderr), "pillion: the process has ended the stream: draining\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn drain_ends_the_stream_and_later_readers_are_refused() {
    let (pillion, _app) = started("");
    let mut tail = Tail::start(&pillion, &["--format", "json"]);
    pillion.get("/x");
    tail.until("/x");
    assert_eq!(pillion.admin_post("/drain").status, 202);
    assert_eq!(tail.process.wait().code(), Some(0));
    eventually("the end is told", || tail.errors.lock().unwrap().contains("draining").then_some(()));
    assert_eq!(tail.documents().last().unwrap()["end"], "draining");
    let refused = pillion.admin_get("/tail");
    assert_eq!(refused.status, 503);
    assert!(refused.json()["detail"].as_str().unwrap().contains("draining"));
    assert_eq!(pillion.get("/y").status, 200);
}

#[test]
fn stop_of_the_process_ends_the_stream() {
    let (pillion, _app) = started("");
    let mut tail = Tail::start(&pillion, &[]);
    assert!(pillion.stop().success());
    assert_eq!(tail.process.wait().code(), Some(0), "{}", tail.errors.lock().unwrap());
}

#[test]
fn interrupt_and_closed_pipe_end_the_command_at_once() {
    let (pillion, _app) = started("");
    let mut tail = Tail::start(&pillion, &[]);
    tail.process.signal("INT");
    // A shell shows this as 130.
    assert_eq!(tail.process.wait().signal(), Some(2));
    let line = format!("'{}' tail --admin {} --format json | head -n 1", binary(), pillion.admin);
    let mut child = Command::new("sh").args(["-c", &line]).stdout(Stdio::piped()).spawn().unwrap();
    let output = gather(child.stdout.take().unwrap());
    let mut pipe = Process(child);
    eventually("the reader is there", || (pillion.metric("pillion_tail_readers") == 1.0).then_some(()));
    eventually("the pipe ends", || {
        pillion.get("/x");
        pipe.0.try_wait().unwrap()
    });
    assert_eq!(output.lock().unwrap().lines().count(), 1);
    eventually("no reader is left", || (pillion.metric("pillion_tail_readers") == 0.0).then_some(()));
}
