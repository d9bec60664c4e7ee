//! Real clients: curl, nghttp, h2load, openssl, tonic, tungstenite and the h2 crate, over every protocol
//! the front speaks, to apps over every protocol the back speaks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::convert::Infallible;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use harness::{
    Folder, Nginx, PATIENCE, Pillion, Script, absent_app, connect, eventually, exchange, free_address, ok,
    read_answer, run,
};
use http::uri::PathAndQuery;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

/// What curl printed, its own words on standard error included.
#[track_caller]
fn curl(args: &[&str]) -> String {
    let all: Vec<&str> = ["-sS", "--max-time", "20", "--stderr", "-"].iter().chain(args).copied().collect();
    run("curl", &all)
}

/// Whether curl gave up.
fn curl_fails(args: &[&str]) -> bool {
    let status =
        Command::new("curl").args(["-s", "--max-time", "20"]).args(args).stdout(Stdio::null()).status();
    !status.unwrap().success()
}

/// What curl got, as the echo app's JSON.
#[track_caller]
fn curl_json(args: &[&str]) -> serde_json::Value {
    let text = curl(args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn local(tail: &str) -> String {
    format!("[server]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n{tail}")
}

/// A certificate authority of this test alone.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's own CA");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes FILE.crt and FILE.key for these hosts; the first is the subject's common name too.
    fn issue(&self, folder: &Folder, file: &str, hosts: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, hosts.first().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        folder.write(&format!("{file}.crt"), certificate.pem());
        folder.write(&format!("{file}.key"), key.serialize_pem());
    }

    /// A folder with `ca.pem` and a certificate `tls` for 127.0.0.1 and pillion.test.
    fn folder(&self) -> Arc<Folder> {
        let folder = Arc::new(Folder::new());
        folder.write("ca.pem", &self.pem);
        self.issue(&folder, "tls", &["pillion.test", "127.0.0.1"]);
        folder
    }
}

const TLS: &str = "[server.tls]\nlisten = [\"127.0.0.1:0\"]\n\
                   certificates = [{ cert = \"tls.crt\", key = \"tls.key\" }]\n";

/// Pillion with TLS in front of `app`, and its folder with `ca.pem`.
fn with_tls(app: SocketAddr) -> (Pillion, String) {
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let pillion = Pillion::in_folder(folder, &local(&format!("{TLS}[upstream]\nurl = \"http://{app}\"\n")));
    (pillion, ca)
}

// HTTP/1.

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
    let pillion = Pillion::with(&format!(
        "[upstream]\nurl = \"http://{}\"\n[[routes]]\nmatch = \"* /no/**\"\ndeny = 403\n\
         [[routes]]\nmatch = \"* /small\"\nmax_body_size = \"1KiB\"\n",
        app.address
    ));
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
    // As if Pillion were a forward proxy: curl then writes the absolute form.
    let absolute = curl_json(&["-x", &pillion.url(""), "http://other.test/absolute?x"]);
    assert_eq!(absolute["target"], "/absolute?x");
    assert_eq!(absolute["fields"]["host"], "other.test");
    assert!(absolute["fields"]["proxy-connection"].is_null());
    // RFC 9112 3.2.1: an absolute form may come without a path.
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

// Fields.

#[test]
fn connection_fields_end_at_pillion_both_ways() {
    let app = Script::answering(|request| {
        let seen = request.to_json().to_string();
        format!(
            "HTTP/1.1 200 OK\r\nConnection: X-App-Only\r\nX-App-Only: 1\r\nKeep-Alive: timeout=5\r\n\
             X-End-To-End: 1\r\nContent-Length: {}\r\n\r\n{seen}",
            seen.len()
        )
        .into_bytes()
    });
    let pillion = Pillion::in_front_of(app.address);
    let answer = exchange(
        pillion.http,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Client-Only\r\nX-Client-Only: 1\r\nKeep-Alive: 300\r\n\
         Proxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\
         Proxy-Authorization: Basic YTpi\r\nX-End-To-End: 1\r\n\r\n",
    );
    let seen = answer.json()["fields"].clone();
    for name in [
        "connection",
        "x-client-only",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "proxy-authorization",
    ] {
        assert!(seen[name].is_null(), "{name} went to the app: {seen}");
    }
    assert_eq!(seen["x-end-to-end"], "1");
    for name in ["x-app-only", "keep-alive"] {
        assert_eq!(answer.field(name), None, "{name} went to the client");
    }
    assert_eq!(answer.field("x-end-to-end").as_deref(), Some("1"));
    assert_eq!(answer.field("connection").as_deref(), Some("close"));
}

const TOLD: [&str; 12] = [
    "-H",
    "X-Forwarded-For: 203.0.113.9",
    "-H",
    "X-Forwarded-Proto: https",
    "-H",
    "X-Forwarded-Host: shop.example",
    "-H",
    "Forwarded: for=203.0.113.9;proto=https",
    "-H",
    "X-Request-Id: told-id",
    "-H",
    "Via: 1.1 edge",
];

#[test]
fn what_an_untrusted_client_says_of_itself_is_replaced() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/");
    let seen = curl_json(&[&TOLD[..], &["-H", "Host: a.test", &url]].concat())["fields"].clone();
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(seen["x-forwarded-host"], "a.test");
    assert_eq!(seen["forwarded"], "for=127.0.0.1;host=a.test;proto=http");
    assert_eq!(seen["via"], "1.1 edge, 1.1 pillion");
    assert_ne!(seen["x-request-id"], "told-id");
    assert_eq!(seen["x-request-id"].as_str().unwrap().len(), 32);
    pillion.access("the socket's address", |line| line["client"] == "127.0.0.1");
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_extended() {
    let app = Script::echo();
    let pillion = Pillion::with(&local(&format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    )));
    let url = pillion.url("/");
    let seen = curl_json(&[&TOLD[..], &["-H", "Host: a.test", &url]].concat())["fields"].clone();
    assert_eq!(seen["x-forwarded-for"], "203.0.113.9, 127.0.0.1");
    assert_eq!(seen["x-forwarded-proto"], "https");
    assert_eq!(seen["x-forwarded-host"], "shop.example");
    let forwarded = seen["forwarded"].as_str().unwrap();
    assert!(
        forwarded.starts_with("for=203.0.113.9;proto=https, for=127.0.0.1;host=a.test;proto="),
        "{forwarded}"
    );
    assert_eq!(seen["x-request-id"], "told-id");
    assert!(
        curl(&["-i", "-H", "X-Request-Id: told-id", &url]).contains("x-request-id: told-id"),
        "and the answer says it"
    );
    let nonsense = curl_json(&["-H", "X-Request-Id: a b", &url]);
    assert_ne!(nonsense["fields"]["x-request-id"], "a b", "an id that is none is not taken");
    pillion.access("the client behind the proxy", |line| line["client"] == "203.0.113.9");
    // A proxy that writes only the standard field: the older ones say the same.
    let told = "Forwarded: for=_hidden, for=\"[2001:db8::1]:47\";host=\"pub.test:8443\";proto=https";
    let seen = curl_json(&["-H", told, "-H", "Host: inner.test", &url])["fields"].clone();
    assert_eq!(seen["x-forwarded-for"], "unknown, 2001:db8::1, 127.0.0.1");
    assert_eq!(seen["x-forwarded-host"], "pub.test:8443");
    assert_eq!(seen["x-forwarded-proto"], "https");
}

