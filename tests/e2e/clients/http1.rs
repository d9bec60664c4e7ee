//! Tests with HTTP/1 clients and apps.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use super::tools::{Authority, TLS, curl, curl_fails, curl_json, local, until_trailers, with_tls};
use crate::harness::{
    self, Config, HTTP1, HTTP1_0, HTTP2, PATIENCE, Pillion, Script, cases, connect, exchange, ok, read_answer,
};

#[test]
fn curl_keeps_one_connection_for_several_requests() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/again");
    let said = curl(&[
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{num_connects}\n",
        &url,
        &url,
        &url,
    ]);
    assert_eq!(said, "1.1 1\n1.1 0\n1.1 0\n");
    assert_eq!(app.connections.load(Ordering::SeqCst), 1, "so does Pillion towards the app");
}

#[test]
fn http_1_0_clients_get_whole_answers_and_keep_alive_where_they_ask() {
    let app = Script::answering(|request| match request.line.split(' ').nth(1) {
        Some("/chunked") => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_vec()
        }
        _ => ok("plain"),
    });
    let pillion = Pillion::in_front_of(app.address);
    assert_eq!(curl(&["--http1.0", &pillion.url("/chunked")]), "abcde");
    assert_eq!(curl(&["--http1.0", &pillion.url("/")]), "plain");
    let answer = exchange(pillion.http, "GET /chunked HTTP/1.0\r\n\r\n");
    assert_eq!(
        (answer.field("transfer-encoding"), answer.text()),
        (None, "abcde".to_owned()),
        "no chunks, and no Host needed"
    );
    let mut tcp = connect(pillion.http);
    for _ in 0..3 {
        tcp.write_all(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let answer = read_answer(&mut tcp);
        assert_eq!(
            (answer.field("connection").as_deref(), answer.text().as_str()),
            (Some("keep-alive"), "plain")
        );
    }
}

#[test]
fn curl_uploads_after_100_continue() {
    let app =
        Script::answering(|request| ok(&format!("{} {:?}", request.body.len(), request.field("expect"))));
    let pillion = Pillion::in_front_of(app.address);
    let file = pillion.folder.write("upload", vec![b'u'; 3_000_000]);
    let file = file.to_str().unwrap();
    let since = harness::now();
    let said = curl(&[
        "-v",
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "15",
        "-T",
        file,
        &pillion.url("/"),
    ]);
    assert!(said.contains("HTTP/1.1 100 Continue"), "{said}");
    assert!(said.contains("3000000 None"), "Expect is between the client and Pillion: {said}");
    assert!(since.elapsed().as_secs() < 15, "the body was asked for at once");
}

#[test]
fn a_refused_upload_is_never_asked_for() {
    let app = Script::echo();
    let pillion = Config::new(app.address)
        .route("* /no/**", "deny = 403")
        .route("* /small", r#"max_body_size = "1KiB""#)
        .start();
    for (path, status) in [("/no/way", 403), ("/small", 413)] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n"
        );
        let mut tcp = connect(pillion.http);
        tcp.write_all(head.as_bytes()).unwrap();
        assert_eq!(read_answer(&mut tcp).status, status, "the final answer comes first: {path}");
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn every_method_and_every_form_of_target_arrives() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/thing?q=1");
    let purge = curl_json(&["-X", "PURGE", &url]);
    assert_eq!((&purge["method"], &purge["target"]), (&"PURGE".into(), &"/thing?q=1".into()));
    let query = curl_json(&["-X", "QUERY", "-H", "Content-Type: application/sql", "-d", "select 1", &url]);
    assert_eq!((&query["method"], &query["body"]), (&"QUERY".into(), &"select 1".into()));
    let options = curl_json(&["-X", "OPTIONS", "--request-target", "*", &url]);
    assert_eq!((&options["method"], &options["target"]), (&"OPTIONS".into(), &"*".into()));
    // curl writes the absolute form when it uses Pillion as a forward proxy.
    let absolute = curl_json(&["-x", &pillion.url(""), "http://other.test/absolute?x"]);
    assert_eq!(absolute["target"], "/absolute?x");
    assert_eq!(absolute["fields"]["host"], "other.test");
    assert!(absolute["fields"]["proxy-connection"].is_null());
    // A target in absolute form may have no path (RFC 9112 3.2.1).
    let bare = "GET http://other.test?x HTTP/1.1\r\nhost: y\r\nconnection: close\r\n\r\n";
    assert_eq!(exchange(pillion.http, bare).json()["target"], "/?x");
}

