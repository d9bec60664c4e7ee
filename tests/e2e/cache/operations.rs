//! Tests of the cache from an operator's view: purge, lookup, reload, memory, and upstreams that are gone.

use std::process::Command;

use crate::harness::origin::*;
use crate::harness::*;

/// Routes with tags, shared by all users.
pub(crate) const SHARED: &str = "[[routes]]\nmatch = \"GET /api/{id}/**\"\ncache = { ttl = \"1m\", scope = \"shared\", tags = [\"all\", \"one:{id}\"] }\n";

fn admin(pillion: &Pillion, line: &str, form: &str) -> Answer {
    let length = form.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{form}"
    );
    exchange(pillion.admin, &request)
}

#[test]
fn purging_takes_what_it_names() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        &format!("{SHARED}[[routes]]\nmatch = \"GET /me\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n"),
    );
    let paths = ["/api/1/x", "/api/1/x?q=1", "/api/2/y", "/api/2"];
    let all = || paths.map(|path| get(&pillion, path).text());
    let me = |who: &str| ask(&pillion, "GET /me", &[&format!("cookie: session={who}")]).text();
    for (purge, gone) in [
        ("url=/api/1/x", [true, true, false, false]),
        ("url=http://b.example/api/1/x", [true, true, false, false]),
        ("tag=one:2", [false, false, true, true]),
        ("prefix=/api/2", [false, false, true, true]),
        ("prefix=/api/**", [true; 4]),
        ("tag=one%3A1", [true, true, false, false]),
        ("everything", [true; 4]),
        ("tag=none", [false; 4]),
        ("mode=soft&tag=all", [true; 4]),
    ] {
        let before = all();
        assert_eq!(all(), before);
        let answer = admin(&pillion, &format!("POST /cache/purge?{purge}"), "");
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("purged")), "{purge}");
        let after = all();
        assert_eq!([0, 1, 2, 3].map(|at| before[at] != after[at]), gone, "{purge}");
    }
    let (a, b) = (me("a"), me("b"));
    assert_eq!(admin(&pillion, "POST /cache/purge", "principal=cookie%3Asession%3Da").status, 200);
    assert!(me("a") != a && me("b") == b);
    for wrong in [
        "",
        "what=1",
        "url=x",
        "principal=cookie:session",
        "principal=cookie:x=1",
        "mode=hard",
        "tag=",
        "mode=x&tag=a",
    ] {
        assert_eq!(admin(&pillion, "POST /cache/purge", wrong).status, 400, "{wrong}");
    }
    assert_eq!(admin(&pillion, "GET /cache/purge", "").status, 405);
    let rebound = exchange(
        pillion.admin,
        "GET /cache/stats HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(rebound.status, 403, "a name that somebody made lead here");
    let run = |args: &[&str]| {
        let admin = pillion.admin.to_string();
        Command::new(binary()).arg("purge").args(args).args(["--admin", &admin]).output().unwrap()
    };
    let before = all();
    assert!(run(&["--tag", "one:1", "--soft"]).status.success());
    assert_ne!(all()[0], before[0]);
    assert!(!run(&["--url", "nonsense"]).status.success());
    assert!(!run(&[]).status.success());
}

