//! What a client gets in place of what the app said, end to end: curl decodes for itself, nginx is the app
//! that knows of tags and ranges, and a script is the one that records what it was asked.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::fmt::Write as _;
use std::io::{BufReader, Read, Write};
use std::process::Command;
use std::time::Duration;

use harness::{Answer, Nginx, Pillion, Request, Script, connect, exchange, now};

/// JSON as apps write it: `items` of some 80 bytes each.
fn items(items: usize) -> String {
    let mut text = String::from("[");
    for id in 0..items {
        let comma = if id > 0 { "," } else { "" };
        write!(
            text,
            "{comma}{{\"id\":{id},\"name\":\"Ada Lovelace\",\"notes\":\"No known allergies\",\"sum\":{}}}",
            id * 37 % 101
        )
        .unwrap();
    }
    text + "]"
}

fn get(pillion: &Pillion, path: &str, fields: &str) -> Answer {
    exchange(pillion.http, &format!("GET {path} HTTP/1.1\r\nhost: test\r\n{fields}connection: close\r\n\r\n"))
}

fn head_of(pillion: &Pillion, path: &str, fields: &str) -> Answer {
    exchange(
        pillion.http,
        &format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n{fields}connection: close\r\n\r\n"),
    )
}

/// An app that answers everything with this content and these field lines.
fn saying(content: &str, fields: &'static str) -> Script {
    let content = content.to_owned();
    Script::answering(move |request| {
        let length = content.len();
        let body = if request.line.starts_with("HEAD ") { "" } else { &content };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{fields}\r\n{body}").into_bytes()
    })
}

const JSON: &str = "content-type: application/json\r\n";

/// What curl makes of an answer: its status, its content decoded, and its fields.
fn curl(url: &str, args: &[&str]) -> (String, Vec<u8>, String) {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "-D", "-", "-w", "%{stderr}%{http_code}", url])
        .args(args)
        .output()
        .unwrap();
    let status = String::from_utf8(output.stderr).unwrap();
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8(output.stdout[..end].to_vec()).unwrap().to_lowercase();
    (status, output.stdout[end..].to_vec(), head)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

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

// Tags and conditions.

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
            if request.field("if-match").is_some_and(|wanted| wanted != tag) {
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
fn optimistic_locking_works_through_compression() {
    let app = versioned();
    let pillion = Pillion::in_front_of(app.address);
    let read = get(&pillion, "/", "accept-encoding: gzip\r\n");
    let tag = read.field("etag").unwrap();
    assert_eq!((read.field("content-encoding").as_deref(), tag.as_str()), (Some("gzip"), "W/\"v1~gzip\""));
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
        (204, Some("'v1'")),
        "its own strong tag"
    );
    assert_eq!(written.field("etag").as_deref(), Some("\"v2\""), "of the document, not of this answer");
    assert_eq!(put(&tag).status, 412, "the app's word");
    let made = put("W/\"pillion-0123\"");
    assert_eq!(
        (made.status, made.json()["type"].as_str()),
        (412, Some("urn:pillion:problem:precondition-failed"))
    );
    let both = put("W/\"pillion-0123\", W/\"v2~br\"");
    assert_eq!((both.status, both.field("x-if-match").as_deref()), (204, Some("'v2'")));
}

