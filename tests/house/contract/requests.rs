//! A Pillion that has handled every kind of request, and its fields, logs and problem documents.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::Facts;
use super::listeners::members;
use crate::harness::origin::{Origin, ask, get};
use crate::harness::redis::RedisServer;
use crate::harness::*;

/// An app, and a Pillion in front of it with every feature turned on.
pub(crate) struct Scene {
    pub origin: Origin,
    pub pillion: Pillion,
    _folder: Arc<Folder>,
    _redis: RedisServer,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let origin = Origin::new();
        let folder = Arc::new(Folder::new());
        run(
            "sh",
            &[
                "-c",
                &format!(
                    "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=a -days 30 -keyout key.pem -out cert.pem 2>/dev/null",
                    folder.0.display()
                ),
            ],
        );
        let (app, absent) = (origin.script.address, absent_app());
        let server = RedisServer::new();
        let redis = server.url();
        let text = format!(
            r#"[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
[server.tls]
listen = ["127.0.0.1:0"]
certificates = [{{ cert = "cert.pem", key = "key.pem" }}]
[upstream]
url = "http://{app}"
adaptive_concurrency = true
[upstreams.absent]
url = "http://{absent}"
[log]
format = "json"
[health]
memory_limit = "1GiB"
[identity]
hash_key = "0123456789abcdef0123456789abcdef"
[redis]
url = "{redis}"
prefix = "test"
[cache]
debug_header = true
[rate_limit]
headers = ["ratelimit", "legacy"]
[rate_limit.tiers.free]
upgrade = "https://example.com/pricing"
[rate_limit.tiers.free.limits]
requests = {{ rate = "10000/s" }}
scarce = {{ rate = "1/h", burst = 1, on = "named" }}
[[routes]]
match = "GET /api/{{id}}"
cache = {{ ttl = "1m", scope = "user", tags = ["a"] }}
deprecated = {{ since = "2026-01-01", sunset = "2026-12-31", link = "https://example.com/v2" }}
[[routes]]
match = "* /scarce"
limits = ["scarce"]
[[routes]]
match = "* /absent"
upstream = "absent"
"#
        );
        let pillion = Pillion::in_folder(folder.clone(), &text);
        pillion.wait_until_ready();
        Scene { origin, pillion, _folder: folder, _redis: server }
    }

    /// Sends requests of every kind.
    pub(crate) fn play(&self) {
        let (origin, pillion) = (&self.origin, &self.pillion);
        origin.says("/api/private", &["cache-control: no-store"]);
        origin.says("/text", &["content-type: text/plain", "x-long: 1"]);
        for _ in 0..2 {
            ask(pillion, "GET /api/1", &["authorization: Bearer a"]);
            get(pillion, "/scarce");
            get(pillion, "/absent");
        }
        let traced = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        ask(pillion, "GET /api/2", &[traced]);
        get(pillion, "/api/private");
        let long = "a".repeat(4096);
        ask(pillion, &format!("GET /text?{long}"), &["accept-encoding: zstd"]);
        for method in ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE", "BREW"] {
            ask(pillion, &format!("{method} /api/1"), &["content-length: 0"]);
        }
        ask(pillion, "CONNECT a.example:1", &[]);
        pillion.admin_post("/cache/purge?url=/api/1");
    }
}

pub(crate) fn gather(facts: &mut Facts) {
    let scene = Scene::new();
    scene.play();
    access_log(&scene.pillion, facts);
    problems(&scene.pillion, facts);
    fields(&scene, facts);
    for (place, words) in pillion::internals::contract::words() {
        words.iter().for_each(|word| facts.add("words", format!("{place}: {word}")));
    }
    for (uri, _) in pillion::internals::contract::problems() {
        facts.add("problem types", uri);
    }
    // The admin listener has one problem type for each of its error statuses.
    let described = scene.pillion.admin_get("/openapi.json").json();
    for operations in described["paths"].as_object().unwrap().values() {
        let responses = operations.as_object().unwrap().values().map(|operation| &operation["responses"]);
        for (status, response) in responses.flat_map(|responses| responses.as_object().unwrap()) {
            if status != "default" && response["content"]["application/problem+json"].is_object() {
                facts.add("problem types", format!("urn:pillion:problem:admin-{status}"));
            }
        }
    }
}

/// Adds the members of access log lines, with their types, including members that occur in a single request only.
fn access_log(pillion: &Pillion, facts: &mut Facts) {
    let all = [
        "time",
        "kind",
        "request_id",
        "trace_id",
        "client",
        "method",
        "path",
        "protocol",
        "route",
        "status",
        "bytes",
        "duration_ms",
        "first_byte_ms",
        "upstream_ms",
        "upstream",
        "retries",
        "cache",
        "not_stored",
        "coding",
        "content_bytes",
        "principal",
        "tier",
        "limit",
        "caller",
        "limits",
        "fault",
        "error",
    ];
    let lines = eventually("lines have all members", || {
        let text = pillion.access_log();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let names: BTreeSet<&str> =
            lines.iter().flat_map(|line| line.as_object().unwrap().keys()).map(String::as_str).collect();
        let missing: Vec<_> = all.iter().filter(|name| !names.contains(*name)).collect();
        if !missing.is_empty() {
            eprintln!("not in a line yet: {missing:?}");
        }
        missing.is_empty().then_some(lines)
    });
    lines.iter().for_each(|line| members(line, "access", "log members", facts));
    let log = pillion.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for event in events {
        for name in ["timestamp", "time", "level", "target", "message", "kind"] {
            if event.get(name).is_some() {
                facts.add("log members", format!("event .{name}: string"));
            }
        }
    }
}

/// Adds the members of problem documents.
fn problems(pillion: &Pillion, facts: &mut Facts) {
    for path in ["/scarce", "/absent"] {
        let refused = get(pillion, path);
        assert_eq!(refused.field("content-type").unwrap(), "application/problem+json");
        members(&refused.json(), "problem", "problem members", facts);
    }
}

/// Adds the fields that Pillion adds: those that neither the app nor the client sent.
fn fields(scene: &Scene, facts: &mut Facts) {
    let (pillion, app) = (&scene.pillion, Script::echo());
    for (line, more) in [
        ("GET /api/3", &[][..]),
        ("GET /api/3", &["accept-encoding: gzip"]),
        ("GET /api/4", &["authorization: Bearer a"]),
        ("GET /api/4", &["authorization: Bearer a"]),
        ("GET /scarce", &[]),
        ("GET /absent", &[]),
        ("GET /other", &[]),
    ] {
        let answer = ask(pillion, line, more);
        for line in answer.head.lines().skip(1) {
            facts.add("fields", format!("response {}", line.split(':').next().unwrap().to_ascii_lowercase()));
        }
    }
    let plain = Pillion::in_front_of(app.address);
    let told = plain.get("/").json();
    for name in told["fields"].as_object().unwrap().keys() {
        facts.add("fields", format!("request to the app {name}"));
    }
}
