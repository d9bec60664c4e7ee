//! Tests of the admin and probes listeners, and of Pillion's own error responses.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::script::upstream;
use crate::harness::wire::ask;
use crate::harness::{
    self, Answer, Pillion, Request, Script, absent_app, eventually, exchange, free_address, now, ok,
};

const PROBES: &str =
    "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nprobes = \"127.0.0.1:0\"\n";

/// Checks a problem document of Pillion: all members present and plain, no internal details.
#[track_caller]
fn check_problem(answer: &Answer, status: u16) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.field("content-type").unwrap(), "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().unwrap().starts_with("urn:pillion:problem:"), "{text}");
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {text}");
    }
    assert_eq!(
        problem["request_id"].as_str().expect("request_id"),
        answer.field("x-request-id").expect("X-Request-Id")
    );
    for inside in ["127.0.0.1", "0.0.0.0", ".rs", "os error", "panicked", "hyper", "tokio"] {
        assert!(!text.contains(inside), "{inside:?}: {text}");
    }
}

#[test]
fn live_and_ready_are_200_while_all_is_well() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    pillion.wait_until_ready();
    for path in ["/live", "/ready", "/health", "/health/upstream", "/health/memory", "/health/certificate"] {
        let answer = pillion.admin_get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.field("content-type").unwrap(), "application/json", "{path}");
        assert_eq!(answer.field("cache-control").unwrap(), "no-store", "{path}");
        assert!(answer.json()["status"].is_string());
        let head = ask(pillion.admin, &format!("HEAD {path}"), "");
        assert_eq!((head.status, head.body.len()), (200, 0), "HEAD {path}");
    }
    let health = pillion.admin_get("/health").json();
    assert_eq!((health["status"].as_str(), health["draining"].as_bool()), (Some("healthy"), Some(false)));
    for check in ["upstream", "memory", "certificate"] {
        assert_eq!(health["checks"][check]["status"], "healthy", "{check}");
        assert!(health["checks"][check]["detail"].is_string());
    }
    assert_eq!(pillion.admin_get("/health/flux").status, 404);
    assert_eq!(pillion.admin_get("/nowhere").status, 404);
}

#[test]
fn an_app_that_is_gone_makes_it_unready_but_not_dead_until_it_is_back() {
    let address = absent_app();
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{address}\"\n[upstream.health]\ninterval = \"100ms\"\n"
    ));
    assert_eq!(pillion.admin_get("/ready").status, 503, "the app has not answered yet");
    for _ in 0..4 {
        assert_eq!(pillion.get("/").status, 502);
    }
    let ready = pillion.admin_get("/ready");
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("not ready")));
    assert_eq!(pillion.admin_get("/health").status, 503);
    assert_eq!(pillion.admin_get("/health").json()["status"], "unhealthy");
    assert_eq!(pillion.admin_get("/health/upstream").status, 503);
    assert_eq!(pillion.admin_get("/health/memory").status, 200);
    assert_eq!(pillion.admin_get("/live").status, 200, "/live speaks of this process alone");
    let _app = Script::on(std::net::TcpListener::bind(address).unwrap(), |mut tcp| {
        while Request::read(&mut tcp).is_some() {
            let _ = std::io::Write::write_all(&mut tcp, &ok(""));
        }
    });
    eventually("it is ready again without any request", || {
        (pillion.admin_get("/ready").status == 200).then_some(())
    });
}

#[test]
fn what_readiness_requires_is_configured() {
    let address = absent_app();
    let pillion =
        Pillion::with(&format!("[upstream]\nurl = \"http://{address}\"\n[health]\nready_requires = []\n"));
    for _ in 0..5 {
        assert_eq!(pillion.get("/").status, 502);
    }
    assert_eq!(pillion.admin_get("/ready").status, 200);
    let health = pillion.admin_get("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
    let upstream = health.json()["checks"]["upstream"].clone();
    assert_eq!(upstream["status"], "unhealthy");
    let one = &upstream["addresses"][0];
    assert_eq!(
        (&one["address"], &one["healthy"]),
        (&address.to_string().into(), &false.into()),
        "{upstream}"
    );
}

#[test]
fn posts_need_the_token_where_there_is_one_and_reads_do_not() {
    let app = Script::echo();
    let config = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nadmin_token = \"s3cret\"\n{}",
        upstream(&app)
    );
    let pillion = Pillion::with(&config);
    for path in ["/reload", "/drain", "/quit"] {
        for token in [
            "",
            "authorization: Bearer wrong1\r\n",
            "authorization: Bearer s3cret2\r\n",
            "authorization: Basic s3cret\r\n",
            "authorization: Bearer \r\n",
        ] {
            let answer = ask(pillion.admin, &format!("POST {path}"), token);
            assert_eq!(answer.status, 401, "{path} {token}");
            assert!(answer.field("www-authenticate").unwrap().starts_with("Bearer"));
        }
        let answer = ask(pillion.admin, &format!("GET {path}"), "");
        assert_eq!((answer.status, answer.field("allow").as_deref()), (405, Some("POST")), "{path}");
    }
    for path in ["/live", "/ready", "/health", "/metrics", "/"] {
        assert_eq!(pillion.admin_get(path).status, 200, "{path}");
    }
    assert_eq!(pillion.metric("pillion_config_reloads_total{result=\"applied\"}"), 0.0);
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let answer = ask(pillion.admin, "POST /reload", &format!("authorization: {scheme} s3cret\r\n"));
        assert_eq!(answer.status, 200, "schemes have no case (RFC 9110 11.1): {scheme}: {}", answer.text());
    }
}