#[test]
fn the_app_says_304_itself_and_its_tag_comes_back_as_the_client_has_it() {
    let app = versioned();
    // Without a cache, which asks for the whole answer where that may be stored.
    let pillion =
        Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n[cache]\nenabled = false\n", app.address));
    for (known, shown) in [
        ("W/\"v1~gzip\"", "W/\"v1~gzip\""),
        ("W/\"v1~br\"", "W/\"v1~br\""),
        ("\"v1\"", "\"v1\""),
        ("\"v0\", W/\"v1~zstd\"", "W/\"v1~zstd\""),
    ] {
        let answer = get(&pillion, "/", &format!("accept-encoding: gzip\r\nif-none-match: {known}\r\n"));
        assert_eq!((answer.status, answer.field("etag").as_deref()), (304, Some(shown)), "{known}");
        assert!(answer.field("x-if-none-match").unwrap().contains("'v1'"), "{known}");
        assert_eq!(answer.field("vary").as_deref(), Some("accept-encoding"));
    }
    assert_eq!(pillion.metric("pillion_not_modified_total{source=\"app\"}"), 4.0);
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
    for kept in ["cache-control", "expires", "content-location", "date", "etag", "vary", "set-cookie"] {
        assert!(answer.field(kept).is_some(), "{kept}: {}", answer.head);
    }
    for gone in ["content-type", "content-length", "last-modified"] {
        assert!(answer.field(gone).is_none(), "{gone}: {}", answer.head);
    }
    // If-None-Match wins (RFC 9110 13.1.3): in the app too, if it heeded dates.
    let both = get(&pillion, "/", &format!("if-none-match: \"other\"\r\n{since}"));
    assert_eq!(both.status, 200);
    assert_eq!(get(&pillion, "/", "if-unmodified-since: Sat, 05 Nov 1994 08:49:37 GMT\r\n").status, 412);
    assert_eq!(get(&pillion, "/", "if-match: \"x\"\r\n").status, 412);
    assert_eq!(get(&pillion, "/", "if-match: *\r\n").status, 200);
    assert_eq!(head_of(&pillion, "/", since).status, 304);
    let post = format!("POST / HTTP/1.1\r\nhost: t\r\n{since}content-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(exchange(pillion.http, &post).status, 200, "conditions on reads only");
}

/// Equal content has an equal tag on every replica and after every restart; other content has another.
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

// Time: nothing is held back.

/// An app that sends chunks when it is told to.
fn paced(fields: &'static str) -> (Script, std::sync::mpsc::Sender<String>) {
    let (sender, receiver) = std::sync::mpsc::channel::<String>();
    let receiver = std::sync::Mutex::new(receiver);
    let app = Script::new(move |mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        write!(tcp, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{fields}\r\n").unwrap();
        let receiver = receiver.lock().unwrap();
        while let Ok(words) = receiver.recv() {
            write!(tcp, "{:x}\r\n{words}\r\n", words.len()).unwrap();
        }
        let _ = tcp.write_all(b"0\r\n\r\n");
    });
    (app, sender)
}

/// A client that reads as a browser does: what it has decoded so far.
#[test]
fn what_the_app_says_is_decodable_soon_although_it_goes_on_later() {
    for coding in ["gzip", "br", "zstd"] {
        let (app, say) = paced(JSON);
        let pillion = Pillion::in_front_of(app.address);
        let mut curl = Command::new("curl")
            .args(["-sN", "--compressed", "-H", &format!("Accept-Encoding: {coding}"), &pillion.url("/")])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(curl.stdout.take().unwrap());
        // The first word decides that it is worth coding.
        for words in [items(50), "soon".to_owned(), items(3), "and so on".to_owned()] {
            let since = now();
            say.send(words.clone()).unwrap();
            let mut read = vec![0; words.len()];
            reader.read_exact(&mut read).unwrap();
            assert!(read == words.as_bytes(), "{coding}");
            assert!(since.elapsed() < Duration::from_secs(2), "{coding}: {:?}", since.elapsed());
        }
        drop(say);
        assert!(curl.wait().unwrap().success(), "{coding}");
        assert!(pillion.metric(&format!("pillion_content_total{{result=\"{coding}\"}}")) == 1.0);
    }
}

#[test]
fn content_of_unknown_length_is_judged_by_its_beginning() {
    // Less than min_size, and then nothing for a while: as it is.
    let (app, say) = paced(JSON);
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\n\r\n").unwrap();
    say.send("[1,".to_owned()).unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"[1,") {
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let head = String::from_utf8(seen).unwrap();
    assert!(!head.contains("content-encoding") && head.contains("vary: accept-encoding"), "{head}");
    drop(say);

    // Less than min_size, and its end: it has a length, and a tag.
    let small = Script::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n3\r\n[1]\r\n0\r\n\r\n".to_vec()
    });
    let pillion = Pillion::in_front_of(small.address);
    let answer = get(&pillion, "/", "accept-encoding: gzip\r\n");
    assert_eq!(answer.field("content-length").as_deref(), Some("3"));
    assert!(answer.field("etag").is_some() && answer.field("content-encoding").is_none());
}

