//! Tests with clients that use HTTP/2.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::tools::{curl, curl_fails, curl_json, h2_client, h2_text, local, until_trailers};
use crate::harness::{self, PATIENCE, Pillion, Script, connect, eventually, exchange, free_address, ok, run};

#[test]
fn http_2_with_prior_knowledge_is_spoken_beside_http_1() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/h2c?x=1");
    let version = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
    assert_eq!(curl(&[&version[..], &["--http2-prior-knowledge", &url]].concat()), "2 200");
    assert_eq!(curl(&[&version[..], &["--http1.1", &url]].concat()), "1.1 200");
    // Without prior knowledge curl offers an upgrade, which Pillion ignores.
    assert_eq!(curl(&[&version[..], &["--http2", &url]].concat()), "1.1 200");
    let seen = curl_json(&["--http2-prior-knowledge", "-d", "hello", &url]);
    assert_eq!(
        (&seen["method"], &seen["target"], &seen["body"]),
        (&"POST".into(), &"/h2c?x=1".into(), &"hello".into())
    );
    assert!(seen["fields"]["via"].as_str().unwrap().starts_with("2 pillion-"), "{seen}");
    assert_eq!(seen["fields"]["host"], pillion.http.to_string());
    let said = run("nghttp", &["-v", &url]);
    assert!(said.contains(":status: 200"), "{said}");
    pillion.access("HTTP/2 is logged", |line| line["protocol"] == "HTTP/2");
}

#[test]
fn h2load_sees_no_failure_in_many_streams() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let said = run("h2load", &["-n", "2000", "-c", "10", "-m", "20", &pillion.url("/")]);
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    let said = run("h2load", &["--h1", "-n", "2000", "-c", "10", &pillion.url("/")]);
    assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
}