#[test]
fn a_private_peer_that_is_not_believed_is_warned_of_once() {
    let pillion = Pillion::in_front_of(Script::echo().address);
    for _ in 0..3 {
        curl(&["-H", "X-Forwarded-For: 203.0.113.9", &pillion.url("/")]);
    }
    let warned = || pillion.log().matches("trusted_proxies").count();
    harness::eventually("the warning", || (warned() > 0).then_some(()));
    assert_eq!(warned(), 1, "{}", pillion.log());
}

// HTTP/2.

#[test]
fn http_2_with_prior_knowledge_is_spoken_beside_http_1() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let url = pillion.url("/h2c?x=1");
    let version = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
    assert_eq!(curl(&[&version[..], &["--http2-prior-knowledge", &url]].concat()), "2 200");
    assert_eq!(curl(&[&version[..], &["--http1.1", &url]].concat()), "1.1 200");
    // Without prior knowledge curl offers an upgrade, which Pillion does not take.
    assert_eq!(curl(&[&version[..], &["--http2", &url]].concat()), "1.1 200");
    let seen = curl_json(&["--http2-prior-knowledge", "-d", "hello", &url]);
    assert_eq!(
        (&seen["method"], &seen["target"], &seen["body"]),
        (&"POST".into(), &"/h2c?x=1".into(), &"hello".into())
    );
    assert_eq!(seen["fields"]["via"], "2 pillion");
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
    let app = Script::new(move |mut tcp| {
        let mut seen = Vec::new();
        let mut some = [0u8; 1024];
        while !seen.ends_with(b"x-sum: 42\r\n\r\n") && !seen.ends_with(b"0\r\n\r\n") {
            match tcp.read(&mut some) {
                Ok(count) if count > 0 => seen.extend_from_slice(&some[..count]),
                _ => break,
            }
        }
        tcp.write_all(&ok("thanks")).unwrap();
        sender.send(String::from_utf8_lossy(&seen).into_owned()).unwrap();
    });
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

#[test]
fn trailers_of_a_chunked_request_reach_the_app() {
    let (sender, bodies) = std::sync::mpsc::channel();
    let app = Script::new(move |mut tcp| {
        let mut seen = Vec::new();
        let mut some = [0u8; 1024];
        while !seen.ends_with(b"x-sum: 42\r\n\r\n") && !seen.ends_with(b"0\r\n\r\n") {
            match tcp.read(&mut some) {
                Ok(count) if count > 0 => seen.extend_from_slice(&some[..count]),
                _ => break,
            }
        }
        tcp.write_all(&ok("thanks")).unwrap();
        sender.send(String::from_utf8_lossy(&seen).into_owned()).unwrap();
    });
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

async fn h2_client(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

async fn h2_text(body: &mut h2::RecvStream) -> String {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        content.extend_from_slice(&data);
    }
    String::from_utf8(content).unwrap()
}

// TLS.

#[test]
fn tls_1_2_and_1_3_offer_both_http_versions_by_alpn() {
    let app = Script::echo();
    let (pillion, ca) = with_tls(app.address);
    let url = format!("https://{}/", pillion.https.unwrap());
    let version =
        ["-o", "/dev/null", "-w", "%{http_version} %{http_code} %{ssl_verify_result}", "--cacert", &ca];
    for tls in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"][..]] {
        assert_eq!(curl(&[&version[..], tls, &[&url]].concat()), "2 200 0", "{tls:?}: HTTP/2 by default");
        assert_eq!(curl(&[&version[..], tls, &["--http1.1", &url]].concat()), "1.1 200 0", "{tls:?}");
        assert_eq!(
            curl(&[&version[..], tls, &["--no-alpn", &url]].concat()),
            "1.1 200 0",
            "{tls:?}: without ALPN"
        );
    }
    assert!(
        curl_fails(&["--cacert", &ca, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", &url]),
        "no TLS 1.1"
    );
    let seen = curl_json(&["--cacert", &ca, &url])["fields"].clone();
    assert_eq!(seen["x-forwarded-proto"], "https");
    assert!(seen["forwarded"].as_str().unwrap().ends_with(";proto=https"), "{seen}");
    let seen = curl_json(&[&pillion.url("/")])["fields"].clone();
    assert_eq!(seen["x-forwarded-proto"], "http", "the cleartext listener beside it");
}

/// What `openssl s_client` printed over one request.
fn s_client(args: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let _ = child.stdin.take().unwrap().write_all(request);
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn tls_sessions_are_resumed() {
    let app = Script::echo();
    let (pillion, ca) = with_tls(app.address);
    let address = pillion.https.unwrap().to_string();
    for tls in ["-tls1_2", "-tls1_3"] {
        let file = pillion.folder.path(&format!("session{tls}"));
        let session = file.to_str().unwrap();
        let first = s_client(&["-connect", &address, "-CAfile", &ca, tls, "-sess_out", session]);
        assert!(first.contains("New, TLSv1.") && first.contains("HTTP/1.1 200"), "{tls}: {first}");
        let again = s_client(&["-connect", &address, "-CAfile", &ca, tls, "-sess_in", session]);
        assert!(again.contains("Reused, TLSv1.") && again.contains("HTTP/1.1 200"), "{tls}: {again}");
    }
}

#[test]
fn certificates_are_chosen_by_name_and_the_first_is_the_default() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.issue(&folder, "shop", &["shop.test", "www.shop.test"]);
    authority.issue(&folder, "wild", &["*.wild.test"]);
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "[server.tls]\nlisten = [\"127.0.0.1:0\"]\ncertificates = [\n{{ cert = \"tls.crt\", key = \"tls.key\" }},\n\
             {{ cert = \"shop.crt\", key = \"shop.key\" }},\n{{ cert = \"wild.crt\", key = \"wild.key\" }}]\n\
             [upstream]\nurl = \"http://{}\"\n",
            Script::echo().address
        )),
    );
    let address = pillion.https.unwrap().to_string();
    for (name, subject) in [
        ("shop.test", "shop.test"),
        ("www.shop.test", "shop.test"),
        ("WWW.Shop.Test", "shop.test"),
        ("a.wild.test", "*.wild.test"),
        ("a.b.wild.test", "pillion.test"),
        ("wild.test", "pillion.test"),
        ("unknown.test", "pillion.test"),
        ("", "pillion.test"),
    ] {
        let asked = if name.is_empty() { vec!["-noservername"] } else { vec!["-servername", name] };
        let said = s_client(&[&["-connect", &address][..], &asked].concat());
        assert!(said.contains(&format!("subject=CN = {subject}")), "{name:?}: {said}");
    }
}

