//! Tests of HTTP as apps and people really use it: reason phrases, interim responses, wrong schemes, and lengths of
//! HEAD.

use std::io::{Read, Write};

use crate::harness::{
    Config, HTTP1, HTTP2, Pillion, Request, Script, cases, connect, eventually, exchange, head, ok,
    read_answer,
};

fn in_front(app: &Script, more: &str) -> Pillion {
    Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{more}", app.address))
}

fn ask(pillion: &Pillion, method: &str, target: &str) -> crate::harness::Answer {
    exchange(pillion.http, &format!("{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
}

#[test]
fn n4_18_reason_phrases_are_kept() {
    let app = Script::answering(|request| {
        let line = match request.line.split(' ').nth(1) {
            Some("/usual") => "HTTP/1.1 200 OK",
            Some("/stored") => "HTTP/1.1 200 Fine\r\ncache-control: max-age=60",
            Some("/unknown") => "HTTP/1.1 299 Half done",
            Some("/none") => "HTTP/1.1 200 ",
            _ => "HTTP/1.1 404 No such patient",
        };
        format!("{line}\r\netag: \"t\"\r\ncontent-length: 2\r\n\r\nno").into_bytes()
    });
    let pillion = in_front(&app, "");
    for (path, line) in [
        ("/usual", "HTTP/1.1 200 OK"),
        ("/unknown", "HTTP/1.1 299 Half done"),
        ("/none", "HTTP/1.1 200 OK"),
        ("/gone", "HTTP/1.1 404 No such patient"),
        ("/stored", "HTTP/1.1 200 Fine"),
        ("/stored", "HTTP/1.1 200 Fine"),
        ("/stored", "HTTP/1.1 200 Fine"),
        ("/stored", "HTTP/1.1 200 Fine"),
    ] {
        assert_eq!(pillion.get(path).head.lines().next(), Some(line), "{path}");
    }
    let request = "GET /stored HTTP/1.1\r\nhost: test\r\nif-none-match: \"t\"\r\nconnection: close\r\n\r\n";
    let answer = exchange(pillion.http, request);
    assert_eq!(answer.head.lines().next(), Some("HTTP/1.1 304 Not Modified"), "the phrase was of the 200");
}

/// A server that supports only HTTP/2: SETTINGS, then GOAWAY, whatever the client sends first.
fn http2_only() -> Script {
    Script::new(|mut tcp| {
        let _ = tcp.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100]);
        let mut some = [0u8; 1024];
        let _ = tcp.read(&mut some);
        let _ = tcp.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    })
}

