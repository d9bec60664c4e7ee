//! Codings: what is coded for whom, and what the app coded itself.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use crate::harness::{self, Pillion, Request, Script, connect, exchange};
use crate::tools::{JSON, curl, field, get, head_of, items, saying};

/// Every combination of coding, method and condition.
#[test]
fn every_coding_with_every_method_and_condition() {
    let content = items(200);
    let plain = saying(&content, JSON);
    let tagged = saying(&content, "content-type: application/json\r\netag: \"x\"\r\n");
    for (app, is_tagged) in [(&plain, false), (&tagged, true)] {
        let pillion = Pillion::in_front_of(app.address);
        let url = pillion.url("/");
        for coding in ["identity", "gzip", "br", "zstd"] {
            let accept = format!("Accept-Encoding: {coding}");
            for http in ["--http1.1", "--http2-prior-knowledge"] {
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
                    (true, coding) => assert_eq!(tag, format!("w/\"x~{coding}\"")),
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
                        assert!(
                            field(&head, "etag").unwrap().replace("w/", "W/") == tag || conditions == "*"
                        );
                        assert_eq!(field(&head, "vary"), Some("accept-encoding"));
                        for gone in ["content-type", "content-length", "content-encoding", "last-modified"] {
                            assert_eq!(field(&head, gone), None, "{head}");
                        }
                    }
                    let (status, ..) = curl(&url, &[http, "-I", "-H", &accept, "-H", &condition]);
                    // The tag of content that a HEAD does not bring cannot be made.
                    let wanted = if is_tagged || conditions == "*" { wanted } else { "200" };
                    assert_eq!(status, wanted, "HEAD {coding} {condition}");
                }
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

/// An app with precompressed files, and a client for each of its minds.
#[test]
fn what_the_app_coded_passes_or_is_decoded_for_who_refuses_it() {
    let folder = harness::Folder::new();
    let content = items(500);
    let file = folder.write("content.json", &content);
    harness::run("gzip", &["-k", &file.display().to_string()]);
    let coded = std::fs::read(folder.path("content.json.gz")).unwrap();
    let bytes = coded.clone();
    let app = Script::answering(move |request| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\netag: \"z\"\r\n\
             repr-digest: sha-256=:AAAA:\r\naccept-ranges: bytes\r\ncontent-length: {}\r\n\r\n",
            bytes.len()
        );
        let body = if request.line.starts_with("HEAD ") { &[][..] } else { &bytes };
        [head.as_bytes(), body].concat()
    });
    let pillion = Pillion::in_front_of(app.address);
    let same = get(&pillion, "/", "accept-encoding: gzip\r\n");
    assert!(same.body == coded, "untouched");
    assert_eq!(same.field("etag").as_deref(), Some("\"z\""));
    assert_eq!(same.field("vary").as_deref(), Some("accept-encoding"));
    assert!(get(&pillion, "/", "").body == coded, "who says nothing takes any coding");
    for (asked, coding) in [("identity", None), ("br", Some("br")), ("gzip;q=0, *", Some("zstd"))] {
        let answer = get(&pillion, "/", &format!("accept-encoding: {asked}\r\n"));
        assert_eq!(answer.field("content-encoding").as_deref(), coding, "{asked}");
        assert!(coding.is_some() || answer.body == content.as_bytes());
        let tag = format!("W/\"z~{}\"", coding.unwrap_or("identity"));
        assert_eq!(answer.field("etag").as_deref(), Some(tag.as_str()), "{asked}");
        for gone in ["repr-digest", "accept-ranges"] {
            assert_eq!(answer.field(gone), None, "{gone}");
        }
        let head = head_of(&pillion, "/", &format!("accept-encoding: {asked}\r\n"));
        assert_eq!(head.field("content-length"), None, "{asked}");
    }
    let (_, body, _) = curl(&pillion.url("/"), &["--compressed", "-H", "Accept-Encoding: br"]);
    assert!(body == content.as_bytes());
    assert!(pillion.metric("pillion_made_total{what=\"decoded\"}") >= 4.0);
}

