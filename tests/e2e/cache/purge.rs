//! Tests of `PURGE` requests from permitted clients.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::origin::*;
use crate::harness::*;

fn is_hit(pillion: &Pillion, path: &str) -> bool {
    status_of(&get(pillion, path)).contains("; hit")
}

#[test]
fn n5_7_a_purge_is_answered_where_it_comes_from_those_who_may() {
    let origin = Origin::new();
    let config = "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\", tags = [\"all\"] }\n\
        [[routes]]\nmatch = \"* /old/**\"\nrewrite = \"/**\"\n\
        [[invalidate]]\non = \"* /**\"\ntags = [\"all\"]\n[[invalidate]]\non = \"PURGE /**\"\ntags = [\"all\"]\n";
    origin.says("/v", &["vary: accept-language"]);
    let with = |purge_from: &str, proxies: &str| {
        Pillion::with(&format!(
            "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [{proxies}]\n\
             [upstream]\nurl = \"http://{}\"\n[cache]\npurge_from = [{purge_from}]\n{config}",
            origin.script.address
        ))
    };
    let pillion = with("\"127.0.0.0/8\"", "");
    let fill = |pillion: &Pillion| {
        for language in ["en", "de"] {
            ask(pillion, "GET /v", &[&format!("accept-language: {language}")]);
        }
        ["/a", "/a?x=1", "/a?y=1", "/b"].iter().for_each(|path| drop(get(pillion, path)));
    };
    let count = |answer: &Answer| (answer.status, answer.json()["count"].as_u64().unwrap());
    for (line, wanted, gone) in [
        ("PURGE /v", (200, 2), "/v"),
        ("PURGE /a?x=1", (200, 1), "/a?x=1"),
        ("PURGE /a?x=%31&utm_source=mail", (200, 1), "/a?x=1"),
        ("PURGE /a", (200, 3), "/a?y=1"),
        ("PURGE /old/b", (200, 1), "/b"),
        ("PURGE /nowhere", (404, 0), "/nowhere"),
    ] {
        fill(&pillion);
        let before = origin.count();
        let answer = ask(&pillion, line, &["content-length: 0"]);
        assert_eq!(count(&answer), wanted, "{line} {}", answer.text());
        assert_eq!(origin.count(), before, "{line}: the app is not asked");
        assert!(!is_hit(&pillion, gone), "{line}");
        assert!(is_hit(&pillion, "/b") || gone == "/b", "{line}: no rule is for it");
        let others = ["/a", "/a?x=1", "/a?y=1"]
            .iter()
            .filter(|path| !line.contains("/a") || line.contains('?') && **path != gone);
        others.for_each(|path| assert!(is_hit(&pillion, path), "{line} leaves {path}"));
        fill(&pillion);
    }
    assert_eq!(
        exchange(pillion.http, "PURGE /a HTTP/1.1\r\nhost: b.example\r\nconnection: close\r\n\r\n").status,
        404
    );
    // Responses of another host for the same path stay.
    let of = |host: &str| {
        let request = format!("GET /h HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        exchange(pillion.http, &request)
    };
    ["one.test", "two.test"].iter().for_each(|host| drop(of(host)));
    let purge = exchange(pillion.http, "PURGE /h HTTP/1.1\r\nhost: one.test\r\nconnection: close\r\n\r\n");
    assert_eq!(count(&purge), (200, 1));
    let is_hit_of = |host: &str| of(host).field("cache-status").unwrap().contains("; hit");
    assert!(is_hit_of("two.test") && !is_hit_of("one.test"));
    // From another client it is a write for the upstream, and invalidates only its own path.
    for (purge_from, proxies, fields) in [
        ("", "", "x-none: 1"),
        ("\"10.0.0.0/8\"", "", "x-none: 1"),
        ("\"10.0.0.0/8\"", "", "x-forwarded-for: 10.0.0.1"),
        ("\"127.0.0.0/8\"", "", "x-forwarded-for: 127.0.0.1"),
        ("\"127.0.0.0/8\"", "", "via: 1.1 cdn"),
        ("\"127.0.0.0/8\"", "", "x-real-ip: 127.0.0.1"),
        ("\"127.0.0.0/8\"", "", "cf-connecting-ip: 203.0.113.9"),
        ("\"127.0.0.0/8\"", "\"127.0.0.0/8\"", "via: 1.1 cdn"),
        ("\"127.0.0.0/8\"", "\"127.0.0.0/8\"", "x-forwarded-for: 203.0.113.9"),
    ] {
        let pillion = with(purge_from, proxies);
        fill(&pillion);
        let answer = ask(&pillion, "PURGE /a", &[fields]);
        assert!(answer.text().starts_with("/a #"), "{purge_from} {proxies} {fields}: {}", answer.text());
        assert!(origin.last().line.starts_with("PURGE /a "));
        assert!(!is_hit(&pillion, "/a") && is_hit(&pillion, "/b"), "{purge_from} {proxies} {fields}");
    }
    let pillion = with("\"10.0.0.0/8\"", "\"127.0.0.0/8\"");
    fill(&pillion);
    assert_eq!(count(&ask(&pillion, "PURGE /b", &["x-forwarded-for: 10.0.0.1"])), (200, 1));
}

/// A content management system sends dozens of purges when a page is saved, and uses http to the proxy beside it.
#[test]
fn n5_7_a_purge_is_neither_limited_nor_sent_to_https() {
    let origin = Origin::new();
    let pillion = Config::new(origin.script.address)
        .server("redirect_https", true)
        .server("trusted_proxies", ["127.0.0.0/8"])
        .cache("purge_from", ["127.0.0.0/8"])
        .table("[rate_limit]", "enabled = true")
        .limit("free", "requests", r#"rate = "3/h", burst = 3"#)
        .start();
    for at in 0..5 {
        let answer = ask(&pillion, "PURGE /a", &["content-length: 0"]);
        assert_eq!(answer.status, 404, "the {at}. purge: {}", answer.text());
    }
    assert_eq!(ask(&pillion, "GET /a", &[]).status, 308);
}

/// A response to a request sent before the purge must not be stored after it.
#[test]
fn n5_7_what_a_purge_overtakes_is_not_stored() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (wait, asked) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
    let seen = asked.clone();
    let app = Script::answering(move |request| {
        let number = seen.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            wait.lock().unwrap().recv().unwrap();
        }
        answer(request, "", &format!("#{number}"))
    });
    let pillion = Config::new(app.address)
        .cache("purge_from", ["127.0.0.0/8"])
        .route("GET /**", r#"cache = { ttl = "1h", scope = "shared" }"#)
        .start();
    std::thread::scope(|scope| {
        let before = scope.spawn(|| get(&pillion, "/slow"));
        eventually("the fetch", || (asked.load(Ordering::SeqCst) == 1).then_some(()));
        assert_eq!(ask(&pillion, "PURGE /slow", &["content-length: 0"]).status, 404);
        go.send(()).unwrap();
        assert_eq!(before.join().unwrap().text(), "#0");
    });
    assert_eq!(get(&pillion, "/slow").text(), "#1", "it is fetched anew");
}
