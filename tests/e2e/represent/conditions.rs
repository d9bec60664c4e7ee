//! Tests of entity tags, conditional requests, and the freshness lifetime sent to browsers.

use super::tools::{JSON, get, head_of, items, saying};
use crate::harness::{Config, Pillion, Request, Script, exchange};

/// An app with strong tags and optimistic locking: one document with a version.
fn versioned() -> Script {
    let version = std::sync::Mutex::new(1u32);
    let content = items(200);
    Script::answering(move |request| {
        let mut version = version.lock().unwrap();
        let tag = format!("\"v{version}\"");
        let quoted = |name: &str| request.field(name).unwrap_or("-").replace('"', "'");
        let seen =
            format!("x-if-match: {}\r\nx-if-none-match: {}\r\n", quoted("if-match"), quoted("if-none-match"));
        if request.line.starts_with("PUT ") {
            let fits = |list: &str| list.split(", ").any(|known| known == tag);
            if request.field("if-match").is_some_and(|wanted| !fits(wanted)) {
                return format!("HTTP/1.1 412 Precondition Failed\r\n{seen}content-length: 0\r\n\r\n")
                    .into_bytes();
            }
            *version += 1;
            return format!("HTTP/1.1 204 No Content\r\n{seen}etag: \"v{version}\"\r\n\r\n").into_bytes();
        }
        if request.field("if-none-match").is_some_and(|known| known.contains(&tag)) {
            return format!("HTTP/1.1 304 Not Modified\r\n{seen}etag: {tag}\r\n\r\n").into_bytes();
        }
        let head = format!("HTTP/1.1 200 OK\r\n{JSON}{seen}etag: {tag}\r\n");
        format!("{head}content-length: {}\r\n\r\n{content}", content.len()).into_bytes()
    })
}

