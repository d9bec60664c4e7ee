//! Tests of content codings: which responses Pillion compresses, and responses that the app compressed itself.

use std::io::{Read, Write};
use std::time::Duration;

use super::tools::{JSON, curl, field, get, head_of, items, saying};
use crate::harness::{self, Config, HTTP1, HTTP2, Pillion, Request, Script, cases, connect, exchange};

/// Tests every combination of coding, method and condition.
fn every_coding_with_every_method_and_condition(http: &str) {
    let content = items(200);
    let plain = saying(&content, JSON);
    let tagged = saying(&content, "content-type: application/json\r\netag: \"x\"\r\n");
    for (app, is_tagged) in [(&plain, false), (&tagged, true)] {
        let pillion = Pillion::in_front_of(app.address);
        let url = pillion.url("/");
        for coding in ["identity", "gzip", "br", "zstd"] {
            let accept = format!("Accept-Encoding: {coding}");
            let (status, body, head) = curl(&url, &[http, "--compressed", "-H", &accept]);
            assert_eq!((status.as_str(), body == content.as_bytes()), ("200", true), "{coding} {head}");
            let coded = field(&head, "content-encoding").unwrap_or("identity");
            assert_eq!(coded, coding);
            assert_eq!(field(&head, "vary"), Some("accept-encoding"));
            let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
            assert!(coding == "identity" || length < content.len() / 5, "{coding}: {length}");
            let tag = field(&head, "etag").unwrap().to_owned();
            match (is_tagged, coding) {
                (true, "identity") => assert_eq!(tag, "\"x\""),
                (true, _) => assert_eq!(tag, "w/\"x\"", "the app's text stays"),
                (false, _) => assert!(tag.starts_with("w/\"pillion-"), "{tag}"),
            }
            let tag = tag.replace("w/", "W/");

            let (status, _, head) = curl(&url, &[http, "-I", "-H", &accept]);
            assert_eq!(status, "200");
            assert_eq!(field(&head, "content-encoding").unwrap_or("identity"), coding, "HEAD {head}");
            let length = field(&head, "content-length");
            let told = (coding == "identity").then(|| content.len().to_string());
            assert_eq!(length, told.as_deref(), "HEAD {head}");
            assert_eq!(field(&head, "vary"), Some("accept-encoding"));

            for (conditions, wanted) in [
                (tag.clone(), "304"),
                (format!("\"other\", {tag}"), "304"),
                ("*".to_owned(), "304"),
                ("\"other\"".to_owned(), "200"),
            ] {
                let condition = format!("If-None-Match: {conditions}");
                let args = [http, "-H", &accept, "-H", &condition];
                let (status, body, head) = curl(&url, &args);
                assert_eq!(status, wanted, "{coding} {condition}");
                if wanted == "304" {
                    assert!(body.is_empty());
                    assert!(field(&head, "etag").unwrap().replace("w/", "W/") == tag || conditions == "*");
                    assert_eq!(field(&head, "vary"), Some("accept-encoding"));
                    for gone in ["content-type", "content-length", "content-encoding", "last-modified"] {
                        assert_eq!(field(&head, gone), None, "{head}");
                    }
                }
                let (status, ..) = curl(&url, &[http, "-I", "-H", &accept, "-H", &condition]);
                // A HEAD response brings no content to make an entity tag of.
                let wanted = if is_tagged || conditions == "*" { wanted } else { "200" };
                assert_eq!(status, wanted, "HEAD {coding} {condition}");
            }
        }
        let not_modified = pillion.metric("pillion_not_modified_total{source=\"pillion\"}");
        assert!(not_modified > 0.0);
        assert!(pillion.metric("pillion_coding_input_bytes_total{coding=\"gzip\"}") > content.len() as f64);
        assert!(pillion.metric("pillion_coding_output_bytes_total{coding=\"zstd\"}") > 0.0);
        assert!(pillion.metric("pillion_coding_seconds_total{coding=\"br\"}") > 0.0);
        assert!(pillion.metric("pillion_content_total{result=\"gzip\"}") > 0.0);
        assert!(pillion.metric("pillion_content_total{result=\"not-asked\"}") > 0.0);
        let line = pillion.access("a coded answer", |line| line["coding"] == "gzip");
        assert_eq!(line["content_bytes"], content.len());
        assert!(line["bytes"].as_u64().unwrap() < content.len() as u64 / 5);
    }
}