#[test]
fn client_certificates_are_required_where_an_authority_is_named() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.issue(&folder, "client", &["client.test"]);
    Authority::new().issue(&folder, "stranger", &["client.test"]);
    let at = |name: &str| folder.path(name).display().to_string();
    let files: [String; 5] = ["ca.pem", "client.crt", "client.key", "stranger.crt", "stranger.key"].map(at);
    let [ca, cert, key, strange_cert, strange_key] = files.each_ref().map(String::as_str);
    let config =
        format!("{TLS}client_ca = \"ca.pem\"\n[upstream]\nurl = \"http://{}\"\n", Script::echo().address);
    let pillion = Pillion::in_folder(folder.clone(), &local(&config));
    let url = format!("https://{}/", pillion.https.unwrap());
    for tls in [&["--tls-max", "1.2"][..], &["--tlsv1.3"][..]] {
        let said = curl(
            &[
                tls,
                &[
                    "--cacert",
                    ca,
                    "--cert",
                    cert,
                    "--key",
                    key,
                    "-w",
                    "%{http_code}",
                    "-o",
                    "/dev/null",
                    &url,
                ],
            ]
            .concat(),
        );
        assert_eq!(said, "200", "{tls:?}");
        assert!(curl_fails(&[tls, &["--cacert", ca, &url]].concat()), "{tls:?}: without a certificate");
        let stranger = ["--cacert", ca, "--cert", strange_cert, "--key", strange_key, &url];
        assert!(curl_fails(&[tls, &stranger].concat()), "{tls:?}: of another authority");
    }
}

#[test]
fn certificates_are_read_again_at_reload_without_losing_connections() {
    let (pillion, _) = with_tls(Script::echo().address);
    let address = pillion.https.unwrap().to_string();
    assert!(s_client(&["-connect", &address]).contains("subject=CN = pillion.test"));
    Authority::new().issue(&pillion.folder, "tls", &["renewed.test", "127.0.0.1"]);
    let config = std::fs::read_to_string(pillion.folder.path("pillion.toml")).unwrap();
    pillion.reload(&config);
    assert!(s_client(&["-connect", &address]).contains("subject=CN = renewed.test"), "{}", pillion.log());
    let named = |line: &str| line.contains("configuration reloaded") && line.contains("tls.crt");
    assert!(pillion.log().lines().any(named), "the log names what changed: {}", pillion.log());
}