#[test]
fn requests_of_web_pages_are_refused() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{PROBES}{}", upstream(&app)));
    for origin in ["https://evil.example", "null", "http://127.0.0.1:9900"] {
        let field = format!("origin: {origin}\r\n");
        for line in ["POST /reload", "POST /quit", "POST /drain", "GET /metrics"] {
            assert_eq!(ask(pillion.admin, line, &field).status, 403, "{line} {origin}");
        }
    }
    pillion.wait_until_ready();
    assert_eq!(pillion.metric("pillion_config_reloads_total{result=\"applied\"}"), 0.0);
}

#[test]
fn probes_can_only_be_read() {
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{PROBES}{}", upstream(&app)));
    let probes = pillion.probes.unwrap();
    pillion.wait_until_ready();
    for path in ["/live", "/ready", "/health", "/health/upstream", "/metrics"] {
        assert_eq!(ask(probes, &format!("GET {path}"), "").status, 200, "{path}");
    }
    for line in [
        "GET /",
        "GET /reload",
        "POST /reload",
        "POST /drain",
        "POST /quit",
        "POST /ready",
        "DELETE /metrics",
    ] {
        let status = ask(probes, line, "").status;
        assert!(matches!(status, 404 | 405), "{line}: {status}");
    }
    assert_eq!(ask(probes, "GET /ready", "").status, 200);
    assert_eq!(pillion.metric("pillion_config_reloads_total{result=\"applied\"}"), 0.0);
}

#[test]
fn reload_says_what_changed_or_what_is_wrong() {
    let app = Script::echo();
    let routes = "[[routes]]\nmatch = \"GET /reset/{token}\"\n[[routes]]\nmatch = \"* /{secret}/x\"\n";
    let text = format!("{PROBES}{}{routes}", upstream(&app));
    let pillion = Pillion::with(&text);
    for (more, changed) in [
        ("", "nothing"),
        ("[identity]\nhash_key = \"0123456789abcdef\"\n", "identity"),
        ("[tracing]\nsample = 0.5\n", "identity, tracing"),
        ("[log]\nslow = \"2s\"\n", "log, tracing"),
    ] {
        pillion.folder.write("pillion.toml", format!("{text}{more}"));
        let answer = pillion.admin_post("/reload");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        let mut told: Vec<&str> = detail.split(", ").collect();
        told.sort();
        assert_eq!(told.join(", "), changed, "{more}");
    }
    pillion.folder.write("pillion.toml", "[upstream]\nulr = \"http://127.0.0.1:1\"\n");
    let answer = pillion.admin_post("/reload");
    assert_eq!(answer.status, 422);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("pillion.toml:2:1") && detail.contains("url"), "{detail}");
    assert_eq!(pillion.get("/").status, 200);
}

#[test]
fn drain_turns_ready_off_and_quit_ends_with_0() {
    let app = Script::echo();
    let mut pillion = Pillion::with(&format!("{PROBES}{}", upstream(&app)));
    assert_eq!(pillion.admin_post("/drain").status, 202);
    // A command takes effect when its response arrives, or shortly afterwards.
    let ready =
        eventually("/ready is 503", || Some(pillion.admin_get("/ready")).filter(|ready| ready.status == 503));
    assert_eq!(ready.json()["status"], "draining");
    assert_eq!(ask(pillion.probes.unwrap(), "GET /ready", "").status, 503);
    assert_eq!(pillion.admin_get("/health").json()["draining"], true);
    assert_eq!(pillion.admin_get("/live").status, 200);
    let answer = exchange(pillion.http, "GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!((answer.status, answer.field("connection").as_deref()), (200, Some("close")));
    assert_eq!(pillion.admin_post("/quit").status, 202);
    assert_eq!(pillion.process.wait().code(), Some(0));
}

#[test]
fn an_expensive_app_never_starves_the_probes() {
    // All workers are busy, but `/live` responds anyway.
    let app = Script::answering(|_| ok(&"x".repeat(200_000)));
    let pillion = Pillion::with(&upstream(&app));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let _ = pillion.get("/");
                }
            });
        }
        let worst = (0..50)
            .map(|_| {
                let since = now();
                let status = std::panic::catch_unwind(|| pillion.admin_get("/live").status);
                if !matches!(status, Ok(200)) { Duration::MAX } else { since.elapsed() }
            })
            .max();
        stop.store(true, Ordering::SeqCst);
        assert!(worst < Some(Duration::from_secs(1)), "{worst:?}");
    });
}