cases! { every_coding_with_every_method_and_condition:
    every_coding_with_every_method_and_condition_over_http1 => HTTP1;
    every_coding_with_every_method_and_condition_over_http2 => HTTP2;
}

#[test]
fn what_is_not_coded() {
    let large = items(200);
    for (content, fields, asked) in [
        (items(5), JSON, "gzip"),
        (large.clone(), "content-type: image/png\r\n", "gzip"),
        (large.clone(), "content-type: text/event-stream\r\n", "gzip"),
        (large.clone(), "content-type: application/grpc\r\n", "gzip"),
        (large.clone(), "content-type: application/json\r\ncache-control: no-transform\r\n", "gzip"),
        (large.clone(), "content-type: application/json\r\ncontent-encoding: br\r\n", "gzip, br"),
        (large.clone(), JSON, "gzip;q=0"),
        (large.clone(), JSON, "identity, gzip;q=0.5"),
        (large.clone(), JSON, "deflate"),
        (large, JSON, "gzip\r\ncache-control: no-transform"),
    ] {
        let app = saying(&content, fields);
        let pillion = Pillion::in_front_of(app.address);
        let answer = get(&pillion, "/", &format!("accept-encoding: {asked}\r\n"));
        let coded = answer.field("content-encoding").filter(|_| !fields.contains("br"));
        assert_eq!((answer.status, coded), (200, None), "{fields} {asked}");
        assert!(answer.body == content.as_bytes(), "{fields} {asked}");
        let varies = answer.field("vary").is_some_and(|vary| vary.contains("accept-encoding"));
        let could =
            !asked.contains("no-transform") && fields.contains("json") && !fields.contains("no-transform");
        assert_eq!(varies, could, "{fields} {asked}");
    }
}

#[test]
fn the_app_is_asked_for_its_content_as_it_is_unless_told_otherwise() {
    let echo = |more: &str| {
        let app = Script::echo();
        let pillion = Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{more}", app.address));
        let seen = get(&pillion, "/", "accept-encoding: gzip, br\r\n").json();
        (seen["fields"]["accept-encoding"].as_str().unwrap().to_owned(), app)
    };
    assert_eq!(echo("").0, "identity");
    assert_eq!(echo("[compression]\nask_app = \"client\"\n").0, "gzip, br");
    assert_eq!(echo("[compression]\nenabled = false\n").0, "gzip, br");
    assert_eq!(echo("[[routes]]\nmatch = \"* /**\"\ncompress = false\n").0, "gzip, br");
}