#[test]
fn cleartext_is_redirected_to_https() {
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let tls = TLS.replace("127.0.0.1:0", &free_address().to_string());
    let app = Script::echo();
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "redirect_https = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n{tls}[upstream]\nurl = \"http://{}\"\n",
            app.address
        )),
    );
    let https = pillion.https.unwrap();
    let url = pillion.url("/a?b=1");
    let said = curl(&["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url]);
    assert_eq!(said, format!("308 https://{https}/a?b=1"));
    let followed = curl_json(&["-L", "--cacert", &ca, "-d", "kept", &url]);
    assert_eq!((&followed["method"], &followed["body"]), (&"POST".into(), &"kept".into()));
    let options = exchange(pillion.http, "OPTIONS * HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\r\n");
    let there = options.field("location").unwrap();
    assert!(options.status == 308 && there.starts_with("https://x.test") && there.ends_with('/'), "{there}");
    assert_eq!(exchange(pillion.http, "GET /a HTTP/1.0\r\n\r\n").status, 400, "nowhere to be sent to");
    let behind = curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", "X-Forwarded-Proto: https", &url]);
    assert_eq!(behind, "200", "an edge that has ended TLS already is believed");
}

// PROXY protocol.

fn proxied(trusted: &str, app: SocketAddr) -> Pillion {
    Pillion::with(&local(&format!(
        "proxy_protocol = true\ntrusted_proxies = [\"{trusted}\"]\n[upstream]\nurl = \"http://{app}\"\n"
    )))
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn binary_header(version_command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([version_command, family]);
    header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    header.extend(addresses);
    header
}

#[test]
fn the_proxy_header_names_the_client() {
    let app = Script::echo();
    let pillion = proxied("127.0.0.0/8", app.address);
    let seen = curl_json(&["--haproxy-protocol", &pillion.url("/")]);
    assert_eq!(seen["fields"]["x-forwarded-for"], "127.0.0.1");
    let with_extension = [&[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80][..], &[4, 0, 3, 1, 2, 3]].concat();
    let six =
        [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &[0; 15], &[1, 1, 2, 0, 80]].concat();
    for (header, client) in [
        (b"PROXY TCP4 203.0.113.7 127.0.0.1 1111 80\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::9 ::1 1111 80\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n".to_vec(), "127.0.0.1"),
        (binary_header(0x21, 0x11, &[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80]), "203.0.113.7"),
        (binary_header(0x21, 0x11, &with_extension), "203.0.113.7"),
        (binary_header(0x21, 0x21, &six), "2001:db8::9"),
        (binary_header(0x20, 0, &[]), "127.0.0.1"),
    ] {
        let answer = harness::Answer::parse(&harness::raw(pillion.http, [&header, GET].concat()));
        let seen = answer.json();
        assert_eq!(seen["fields"]["x-forwarded-for"], client, "{:?}", String::from_utf8_lossy(&header));
    }
    // Byte by byte, as a slow network may deliver it.
    let mut tcp = connect(pillion.http);
    for byte in [b"PROXY TCP4 203.0.113.8 127.0.0.1 1 2\r\n", GET].concat() {
        tcp.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_answer(&mut tcp).json()["fields"]["x-forwarded-for"], "203.0.113.8");
}

#[test]
fn a_trusted_peer_without_a_good_proxy_header_is_not_served() {
    let app = Script::echo();
    let pillion = proxied("127.0.0.0/8", app.address);
    for header in [
        &b""[..],
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1111\r\n",
        b"PROXY TCP4 2001:db8::9 ::1 1111 80\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 1111 80\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 99999 80\r\n",
        &[b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat(),
        &binary_header(0x31, 0x11, &[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80]),
        &binary_header(0x2f, 0x11, &[203, 0, 113, 7, 127, 0, 0, 1, 1, 2, 0, 80]),
        &binary_header(0x21, 0x11, &[203, 0, 113, 7]),
    ] {
        let mut tcp = connect(pillion.http);
        let _ = tcp.write_all(&[header, GET].concat());
        let mut answer = Vec::new();
        // Closed or reset, but never an answer.
        let _ = tcp.read_to_end(&mut answer);
        assert!(
            answer.is_empty(),
            "{:?}: {:?}",
            String::from_utf8_lossy(header),
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(app.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn an_untrusted_peer_cannot_name_its_address() {
    let pillion = proxied("10.0.0.0/8", Script::echo().address);
    let seen = curl_json(&[&pillion.url("/")]);
    assert_eq!(seen["fields"]["x-forwarded-for"], "127.0.0.1", "it speaks plain HTTP");
    let answer =
        exchange(pillion.http, "PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(matches!(answer.status, 400 | 505), "its PROXY header is no HTTP: {}", answer.head);
}

#[test]
fn the_proxy_header_stands_before_tls() {
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n{TLS}[upstream]\nurl = \"http://{}\"\n",
            Script::echo().address
        )),
    );
    let url = format!("https://{}/", pillion.https.unwrap());
    let seen = curl_json(&["--haproxy-protocol", "--cacert", &ca, &url]);
    assert_eq!(
        (&seen["fields"]["x-forwarded-proto"], &seen["fields"]["via"]),
        (&"https".into(), &"2 pillion".into())
    );
    assert!(curl_fails(&["--cacert", &ca, &url]));
}

// What apps speak.

#[test]
fn apps_over_https_are_verified() {
    let authority = Authority::new();
    let folder = authority.folder();
    folder.write("other.pem", Authority::new().pem);
    let at = |name: &str| folder.path(name).display().to_string();
    let app = Nginx::serving(&format!(
        "server {{ listen LISTEN ssl http2; ssl_certificate {}; ssl_certificate_key {};\n\
         location / {{ return 200 \"$server_protocol $http_host $ssl_server_name\"; }} }}",
        at("tls.crt"),
        at("tls.key")
    ));
    let pillion = |tls: &str| {
        Pillion::with(&format!("[upstream]\nurl = \"https://{}\"\n[upstream.tls]\n{tls}\n", app.address))
    };
    let good = pillion(&format!("ca = \"{}\"", at("ca.pem")));
    let said = curl(&["-H", "Host: shop.test", &good.url("/")]);
    assert!(said.starts_with("HTTP/2.0 shop.test"), "HTTP/2 by ALPN, the client's Host: {said}");
    let named = pillion(&format!("ca = \"{}\"\nserver_name = \"pillion.test\"", at("ca.pem")));
    assert!(curl(&[&named.url("/")]).ends_with(" pillion.test"), "SNI says the name that is verified");
    for wrong in [
        format!("ca = \"{}\"", at("other.pem")),
        format!("ca = \"{}\"\nserver_name = \"else.test\"", at("ca.pem")),
    ] {
        let pillion = pillion(&wrong);
        let answer = pillion.get("/");
        assert_eq!((answer.status, answer.json()["status"].as_u64()), (502, Some(502)), "{wrong}");
        pillion.access("why", |line| line["error"].as_str().is_some_and(|why| why.contains("certificate")));
    }
}

#[test]
fn apps_that_ask_for_a_certificate_get_it() {
    let authority = Authority::new();
    let folder = authority.folder();
    authority.issue(&folder, "client", &["sidecar.test"]);
    let at = |name: &str| folder.path(name).display().to_string();
    let (ca, cert, key) = (at("ca.pem"), at("client.crt"), at("client.key"));
    let app = Nginx::serving(&format!(
        "server {{ listen LISTEN ssl; ssl_certificate {}; ssl_certificate_key {};\n\
         ssl_client_certificate {ca}; ssl_verify_client on;\n\
         location / {{ return 200 \"$server_protocol $ssl_client_s_dn\"; }} }}",
        at("tls.crt"),
        at("tls.key")
    ));
    let config = format!("[upstream]\nurl = \"https://{}\"\n[upstream.tls]\nca = \"{ca}\"\n", app.address);
    let with = Pillion::with(&format!("{config}cert = \"{cert}\"\nkey = \"{key}\"\n"));
    assert_eq!(curl(&[&with.url("/")]), "HTTP/1.1 CN=sidecar.test");
    assert_eq!(Pillion::with(&config).get("/").status, 400, "nginx's answer to those without");
}

#[test]
fn apps_over_h2c_and_unix_sockets() {
    let app = Nginx::serving(
        "server { listen LISTEN http2; location / { return 200 \"$server_protocol $http_host $request_uri\"; } }",
    );
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{}\"\n", app.address));
    for version in ["--http1.1", "--http1.0", "--http2-prior-knowledge"] {
        assert_eq!(
            curl(&[version, "-H", "Host: a.test", &pillion.url("/x?y")]),
            "HTTP/2.0 a.test /x?y",
            "{version}"
        );
    }
    let said = run("h2load", &["-n", "1000", "-c", "4", "-m", "50", &pillion.url("/")]);
    assert!(said.contains("1000 succeeded, 0 failed"), "{said}");

    let folder = Folder::new();
    let socket = folder.path("app.sock").display().to_string();
    let _app = Nginx::serving(&format!(
        "server {{ listen LISTEN; listen unix:{socket}; location / {{ return 200 \"$server_protocol $http_host $request_uri\"; }} }}"
    ));
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"unix:{socket}\"\n"));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        assert_eq!(
            curl(&[version, "-H", "Host: a.test", &pillion.url("/x?y")]),
            "HTTP/1.1 a.test /x?y",
            "{version}"
        );
    }
}