#[test]
fn n4_18_a_wrong_scheme_is_named() {
    let http2 = http2_only();
    // The reaction of a TLS server to a cleartext request: an alert (RFC 8446 6).
    let tls = Script::new(|mut tcp| {
        let _ = head(&mut tcp);
        let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, 10]);
    });
    // The reaction of an HTTP/1 server to anything else.
    let plain = Script::new(|mut tcp| {
        let _ = tcp.read(&mut [0u8; 1024]);
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    for (url, advice) in [
        (format!("http://{}", http2.address), "speaks HTTP/2: write h2c://"),
        (format!("http://{}", tls.address), "speaks TLS: write https://"),
        (format!("https://{}", plain.address), "does not speak TLS: write http://"),
        (format!("h2c://{}", plain.address), "write http:// in place of h2c://"),
    ] {
        let pillion = Pillion::with(&format!("[upstream]\nurl = \"{url}\"\n"));
        let answer = pillion.get("/");
        assert_eq!(answer.status, 502, "{url}");
        eventually(&format!("{url}: the log says {advice}\n{}", pillion.log()), || {
            pillion.log().contains(advice).then_some(())
        });
        if url.starts_with("http://") {
            assert!(answer.text().contains(advice), "{}", answer.text());
        }
    }
}

#[test]
fn n4_18_max_headers_is_256_both_ways_and_says_whose_they_were() {
    let app = Script::answering(|request| {
        let count: usize =
            request.line.split(' ').nth(1).and_then(|path| path.strip_prefix("/")?.parse().ok()).unwrap_or(0);
        let fields: String = (0..count).map(|at| format!("x-{at}: y\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}\r\n").into_bytes()
    });
    let pillion = in_front(&app, "");
    assert_eq!(pillion.get("/250").fields("x-249").len(), 1);
    let many = pillion.get("/300");
    assert_eq!(many.status, 502);
    assert!(many.text().contains("the response has more fields than server.max_headers"), "{}", many.text());
    let sent = |count: usize| {
        let fields: String = (0..count).map(|at| format!("x-{at}: y\r\n")).collect();
        exchange(pillion.http, &format!("GET /0 HTTP/1.1\r\nhost: a\r\n{fields}connection: close\r\n\r\n"))
    };
    assert_eq!(sent(250).status, 200);
    let refused = sent(300);
    assert_eq!(refused.status, 431);
    assert!(refused.text().contains("the request has more fields than max_headers"), "{}", refused.text());
}

#[test]
fn n4_18_head_tells_the_length_of_an_uncoded_get() {
    let app = Script::answering(|request| {
        let content = if request.line.starts_with("HEAD") { "" } else { "5\r\nhello\r\n0\r\n\r\n" };
        let fields = "cache-control: max-age=60\r\ntransfer-encoding: chunked";
        format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{content}").into_bytes()
    });
    let routes = "[[routes]]\nmatch = \"* /denied\"\ndeny = 404\n";
    let pillion = in_front(&app, routes);
    eventually("it is stored", || {
        ask(&pillion, "GET", "/stored").field("cache-status")?.contains("; hit").then_some(())
    });
    for path in ["/stored", "/denied"] {
        let (get, head) = (ask(&pillion, "GET", path), ask(&pillion, "HEAD", path));
        assert!(get.field("content-length").is_some(), "{path}");
        let length = |answer: &crate::harness::Answer| answer.field("content-length").unwrap_or_default();
        assert_eq!(length(&head), length(&get), "{path}: {}", head.head);
        assert!(head.body.is_empty());
        // Over HTTP/2, content in response to HEAD would break the stream.
        let over_http2 =
            super::tools::curl(&["-I", "-H", "Host: a", "--http2-prior-knowledge", &pillion.url(path)]);
        let told = format!("content-length: {}\r\n", length(&get));
        assert!(over_http2.contains(&told), "{path}: {over_http2}");
    }
}

#[test]
fn n4_10_a_101_has_no_content_length() {
    let app = Script::new(|mut tcp| {
        let Some(_) = head(&mut tcp) else { return };
        let fields = "upgrade: echo\r\nconnection: upgrade\r\ncontent-length: 0";
        let _ = tcp.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\nhi").as_bytes());
        let _ = tcp.read(&mut [0u8; 1]);
    });
    let pillion = in_front(&app, "");
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n").unwrap();
    let switched = head(&mut tcp).unwrap();
    assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
    assert!(!switched.to_ascii_lowercase().contains("content-length"), "{switched}");
    let mut said = [0u8; 2];
    tcp.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hi");
}

#[test]
fn n4_10_a_target_with_a_space_is_malformed() {
    let app = Script::echo();
    let pillion = in_front(&app, "");
    for (line, status) in [
        ("GET /a b HTTP/1.1", 400),
        ("GET /a b c HTTP/1.1", 400),
        ("GET /a HTTP/1.1 HTTP/1.1", 400),
        ("GET /a", 400),
        ("GET /a FTP/1.1", 400),
        ("GET /a HTTP/9.9", 505),
        ("GET /a HTTP/2.0", 505),
        ("GET /a%20b HTTP/1.1", 200),
    ] {
        let answer = exchange(pillion.http, &format!("{line}\r\nhost: a\r\nconnection: close\r\n\r\n"));
        assert_eq!(answer.status, status, "{line}");
    }
}

/// Sends `count` responses 102 and 103 before the 200.
fn interim(count: usize) -> Script {
    Script::answering(move |request: &Request| {
        let mut all = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
        for at in 0..count {
            let hint = format!(
                "HTTP/1.1 103 Early Hints\r\nlink: </{at}.css>; rel=preload\r\nx-hop: y\r\nconnection: x-hop\r\n\r\n"
            );
            all.extend_from_slice(hint.as_bytes());
        }
        all.extend_from_slice(b"HTTP/1.1 102 Still at it\r\ncontent-length: 7\r\n\r\n");
        all.extend_from_slice(&ok(request.line.split(' ').nth(1).unwrap()));
        all
    })
}

#[test]
fn n4_10_interim_responses_are_passed_on() {
    let app = interim(40);
    let pillion = in_front(&app, "");
    let mut tcp = connect(pillion.http);
    for path in ["/one", "/two"] {
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).unwrap();
        for at in 0..40 {
            let hint = head(&mut tcp).unwrap();
            assert!(hint.starts_with("HTTP/1.1 103 Early Hints\r\n"), "{hint}");
            assert!(hint.contains(&format!("link: </{at}.css>; rel=preload\r\n")), "{hint}");
            assert!(!hint.contains("x-hop"), "fields of the app's connection stay there: {hint}");
        }
        let working = head(&mut tcp).unwrap();
        assert_eq!(working, "HTTP/1.1 102 Still at it\r\n\r\n", "no length in a 1xx");
        assert_eq!(read_answer(&mut tcp).text(), path);
    }
    // Interim responses must not go to an HTTP/1.0 client (RFC 9110 15.2).
    let answer = exchange(pillion.http, "GET /old HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.text().as_str()), (200, "/old"));
}

#[test]
fn n4_10_interim_responses_come_before_the_response_and_do_not_lengthen_its_time() {
    let (sender, go_on) = std::sync::mpsc::channel::<()>();
    let go_on = std::sync::Mutex::new(go_on);
    let app = Script::new(move |mut tcp| {
        let Some(asked) = head(&mut tcp) else { return };
        if asked.starts_with("GET /for-ever") {
            while tcp.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
            return;
        }
        let _ = tcp.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        let _ = go_on.lock().unwrap().recv();
        let _ = tcp.write_all(&ok("done"));
    });
    let pillion = in_front(&app, "response_timeout = \"1s\"\n");
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    assert!(head(&mut tcp).unwrap().starts_with("HTTP/1.1 103 "), "it does not wait for the response");
    sender.send(()).unwrap();
    assert_eq!(read_answer(&mut tcp).text(), "done");
    let mut endless = connect(pillion.http);
    endless.write_all(b"GET /for-ever HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let last = loop {
        let head = head(&mut endless).unwrap();
        if !head.starts_with("HTTP/1.1 102 ") {
            break head;
        }
    };
    assert!(last.starts_with("HTTP/1.1 504 "), "{last}");
}

#[test]
fn n4_6_the_scheme_of_the_client_is_counted_from_the_right() {
    let app = Script::echo();
    let pillion = Config::new(app.address)
        .server("redirect_https", true)
        .server("trusted_proxies", ["127.0.0.0/8", "10.0.0.0/8"])
        .start();
    for (fields, status) in [
        ("", 308),
        ("x-forwarded-proto: https\r\n", 200),
        ("x-forwarded-proto: wss\r\n", 200),
        ("x-forwarded-proto: ws\r\n", 308),
        ("x-forwarded-for: 9.9.9.9, 10.0.0.2\r\nx-forwarded-proto: https, http\r\n", 200),
        ("x-forwarded-for: 9.9.9.9, 10.0.0.2\r\nx-forwarded-proto: http, https\r\n", 308),
        // The client wrote the first element of each list.
        ("x-forwarded-for: 6.6.6.6, 9.9.9.9\r\nx-forwarded-proto: https, http\r\n", 308),
        ("x-forwarded-for: 9.9.9.9, 10.0.0.2\r\nx-forwarded-proto: https\r\n", 200),
        ("forwarded: for=9.9.9.9;proto=https, for=10.0.0.2;proto=http\r\n", 200),
        ("forwarded: for=6.6.6.6;proto=https, for=9.9.9.9;proto=http\r\n", 308),
    ] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{fields}\r\n");
        assert_eq!(exchange(pillion.http, &request).status, status, "{fields:?}");
    }
}

#[test]
fn n4_8_a_signed_request_reaches_the_app_as_it_was_signed() {
    let app = Script::answering(|request| {
        let said = request.to_json().to_string();
        let fields = "cache-control: public, max-age=60\r\ncontent-type: application/json\r\netag: \"t\"";
        format!("HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: {}\r\n\r\n{said}", said.len()).into_bytes()
    });
    let pillion = in_front(
        &app,
        "preserve_host = false\n[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1m\", scope = \"shared\" }\n",
    );
    let aws = "authorization: AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=accept-encoding;host;range;x-forwarded-for;x-request-id, Signature=0";
    let input =
        "signature-input: s=(\"accept-encoding\" \"@authority\" \"range\" \"x-request-id\");created=1";
    let asked = "accept-encoding: gzip;q=0.5\r\nrange: bytes=0-3\r\nif-none-match: W/\"x~gzip\"\r\n\
                 x-forwarded-for: 6.6.6.6\r\nx-request-id: mine\r\nkeep-alive: 5\r\nte: gzip\r\n";
    let send = |target: &str, signed: &str| {
        exchange(
            pillion.http,
            &format!(
                "GET {target} HTTP/1.1\r\nhost: bucket.test\r\n{signed}{asked}connection: close\r\n\r\n"
            ),
        )
    };
    for (target, signature) in [
        ("/a", format!("{aws}\r\n")),
        ("/b", format!("{input}\r\n")),
        ("/c?X-Amz-SignedHeaders=host%3Bx-request-id&X-Amz-Signature=0", String::new()),
    ] {
        for _ in 0..3 {
            let answer = send(target, &signature);
            assert_eq!(answer.status, 200, "{target}: {}", answer.head);
            assert!(answer.field("content-encoding").is_none());
            assert_eq!(answer.field("etag").as_deref(), Some("\"t\""));
            assert!(
                answer.field("cache-status").unwrap().contains("fwd=bypass"),
                "{target}: {}",
                answer.head
            );
            let seen = &answer.json()["fields"];
            assert_eq!(seen["host"], "bucket.test", "{target}");
            assert_eq!(seen["accept-encoding"], "gzip;q=0.5", "{target}");
            assert_eq!(seen["range"], "bytes=0-3", "{target}");
            assert_eq!(seen["if-none-match"], "W/\"x~gzip\"", "{target}");
            assert_eq!(seen["x-request-id"], "mine", "{target}");
            // Whatever the signature covers, Pillion sets the client's address, and hop-by-hop fields are removed.
            assert_eq!(seen["x-forwarded-for"], "127.0.0.1", "{target}");
            assert!(seen["keep-alive"].is_null() && seen["te"].is_null(), "{target}: {seen}");
        }
    }
    let plain = send("/d", "");
    assert!(plain.field("cache-status").unwrap().contains("stored"), "{}", plain.head);
    let seen = send("/d", "authorization: Bearer x\r\n");
    assert!(seen.field("cache-status").unwrap().contains("; hit"), "a token is no signature: {}", seen.head);
}

fn n4_10_a_204_has_no_content_length(version: &str) {
    let app =
        Script::answering(|_| b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nx-a: b\r\n\r\n".to_vec());
    let pillion = in_front(&app, "");
    let said = super::tools::curl(&["-i", version, &pillion.url("/")]).to_ascii_lowercase();
    assert!(said.contains("x-a: b") && !said.contains("content-length"), "{version}: {said}");
}

cases! { n4_10_a_204_has_no_content_length:
    n4_10_a_204_has_no_content_length_over_http1 => HTTP1;
    n4_10_a_204_has_no_content_length_over_http2 => HTTP2;
}