/// Regression: Django and Apache send `x.tar.gz` with `Content-Encoding: gzip`, and wget and pip send
/// `Accept-Encoding: identity`. They got the decompressed tar, so no hash matched.
#[test]
fn n4_14_what_an_app_coded_passes_as_it_is() {
    let folder = harness::Folder::new();
    let file = folder.write("content.tar", items(500));
    harness::run("gzip", &["-k", &file.display().to_string()]);
    let coded = std::fs::read(folder.path("content.tar.gz")).unwrap();
    let bytes = coded.clone();
    let app = Script::answering(move |request| {
        let fresh = if request.line.contains("/stored") { "cache-control: max-age=60\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\netag: \"z\"\r\n\
             {fresh}repr-digest: sha-256=:AAAA:\r\naccept-ranges: bytes\r\ncontent-length: {}\r\n\r\n",
            bytes.len()
        );
        let body = if request.line.starts_with("HEAD ") { &[][..] } else { &bytes };
        [head.as_bytes(), body].concat()
    });
    let pillion = Pillion::in_front_of(app.address);
    for path in ["/", "/stored", "/stored"] {
        for fields in [
            "",
            "accept-encoding: identity\r\n",
            "accept-encoding: br\r\n",
            "accept-encoding: gzip\r\n",
            "accept-encoding: gzip;q=0, *\r\n",
            "accept-encoding: gzip;q=0\r\n",
            "accept-encoding: gzip, identity;q=0\r\n",
        ] {
            let length = coded.len().to_string();
            for answer in [get(&pillion, path, fields), head_of(&pillion, path, fields)] {
                assert_eq!(answer.status, 200, "{path} {fields}");
                assert_eq!(answer.field("content-encoding").as_deref(), Some("gzip"), "{path} {fields}");
                assert_eq!(answer.field("etag").as_deref(), Some("\"z\""), "{path} {fields}");
                assert_eq!(
                    answer.field("content-length").as_deref(),
                    Some(length.as_str()),
                    "{path} {fields}"
                );
                assert!(answer.field("repr-digest").is_some() && answer.field("accept-ranges").is_some());
                assert!(answer.body.is_empty() || answer.body == coded, "untouched: {path} {fields}");
            }
        }
        let part =
            get(&pillion, path, "accept-encoding: identity\r\nrange: bytes=5-9\r\nif-range: \"z\"\r\n");
        assert_eq!((part.status, &part.body[..]), (206, &coded[5..10]), "a part of what was coded: {path}");
        assert_eq!(part.field("content-encoding").as_deref(), Some("gzip"));
        let same = get(&pillion, path, "accept-encoding: identity\r\nif-none-match: \"z\"\r\n");
        assert_eq!((same.status, same.field("etag").as_deref()), (304, Some("\"z\"")));
        // A client that refuses both identity and gzip can get no response (RFC 9110 12.5.3).
        assert_eq!(get(&pillion, path, "accept-encoding: br, identity;q=0\r\n").status, 406, "{path}");
        assert_eq!(get(&pillion, path, "accept-encoding: *;q=0\r\n").status, 406, "{path}");
    }
    for http in ["--http1.1", "--http2-prior-knowledge"] {
        let (status, body, head) = curl(&pillion.url("/"), &[http, "-H", "Accept-Encoding: identity"]);
        assert_eq!((status.as_str(), field(&head, "content-encoding")), ("200", Some("gzip")), "{http}");
        assert!(body == coded, "{http}");
    }
}