#[test]
fn uploads_reach_an_app_over_h2c() {
    let back = Nginx::serving(&format!(
        "client_max_body_size 0; server {{ listen LISTEN http2; location / {{ proxy_pass http://{}; }} }}",
        Script::answering(|request| ok(&request.body.len().to_string())).address
    ));
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{}\"\n", back.address));
    let file = pillion.folder.write("upload", vec![b'u'; 5_000_000]);
    let file = file.to_str().unwrap();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        assert_eq!(curl(&[version, "-T", file, &pillion.url("/")]), "5000000", "{version}");
    }
}

// gRPC.

#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    text: String,
}

fn note(text: impl Into<String>) -> Note {
    Note { text: text.into() }
}

/// Answers notes: `Say` one with one, `Chat` many with as many.
#[derive(Clone)]
struct Notes;

impl tonic::server::NamedService for Notes {
    const NAME: &'static str = "test.Notes";
}

impl tower::Service<http::Request<tonic::body::Body>> for Notes {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Note, Note>::default());
            Ok(match request.uri().path() {
                "/test.Notes/Say" => grpc.unary(tower::service_fn(say), request).await,
                _ => grpc.streaming(tower::service_fn(chat), request).await,
            })
        })
    }
}

async fn say(request: tonic::Request<Note>) -> Result<tonic::Response<Note>, Status> {
    match request.get_ref().text.as_str() {
        "refuse" => Err(Status::failed_precondition("not now")),
        text => Ok(tonic::Response::new(note(format!("heard {text}")))),
    }
}

async fn chat(
    request: tonic::Request<Streaming<Note>>,
) -> Result<tonic::Response<impl futures_util::Stream<Item = Result<Note, Status>> + Send + 'static>, Status>
{
    Ok(tonic::Response::new(request.into_inner().map(|heard| match heard?.text.as_str() {
        "break off" => Err(Status::aborted("broken off")),
        text => Ok(note(format!("heard {text}"))),
    })))
}

async fn grpc_app() -> SocketAddr {
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(Server::builder().add_service(Notes).serve_with_incoming(incoming));
    address
}

