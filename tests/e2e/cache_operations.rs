//! Tests of the cache from an operator's view: purge, lookup, tokens, tripwire, reload and memory.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::origin::*;
use crate::harness::*;

const SHARED: &str = "[[routes]]\nmatch = \"GET /api/{id}/**\"\ncache = { ttl = \"1m\", scope = \"shared\", tags = [\"all\", \"one:{id}\"] }\n";

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
fn rewritten_paths_key_tag_and_invalidate_as_rewritten() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        &format!(
            "[[routes]]\nmatch = \"* /v1/**\"\nrewrite = \"/api/**\"\n{SHARED}[[invalidate]]\non = \"PUT /api/{{id}}\"\ntags = [\"one:{{id}}\"]\n"
        ),
    );
    let first = get(&pillion, "/v1/5/x");
    assert_eq!(get(&pillion, "/api/5/x").text(), first.text());
    assert_eq!(ask(&pillion, "PUT /v1/5", &["content-length: 0"]).status, 200);
    assert_ne!(get(&pillion, "/api/5/x").text(), first.text());
}

#[test]
fn groups_of_one_origin() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60", "cache-groups: \"one\", \"two\""]);
    origin.says("/b", &["cache-control: max-age=60", "cache-groups: \"other\""]);
    origin.says("/write", &["cache-group-invalidation: \"two\""]);
    let (a, b) = (get(&pillion, "/a").text(), get(&pillion, "/b").text());
    get(&pillion, "/write");
    assert_eq!(get(&pillion, "/a").text(), a, "a safe request invalidates nothing");
    ask(&pillion, "POST /write", &["content-length: 0"]);
    assert_ne!(get(&pillion, "/a").text(), a);
    assert_eq!(get(&pillion, "/b").text(), b);
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
fn users_told_apart_by_a_claim() {
    let origin = Origin::new();
    let folder = Arc::new(Folder::new());
    folder.write("secret", "0123456789abcdef0123456789abcdef\n");
    let config = format!(
        "[upstream]\nurl = \"http://{}\"\n[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\nhs256 = \"secret\"\naudience = \"app\"\n\
         [[routes]]\nmatch = \"GET /me\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n[[routes]]\nmatch = \"GET /all\"\ncache = {{ ttl = \"1m\", scope = \"shared\" }}\n",
        origin.script.address
    );
    let pillion = Pillion::in_folder(folder, &config);
    let token = |claims: &str, secret: &str| {
        let encode = |text: &str| base64_url(text.as_bytes());
        let signed = format!("{}.{}", encode("{\"alg\":\"HS256\"}"), encode(claims));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, signed.as_bytes());
        format!("authorization: Bearer {signed}.{}", base64_url(tag.as_ref()))
    };
    let secret = "0123456789abcdef0123456789abcdef";
    let of = |path: &str, token: &str| ask(&pillion, &format!("GET {path}"), &[token]);
    let ann = token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":4000000000,\"iat\":1}", secret);
    let ann_again = token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":4000000000,\"iat\":2}", secret);
    let bob = token("{\"sub\":\"bob\",\"aud\":\"app\",\"exp\":4000000000}", secret);
    let first = of("/me", &ann).text();
    assert_eq!(of("/me", &ann_again).text(), first, "another token of the same user");
    assert_ne!(of("/me", &bob).text(), first);
    let shared = of("/all", &ann).text();
    assert_eq!(of("/all", &bob).text(), shared);
    for wrong in [
        token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":4000000000}", "0123456789abcdef0123456789abcdeX"),
        token("{\"sub\":\"ann\",\"aud\":\"other\",\"exp\":4000000000}", secret),
        token("{\"sub\":\"ann\",\"aud\":\"app\"}", secret),
        token("{\"sub\":\"ann\",\"aud\":\"app\",\"exp\":1}", secret),
        "authorization: Bearer nonsense".to_owned(),
    ] {
        for (path, known) in [("/me", &first), ("/all", &shared)] {
            let answer = of(path, &wrong);
            assert_ne!(answer.text(), *known, "{wrong}");
            assert!(answer.field("cache-status").unwrap().contains("fwd=bypass"));
        }
    }
    let nobody = of("/me", "x-none: 1");
    assert!(nobody.field("cache-status").unwrap().contains("fwd=bypass"));
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn keys_at_a_url() {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let jwks = format!(
        "{{\"keys\":[{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"{}\"}}]}}",
        base64_url(pair.public_key().as_ref())
    );
    let keys = Script::answering(move |_| ok(&jwks));
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        &format!(
            "[identity]\nprincipal = [\"jwt:sub\"]\n[identity.jwt]\njwks_url = \"http://{}/keys.json\"\n[[routes]]\nmatch = \"GET /me\"\ncache = {{ ttl = \"1m\", scope = \"user\" }}\n",
            keys.address
        ),
    );
    let signed = format!(
        "{}.{}",
        base64_url(b"{\"alg\":\"EdDSA\"}"),
        base64_url(b"{\"sub\":\"ann\",\"exp\":4000000000}")
    );
    let token =
        format!("authorization: Bearer {signed}.{}", base64_url(pair.sign(signed.as_bytes()).as_ref()));
    eventually("the keys", || {
        let answer = ask(&pillion, "GET /me", &[&token]);
        answer.field("cache-status").unwrap().contains("hit").then_some(())
    });
}

