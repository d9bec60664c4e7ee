//! Tests of reuse on the wire: responses from the cache, requests to the upstream, and what clients are told.

use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn what_the_app_says_is_stored_is_answered_without_it() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60", "date: Sun, 06 Nov 2050 08:49:37 GMT", "x-own: 1"]);
    let first = get(&pillion, "/a");
    assert_eq!(first.text(), "/a #1");
    assert_eq!(status_of(&first), "pillion; fwd=uri-miss; fwd-status=200; stored");
    assert_eq!(first.field("age"), None);
    let second = get(&pillion, "/a");
    assert_eq!((second.status, second.text()), (200, "/a #1".to_owned()));
    assert!(status_of(&second).starts_with("pillion; hit; ttl="), "{}", status_of(&second));
    assert!(second.field("age").unwrap().parse::<u64>().unwrap() < 30);
    assert_eq!(second.field("date").as_deref(), Some("Sun, 06 Nov 2050 08:49:37 GMT"));
    assert_eq!(second.field("x-own").as_deref(), Some("1"));
    assert_eq!(second.field("content-length").as_deref(), Some("5"));
    assert_eq!(origin.count(), 1);
    let head = ask(&pillion, "HEAD /a", &[]);
    assert_eq!(head.field("content-length").as_deref(), Some("5"));
    assert!(head.body.is_empty() && status_of(&head).contains("hit"));
    assert_eq!(origin.count(), 1, "HEAD is answered from what GET got");
    let unsaid = get(&pillion, "/b");
    assert_eq!(status_of(&unsaid), "pillion; fwd=uri-miss; fwd-status=200");
    assert_ne!(get(&pillion, "/b").text(), unsaid.text(), "what nobody gave a lifetime is not stored");
}

/// Heads of popular responses are rendered once and reused. Clients must see no difference.
#[test]
fn what_is_asked_for_often_is_answered_as_at_first() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "[compression]\nmin_size = \"1B\"\n");
    let date = "date: Sun, 06 Nov 2050 08:49:37 GMT";
    let modified = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
    origin.says(
        "/dated",
        &["cache-control: max-age=60", "etag: \"x\"", date, modified, "x-own: 1", "x-own: 2"],
    );
    origin.says("/untagged", &["cache-control: max-age=60", "vary: origin", "repr-digest: sha-256=:AAAA:"]);
    origin.says(
        "/weak",
        &["cache-control: max-age=60, public", "etag: W/\"y\"", "cache-tag: a", "accept-ranges: bytes"],
    );
    origin.says("/odd", &["status: 404", "cache-control: max-age=60, no-transform", "etag: odd", modified]);
    let lines = |answer: &Answer| {
        let mut lines: Vec<String> = answer.head.lines().map(str::to_owned).collect();
        // These lines differ in each response, and so does the date if the upstream sent none.
        lines.retain(|line| !line.starts_with("age: ") && !line.starts_with("x-request-id: "));
        lines.retain(|line| !line.starts_with("date: ") || line == date);
        lines.iter_mut().filter(|line| line.starts_with("cache-status: ")).for_each(|line| {
            line.truncate(line.find("ttl=").unwrap_or(line.len()));
        });
        lines.sort();
        lines
    };
    for path in ["/dated", "/untagged", "/weak", "/odd"] {
        let (one, none) = ("if-none-match: ITS", "if-none-match: \"other\"");
        let asked = [
            &[][..],
            &[one],
            &[none],
            &["if-none-match: *"],
            &["if-none-match: \"other\", W/\"x\""],
            &["accept-encoding: gzip"],
            &["accept-encoding: gzip", one],
            &["accept-encoding: gzip", none],
            &["accept-encoding: gzip", "if-none-match: *"],
            &["accept-encoding: gzip", "if-none-match: W/\"x\"", modified_since()],
            &["if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT"],
            &["if-match: \"x\""],
            &["range: bytes=0-1"],
        ];
        for (at, fields) in asked.into_iter().enumerate() {
            // Each query is stored separately, so nothing was rendered for it before.
            let line = format!("GET {path}?{at}");
            let its = get(&pillion, &line[4..]).field("etag").unwrap();
            let fields: Vec<String> = fields.iter().map(|field| field.replace("ITS", &its)).collect();
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            // The coding is made when it is requested for the first time.
            ask(&pillion, &line, &["accept-encoding: gzip"]);
            let first = ask(&pillion, &line, &fields);
            let hit = status_of(&first).starts_with("pillion; hit") || first.status == 412;
            assert!(hit, "{path} {fields:?} {}", first.head);
            for _ in 0..4 {
                let again = ask(&pillion, &line, &fields);
                assert_eq!(lines(&again), lines(&first), "{path} {fields:?}");
                assert!(again.body == first.body || first.status == 412, "{path} {fields:?}");
                assert_eq!(again.fields("date").len(), 1, "{path} {fields:?}");
                assert_eq!(again.fields("x-request-id").len(), 1, "{path} {fields:?}");
                assert_ne!(again.field("x-request-id"), first.field("x-request-id"));
            }
        }
    }
    assert_eq!(origin.count(), 4 * 13);
}