#[test]
fn what_is_stored_can_be_looked_at() {
    let origin = Origin::new();
    let pillion = pillion(&origin, SHARED);
    origin.says("/api/7/x", &["vary: accept-language", "surrogate-key: extra other", "cache-tag: third"]);
    let answer = ask(&pillion, "GET /api/7/x?b=1&a=2", &["accept-language: de"]);
    assert_eq!(answer.field("surrogate-key"), None, "for us alone");
    assert_eq!(answer.field("cache-tag"), None);
    ask(&pillion, "GET /api/7/x?b=1&a=2", &["accept-language: de"]);
    let found =
        admin(&pillion, "GET /cache/lookup?url=http%3A%2F%2Fa.example%2Fapi%2F7%2Fx%3Fa%3D2%26b%3D1", "")
            .json();
    let entry = &found["found"][0];
    assert_eq!((&entry["path"], &entry["query"]), (&"/api/7/x".into(), &"a=2&b=1".into()), "{found}");
    let variant = &entry["variants"][0];
    assert_eq!(variant["tags"], serde_json::json!(["all", "one:7", "extra", "other", "third"]));
    assert_eq!(
        (&variant["state"], &variant["hits"], &variant["lifetime"]),
        (&"fresh".into(), &1.into(), &60.into())
    );
    assert_eq!(variant["vary"], serde_json::json!(["accept-language"]));
    assert!(!found.to_string().contains("#1"), "content is never shown");
    admin(&pillion, "POST /cache/purge?tag=third", "");
    assert_eq!(admin(&pillion, "GET /cache/lookup?url=/api/7/x", "").json()["found"], serde_json::json!([]));
    let stats = admin(&pillion, "GET /cache/stats", "").json();
    assert_eq!((&stats["keys"], &stats["operations"]["lookup hit"]), (&0.into(), &1.into()), "{stats}");
    assert_eq!(stats["bytes"], 0, "nothing is held for what is not there");
}

#[test]
fn a_reload_keeps_what_is_stored_and_heeds_what_is_new() {
    let origin = Origin::new();
    let config =
        |route: &str| complete(&format!("[upstream]\nurl = \"http://{}\"\n{route}", origin.script.address));
    let pillion = Pillion::with(&config(SHARED));
    let first = get(&pillion, "/api/1/x").text();
    let user = ask(&pillion, "GET /api/1/x", &["authorization: a"]).text();
    assert_eq!(user, first);
    pillion.reload(&config(SHARED));
    assert_eq!(get(&pillion, "/api/1/x").text(), first);
    pillion.reload(&config(&SHARED.replace("shared", "user")));
    assert_ne!(ask(&pillion, "GET /api/1/x", &["authorization: a"]).text(), first);
    pillion.reload(&config(&SHARED.replace("shared", "auto")));
    assert_ne!(get(&pillion, "/api/1/x").text(), first, "what was for all is not, from now on");
    assert_ne!(ask(&pillion, "GET /api/1/x", &["authorization: b"]).text(), first);
    pillion.reload(&config(&SHARED.replace("ttl = \"1m\", scope = \"shared\"", "scope = \"off\"")));
    assert_ne!(get(&pillion, "/api/1/x").text(), first);
    pillion.reload(&config(&format!("{SHARED}[cache]\nenabled = false\n")));
    let answer = get(&pillion, "/api/1/x");
    assert_eq!(answer.field("cache-status"), None);
}

#[test]
fn memory_is_bounded() {
    let content = "x".repeat(100_000);
    let script = Script::answering(move |request| answer(request, "cache-control: max-age=600", &content));
    let pillion =
        Config::new(script.address).cache("max_size", "1MiB").cache("max_object_size", "200KiB").start();
    for at in 0..50 {
        assert_eq!(get(&pillion, &format!("/{at}")).body.len(), 100_000);
        assert!(pillion.metric("pillion_cache_bytes") <= 1_048_576.0 * 1.1);
    }
    // A lookup fetches nothing, so it evicts nothing.
    let only = ["cache-control: only-if-cached"];
    let kept = (0..50).filter(|at| ask(&pillion, &format!("GET /{at}"), &only).status == 200).count();
    assert!(kept >= 5, "{kept}");
    assert!(pillion.metric("pillion_cache_evictions_total") >= 40.0);
    admin(&pillion, "POST /cache/purge?everything", "");
    eventually("all of it is given back", || (pillion.metric("pillion_cache_bytes") == 0.0).then_some(()));
}

fn status(answer: &Answer) -> String {
    answer.field("cache-status").unwrap_or_default()
}