#[test]
fn an_answer_in_a_coding_that_cannot_be_taken_away_is_406_to_who_refuses_it() {
    let app = saying("secret", "content-type: application/json\r\ncontent-encoding: exi\r\n");
    let pillion = Pillion::in_front_of(app.address);
    assert_eq!(get(&pillion, "/", "accept-encoding: exi\r\n").status, 200);
    let refused = get(&pillion, "/", "accept-encoding: gzip\r\n");
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (406, Some("urn:pillion:problem:not-acceptable"))
    );
    let post = "POST / HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(pillion.http, post).status, 200, "what is done is done");
    let small = saying("[1]", JSON);
    let pillion = Pillion::in_front_of(small.address);
    let coded = get(&pillion, "/", "accept-encoding: gzip, identity;q=0\r\n");
    assert_eq!(coded.field("content-encoding").as_deref(), Some("gzip"), "small as it is");
    assert_eq!(get(&pillion, "/", "accept-encoding: identity;q=0\r\n").status, 406);
}

/// A corrupt or truncated coding never looks like a whole answer.
#[test]
fn a_coding_that_breaks_off_breaks_off_the_answer() {
    let app = saying(
        "this is no gzip at all, whatever it says of itself",
        "content-type: text/plain\r\ncontent-encoding: gzip\r\n",
    );
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/");
    let output =
        Command::new("curl").args(["-sS", "-H", "Accept-Encoding: identity", &url]).output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    pillion.access("whose fault it was", |line| line["fault"] == "upstream");
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

/// A stream of any size costs the memory of an encoder, and a slow reader costs no more.
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
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[compression]\neffort = \"fast\"\n",
        app.address
    ));
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
            // At first it reads slowly.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(came > SIZE / 100 && came < SIZE / 4, "{came}");
    let grown = peak.saturating_sub(before);
    assert!(grown < 16 << 20, "{} MiB", grown >> 20);
    assert_eq!(pillion.metric("pillion_coding_input_bytes_total{coding=\"gzip\"}"), SIZE as f64);
}

/// Encoders of answers that go on for long take no more memory than they may: whoever comes then gets the
/// content as it is.
#[test]
fn encoders_take_no_more_memory_than_they_may() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        let piece = items(500);
        write!(
            tcp,
            "HTTP/1.1 200 OK\r\n{JSON}transfer-encoding: chunked\r\n\r\n{:x}\r\n{piece}\r\n",
            piece.len()
        )
        .unwrap();
        // Until the client leaves.
        let _ = tcp.read(&mut [0]);
    });
    let pillion = Pillion::in_front_of(app.address);
    let clients: Vec<_> = (0..90)
        .map(|_| {
            let mut tcp = connect(pillion.http);
            tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\naccept-encoding: br\r\n\r\n").unwrap();
            let mut head = vec![0; 512];
            let count = tcp.read(&mut head).unwrap();
            let coded = String::from_utf8_lossy(&head[..count]).contains("content-encoding: br");
            (tcp, coded)
        })
        .collect();
    let coded = clients.iter().filter(|(_, coded)| *coded).count();
    assert!((60..80).contains(&coded), "{coded}");
    assert_eq!(pillion.metric("pillion_content_total{result=\"busy\"}"), (90 - coded) as f64);
    assert!(pillion.metric("pillion_coding_memory_bytes") <= (128 << 20) as f64);
    drop(clients);
    harness::eventually("it is given back", || {
        (pillion.metric("pillion_coding_memory_bytes") == 0.0).then_some(())
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
    let folder = harness::Folder::new();
    let file = folder.write("content", items(50));
    harness::run("gzip", &["-k", &file.display().to_string()]);
    let coded = std::fs::read(folder.path("content.gz")).unwrap();
    let app = Script::answering(move |request| {
        let (status, padding) = match request.line.split(' ').nth(1) {
            Some("/none") => {
                return b"HTTP/1.1 204 No Content\r\ncontent-encoding: compress\r\n\r\n".to_vec();
            }
            Some("/padded") => ("200 OK", 10),
            _ => ("200 OK", 0),
        };
        let body = [&coded[..], &vec![0; padding]].concat();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: image/x\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    });
    let pillion = Pillion::in_front_of(app.address);
    assert_eq!(get(&pillion, "/none", "accept-encoding: br\r\n").status, 204);
    let padded = get(&pillion, "/padded", "accept-encoding: identity\r\n");
    assert_eq!((padded.status, padded.text()), (200, items(50)), "padding is nothing");
    assert_eq!(padded.field("vary").as_deref(), Some("accept-encoding"), "of whatever type");
    assert_eq!(
        get(&pillion, "/", "accept-encoding: *;q=0\r\n").status,
        406,
        "what comes of decoding is refused too"
    );
}