/// An app that stalls in the middle of content with a known length: its beginning is passed on, without a
/// tag, instead of being held until there is one.
#[test]
fn nothing_is_held_back_for_a_tag() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_none() {
            return;
        }
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning").unwrap();
        // Until the client has seen the beginning and leaves.
        let _ = tcp.read(&mut [0]);
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"beginning") {
        tcp.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    assert!(!String::from_utf8(seen).unwrap().contains("etag"));
}

// Ranges.

#[test]
fn parts_of_content_that_the_app_gave_whole() {
    let content = items(20);
    let app = saying(&content, JSON);
    let pillion = Pillion::in_front_of(app.address);
    let part = get(&pillion, "/", "range: bytes=10-19\r\n");
    assert_eq!((part.status, part.text().as_str()), (206, &content[10..20]));
    assert_eq!(part.field("content-range"), Some(format!("bytes 10-19/{}", content.len())));
    let url = pillion.url("/");
    let (status, body, _) = curl(&url, &["-r", "-5"]);
    assert_eq!((status.as_str(), &body[..]), ("206", &content.as_bytes()[content.len() - 5..]));
    // Parts are parts of the content as it is, whatever coding is asked for beside.
    let (status, body, head) = curl(&url, &["-r", "0-4", "-H", "Accept-Encoding: gzip"]);
    assert_eq!(
        (status.as_str(), &body[..], field(&head, "content-encoding")),
        ("206", &content.as_bytes()[..5], None)
    );
    let several = get(&pillion, "/", "range: bytes=0-1,4-5\r\n");
    assert_eq!(several.status, 206);
    assert!(several.field("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    assert_eq!(several.text().matches("Content-Range: bytes ").count(), 2);
    let beyond = get(&pillion, "/", "range: bytes=100000-\r\n");
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.field("content-range"), Some(format!("bytes */{}", content.len())));
    for whole in
        ["range: bytes=5-1\r\n", "range: lines=1-2\r\n", "range: bytes=0-1\r\nif-range: \"other\"\r\n"]
    {
        assert_eq!(get(&pillion, "/", whole).status, 200, "{whole}");
    }
    let tag = get(&pillion, "/", "").field("etag").unwrap();
    let weak = get(&pillion, "/", &format!("range: bytes=0-1\r\nif-range: {tag}\r\n"));
    assert_eq!(weak.status, 200, "a weak tag never holds");
    assert_eq!(head_of(&pillion, "/", "range: bytes=0-1\r\n").status, 200, "a Range is about GET");
}

/// A real nginx serving files: its tags, its 304s, its parts.
#[test]
fn nginx_keeps_its_tags_and_its_ranges() {
    // A file that is a second old may be stored for a tenth of one (RFC 9111 4.2.2), and nginx is to be asked each time.
    let nginx = Nginx::serving(
        "server { listen LISTEN; root FOLDER; default_type application/json; location / { add_header Cache-Control no-store always; } }",
    );
    let content = items(2000);
    nginx.folder.write("file", &content);
    let pillion = Pillion::in_front_of(nginx.address);
    let plain = get(&pillion, "/file", "");
    let tag = plain.field("etag").unwrap();
    assert!(tag.starts_with('"') && plain.field("accept-ranges").is_some(), "{}", plain.head);
    let coded = get(&pillion, "/file", "accept-encoding: gzip\r\n");
    let shown = coded.field("etag").unwrap();
    assert_eq!(shown, format!("W/\"{}~gzip\"", tag.trim_matches('"')));
    assert_eq!(coded.field("accept-ranges"), None);
    for (known, shown) in [(&tag, &tag), (&shown, &shown)] {
        let again = get(&pillion, "/file", &format!("accept-encoding: gzip\r\nif-none-match: {known}\r\n"));
        assert_eq!((again.status, again.field("etag").as_ref()), (304, Some(shown)));
    }
    assert_eq!(pillion.metric("pillion_not_modified_total{source=\"app\"}"), 2.0, "nginx said so itself");
    let part =
        get(&pillion, "/file", &format!("range: bytes=0-9\r\nif-range: {tag}\r\naccept-encoding: gzip\r\n"));
    assert_eq!(
        (part.status, &part.body[..], part.field("etag")),
        (206, &content.as_bytes()[..10], Some(tag))
    );
    assert_eq!(part.field("vary").as_deref(), Some("accept-encoding"));
    let void = get(
        &pillion,
        "/file",
        &format!("range: bytes=0-9\r\nif-range: {shown}\r\naccept-encoding: gzip\r\n"),
    );
    assert_eq!((void.status, void.field("content-encoding").as_deref()), (200, Some("gzip")));
    assert_eq!(get(&pillion, "/file", "range: bytes=9999999-\r\n").status, 416, "nginx's own");
}

// Cookies that may be guessed at, and browsers.

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

#[test]
fn browsers_are_told_how_long_to_keep_it() {
    let app = Script::answering(|request: &Request| {
        let fields =
            if request.line.contains("secret") { "cache-control: no-store\r\n" } else { "expires: 0\r\n" };
        format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nhi").into_bytes()
    });
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"* /**\"\nbrowser_ttl = \"1h\"\n",
        app.address
    ));
    let answer = get(&pillion, "/", "");
    assert_eq!(
        (answer.field("cache-control").as_deref(), answer.field("expires")),
        (Some("max-age=3600"), None)
    );
    let personal = get(&pillion, "/", "cookie: session=1\r\n");
    assert_eq!(personal.field("cache-control").as_deref(), Some("private, max-age=3600"));
    assert_eq!(get(&pillion, "/secret", "").field("cache-control").as_deref(), Some("no-store"));
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