/// A unary call, a refused one, and a conversation in which each note waits for the answer to the last.
async fn converse(endpoint: tonic::transport::Channel) {
    let mut grpc = tonic::client::Grpc::new(endpoint);
    let codec = ProstCodec::<Note, Note>::default;
    let say = || PathAndQuery::from_static("/test.Notes/Say");
    grpc.ready().await.unwrap();
    let answer = grpc.unary(tonic::Request::new(note("one")), say(), codec()).await.unwrap();
    assert_eq!(answer.into_inner().text, "heard one");
    grpc.ready().await.unwrap();
    let refused: Result<tonic::Response<Note>, Status> =
        grpc.unary(tonic::Request::new(note("refuse")), say(), codec()).await;
    let refused = refused.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "not now"));

    for end in ["", "break off"] {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Note>(1);
        let outgoing = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let note = receiver.recv().await?;
            Some((note, receiver))
        });
        grpc.ready().await.unwrap();
        let chat = PathAndQuery::from_static("/test.Notes/Chat");
        let answer = grpc.streaming(tonic::Request::new(outgoing), chat, codec()).await.unwrap();
        let mut incoming = answer.into_inner();
        for at in 0..20 {
            sender.send(note(at.to_string())).await.unwrap();
            assert_eq!(incoming.message().await.unwrap().unwrap().text, format!("heard {at}"));
        }
        if end.is_empty() {
            drop(sender);
            assert_eq!(incoming.message().await.unwrap(), None, "grpc-status 0");
        } else {
            sender.send(note(end)).await.unwrap();
            assert_eq!(incoming.message().await.unwrap_err().code(), Code::Aborted);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_h2c_unary_and_both_ways() {
    let app = grpc_app().await;
    // Streams outlive the silences of ordinary bodies, and take none of their connections.
    let pillion = Pillion::with(&local(&format!(
        "body_timeout = \"300ms\"\n[upstream]\nurl = \"h2c://{app}\"\nmax_connections = 1\nbody_timeout = \"300ms\"\nresponse_timeout = \"300ms\"\n"
    )));
    let endpoint = Endpoint::from_shared(pillion.url("")).unwrap();
    tokio::time::timeout(PATIENCE, async {
        converse(endpoint.connect().await.unwrap()).await;
    })
    .await
    .unwrap();
    pillion
        .access("a conversation", |line| line["path"] == "/test.Notes/Chat" && line["protocol"] == "HTTP/2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_may_be_silent_for_longer_than_an_ordinary_one() {
    let app = grpc_app().await;
    let pillion = Pillion::with(&local(&format!(
        "body_timeout = \"200ms\"\n[upstream]\nurl = \"h2c://{app}\"\nbody_timeout = \"200ms\"\nresponse_timeout = \"200ms\"\n"
    )));
    let mut grpc =
        tonic::client::Grpc::new(Endpoint::from_shared(pillion.url("")).unwrap().connect().await.unwrap());
    grpc.ready().await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Note>(1);
    let outgoing = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let note = receiver.recv().await?;
        Some((note, receiver))
    });
    let chat = PathAndQuery::from_static("/test.Notes/Chat");
    let answer = grpc
        .streaming(tonic::Request::new(outgoing), chat, ProstCodec::<Note, Note>::default())
        .await
        .unwrap();
    let mut incoming = answer.into_inner();
    for text in ["before", "after"] {
        sender.send(note(text)).await.unwrap();
        assert_eq!(incoming.message().await.unwrap().unwrap().text, format!("heard {text}"));
        // The silence is the scenario.
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_grpc_messages_pass_both_ways() {
    let app = grpc_app().await;
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\n"));
    let mut grpc =
        tonic::client::Grpc::new(Endpoint::from_shared(pillion.url("")).unwrap().connect().await.unwrap());
    let text = "long ".repeat(700_000);
    for _ in 0..3 {
        grpc.ready().await.unwrap();
        let say = PathAndQuery::from_static("/test.Notes/Say");
        let call = grpc.unary(tonic::Request::new(note(&text)), say, ProstCodec::<Note, Note>::default());
        let answer: tonic::Response<Note> = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        assert_eq!(answer.into_inner().text.len(), text.len() + "heard ".len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_tls() {
    let app = grpc_app().await;
    let authority = Authority::new();
    let folder = authority.folder();
    let pillion =
        Pillion::in_folder(folder.clone(), &local(&format!("{TLS}[upstream]\nurl = \"h2c://{app}\"\n")));
    let address = pillion.https.unwrap();
    let connector = tls_connector(&authority, b"h2");
    let endpoint =
        Endpoint::from_static("http://pillion.test").origin("https://pillion.test".parse().unwrap());
    let channel = endpoint.connect_with_connector(tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            let stream = connector.connect("pillion.test".try_into().unwrap(), tcp).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    }));
    tokio::time::timeout(PATIENCE, async {
        converse(channel.await.unwrap()).await;
    })
    .await
    .unwrap();
}

fn tls_connector(authority: &Authority, protocol: &[u8]) -> tokio_rustls::TlsConnector {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_to_an_app_that_is_gone_says_unavailable() {
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{}\"\n", absent_app()));
    let mut grpc =
        tonic::client::Grpc::new(Endpoint::from_shared(pillion.url("")).unwrap().connect().await.unwrap());
    grpc.ready().await.unwrap();
    let say = PathAndQuery::from_static("/test.Notes/Say");
    let answer: Result<tonic::Response<Note>, Status> =
        grpc.unary(tonic::Request::new(note("hello?")), say, ProstCodec::<Note, Note>::default()).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}

// WebSocket.

/// Echoes every message of every connection.
async fn websocket_app() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let Ok(socket) = tokio_tungstenite::accept_async(tcp).await else { return };
                let (mut sink, mut stream) = socket.split();
                while let Some(Ok(message)) = stream.next().await {
                    // A Close is answered by the library, at the next read.
                    if !message.is_close() && sink.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

type WebSocket<T> = tokio_tungstenite::WebSocketStream<T>;

async fn echoed<T>(socket: &mut WebSocket<T>, text: &str)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    socket.send(Message::text(text)).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(heard.into_text().unwrap().as_str(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_echo_survive_a_reload_and_end_when_draining_starts() {
    let app = websocket_app().await;
    let config = local(&format!(
        "drain_timeout = \"30s\"\n[upstream]\nurl = \"http://{app}\"\nmax_connections = 1\nbody_timeout = \"200ms\"\n"
    ));
    let pillion = Pillion::with(&config);
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut socket, answer) = tokio_tungstenite::client_async("ws://a.test/chat", tcp).await.unwrap();
    assert_eq!(answer.status(), 101);
    echoed(&mut socket, "hello").await;
    echoed(&mut socket, &"long ".repeat(100_000)).await;
    // The upgraded connection takes none of the ordinary ones: a second finds room.
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut second, _) = tokio_tungstenite::client_async("ws://a.test/chat", tcp).await.unwrap();
    echoed(&mut second, "me too").await;
    second.close(None).await.unwrap();

    tokio::task::block_in_place(|| pillion.reload(&config.replace("200ms", "250ms")));
    echoed(&mut socket, "still here").await;

    let since = harness::now();
    pillion.process.signal("TERM");
    let end = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(!matches!(end, Some(Ok(Message::Text(_)))), "it ends");
    tokio::task::block_in_place(|| {
        let mut pillion = pillion;
        assert!(pillion.process.wait().success());
    });
    assert!(since.elapsed().as_secs() < 15, "nobody waited for drain_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_over_tls() {
    let app = websocket_app().await;
    let authority = Authority::new();
    let pillion =
        Pillion::in_folder(authority.folder(), &local(&format!("{TLS}[upstream]\nurl = \"http://{app}\"\n")));
    let tcp = TcpStream::connect(pillion.https.unwrap()).await.unwrap();
    let connector = tls_connector(&authority, b"http/1.1");
    let stream = connector.connect("pillion.test".try_into().unwrap(), tcp).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("wss://pillion.test/chat", stream).await.unwrap();
    echoed(&mut socket, "hello").await;
    socket.close(None).await.unwrap();
    let farewell = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert!(matches!(farewell, Some(Ok(Message::Close(_)))), "{farewell:?}");
}

#[test]
fn an_app_that_refuses_an_upgrade_is_heard() {
    let app = Script::answering(|_| b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_vec());
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    for _ in 0..2 {
        tcp.write_all(
            b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
        let answer = read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text().as_str()), (403, "no"), "and the connection goes on");
    }
}

/// A masked text frame whose mask is zero, so that it reads as what it says.
fn text_frame(text: &str) -> Bytes {
    let length = 0x80 | u8::try_from(text.len()).unwrap();
    [&[0x81, length, 0, 0, 0, 0][..], text.as_bytes()].concat().into()
}

async fn h2_bytes(body: &mut h2::RecvStream, count: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let data = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        seen.extend_from_slice(&data);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_over_http_2() {
    let app = websocket_app().await;
    let config = local(&format!("drain_timeout = \"30s\"\n[upstream]\nurl = \"http://{app}\"\n"));
    let pillion = Pillion::with(&config);
    let mut client = h2_client(pillion.http).await;
    // The settings of the server come with its first frame; a plain request makes sure of it.
    let (answer, _) =
        client.send_request(http::Request::get("http://a.test/").body(()).unwrap(), true).unwrap();
    answer.await.unwrap();
    assert!(client.is_extended_connect_protocol_enabled());
    let open = |client: &mut h2::client::SendRequest<Bytes>| {
        let mut request = http::Request::builder()
            .method("CONNECT")
            .uri("http://a.test/chat")
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        client.send_request(request, false).unwrap()
    };
    let (answer, mut upload) = open(&mut client);
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    let mut download = answer.into_body();
    for text in ["hello", "again"] {
        upload.send_data(text_frame(text), false).unwrap();
        let heard = h2_bytes(&mut download, 2 + text.len()).await;
        assert_eq!(heard, [&[0x81, 5][..], text.as_bytes()].concat());
    }

    tokio::task::block_in_place(|| pillion.reload(&config.replace("30s", "29s")));
    upload.send_data(text_frame("still"), false).unwrap();
    assert_eq!(h2_bytes(&mut download, 7).await, b"\x81\x05still");

    // A second one ends when its client ends it.
    let (answer, mut second) = open(&mut client);
    let mut second_download = answer.await.unwrap().into_body();
    second.send_data(text_frame("bye"), false).unwrap();
    assert_eq!(h2_bytes(&mut second_download, 5).await, b"\x81\x03bye");
    second.send_data(Bytes::new(), true).unwrap();
    let end = tokio::time::timeout(PATIENCE, second_download.data()).await.unwrap();
    assert!(!matches!(end, Some(Ok(ref data)) if !data.is_empty()), "{end:?}");

    let since = harness::now();
    pillion.process.signal("TERM");
    let end = tokio::time::timeout(PATIENCE, download.data()).await.unwrap();
    assert!(!matches!(end, Some(Ok(ref data)) if !data.is_empty()), "{end:?}");
    tokio::task::block_in_place(|| {
        let mut pillion = pillion;
        assert!(pillion.process.wait().success());
    });
    assert!(since.elapsed().as_secs() < 15, "nobody waited for drain_timeout");
}

// Odd turns.

#[test]
fn apps_of_every_framing_are_understood() {
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
        for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
            assert_eq!(curl(&[version, "-f", &pillion.url("/")]), content, "{name} {version}");
        }
    }
}

#[test]
fn answers_ended_by_closing_are_closed_properly_under_tls() {
    let app = Script::answering(|_| {
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec()
    });
    let (pillion, ca) = with_tls(app.address);
    let url = format!("https://{}/", pillion.https.unwrap());
    // Without close_notify OpenSSL reports a truncation.
    assert_eq!(curl(&["--http1.0", "--no-alpn", "--cacert", &ca, &url]), "hello");
}

#[test]
fn http_1_0_is_negotiated_over_tls_too() {
    let (pillion, ca) = with_tls(Script::echo().address);
    let url = format!("https://{}/", pillion.https.unwrap());
    // curl then offers "http/1.0" alone.
    assert_eq!(curl(&["--http1.0", "--cacert", &ca, "-o", "/dev/null", "-w", "%{http_code}", &url]), "200");
}

#[test]
fn empty_posts_say_that_they_are_empty() {
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let seen = curl_json(&[version, "-X", "POST", "-d", "", &pillion.url("/")]);
        assert_eq!(seen["fields"]["content-length"], "0", "{version}");
        let seen = curl_json(&[version, &pillion.url("/")]);
        assert!(seen["fields"]["content-length"].is_null(), "{version}: a GET says nothing");
    }
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
    // RFC 9110 8.6: apps answer 411 or wait where neither length is given.
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
    // The first of them was more than twice the limit, which the HTTP/2 library refuses by itself.
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

/// An app's own answers that are too large are no refusal of any client's head.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_over_http_2_says_too_much_of_is_not_counted_against_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let answer = http::Response::builder().header("x-long", "x".repeat(9000));
                    let _ = respond.send_response(answer.body(()).unwrap(), true);
                }
            });
        }
    });
    let pillion = Pillion::with(&local(&format!(
        "max_header_size = \"4KiB\"\n[upstream]\nurl = \"h2c://{address}\"\nretries = 0\n"
    )));
    let mut client = h2_client(pillion.http).await;
    for _ in 0..3 {
        let request = http::Request::get("http://a.test/").body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 502);
    }
    let refused = "pillion_http_requests_total{method=\"GET\",route=\"refused\",status=\"431\"}";
    assert_eq!(tokio::task::block_in_place(|| pillion.metric(refused)), 0.0);
}