fn modified_since() -> &'static str {
    "if-modified-since: Sat, 05 Nov 1994 08:49:37 GMT"
}

#[test]
fn requests_that_ask_for_more_or_less() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60", "etag: \"x\""]);
    get(&pillion, "/a");
    let asked = ask(&pillion, "GET /a", &["cache-control: no-cache"]);
    assert_eq!(origin.last().field("if-none-match"), Some("\"x\""), "validated by its tag");
    let told = status_of(&asked);
    assert!(
        told.starts_with("pillion; fwd=request; fwd-status=304; ttl=") && told.ends_with("; stored"),
        "{told}"
    );
    assert_eq!(asked.text(), "/a #1", "the content is still the stored one");
    assert_eq!(ask(&pillion, "GET /a", &["pragma: no-cache"]).status, 200);
    assert_eq!(origin.count(), 3);
    ask(&pillion, "GET /a", &["cache-control: no-store"]);
    assert_eq!(origin.count(), 3, "what is stored may answer it; it is not stored itself");
    assert_eq!(ask(&pillion, "GET /a", &["cache-control: only-if-cached"]).text(), "/a #1");
    let none = ask(&pillion, "GET /none", &["cache-control: only-if-cached"]);
    assert_eq!(none.status, 504);
    assert!(none.text().contains("urn:pillion:problem:only-if-cached"));
    assert_eq!(origin.count(), 3);
}

#[test]
fn conditions_and_parts_are_answered_from_what_is_stored() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says(
        "/a",
        &["cache-control: max-age=60", "etag: \"x\"", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT"],
    );
    let first = ask(&pillion, "GET /a", &["if-none-match: \"x\""]);
    assert_eq!(first.status, 304, "the app was asked without the client's condition");
    assert_eq!(origin.last().field("if-none-match"), None);
    for (fields, status) in [
        (&["if-none-match: \"x\""][..], 304),
        (&["if-none-match: \"y\""], 200),
        (&["if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT"], 304),
        (&["range: bytes=0-1"], 206),
        (&["range: bytes=0-1", "if-range: \"y\""], 200),
        (&["if-match: \"y\""], 412),
    ] {
        let answer = ask(&pillion, "GET /a", fields);
        assert_eq!(answer.status, status, "{fields:?}");
        if status < 400 {
            assert!(status_of(&answer).contains("hit"), "{fields:?} {}", status_of(&answer));
        }
    }
    assert_eq!(origin.count(), 1);
    let part = ask(&pillion, "GET /none", &["range: bytes=0-1"]);
    assert_eq!(status_of(&part), "pillion; fwd=partial; fwd-status=200");
    assert_eq!(origin.last().field("range"), Some("bytes=0-1"));
}

#[test]
fn nobody_gets_what_was_for_somebody() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/plain", &["cache-control: max-age=60"]);
    origin.says("/public", &["cache-control: public, max-age=60"]);
    origin.says("/private", &["cache-control: private, max-age=60"]);
    origin.says("/cookie", &["cache-control: max-age=60", "set-cookie: s=1"]);
    let mine = ["authorization: Bearer me"];
    for (path, fields, stored) in [
        ("/plain", &mine[..], false),
        ("/plain", &["cookie: s=1"], false),
        ("/plain", &["cookie: _ga=1"], true),
        ("/public", &mine, true),
        ("/public", &["cookie: s=1"], true),
        ("/private", &[], false),
        ("/cookie", &[], false),
    ] {
        let path = format!("{path}?{}", origin.count());
        let line = format!("GET {path}");
        let first = ask(&pillion, &line, fields);
        let again = ask(&pillion, &line, fields);
        let other = ask(&pillion, &line, &[]);
        let third = ask(&pillion, &line, &["authorization: Bearer you"]);
        if stored {
            for given in [&again, &other] {
                assert_eq!(given.text(), first.text(), "{path} {fields:?}");
            }
        } else {
            assert_ne!(again.text(), other.text(), "{path} {fields:?}");
            assert_ne!(other.text(), third.text(), "{path} {fields:?}");
        }
        assert_eq!(again.field("set-cookie").is_some(), path.starts_with("/cookie"));
    }
    // Stored for requests without credentials, and only for those.
    get(&pillion, "/plain?x");
    let before = origin.count();
    assert_eq!(get(&pillion, "/plain?x").status, 200);
    assert_eq!(origin.count(), before);
    let known = ask(&pillion, "GET /plain?x", &mine);
    assert_eq!(origin.count(), before + 1);
    assert!(status_of(&known).contains("fwd=miss"), "{}", status_of(&known));
}

