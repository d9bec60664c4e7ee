//! Tests of the fields in which clients, proxies and apps describe themselves and each other.

use super::tools::{curl, curl_json, local};
use crate::harness::{self, Pillion, Script, exchange};

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
    assert!(seen["via"].as_str().unwrap().starts_with("1.1 edge, 1.1 pillion-"), "{seen}");
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
    // The proxy sends only `Forwarded`; the older fields must agree with it.
    let told = "Forwarded: for=_hidden, for=\"[2001:db8::1]:47\";host=\"pub.test:8443\";proto=https";
    let seen = curl_json(&["-H", told, "-H", "Host: inner.test", &url])["fields"].clone();
    assert_eq!(seen["x-forwarded-for"], "unknown, 2001:db8::1, 127.0.0.1");
    assert_eq!(seen["x-forwarded-host"], "pub.test:8443");
    assert_eq!(seen["x-forwarded-proto"], "https");
}

/// Express and other frameworks read the leftmost element, which the client wrote if its proxy appends.
#[test]
fn n4_6_of_a_list_the_app_is_told_the_element_that_is_believed() {
    let app = Script::echo();
    let pillion = Pillion::with(&local(&format!(
        "trusted_proxies = [\"127.0.0.0/8\"]\n[upstream]\nurl = \"http://{}\"\n",
        app.address
    )));
    let seen = curl_json(&[
        "-H",
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9",
        "-H",
        "X-Forwarded-Proto: https, http",
        "-H",
        "X-Forwarded-Host: evil.example",
        "-H",
        "X-Forwarded-Host: shop.example",
        "-H",
        "X-Forwarded-Port: 443,80",
        "-H",
        "Forwarded: for=6.6.6.6;proto=https;host=evil.example, for=203.0.113.9;proto=http;host=shop.example",
        &pillion.url("/"),
    ])["fields"]
        .clone();
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(seen["x-forwarded-host"], "shop.example");
    assert_eq!(seen["x-forwarded-port"], "80");
    assert_eq!(seen["x-forwarded-for"], "6.6.6.6, 203.0.113.9, 127.0.0.1");
    let forwarded = seen["forwarded"].as_str().unwrap();
    let believed = "for=6.6.6.6, for=203.0.113.9;proto=http;host=shop.example, for=127.0.0.1;";
    assert!(forwarded.starts_with(believed), "{forwarded}");
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