/// An app with precompressed files behind `ask_app = "client"`.
#[test]
fn n4_14_a_stored_coded_response_is_chosen_by_its_vary() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let app = Script::answering(move |request: &Request| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let takes =
            |coding: &str| request.field("accept-encoding").is_some_and(|field| field.contains(coding));
        let vary = if request.line.contains("/varies") { "vary: accept-encoding\r\n" } else { "" };
        let coding = ["br", "gzip"].into_iter().find(|coding| takes(coding));
        let coded = coding.map(|coding| format!("content-encoding: {coding}\r\n")).unwrap_or_default();
        let body = format!("{} {number}", coding.unwrap_or("identity"));
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: image/x\r\ncache-control: max-age=60\r\n{vary}{coded}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let config =
        format!("[upstream]\nurl = \"http://{}\"\n[compression]\nask_app = \"client\"\n", app.address);
    let pillion = Pillion::with(&config);
    for (path, asked, wanted) in [
        ("/varies", "br", "br 0"),
        ("/varies", "gzip", "gzip 1"),
        ("/varies", "identity", "identity 2"),
        ("/varies", "br", "br 0"),
        ("/varies", "gzip", "gzip 1"),
        ("/varies", "identity", "identity 2"),
        ("/everybodys", "gzip", "gzip 3"),
        ("/everybodys", "br", "gzip 3"),
        ("/everybodys", "identity", "gzip 3"),
    ] {
        let answer = get(&pillion, path, &format!("accept-encoding: {asked}\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (200, wanted), "{path} {asked}");
    }
}

/// Regression: responses with charsets, transfer codings or unknown codings in `Content-Encoding` were 406.
#[test]
fn n4_4_a_coding_that_nobody_knows_passes_as_it_is() {
    let app = Script::answering(|request: &Request| {
        let target = request.line.split(' ').nth(1).unwrap();
        let (kind, coding) = target.trim_start_matches('/').split_once('/').unwrap();
        let fresh = if kind == "stored" { "cache-control: max-age=60\r\n" } else { "" };
        let body = if request.line.starts_with("HEAD ") { "" } else { "secret" };
        format!(
            "HTTP/1.1 200 OK\r\n{JSON}{fresh}content-encoding: {coding}\r\ncontent-length: 6\r\n\r\n{body}"
        )
        .into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    for coding in
        ["UTF-8", "none", "binary", "aws-chunked", "7bit", "compress", "dcz", "exi", "aws-chunked,gzip", ","]
    {
        for path in [format!("/plain/{coding}"), format!("/stored/{coding}"), format!("/stored/{coding}")] {
            for asked in ["", "accept-encoding: gzip\r\n", "accept-encoding: identity\r\n"] {
                for answer in [get(&pillion, &path, asked), head_of(&pillion, &path, asked)] {
                    let found = answer.field("content-encoding");
                    let wanted = Some(coding).filter(|coding| *coding != ",");
                    assert_eq!((answer.status, found.as_deref()), (200, wanted), "{path} {asked}");
                    assert!(answer.body.is_empty() || answer.body == b"secret", "{path} {asked}");
                }
            }
        }
    }
    let refused = get(&pillion, "/plain/exi", "accept-encoding: gzip, identity;q=0\r\n");
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (406, Some("urn:pillion:problem:not-acceptable"))
    );
    assert_eq!(get(&pillion, "/plain/exi", "accept-encoding: exi, identity;q=0\r\n").status, 200);
    let post = "POST /plain/exi HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip, identity;q=0\r\ncontent-length: 0\r\n\
                connection: close\r\n\r\n";
    assert_eq!(exchange(pillion.http, post).status, 200, "what is done is done");
    let small = saying("[1]", JSON);
    let pillion = Pillion::in_front_of(small.address);
    let coded = get(&pillion, "/", "accept-encoding: gzip, identity;q=0\r\n");
    assert_eq!(coded.field("content-encoding").as_deref(), Some("gzip"), "small as it is");
    assert_eq!(get(&pillion, "/", "accept-encoding: identity;q=0\r\n").status, 406);
}

#[test]
fn an_answer_with_a_cookie_that_repeats_the_request_is_not_coded() {
    let app = Script::answering(|request: &Request| {
        let target = request.line.split(' ').nth(1).unwrap().to_owned();
        let cookie = if target.contains("cookie") { "set-cookie: session=1\r\n" } else { "" };
        let body = format!("<html>{}{}{}</html>", items(60), target, String::from_utf8_lossy(&request.body));
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n{cookie}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    let coded = |target: &str, body: &str| {
        let answer = exchange(
            pillion.http,
            &format!(
                "POST {target} HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            ),
        );
        answer.field("content-encoding").is_some()
    };
    assert!(!coded("/cookie?q=guess", ""), "the query comes back");
    assert!(!coded("/cookie", "q=another"), "the content comes back");
    assert!(!coded("/cookie", "{\"q\":\"another\"}"), "the content comes back");
    assert!(coded("/cookie", ""), "nothing comes back");
    assert!(coded("/plain?q=guess", ""), "no cookie");
    assert_eq!(pillion.metric("pillion_content_total{result=\"echo\"}"), 3.0);
    let app = Script::answering(|request: &Request| {
        let target = request.line.split(' ').nth(1).unwrap().to_owned();
        let body = format!("{}{target}", items(60));
        format!("HTTP/1.1 200 OK\r\n{JSON}set-cookie: a=b\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    });
    let config =
        format!("[upstream]\nurl = \"http://{}\"\n[compression]\nbreach_guard = false\n", app.address);
    let unguarded = Pillion::with(&config);
    let answer = get(&unguarded, "/?q=guess", "accept-encoding: gzip\r\n");
    assert_eq!(answer.field("content-encoding").as_deref(), Some("gzip"));
}

/// A stream of any size takes the memory of one encoder, and a slow reader takes no more.
#[test]
fn a_gibibyte_through_gzip_takes_little_memory() {
    const SIZE: u64 = 1 << 30;
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        let piece = items(1000);
        write!(tcp, "HTTP/1.1 200 OK\r\n{JSON}content-length: {SIZE}\r\n\r\n").unwrap();
        let mut left = SIZE;
        while left > 0 {
            let take = left.min(piece.len() as u64) as usize;
            if tcp.write_all(&piece.as_bytes()[..take]).is_err() {
                return;
            }
            left -= take as u64;
        }
    });
    let pillion = Config::new(app.address).table("[compression]", r#"effort = "fast""#).start();
    let before = pillion.process.resident();
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n")
        .unwrap();
    let (mut peak, mut came, mut piece) = (0, 0u64, vec![0; 256 * 1024]);
    loop {
        let count = tcp.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        came += count as u64;
        peak = peak.max(pillion.process.resident());
        if came < 2 << 20 {
            // The client reads slowly at first.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(came > SIZE / 100 && came < SIZE / 4, "{came}");
    let grown = peak.saturating_sub(before);
    assert!(grown < 16 << 20, "{} MiB", grown >> 20);
    assert_eq!(pillion.metric("pillion_coding_input_bytes_total{coding=\"gzip\"}"), SIZE as f64);
}

/// Regression: encoders of responses in progress had 128 MiB of their own, and no bound for clients that refuse
/// identity. If `buffer_memory` or the client's share of it has no room for an encoder, the response is sent without a
/// coding.
#[test]
fn n3_4_encoders_hold_a_part_of_the_buffer_memory() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        let piece = items(500);
        let head = format!("HTTP/1.1 200 OK\r\n{JSON}etag: \"a\"\r\ntransfer-encoding: chunked\r\n\r\n");
        write!(tcp, "{head}{:x}\r\n{piece}\r\n", piece.len()).unwrap();
        // Waits until the client leaves.
        let _ = tcp.read(&mut [0]);
    });
    let pillion = Pillion::with(&format!(
        "[server]\nbuffer_memory = \"16MiB\"\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    ));
    let clients: Vec<_> = (0..60)
        .map(|at| {
            let mut tcp = connect(pillion.http);
            let accepts = if at % 2 == 0 { "br" } else { "br, identity;q=0" };
            write!(tcp, "GET / HTTP/1.1\r\nhost: t\r\naccept-encoding: {accepts}\r\n\r\n").unwrap();
            let mut head = vec![0; 512];
            let count = tcp.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            assert!(head.contains("vary: accept-encoding"), "{head}");
            let coded = head.contains("content-encoding: br");
            assert!(coded || head.contains("etag: \"a\""), "{head}");
            (tcp, coded)
        })
        .collect();
    let coded = clients.iter().filter(|(_, coded)| *coded).count();
    assert!((6..=8).contains(&coded), "{coded} encoders of 1,728 KiB in 7/8 of 16 MiB");
    assert_eq!(pillion.metric("pillion_content_total{result=\"busy\"}"), (60 - coded) as f64);
    assert_eq!(pillion.metric("pillion_coding_memory_bytes"), (coded * 1728 * 1024) as f64);
    let buffered = pillion.metric("pillion_buffered_bytes");
    assert!(((coded * 1728 * 1024) as f64..=(16 << 20) as f64).contains(&buffered), "{buffered}");
    drop(clients);
    harness::eventually("it is given back", || {
        let metrics = ["pillion_coding_memory_bytes", "pillion_buffered_bytes"];
        metrics.iter().all(|name| pillion.metric(name) == 0.0).then_some(())
    });
}

#[test]
fn a_streamed_answer_with_a_cookie_is_coded_where_there_is_nothing_to_echo() {
    let app = Script::answering(|_| {
        let body = items(60);
        let (one, other) = body.split_at(2000);
        format!(
            "HTTP/1.1 200 OK\r\n{JSON}set-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{one}\r\n{:x}\r\n{other}\r\n0\r\n\r\n",
            one.len(),
            other.len()
        )
        .into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    let plain = get(&pillion, "/?p=1", "accept-encoding: gzip\r\n");
    assert_eq!(plain.field("content-encoding").as_deref(), Some("gzip"));
    assert!(plain.field("etag").is_some(), "its end was there already");
}

#[test]
fn odd_codings_of_apps() {
    let app = Script::answering(|request| {
        if request.line.contains("/none") {
            return b"HTTP/1.1 204 No Content\r\ncontent-encoding: compress\r\n\r\n".to_vec();
        }
        let body = items(50);
        format!(
            "HTTP/1.1 200 OK\r\n{JSON}content-encoding: Identity\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    assert_eq!(get(&pillion, "/none", "accept-encoding: br, identity;q=0\r\n").status, 204);
    let coded = get(&pillion, "/", "accept-encoding: br\r\n");
    assert_eq!(coded.field("content-encoding").as_deref(), Some("br"), "identity is no coding");
    assert_eq!(get(&pillion, "/", "").field("content-encoding"), None);
}
