//! Requests that bypass the cache, with their reasons.

use http::Method;

use super::Cached;
use crate::cache::rules::eligibility::BypassReason;
use crate::layer::cache::classify::RequestClass;
use crate::layer::testing::{Asking, Scripted, Stage, arriving, on_worker, response};
use crate::message::body::Body;
use crate::runtime::clock;

const ROUTES: &str = "
    [[routes]]
    match = 'GET /off'
    cache = { scope = 'off' }
    [[routes]]
    match = 'GET /mine'
    cache = { ttl = '60s', scope = 'user' }
    [[routes]]
    match = 'GET /some'
    cache = { ttl = '60s', key_query = ['page'] }
    [[routes]]
    match = 'POST /search'
    cache = { ttl = '60s', scope = 'shared', key_body = true }
    [[routes]]
    match = 'GET /stopped'
    cache = { ttl = '60s', scope = 'shared' }
    [[routes]]
    match = '* /docs/a'
    [server]
    underscores = 'pass'
";

type Change = fn(Asking) -> Asking;

/// Returns the class of a request in words.
fn class(stage: &Stage, asking: Asking) -> &'static str {
    match RequestClass::classify(&asking.routed(), stage.cache()) {
        RequestClass::Write => "write",
        RequestClass::Pass(why) => why.as_str(),
        RequestClass::Content => "its content comes first",
        RequestClass::Read(read) if read.uncounted => "read, uncounted",
        RequestClass::Read(_) => "read",
    }
}

#[test]
fn requests_are_read_written_or_bypass_the_cache() {
    let stage = Stage::new(ROUTES);
    let route = stage.ask("GET /stopped").routed().route.label.to_string();
    stage.cache().stop(&route, clock::now());
    let same: Change = |asking| asking;
    let full: Change = |asking| asking.body(Body::full("a"));
    let streams: Change = |asking| asking.body(arriving(None).1);
    for (line, change, wanted) in [
        ("GET /a", same, "read"),
        ("HEAD /a", same, "read"),
        ("POST /a", same, "write"),
        ("PATCH /a", same, "write"),
        ("PROPFIND /a", same, "method"),
        ("OPTIONS /a", same, "method"),
        ("TRACE /a", same, "method"),
        ("QUERY /a", full, "read"),
        ("QUERY /a", streams, "its content comes first"),
        ("POST /search", full, "read"),
        ("POST /search", streams, "its content comes first"),
        ("GET /off", same, "scope-off"),
        ("GET /stopped", same, "stopped"),
        ("GET /a", full, "content"),
        ("GET /a", streams, "content"),
        ("GET /a", |asking| asking.field("x-http-method-override", "DELETE"), "ambiguous"),
        ("GET /a", |asking| asking.field("x-original-url", "/b"), "ambiguous"),
        ("GET /docs/a/", same, "path"),
        ("GET /a", |asking| asking.field("x_a", "1"), "underscore"),
        ("GET /some?page=1", same, "read"),
        ("GET /some?page=1&b=2", same, "read, uncounted"),
        ("GET /some?page=1&PAGE=2", same, "parameter"),
        ("GET /a?utm_source=1", same, "read, uncounted"),
        ("GET /mine", same, "nobody"),
        ("GET /mine", |asking| asking.field("authorization", "Bearer a"), "read"),
        ("GET /a", |asking| asking.field("signature-input", "a=(\"@method\" \"host\")"), "signed"),
        ("GET /a", |asking| asking.field("authorization", "NTLM TlRMTVNTUAAB"), "connection"),
    ] {
        assert_eq!(class(&stage, change(stage.ask(line))), wanted, "{line}");
    }
}

#[test]
fn a_token_that_does_not_verify_bypasses_the_cache() {
    let folder = std::env::temp_dir().join(format!("pillion-token-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let secret = folder.join("secret");
    std::fs::write(&secret, [b'a'; 32]).unwrap();
    let stage = Stage::new(&format!(
        "[identity]\nprincipal = ['jwt:sub']\n[identity.jwt]\nhs256 = '{}'\nissuer = 'a'\naudience = 'b'",
        secret.display()
    ));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(class(&stage, stage.ask("GET /a").field("authorization", "Bearer a.b.c")), "token");
    assert_eq!(class(&stage, stage.ask("GET /a")), "read");
}

#[test]
fn every_reason_is_told_as_a_bypass() {
    on_worker(async {
        let upstream = Scripted::by(|_| Ok(response(200, &[("cache-control", "max-age=60")], "hello")));
        let cached = Cached::new(ROUTES, upstream);
        for line in ["GET /off", "GET /mine", "GET /docs/a/"] {
            for _ in 0..2 {
                assert_eq!(
                    cached.status(line, |asking| asking).await,
                    "fwd=bypass; fwd-status=200",
                    "{line}"
                );
            }
        }
        assert_eq!(cached.status("OPTIONS /a", |asking| asking).await, "fwd=method; fwd-status=200");
        let upgrade = cached.send(cached.stage.ask("GET /a").upgrade("websocket")).await.unwrap();
        assert!(!upgrade.headers().contains_key("cache-status"), "an upgrade is not the cache's business");
        assert_eq!(cached.stage.cache().store.len(), 0);
    });
    // Each has its row above, but for a write through another process, which needs a fleet.
    assert_eq!(BypassReason::ALL.len(), 13);
}

#[test]
fn content_that_is_part_of_the_key_tells_requests_apart() {
    on_worker(async {
        let upstream = Scripted::by(|asked| {
            let content = String::from_utf8(asked.content.clone().unwrap().to_vec()).unwrap();
            Ok(response(200, &[], &content))
        });
        let cached = Cached::new(ROUTES, upstream);
        let post = |content: &'static str| move |asking: Asking| asking.body(Body::full(content));
        assert_eq!(cached.status("POST /search", post("a")).await, "fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(cached.status("POST /search", post("b")).await, "fwd=uri-miss; fwd-status=200; stored");
        let (sender, body) = arriving(Some(1));
        sender.send(Ok("a".into())).unwrap();
        let asking = cached.stage.ask("POST /search").body(body);
        let response = cached.send(asking).await.unwrap();
        assert_eq!(super::cache_status(&response), "hit; ttl=60");
        assert_eq!(cached.upstream.asked().iter().filter(|asked| asked.method == Method::POST).count(), 2);
    });
}