#[test]
fn each_user_has_a_copy() {
    let origin = Origin::new();
    let pillion =
        pillion(&origin, "[[routes]]\nmatch = \"GET /me/**\"\ncache = { ttl = \"1m\", scope = \"user\" }\n");
    origin.says("/me/b", &["cache-control: private", "etag: \"b\""]);
    for path in ["/me/a", "/me/b"] {
        let line = format!("GET {path}");
        let of = |fields: &[&str]| ask(&pillion, &line, fields);
        let (a, b) = (of(&["authorization: a"]), of(&["authorization: b"]));
        assert_ne!(a.text(), b.text());
        let before = origin.count();
        assert_eq!(of(&["authorization: a"]).text(), a.text());
        assert_eq!(of(&["authorization: b"]).text(), b.text());
        assert_eq!(of(&["authorization: a", "cookie: _ga=1"]).text(), a.text());
        assert_eq!(origin.count(), before);
        assert_ne!(of(&["authorization: a", "cookie: other=1"]).text(), a.text(), "a further cookie counts");
        let both = of(&["authorization: a", "cookie: session=1"]);
        assert!(both.text() != a.text() && both.text() != b.text(), "every credential counts");
        let part = of(&["authorization: b", "range: bytes=0-99"]);
        assert_eq!((part.status, part.text()), (206, b.text()));
        let nobody = of(&[]);
        assert_eq!(status_of(&nobody), "pillion; fwd=bypass; fwd-status=200");
        assert_ne!(of(&[]).text(), nobody.text(), "without a principal nothing is stored");
    }
}

#[test]
fn variants() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60", "vary: Accept-Language, X-Own"]);
    let of = |fields: &[&str]| ask(&pillion, "GET /a", fields);
    let (en, de) = (of(&["accept-language: en"]), of(&["accept-language: de"]));
    assert_eq!(status_of(&de), "pillion; fwd=vary-miss; fwd-status=200; stored");
    assert_eq!(of(&["accept-language: EN"]).text(), en.text());
    assert_eq!(of(&["accept-language: de"]).text(), de.text());
    assert_ne!(of(&["accept-language: de", "x-own: 1"]).text(), de.text());
    assert_eq!(origin.count(), 3);
    origin.says("/star", &["cache-control: max-age=60", "vary: Accept, *"]);
    assert_ne!(get(&pillion, "/star").text(), get(&pillion, "/star").text());
}

#[test]
fn stale_answers_while_the_app_is_asked_or_gone() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/swr", &["cache-control: max-age=0, stale-while-revalidate=60", "etag: \"1\""]);
    assert_eq!(get(&pillion, "/swr").text(), "/swr #1");
    origin.says("/swr", &["cache-control: max-age=60", "etag: \"2\""]);
    let stale = get(&pillion, "/swr");
    assert_eq!(stale.text(), "/swr #1");
    assert!(status_of(&stale).starts_with("pillion; hit; ttl="), "{}", status_of(&stale));
    eventually("the new one", || (get(&pillion, "/swr").text() == "/swr #2").then_some(()));
    assert_eq!(origin.count(), 2, "one fetch behind it all");
    origin.says("/sie", &["cache-control: max-age=0, stale-if-error=60"]);
    let first = get(&pillion, "/sie");
    origin.says("/sie", &["status: 503", "cache-control: max-age=60"]);
    let stale = get(&pillion, "/sie");
    assert_eq!((stale.status, stale.text()), (200, first.text()));
    assert!(
        status_of(&stale).starts_with("pillion; fwd=stale; fwd-status=503; ttl="),
        "{}",
        status_of(&stale)
    );
    origin.says("/strict", &["cache-control: max-age=0, must-revalidate, stale-if-error=60", "etag: \"1\""]);
    get(&pillion, "/strict");
    origin.says("/strict", &["status: 503"]);
    assert_eq!(get(&pillion, "/strict").status, 503);
}