#[test]
fn what_is_too_long_is_passed_on_at_the_pace_of_its_readers() {
    let script = Script::new(|mut tcp| {
        while Request::read(&mut tcp).is_some() {
            use std::io::Write as _;
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n";
            tcp.write_all(head.as_bytes()).unwrap();
            let piece = format!("10000\r\n{}\r\n", "y".repeat(65_536));
            for _ in 0..64 {
                tcp.write_all(piece.as_bytes()).unwrap();
            }
            tcp.write_all(b"0\r\n\r\n").unwrap();
        }
    });
    let pillion =
        Config::new(script.address).cache("max_size", "2MiB").cache("max_object_size", "100KiB").start();
    for _ in 0..2 {
        let answer = get(&pillion, "/long");
        assert_eq!(answer.body.len(), 64 * 65_536);
        assert!(status(&answer).contains("fwd=uri-miss"), "{}", status(&answer));
    }
    eventually("all of it is given back", || (pillion.metric("pillion_cache_bytes") == 0.0).then_some(()));
}

#[test]
fn codings_given_out_often_are_made_again_with_more_effort() {
    let items: String = (0..900).map(|n| format!("item {n} of a list, {}; ", n * 7919 % 1000)).collect();
    let content = items.clone();
    let script = Script::answering(move |request| answer(request, "cache-control: max-age=600", &content));
    let pillion = Config::new(script.address).table("[compression]", r#"effort = "fast""#).start();
    let of = || ask(&pillion, "GET /a", &["accept-encoding: gzip"]);
    let first = of();
    let mut asked = 0;
    eventually("it is made again", || {
        (0..20).for_each(|_| drop(of()));
        asked += 20;
        (pillion.metric("pillion_made_total{what=\"recoded\"}") == 1.0).then_some(())
    });
    assert!(asked >= 60, "{asked}");
    let again = of();
    assert!(again.body.len() < first.body.len(), "{} {}", again.body.len(), first.body.len());
    let folder = Folder::new();
    let path = folder.write("x.gz", &again.body);
    assert_eq!(run("gzip", &["-dc", path.to_str().unwrap()]), items);
}

#[test]
fn an_app_that_is_gone_is_stood_in_for_as_long_as_it_said() {
    let mut nginx = Nginx::serving(
        "server { listen LISTEN; location / { add_header Cache-Control \"max-age=1, stale-if-error=4\"; return 200 here; } }",
    );
    let pillion = Pillion::in_front_of(nginx.address);
    let since = now();
    assert_eq!(get(&pillion, "/a").text(), "here");
    nginx.process.signal("KILL");
    nginx.process.wait();
    eventually("it is stale", || {
        let answer = get(&pillion, "/a");
        assert_eq!((answer.status, answer.text()), (200, "here".to_owned()));
        status(&answer).contains("fwd=stale").then_some(())
    });
    eventually("its time is over", || (get(&pillion, "/a").status == 502).then_some(()));
    // Five seconds after the fetch, minus the delay of the whole-second `Date`.
    assert!(since.elapsed() >= std::time::Duration::from_secs(4), "{:?}", since.elapsed());
}

#[test]
fn trailers_are_stored_apart() {
    let script = Script::answering(|_| {
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n".to_vec()
    });
    let pillion = Pillion::in_front_of(script.address);
    for hit in [false, true] {
        let head = "GET /a HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te, close\r\n\r\n";
        let raw = String::from_utf8(raw(pillion.http, head)).unwrap();
        assert_eq!(raw.contains("; hit"), hit, "{raw}");
        assert!(raw.contains("abc") && raw.trim_end().ends_with("x-sum: 7"), "{raw}");
        assert_eq!(raw.matches("x-sum: 7").count(), 1, "not among the fields of the head");
    }
}

#[test]
fn over_http_2_it_is_the_same() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60", "etag: \"x\""]);
    let url = pillion.url("/a");
    let of = |more: &[&str]| {
        let mut args = vec!["-s", "-i", "--http2-prior-knowledge"];
        args.extend(more);
        args.push(&url);
        run("curl", &args)
    };
    assert!(of(&[]).contains("fwd=uri-miss"));
    let hit = of(&[]);
    assert!(hit.contains("cache-status: pillion; hit; ttl=") && hit.ends_with("/a #1"), "{hit}");
    assert!(of(&["-H", "if-none-match: \"x\""]).starts_with("HTTP/2 304"));
    assert!(of(&["-I"]).contains("content-length: 5"));
    assert!(of(&["-H", "cookie: a=1", "-H", "cookie: _ga=1"]).contains("fwd=miss"));
    assert_eq!(origin.count(), 2);
}