#[tokio::test]
async fn an_early_refusal_of_an_upload_is_heard_over_http_2() {
    let app = Script::new(|mut tcp| {
        let mut head = [0u8; 100];
        let _ = tcp.read(&mut head);
        let _ = tcp.write_all(
            b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno\n",
        );
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut client = h2_client(pillion.http).await;
    let (answer, mut upload) =
        client.send_request(http::Request::post("http://a.test/").body(()).unwrap(), false).unwrap();
    // More than any window lets through: the client is in the middle of it.
    upload.send_data(Bytes::from(vec![b'u'; 5_000_000]), true).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(h2_text(&mut answer.into_body()).await, "no\n");
    // The connection goes on.
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

#[test]
fn whoever_speaks_first_in_an_upgrade_is_heard() {
    // The app's first words come with its 101, the client's with its request.
    let app = Script::new(|mut tcp| {
        let Some(request) = harness::Request::read(&mut tcp) else { return };
        assert_eq!((request.field("upgrade"), request.field("connection")), (Some("rot13"), Some("upgrade")));
        tcp.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: rot13\r\n\r\nuryyb",
        )
        .unwrap();
        let mut heard = [0u8; 4];
        tcp.read_exact(&mut heard).unwrap();
        tcp.write_all(&heard).unwrap();
        // The end of one direction is passed on, and the other goes on.
        assert_eq!(tcp.read(&mut heard).unwrap(), 0);
        tcp.write_all(b"olr").unwrap();
    });
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: rot13\r\n\r\nabcd").unwrap();
    tcp.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    tcp.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 101 ") && all.contains("upgrade: rot13"), "{all}");
    assert!(all.ends_with("\r\n\r\nuryybabcdolr"), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_to_an_app_over_https_that_would_rather_speak_http_2() {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let folder = Authority::new().folder();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(folder.path("tls.crt")).unwrap()],
                PrivateKeyDer::from_pem_file(folder.path("tls.key")).unwrap(),
            )
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(tcp).await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let ca = folder.path("ca.pem").display().to_string();
    let pillion =
        Pillion::with(&format!("[upstream]\nurl = \"https://{app}\"\n[upstream.tls]\nca = \"{ca}\"\n"));
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a.test/chat", tcp).await.unwrap();
    echoed(&mut socket, "hello").await;
}

#[test]
fn a_reload_that_asks_for_client_certificates_is_not_walked_around_by_old_sessions() {
    let (pillion, ca) = with_tls(Script::echo().address);
    let address = pillion.https.unwrap().to_string();
    let file = pillion.folder.path("session");
    let session = file.to_str().unwrap();
    let first = s_client(&["-connect", &address, "-CAfile", &ca, "-sess_out", session]);
    assert!(first.contains("HTTP/1.1 200"), "{first}");
    let config = std::fs::read_to_string(pillion.folder.path("pillion.toml")).unwrap();
    pillion.reload(&config.replace("certificates =", "client_ca = \"ca.pem\"\ncertificates ="));
    let again = s_client(&["-connect", &address, "-CAfile", &ca, "-sess_in", session]);
    assert!(!again.contains("HTTP/1.1 200"), "{again}");
}

/// Says when it is dropped.
struct Tell(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_cancelled_at_the_app() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = listener.local_addr().unwrap();
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(tcp).await.unwrap();
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let tell = Tell(sender.clone());
            tokio::spawn(async move {
                let answer =
                    http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let mut stream = respond.send_response(answer, false).unwrap();
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
                assert!(reason.is_ok());
                drop(tell);
            });
        }
    });
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\n"));
    let mut client = h2_client(pillion.http).await;
    let request = http::Request::post("http://a.test/x")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    body.send_reset(h2::Reason::CANCEL);
    drop(answer);
    tokio::time::timeout(PATIENCE, events.recv()).await.expect("the app hears of it").unwrap();
}