#[test]
fn everything_pillion_says_itself_is_a_problem_document_without_internals() {
    let app = Script::answering(|request| match request.line.split(' ').nth(1).unwrap() {
        "/malformed" => b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_vec(),
        "/silent" => {
            std::thread::sleep(Duration::from_millis(600));
            ok("")
        }
        _ => ok(""),
    });
    let closing = Script::new(|mut tcp| {
        let _ = Request::read(&mut tcp);
    });
    let pillion = Pillion::with(&format!(
        "{}response_timeout = \"200ms\"\n\
         [upstreams.closing]\nurl = \"http://{}\"\n[upstreams.gone]\nurl = \"http://{}\"\n[upstreams.unknown]\nurl = \"http://no-such-host.invalid:80\"\n\
         [[routes]]\nmatch = \"* /closing\"\nupstream = \"closing\"\n[[routes]]\nmatch = \"* /gone\"\nupstream = \"gone\"\n\
         [[routes]]\nmatch = \"* /unknown\"\nupstream = \"unknown\"\n[[routes]]\nmatch = \"* /denied\"\ndeny = 404\n\
         [[routes]]\nmatch = \"* /small\"\nmax_body_size = \"1B\"\n",
        upstream(&app),
        closing.address,
        free_address(),
    ));
    let mut types = Vec::new();
    for (path, status) in [
        ("/malformed", 502),
        ("/silent", 504),
        ("/closing", 502),
        ("/gone", 502),
        ("/unknown", 502),
        ("/denied", 404),
        ("/a%00b", 400),
    ] {
        let answer = pillion.get(path);
        check_problem(&answer, status);
        types.push(answer.json()["type"].as_str().unwrap().to_owned());
    }
    let large = exchange(
        pillion.http,
        "POST /small HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab",
    );
    check_problem(&large, 413);
    check_problem(&exchange(pillion.http, "GET / HTTP/1.1\r\n\r\n"), 400);
    let short: Vec<&str> = types.iter().map(|name| name.rsplit(':').next().unwrap()).collect();
    assert_eq!(
        short,
        [
            "upstream-malformed",
            "upstream-timeout",
            "upstream-broken",
            "upstream-unreachable",
            "upstream-unreachable",
            "denied",
            "ambiguous-path"
        ]
    );
    let head = exchange(pillion.http, "HEAD /denied HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (404, 0));
}

#[test]
fn the_admin_listener_says_its_errors_in_the_same_form() {
    let app = Script::echo();
    let pillion = Pillion::with(&upstream(&app));
    for (line, field, status) in [
        ("GET /nowhere", "", 404),
        ("GET /reload", "", 405),
        ("GET /metrics", "origin: https://evil.example\r\n", 403),
    ] {
        check_problem(&ask(pillion.admin, line, field), status);
    }
}

#[test]
fn request_ids_are_made_for_strangers_and_taken_from_trusted_peers() {
    let app = Script::echo();
    let strange = Pillion::with(&upstream(&app));
    let given = "x-request-id: mine-1\r\n";
    let answer = ask(strange.http, "GET /", given);
    let id = answer.field("x-request-id").unwrap();
    assert_ne!(id, "mine-1");
    assert_eq!(answer.json()["fields"]["x-request-id"], id, "the app is told the same");
    assert_ne!(ask(strange.http, "GET /", "").field("x-request-id").unwrap(), id);
    let server = "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let trusting = Pillion::with(&format!("{server}{}", upstream(&app)));
    assert_eq!(ask(trusting.http, "GET /", given).field("x-request-id").unwrap(), "mine-1");
    let quoted = ask(trusting.http, "GET /", "x-request-id: a\"b\r\n").field("x-request-id").unwrap();
    assert!(!quoted.contains('"'), "{quoted}");
    let silly = format!("x-request-id: {}\r\n", "a".repeat(500));
    assert!(ask(trusting.http, "GET /", &silly).field("x-request-id").unwrap().len() <= 128);
    trusting.access("the id is logged", |line| line.to_string().contains("mine-1"));
}

#[test]
fn idle_strangers_on_the_probes_listener_do_not_make_it_unreachable() {
    // The probes listener is reachable from outside. Idle connections to it must not keep a kubelet from its response.
    let app = Script::echo();
    let pillion = Pillion::with(&format!("{PROBES}{}", upstream(&app)));
    let probes = pillion.probes.unwrap();
    let idle: Vec<std::net::TcpStream> = (0..400).map(|_| harness::connect(probes)).collect();
    eventually("/ready answers", || {
        let mut tcp = harness::connect(probes);
        std::io::Write::write_all(&mut tcp, b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .ok()?;
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut tcp, &mut answer);
        answer.starts_with(b"HTTP/1.1 200").then_some(())
    });
    drop(idle);
}