// What an attack found.

/// A date does not tell codings apart: whoever holds coded content and asks for the rest of it must not get a
/// part of the content as it is.
#[test]
fn a_date_in_if_range_gives_no_part_to_a_client_that_takes_codings() {
    let dates = "content-type: application/json\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 date: Mon, 07 Nov 1994 08:49:37 GMT\r\n";
    let app = saying(&items(200), dates);
    let pillion = Pillion::in_front_of(app.address);
    let part = "range: bytes=100-\r\nif-range: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let coded = get(&pillion, "/", &format!("accept-encoding: gzip\r\n{part}"));
    assert_eq!((coded.status, coded.field("content-encoding").as_deref()), (200, Some("gzip")));
    assert_eq!(get(&pillion, "/", part).status, 206);
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
fn every_method_whose_answer_is_its_content_is_tagged_by_coding() {
    let app = saying(&items(200), "content-type: application/json\r\netag: \"x\"\r\n");
    let pillion = Pillion::in_front_of(app.address);
    let tag = |method: &str| {
        let head =
            format!("{method} / HTTP/1.1\r\nhost: t\r\naccept-encoding: gzip\r\ncontent-length: 0\r\n");
        exchange(pillion.http, &format!("{head}connection: close\r\n\r\n")).field("etag").unwrap()
    };
    assert_eq!((tag("QUERY").as_str(), tag("POST").as_str()), ("W/\"x~gzip\"", "W/\"x~gzip\""));
    assert_eq!(tag("PUT"), "\"x\"", "of the document, not of this answer");
    let known = "if-none-match: W/\"x~gzip\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
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
    assert_eq!(coded.field("etag").as_deref(), Some("W/\"x~gzip\""));
    assert_eq!(get(&pillion, "/", since).field("etag").as_deref(), Some("\"x\""));
}

#[test]
fn digests_of_the_whole_do_not_go_with_a_part() {
    let app = saying(
        &items(20),
        "content-type: text/plain\r\ncontent-digest: sha-256=:AA:\r\nrepr-digest: sha-256=:BB:\r\n",
    );
    let pillion = Pillion::in_front_of(app.address);
    let part = get(&pillion, "/", "range: bytes=0-1\r\n");
    assert_eq!((part.status, part.field("content-digest")), (206, None));
    assert!(part.field("repr-digest").is_some(), "of the representation, which is the whole");
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