#[test]
fn a_shared_route_that_is_not_is_found_out() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = fetched.clone();
    let script = Script::answering(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        let own = request.line.contains("/own");
        let who = request.field("authorization").filter(|_| own).unwrap_or("nobody").to_owned();
        answer(request, "", &format!("for {who}"))
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"GET /own/**\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n[[routes]]\nmatch = \"GET /same/**\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n",
        script.address
    ));
    let of =
        |path: &str, who: &str| ask(&pillion, &format!("GET {path}"), &[&format!("authorization: {who}")]);
    for path in ["/own/a", "/same/a"] {
        assert_eq!(of(path, "a").status, 200);
    }
    let compared = "pillion_cache_tripwire_comparisons_total";
    for (path, count) in [("/same/a", 1.0), ("/own/a", 2.0)] {
        (0..2).for_each(|_| drop(of(path, "a")));
        of(path, "b");
        eventually("a comparison", || (pillion.metric(compared) == count).then_some(()));
    }
    assert!(of("/own/a", "b").field("cache-status").unwrap().contains("hit"), "once is not enough");
    eventually("it stops", || {
        for who in ["a", "b"] {
            of("/own/a", who);
        }
        (pillion.metric("pillion_cache_tripwire_stops_total") == 1.0).then_some(())
    });
    eventually("the warning", || pillion.log().contains("it is not cached for an hour").then_some(()));
    assert_eq!(of("/own/a", "b").text(), "for b");
    assert_eq!(of("/own/a", "a").text(), "for a");
    assert!(of("/same/a", "b").field("cache-status").unwrap().contains("hit"));
}

/// An app whose response varies by any field, as apps vary by language, and names the user.
fn by_fields(scope: &str) -> (Script, Pillion) {
    let script = Script::answering(move |request| {
        let said = ["authorization", "accept-language", "user-agent", "x-forwarded-for", "x-member"];
        let said: Vec<&str> = said.iter().map(|name| request.field(name).unwrap_or("-")).collect();
        answer(request, "cache-control: public, max-age=600", &said.join(" "))
    });
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
         [upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"GET /**\"\ncache = {{ scope = \"{scope}\" }}\n",
        script.address
    ));
    (script, pillion)
}