#[test]
fn head_answers_keep_their_length_and_their_connection() {
    let app = Script::answering(|request| {
        let answer = ok("0123456789");
        if request.line.starts_with("HEAD") { answer[..answer.len() - 10].to_vec() } else { answer }
    });
    let pillion = Pillion::in_front_of(app.address);
    assert!(curl(&["-I", &pillion.url("/")]).to_lowercase().contains("content-length: 10"));
    assert!(curl(&["-I", "--http2-prior-knowledge", &pillion.url("/")]).contains("content-length: 10"));
    let mut tcp = connect(pillion.http);
    tcp.write_all(
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    .unwrap();
    let mut both = String::new();
    tcp.read_to_string(&mut both).unwrap();
    assert_eq!(both.matches("HTTP/1.1 200").count(), 2, "{both}");
    assert_eq!(both.matches("0123456789").count(), 1, "the first without content: {both}");
}

#[test]
fn trailers_reach_who_takes_them() {
    let app = Script::answering(|request| {
        let te = request.field("te").unwrap_or("-");
        let te = format!("{:x}\r\n{te}\r\n", te.len());
        format!("HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n{te}0\r\nx-sum: 42\r\n\r\n").into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    let get = |fields: &str| {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        String::from_utf8(harness::raw(pillion.http, head)).unwrap()
    };
    let with = get("TE: trailers\r\nConnection: te, close");
    assert!(with.ends_with("trailers\r\n0\r\nx-sum: 42\r\n\r\n"), "{with}");
    assert!(with.to_lowercase().contains("trailer: x-sum"), "announced: {with}");
    let without = get("Connection: close");
    assert!(without.ends_with("\r\n0\r\n\r\n") && !without.contains("x-sum: 42"), "{without}");
}

#[test]
fn trailers_of_a_chunked_request_reach_the_app() {
    let (sender, bodies) = std::sync::mpsc::channel();
    let app = until_trailers(move |seen| sender.send(seen).unwrap());
    let pillion = Pillion::in_front_of(app.address);
    let answer = exchange(
        pillion.http,
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nX-Sum: 42\r\nContent-Length: 7\r\n\r\n",
    );
    assert_eq!(answer.text(), "thanks");
    let seen = bodies.recv_timeout(PATIENCE).unwrap();
    assert!(
        seen.ends_with("2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"),
        "and none that would change the framing: {seen}"
    );
}

fn apps_of_every_framing_are_understood(version: &str) {
    let early =
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    for (name, answer, content) in [
        ("HTTP/1.0, ended by closing", "HTTP/1.0 200 OK\r\n\r\nold", "old"),
        ("HTTP/1.1, ended by closing", "HTTP/1.1 200 OK\r\n\r\nold", "old"),
        (
            "both lengths, chunks win",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnew\r\n0\r\n\r\n",
            "new",
        ),
        ("interim answers first", &format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"), "yes"),
        ("an unknown status", "HTTP/1.1 299 Fine\r\nContent-Length: 3\r\n\r\nyes", "yes"),
        (
            "chunk extensions",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nyes\r\n0;c\r\n\r\n",
            "yes",
        ),
        ("no reason phrase", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nyes", "yes"),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("an empty answer", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ] {
        let answer = answer.to_owned();
        let app = Script::new(move |mut tcp| {
            if harness::Request::read(&mut tcp).is_some() {
                let _ = tcp.write_all(answer.as_bytes());
            }
        });
        let pillion = Pillion::in_front_of(app.address);
        assert_eq!(curl(&[version, "-f", &pillion.url("/")]), content, "{name} {version}");
    }
}

cases! { apps_of_every_framing_are_understood:
    apps_of_every_framing_are_understood_over_http1_0 => HTTP1_0;
    apps_of_every_framing_are_understood_over_http1 => HTTP1;
    apps_of_every_framing_are_understood_over_http2 => HTTP2;
}

fn empty_posts_say_that_they_are_empty(version: &str) {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let seen = curl_json(&[version, "-X", "POST", "-d", "", &pillion.url("/")]);
    assert_eq!(seen["fields"]["content-length"], "0", "{version}");
    let seen = curl_json(&[version, &pillion.url("/")]);
    assert!(seen["fields"]["content-length"].is_null(), "{version}: a GET says nothing");
}

cases! { empty_posts_say_that_they_are_empty:
    empty_posts_say_that_they_are_empty_over_http1 => HTTP1;
    empty_posts_say_that_they_are_empty_over_http2 => HTTP2;
}

#[test]
fn an_app_that_closes_does_not_close_the_client() {
    let app = Script::answering(|_| {
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok".to_vec()
    });
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/");
    let said = curl(&["-w", " %{num_connects}\n", &url, &url]);
    assert_eq!(said, "ok 1\nok 0\n");
}

#[test]
fn a_truncated_answer_is_an_error_to_every_client() {
    for answer in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
    ] {
        let app = Script::new(move |mut tcp| {
            if harness::Request::read(&mut tcp).is_some() {
                let _ = tcp.write_all(answer.as_bytes());
            }
        });
        let (pillion, ca) = with_tls(app.address);
        let https = format!("https://{}/", pillion.https.unwrap());
        for args in [
            &["--http1.0", &pillion.url("/")][..],
            &["--http1.1", &pillion.url("/")],
            &["--http2-prior-knowledge", &pillion.url("/")],
            &["--http1.0", "--no-alpn", "--cacert", &ca, &https],
            &["--http1.1", "--cacert", &ca, &https],
            &["--http2", "--cacert", &ca, &https],
        ] {
            assert!(curl_fails(args), "{answer:?} {args:?}");
        }
    }
}

#[test]
fn connections_that_say_nothing_are_closed_before_http_too() {
    let folder = Authority::new().folder();
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "header_timeout = \"300ms\"\nidle_timeout = \"300ms\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n{TLS}\
             [upstream]\nurl = \"http://{}\"\n",
            Script::echo().address
        )),
    );
    for address in [pillion.http, pillion.https.unwrap()] {
        for words in ["", "PROXY TC", "PROXY UNKNOWN\r\n"] {
            assert!(harness::raw(address, words).is_empty(), "{words:?}");
        }
    }
    let spoken =
        harness::raw(pillion.http, "PROXY UNKNOWN\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert!(!spoken.is_empty(), "an idle connection of HTTP/2 is told and closed");
}
