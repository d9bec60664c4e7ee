//! Tests of upstreams over TLS, h2c and Unix sockets.

use std::io::Write;

use tokio::net::TcpListener;

use super::tools::{Authority, curl, h2_client, h2c_listener, local};
use crate::harness::{Folder, HTTP1, HTTP2, Nginx, PATIENCE, Pillion, Script, cases, connect, ok, run};

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

fn uploads_reach_an_app_over_h2c(version: &str) {
    let back = Nginx::serving(&format!(
        "client_max_body_size 0; server {{ listen LISTEN http2; location / {{ proxy_pass http://{}; }} }}",
        Script::answering(|request| ok(&request.body.len().to_string())).address
    ));
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{}\"\n", back.address));
    let file = pillion.folder.write("upload", vec![b'u'; 5_000_000]);
    let file = file.to_str().unwrap();
    assert_eq!(curl(&[version, "-T", file, &pillion.url("/")]), "5000000", "{version}");
}

cases! { uploads_reach_an_app_over_h2c:
    uploads_reach_an_app_over_h2c_over_http1 => HTTP1;
    uploads_reach_an_app_over_h2c_over_http2 => HTTP2;
}

/// A response head of the app that is too large does not count as a refusal of the client's head.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_over_http_2_says_too_much_of_is_not_counted_against_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = crate::harness::accept(&listener).await {
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

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_client_that_leaves_is_noticed_by_an_app_over_h2c() {
    let (app, mut ends) = h2c_listener().await;
    // The cache is off because a fetch that others may join outlives its client.
    let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{app}\"\n[cache]\nenabled = false\n"));
    let mut next = async |what: &str| {
        let end = tokio::time::timeout(PATIENCE, ends.recv()).await;
        end.unwrap_or_else(|_| panic!("never: {what}")).unwrap()
    };
    for head in ["Content-Length: 100000\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
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