#[test]
fn n4_15_optimistic_locking_works_through_compression() {
    let app = versioned();
    let pillion = Pillion::in_front_of(app.address);
    let read = get(&pillion, "/", "accept-encoding: gzip\r\n");
    let tag = read.field("etag").unwrap();
    assert_eq!((read.field("content-encoding").as_deref(), tag.as_str()), (Some("gzip"), "W/\"v1\""));
    let put = |tag: &str| {
        exchange(
            pillion.http,
            &format!(
                "PUT / HTTP/1.1\r\nhost: t\r\nif-match: {tag}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ),
        )
    };
    let written = put(&tag);
    assert_eq!(
        (written.status, written.field("x-if-match").as_deref()),
        (204, Some("'v1', W/'v1'")),
        "its own strong tag, and what became of it"
    );
    assert_eq!(written.field("etag").as_deref(), Some("\"v2\""), "of the document, not of this answer");
    assert_eq!(put(&tag).status, 412, "the app's word");
    let made = put("W/\"pillion-0123\"");
    assert_eq!(
        (made.status, made.json()["type"].as_str()),
        (412, Some("urn:pillion:problem:precondition-failed"))
    );
    let both = put("W/\"pillion-0123\", W/\"v2\"");
    assert_eq!((both.status, both.field("x-if-match").as_deref()), (204, Some("'v2', W/'v2'")));
}

#[test]
fn the_app_says_304_itself_and_its_tag_comes_back_as_the_client_has_it() {
    let app = versioned();
    // The cache is off because it requests the whole response if it may store it.
    let pillion = Config::new(app.address).cache("enabled", false).start();
    for (known, shown) in [("W/\"v1\"", "W/\"v1\""), ("\"v1\"", "\"v1\""), ("\"v0\", W/\"v1\"", "W/\"v1\"")] {
        let answer = get(&pillion, "/", &format!("accept-encoding: gzip\r\nif-none-match: {known}\r\n"));
        assert_eq!((answer.status, answer.field("etag").as_deref()), (304, Some(shown)), "{known}");
        assert!(answer.field("x-if-none-match").unwrap().contains("'v1'"), "{known}");
        assert_eq!(answer.field("vary").as_deref(), Some("accept-encoding"));
    }
    assert_eq!(pillion.metric("pillion_not_modified_total{source=\"app\"}"), 3.0);
    let answer = get(&pillion, "/", "if-none-match: W/\"pillion-1\"\r\n");
    assert_eq!(
        (answer.status, answer.field("x-if-none-match").as_deref()),
        (200, Some("-")),
        "not for the app"
    );
}

#[test]
fn dates_and_tags_of_an_app_that_heeds_neither() {
    let app = saying(
        &items(200),
        "content-type: application/json\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nset-cookie: a=b\r\n\
         cache-control: max-age=5\r\nexpires: 0\r\ncontent-location: /x\r\n",
    );
    let pillion = Pillion::in_front_of(app.address);
    let since = "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let answer = get(&pillion, "/", since);
    assert_eq!((answer.status, answer.body.len()), (304, 0));
    for kept in
        ["cache-control", "expires", "content-location", "date", "last-modified", "vary", "set-cookie"]
    {
        assert!(answer.field(kept).is_some(), "{kept}: {}", answer.head);
    }
    // A tag made by Pillion would take precedence over the app's date.
    for gone in ["content-type", "content-length", "etag"] {
        assert!(answer.field(gone).is_none(), "{gone}: {}", answer.head);
    }
    // If-None-Match takes precedence (RFC 9110 13.1.3), as it would in an app that evaluates dates.
    let both = get(&pillion, "/", &format!("if-none-match: \"other\"\r\n{since}"));
    assert_eq!(both.status, 200);
    assert_eq!(get(&pillion, "/", "if-unmodified-since: Sat, 05 Nov 1994 08:49:37 GMT\r\n").status, 412);
    assert_eq!(get(&pillion, "/", "if-match: \"x\"\r\n").status, 412);
    assert_eq!(get(&pillion, "/", "if-match: *\r\n").status, 200);
    assert_eq!(head_of(&pillion, "/", since).status, 304);
    let post = format!("POST / HTTP/1.1\r\nhost: t\r\n{since}content-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(exchange(pillion.http, &post).status, 200, "conditions on reads only");
}

/// Equal content has an equal tag on every replica and after every restart, and different content has another tag.
#[test]
fn made_tags_are_of_the_content() {
    let tag = |content: &str, config: &str| {
        let app = saying(content, JSON);
        let pillion = Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{config}", app.address));
        get(&pillion, "/", "accept-encoding: gzip\r\n").field("etag")
    };
    let (one, other) = (items(100), items(101));
    assert_eq!(tag(&one, ""), tag(&one, "[compression]\nenabled = false\n"));
    assert_ne!(tag(&one, ""), tag(&other, ""));
    assert_eq!(tag(&one, "[etag]\ngenerate = false\n"), None);
    assert_eq!(tag(&items(20_000), "[etag]\nmax_size = \"1KiB\"\n"), None);
    assert_eq!(tag(&one, "[[routes]]\nmatch = \"* /**\"\netag = false\n"), None);
    assert!(tag("", "").is_some(), "nothing is content too");
}

#[test]
fn browsers_are_told_how_long_to_keep_it() {
    let app = Script::answering(|request: &Request| {
        let fields =
            if request.line.contains("secret") { "cache-control: no-store\r\n" } else { "expires: 0\r\n" };
        format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nhi").into_bytes()
    });
    let pillion = Config::new(app.address).route("* /**", r#"browser_ttl = "1h""#).start();
    let answer = get(&pillion, "/", "");
    assert_eq!(
        (answer.field("cache-control").as_deref(), answer.field("expires")),
        (Some("max-age=3600"), None)
    );
    let personal = get(&pillion, "/", "cookie: session=1\r\n");
    assert_eq!(personal.field("cache-control").as_deref(), Some("private, max-age=3600"));
    assert_eq!(get(&pillion, "/secret", "").field("cache-control").as_deref(), Some("no-store"));
}

#[test]
fn every_method_whose_answer_is_its_content_is_tagged_by_coding() {
    let app = saying(&items(200), "content-type: application/json\r\netag: \"x\"\r\n");
    let pillion = Pillion::in_front_of(app.address);
    let tag = |method: &str| {
        let head =
            format!("{method} / HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\ncontent-length: 0\r\n");
        exchange(pillion.http, &format!("{head}connection: close\r\n\r\n")).field("etag").unwrap()
    };
    assert_eq!((tag("QUERY").as_str(), tag("POST").as_str()), ("W/\"x\"", "W/\"x\""));
    assert_eq!(tag("PUT"), "\"x\"", "of the document, not of this answer");
    let known = "if-none-match: W/\"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let query = exchange(pillion.http, &format!("QUERY / HTTP/1.1\r\nhost: t\r\n{known}"));
    assert_eq!(query.status, 304);
    let broken = saying(&items(200), "content-type: application/json\r\netag: x\r\n");
    let pillion = Pillion::in_front_of(broken.address);
    assert_eq!(get(&pillion, "/", "accept-encoding: gzip\r\n").field("etag"), None);
    assert_eq!(get(&pillion, "/", "").field("etag").as_deref(), Some("x"));
}

#[test]
fn an_apps_304_to_a_date_has_the_tag_of_the_coding() {
    let app = Script::answering(|_| {
        b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-type: application/json\r\n\r\n".to_vec()
    });
    let pillion = Pillion::in_front_of(app.address);
    let since = "if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let coded = get(&pillion, "/", &format!("accept-encoding: gzip\r\n{since}"));
    assert_eq!(coded.field("etag").as_deref(), Some("W/\"x\""));
    assert_eq!(get(&pillion, "/", since).field("etag").as_deref(), Some("\"x\""));
}

/// CalDAV and WebDAV clients compare a response's tag with `getetag` in a PROPFIND, so its text must be the app's.
#[test]
fn n4_15_a_weakened_tag_keeps_its_text_and_comes_back_in_both_forms() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = seen.clone();
    let body = items(200);
    let app = Script::answering(move |request: &Request| {
        let of = |name: &str| request.field(name).unwrap_or("-").to_owned();
        record.lock().unwrap().push((of("if-none-match"), of("if-match")));
        let (length, body) = (body.len(), if request.line.starts_with("HEAD ") { "" } else { &body });
        format!("HTTP/1.1 200 OK\r\n{JSON}etag: \"a~gzip\"\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    });
    let config = format!("[upstream]\nurl = \"http://{}\"\n[cache]\nenabled = false\n", app.address);
    let pillion = Pillion::with(&config);
    for coding in ["gzip", "br", "zstd"] {
        for answer in [get, head_of].map(|ask| ask(&pillion, "/", &format!("accept-encoding: {coding}\r\n")))
        {
            let found = (answer.field("content-encoding"), answer.field("etag"));
            assert_eq!(found, (Some(coding.to_owned()), Some("W/\"a~gzip\"".to_owned())), "{}", answer.head);
        }
    }
    assert_eq!(get(&pillion, "/", "").field("etag").as_deref(), Some("\"a~gzip\""));
    for (sent, heard) in [
        ("W/\"a\"", "\"a\", W/\"a\""),
        ("W/\"a\", \"b\"", "\"a\", W/\"a\", \"b\""),
        ("\"a\", W/\"a\"", "\"a\", W/\"a\""),
        ("\"a\"", "\"a\""),
        ("*", "*"),
    ] {
        get(&pillion, "/", &format!("if-none-match: {sent}\r\n"));
        assert_eq!(seen.lock().unwrap().last().unwrap().0, heard, "if-none-match: {sent}");
        let put = format!(
            "PUT / HTTP/1.1\r\nhost: t\r\nif-match: {sent}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        exchange(pillion.http, &put);
        assert_eq!(seen.lock().unwrap().last().unwrap().1, heard, "if-match: {sent}");
    }
    // Pillion evaluates the condition as the app would.
    let matched = |tag: &str| get(&pillion, "/", &format!("if-match: {tag}\r\n")).status;
    assert_eq!((matched("W/\"a~gzip\""), matched("\"a~gzip\""), matched("W/\"b\"")), (200, 200, 412));
}