#[test]
fn every_forwarding_field_of_an_untrusted_client_is_dropped() {
    let pillion = Pillion::in_front_of(Script::echo().address);
    let names = [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-ssl",
        "x-forwarded-server",
    ];
    let fields: Vec<String> = names.iter().map(|name| format!("{name}: 666")).collect();
    let url = pillion.url("/");
    let mut args: Vec<&str> = fields.iter().flat_map(|field| ["-H", field.as_str()]).collect();
    args.push(&url);
    let seen = curl_json(&args)["fields"].clone();
    for name in names {
        assert_ne!(seen[name], "666", "{name} is as good as X-Forwarded-Host to many apps");
    }
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

/// An app over h2c that tells how each request ended: whole, or with an error.
async fn h2c_listener() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, ends) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let sender = sender.clone();
                    sender.send("began").unwrap();
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let end = loop {
                            match body.data().await {
                                Some(Ok(data)) => body.flow_control().release_capacity(data.len()).unwrap(),
                                Some(Err(_)) => break "broken off",
                                None => break "whole",
                            }
                        };
                        sender.send(end).unwrap();
                        let mut respond = respond;
                        if end == "whole" && std::future::poll_fn(|cx| respond.poll_reset(cx)).await.is_ok() {
                            sender.send("cancelled").unwrap();
                        }
                    });
                }
            });
        }
    });
    (address, ends)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_client_that_leaves_is_noticed_by_an_app_over_h2c() {
    let (app, mut ends) = h2c_listener().await;
    // Without a cache: a fetch that others could wait for outlives its client.
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\n[cache]\nenabled = false\n"));
    let mut next = async |what: &str| {
        let end = tokio::time::timeout(PATIENCE, ends.recv()).await;
        end.unwrap_or_else(|_| panic!("never: {what}")).unwrap()
    };
    for head in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut tcp = connect(pillion.http);
        tcp.write_all(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}").as_bytes()).unwrap();
        assert_eq!(next("the upload begins").await, "began");
        drop(tcp);
        assert_eq!(next("the upload ends").await, "broken off", "half an upload is not a whole one");
    }
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(next("the request begins").await, "began");
    assert_eq!(next("it has no content").await, "whole");
    drop(tcp);
    assert_eq!(next("its client left").await, "cancelled");
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
    // What only begins like it is HTTP/1.
    let answer = exchange(pillion.http, "PRI /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.json()["method"], "PRI");
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

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_app_is_nobodys_silence() {
    let ws = websocket_app().await;
    // Every limit on clients is short; a slow app and quiet sockets are under none of them.
    let app = Script::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(1200));
        ok("slow")
    });
    let folder = Authority::new().folder();
    let ca = folder.path("ca.pem").display().to_string();
    let short = "300ms";
    let pillion = Pillion::in_folder(
        folder,
        &local(&format!(
            "header_timeout = \"{short}\"\nbody_timeout = \"{short}\"\nsend_timeout = \"{short}\"\nidle_timeout = \"{short}\"\n{TLS}\
             [upstream]\nurl = \"http://{}\"\n[upstreams.ws]\nurl = \"http://{ws}\"\nbody_timeout = \"{short}\"\n\
             response_timeout = \"{short}\"\n[[routes]]\nmatch = \"* /ws\"\nupstream = \"ws\"\n",
            app.address
        )),
    );
    let tcp = TcpStream::connect(pillion.http).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://a.test/ws", tcp).await.unwrap();
    echoed(&mut socket, "before").await;
    let https = format!("https://{}/", pillion.https.unwrap());
    tokio::task::block_in_place(|| {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            assert_eq!(curl(&[version, "-d", "x", &pillion.url("/")]), "slow", "{version}");
            let version = version.strip_suffix("-prior-knowledge").unwrap_or(version);
            assert_eq!(curl(&[version, "-d", "x", "--cacert", &ca, &https]), "slow", "{version} over TLS");
        }
    });
    echoed(&mut socket, "after").await;
}

/// What breaks HTTP/2 itself is answered by the library; it is counted and logged all the same.
#[test]
fn a_broken_http_2_connection_is_counted_and_logged() {
    use std::io::Write as _;
    let app = Script::echo();
    let pillion = Pillion::in_front_of(app.address);
    let mut tcp = harness::connect(pillion.http);
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    // SETTINGS on a stream that is not the connection (RFC 9113 6.5).
    tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 1]).unwrap();
    harness::eventually("it is counted", || {
        let count = pillion.metric("pillion_client_connections_refused_total{reason=\"http2\"}");
        (count > 0.0).then_some(())
    });
    harness::eventually("it is logged", || pillion.log().contains("connection refused").then_some(()));
}