/// Regression: six requests of one stranger stopped caching on a shared route that varies by other fields only.
#[test]
fn n3_9_what_a_stranger_asks_for_stops_no_shared_route() {
    let (_app, pillion) = by_fields("shared");
    let metric = |name: &str| pillion.metric(&format!("pillion_cache_tripwire_{name}_total"));
    let fields =
        ["accept-language: en", "user-agent: a", "x-forwarded-for: 1.1.1.1, 10.9.9.9", "x-member: a"];
    let of = |at: usize, who: &str, more: &str| {
        ask(&pillion, &format!("GET /{at}"), &[&format!("authorization: {who}"), more, "x-request-id: 1"])
    };
    // Longer than two comparisons take.
    let until = now() + Duration::from_secs(4);
    while now() < until {
        for (at, field) in fields.iter().enumerate() {
            for (who, more) in [("a", *field), ("b", "x-none: 1")] {
                assert_eq!(of(at, who, more).status, 200);
            }
        }
    }
    assert_eq!((metric("comparisons"), metric("stops")), (0.0, 0.0));
    // Requests with equal fields are still compared.
    eventually("a comparison", || {
        for who in ["a", "b"] {
            of(0, who, fields[0]);
        }
        (metric("comparisons") == 1.0).then_some(())
    });
}

/// A page that shows its own trace id does not depend on the user, although the trace differs in each request.
#[test]
fn n3_9_a_page_that_shows_its_trace_stops_no_shared_route() {
    let script = Script::answering(|request| {
        let trace = request.field("traceparent").unwrap_or("-").to_owned();
        answer(request, "cache-control: public, max-age=600", &trace)
    });
    let pillion = Pillion::with(&format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[upstream]\nurl = \"http://{}\"\n\
         [[routes]]\nmatch = \"GET /**\"\ncache = {{ scope = \"shared\" }}\n",
        script.address
    ));
    let metric = |name: &str| pillion.metric(&format!("pillion_cache_tripwire_{name}_total"));
    let trace = |at: u8| format!("traceparent: 00-{:032x}-{:016x}-01", u32::from(at) + 7, at + 1);
    eventually("two comparisons", || {
        for (at, who) in ["a", "b"].into_iter().enumerate() {
            ask(&pillion, "GET /a", &[&format!("authorization: {who}"), &trace(at as u8)]);
        }
        (metric("comparisons") >= 1.0).then_some(())
    });
    // A comparison that differs is repeated after a second; one that does not, not before a minute.
    let until = now() + Duration::from_secs(3);
    while now() < until {
        for (at, who) in ["a", "b"].into_iter().enumerate() {
            ask(&pillion, "GET /a", &[&format!("authorization: {who}"), &trace(at as u8)]);
        }
    }
    assert_eq!((metric("comparisons"), metric("stops")), (1.0, 0.0));
}

#[test]
fn n3_9_in_scope_auto_an_operator_is_warned_and_nothing_is_stopped() {
    let (_app, pillion) = by_fields("auto");
    let is_warned = || pillion.log().contains("the route still shares responses");
    eventually("the warning", || {
        for who in ["a", "b"] {
            let answer = ask(&pillion, "GET /a", &[&format!("x-member: {who}")]);
            assert_eq!(answer.status, 200);
        }
        is_warned().then_some(())
    });
    assert_eq!(pillion.metric("pillion_cache_tripwire_stops_total"), 0.0);
    assert!(ask(&pillion, "GET /a", &["x-member: c"]).field("cache-status").unwrap().contains("hit"));
    assert_eq!(pillion.log().matches("the route still shares responses").count(), 1);
}

#[test]
fn memory_is_bounded() {
    let content = "x".repeat(100_000);
    let script = Script::answering(move |request| answer(request, "cache-control: max-age=600", &content));
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nmax_size = \"1MiB\"\nmax_object_size = \"200KiB\"\n",
        script.address
    ));
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
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[cache]\nmax_size = \"2MiB\"\nmax_object_size = \"100KiB\"\n",
        script.address
    ));
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
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[compression]\neffort = \"fast\"\n",
        script.address
    ));
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