#[tokio::test]
async fn cookie_crumbs_of_http_2_reach_the_app_as_one_field() {
    let app = Script::answering(|request| {
        let cookies: Vec<&str> = request
            .fields
            .iter()
            .filter(|(name, _)| name == "cookie")
            .map(|(_, value)| value.as_str())
            .collect();
        ok(&cookies.join(" AND "))
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let request = http::Request::get("http://a.test/")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3");
    let (answer, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    assert_eq!(h2_text(&mut answer.await.unwrap().into_body()).await, "a=1; b=2; c=3");
}

#[tokio::test]
async fn trailers_of_an_http_1_app_reach_http_2_clients() {
    let app = Script::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n".to_vec()
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let request = http::Request::get("http://a.test/").header("te", "trailers").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(h2_text(&mut body).await, "hi");
    assert_eq!(body.trailers().await.unwrap().unwrap()["x-sum"], "42");
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_app() {
    let (sender, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let app = until_trailers(move |seen| sender.send(seen).unwrap());
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let request = http::Request::post("http://a.test/").header("trailer", "x-sum").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"hi"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("42"));
    body.send_trailers(trailers).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let seen = bodies.recv().await.unwrap();
    assert!(seen.ends_with("2\r\nhi\r\n0\r\nx-sum: 42\r\n\r\n"), "{seen}");
}

#[tokio::test]
async fn a_post_of_http_2_without_content_and_length_is_given_one() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let (answer, _) =
        client.send_request(http::Request::post("http://a.test/").body(()).unwrap(), true).unwrap();
    let seen: serde_json::Value =
        serde_json::from_str(&h2_text(&mut answer.await.unwrap().into_body()).await).unwrap();
    // Apps respond 411 or wait if a request has no framing (RFC 9110 8.6).
    assert_eq!(seen["fields"]["content-length"], "0");
}

#[tokio::test]
async fn the_authority_of_http_2_is_the_host() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let request = http::Request::get("http://right.test/").header("host", "wrong.test").body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let answer = answer.await.unwrap();
    if answer.status() == 200 {
        let seen: serde_json::Value = serde_json::from_str(&h2_text(&mut answer.into_body()).await).unwrap();
        assert_eq!(
            (&seen["fields"]["host"], &seen["fields"]["x-forwarded-host"]),
            (&"right.test".into(), &"right.test".into())
        );
    } else {
        assert_eq!(answer.status(), 400, "or refused, as RFC 9113 8.3.1 has it");
    }
}

#[test]
fn expectations_and_asterisks_work_over_http_2() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/");
    let seen = curl_json(&["--http2-prior-knowledge", "-X", "OPTIONS", "--request-target", "*", &url]);
    assert_eq!((&seen["method"], &seen["target"]), (&"OPTIONS".into(), &"*".into()));
    let file = pillion.folder.write("upload", vec![b'u'; 2_000_000]);
    let file = file.to_str().unwrap();
    let args = [
        "--http2-prior-knowledge",
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "15",
        "-T",
        file,
        &url,
    ];
    let seen = curl_json(&args);
    assert_eq!(seen["body"].as_str().unwrap().len(), 2_000_000);
    assert!(seen["fields"]["expect"].is_null());
    let seen = curl_json(&["--http2-prior-knowledge", "-X", "PURGE", &url]);
    assert_eq!(seen["method"], "PURGE");
}

#[test]
fn too_large_heads_of_http_2_are_refused() {
    let app = Script::echo();
    let pillion = Pillion::with(&local(&format!(
        "max_header_size = \"8KiB\"\nmax_headers = 20\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    )));
    let url = pillion.url("/");
    let status = |fields: &[String]| {
        let mut args = vec!["-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge", &url];
        args.extend(fields.iter().flat_map(|field| ["-H", field.as_str()]));
        curl(&args)
    };
    assert_eq!(status(&[format!("x-long: {}", "a".repeat(20_000))]), "431", "too large");
    let many: Vec<String> = (0..40).map(|at| format!("x-{at}: y")).collect();
    assert_eq!(status(&many), "431", "too many");
    assert_eq!(status(&[]), "200");
    assert_eq!(app.connections.load(Ordering::SeqCst), 1);
    // The first request was more than twice the limit, which the HTTP/2 library itself refuses.
    let refused = "pillion_http_requests_total{method=\"GET\",route=\"refused\",status=\"431\"}";
    eventually("both are counted", || (pillion.metric(refused) == 2.0).then_some(()));
    pillion.access("one is logged", |line| {
        line["status"] == 431 && line["protocol"] == "HTTP/2" && line["route"] == "refused"
    });
}

#[test]
fn malformed_heads_of_http_2_are_counted_and_logged() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/?q={\"a\":1}");
    assert!(curl_fails(&["--http2-prior-knowledge", "-g", &url]), "the library resets the stream");
    assert!(curl_fails(&["--http2-prior-knowledge", "-H", "Host: a b", &pillion.url("/")]));
    let refused = "pillion_http_requests_total{method=\"GET\",route=\"refused\",status=\"400\"}";
    eventually("both are counted", || (pillion.metric(refused) == 2.0).then_some(()));
    pillion.access("one is logged", |line| line["status"] == 400 && line["protocol"] == "HTTP/2");
    assert_eq!(app.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_early_refusal_of_an_upload_is_heard_over_http_2() {
    let app = Script::refusing_early();
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let (answer, mut upload) =
        client.send_request(http::Request::post("http://a.test/").body(()).unwrap(), false).unwrap();
    // More than any window allows, so the client is in the middle of its upload.
    upload.send_data(Bytes::from(vec![b'u'; 5_000_000]), true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(h2_text(&mut answer.into_body()).await, "no\n");
    // The connection remains usable.
    let (answer, _) =
        client.send_request(http::Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 413);
}

#[tokio::test]
async fn an_upload_of_http_2_that_is_reset_never_looks_whole() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let app = Script::new(move |mut tcp| {
        let mut all = Vec::new();
        let mut some = [0u8; 1024];
        while let Ok(count) = tcp.read(&mut some) {
            all.extend_from_slice(&some[..count]);
            if count == 0 {
                break;
            }
            if all.ends_with(b"half\r\n") {
                sender.send(String::new()).unwrap();
            }
        }
        sender.send(String::from_utf8_lossy(&all).into_owned()).unwrap();
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let request = http::Request::post("http://a.test/").body(()).unwrap();
    let (_answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"half"), false).unwrap();
    seen.recv().await.unwrap();
    body.send_reset(h2::Reason::CANCEL);
    let end = tokio::time::timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
    assert!(end.contains("half") && !end.ends_with("0\r\n\r\n"), "{end}");
    pillion.access("the client's fault", |line| line["method"] == "POST");
}

#[tokio::test]
async fn odd_connects_over_http_2_are_answered() {
    let refusing = Script::answering(|_| b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_vec());
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[upstreams.h2c]\nurl = \"h2c://{}\"\n[[routes]]\nmatch = \"* /h2c\"\nupstream = \"h2c\"\n",
        refusing.address,
        free_address()
    ));
    let mut client = h2_client(pillion.http).await;
    let (answer, _) =
        client.send_request(http::Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 403);
    for (uri, protocol, status) in [
        ("http://a.test/chat", Some("websocket"), 403),
        ("http://a.test/h2c", Some("websocket"), 502),
        ("a.test:443", None, 405),
    ] {
        let mut request = http::Request::builder().method("CONNECT").uri(uri).body(()).unwrap();
        if let Some(protocol) = protocol {
            request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
        }
        let (answer, _upload) = client.send_request(request, false).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), status, "{uri}");
        assert!(!h2_text(&mut answer.into_body()).await.is_empty());
    }
}

#[test]
fn the_preface_of_http_2_may_come_in_pieces() {
    let pillion = Pillion::in_front_of(Script::echo().address);
    let mut tcp = connect(pillion.http);
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        tcp.write_all(&[*byte]).unwrap();
    }
    let mut settings = [0u8; 4];
    tcp.read_exact(&mut settings).unwrap();
    assert_eq!(settings[3], 4, "SETTINGS");
    // A similar beginning is HTTP/1.
    let answer = exchange(pillion.http, "PRI /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.json()["method"], "PRI");
}

/// The library responds to violations of HTTP/2 itself, but they are still counted and logged.
#[test]
fn a_broken_http_2_connection_is_counted_and_logged() {
    use std::io::Write as _;
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = harness::connect(pillion.http);
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    // SETTINGS on a stream other than the connection (RFC 9113 6.5).
    tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 1]).unwrap();
    harness::eventually("it is counted", || {
        let count = pillion.metric("pillion_client_connections_refused_total{reason=\"http2\"}");
        (count > 0.0).then_some(())
    });
    harness::eventually("it is logged", || pillion.log().contains("connection refused").then_some(()));
}