#[test]
fn stored_content_is_coded_once() {
    let text = "some text that is worth coding, ".repeat(200);
    let content = text.clone();
    let script = Script::answering(move |request| answer(request, "cache-control: max-age=60", &content));
    let pillion = Pillion::in_front_of(script.address);
    let of = || ask(&pillion, "GET /a", &["accept-encoding: gzip"]);
    let first = of();
    assert_eq!(first.field("content-encoding").as_deref(), Some("gzip"));
    let runs = pillion.metric("pillion_coding_input_bytes_total{coding=\"gzip\"}");
    assert_eq!(runs, text.len() as f64);
    for _ in 0..5 {
        assert_eq!(of().body, first.body);
    }
    assert_eq!(pillion.metric("pillion_coding_input_bytes_total{coding=\"gzip\"}"), runs);
    assert_eq!(get(&pillion, "/a").text(), text);
}

#[test]
fn reads_keyed_by_their_content() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"POST /pairings\"\ncache = { ttl = \"1m\", scope = \"shared\", key_body = true }\n",
    );
    let post = |method: &str, path: &str, kind: &str, content: &str| {
        let length = content.len();
        exchange(
            pillion.http,
            &format!(
                "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{content}"
            ),
        )
    };
    let json = "application/json";
    let first = post("POST", "/pairings", json, "{\"a\":1,\"b\":2}");
    assert_eq!(post("POST", "/pairings", json, "{ \"b\": 2, \"a\": 1 }").text(), first.text());
    assert_eq!(origin.count(), 1);
    assert_eq!(origin.last().body, b"{\"a\":1,\"b\":2}");
    assert_ne!(post("POST", "/pairings", json, "{\"a\":1,\"b\":3}").text(), first.text());
    assert_ne!(post("POST", "/pairings", "text/plain", "{\"a\":1,\"b\":2}").text(), first.text());
    let long = "x".repeat(100_000);
    assert_eq!(post("POST", "/pairings", json, &long).status, 200);
    assert_eq!(origin.last().body.len(), 100_000, "too long to be part of a key, and passed on whole");
    origin.says("/search", &["cache-control: max-age=60"]);
    let first = post("QUERY", "/search", "text/plain", "select");
    assert_eq!(post("QUERY", "/search", "text/plain", "select").text(), first.text());
    assert_ne!(post("QUERY", "/search", "text/plain", "other").text(), first.text());
    assert_eq!(get(&pillion, "/search").text(), get(&pillion, "/search").text());
    assert_ne!(get(&pillion, "/search").text(), first.text());
}

#[test]
fn what_was_not_stored_is_when_the_app_says_so() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    for said in ["cache-control: no-store", "cache-control: private, max-age=60", "x-nothing: said"] {
        origin.says("/a", &[said]);
        for _ in 0..4 {
            assert!(!status_of(&get(&pillion, "/a")).contains("stored"), "{said}");
        }
        origin.says("/a", &["cache-control: max-age=60", "vary: accept"]);
        let number = origin.count();
        eventually("it is stored", || status_of(&get(&pillion, "/a")).contains("hit").then_some(()));
        assert!(origin.count() <= number + 2, "{said}: the first is a surprise, the second is stored");
        assert_eq!(ask(&pillion, "DELETE /a", &[]).status, 200);
    }
}

#[test]
fn an_answer_to_head_says_whether_what_is_stored_holds() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=0", "etag: \"1\""]);
    let first = get(&pillion, "/a").text();
    origin.says("/a", &["cache-control: max-age=60", "etag: \"1\""]);
    assert!(status_of(&ask(&pillion, "HEAD /a", &[])).contains("fwd=stale"));
    let hit = get(&pillion, "/a");
    assert!(status_of(&hit).contains("hit") && hit.text() == first, "it was as good as a 304");
    origin.says("/a", &["cache-control: max-age=60", "etag: \"2\""]);
    ask(&pillion, "HEAD /a", &["cache-control: no-cache"]);
    assert_ne!(get(&pillion, "/a").text(), first, "another tag: what is stored is gone");
}
