//! Tests of the forward layer before a real socket.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower::Service;

use super::Forward;
use crate::layer::testing::{Asking, Outcome, Stage, arriving, content, on_worker};
use crate::upstream::{ForwardError, Pool};

/// A request as it came over the socket.
#[derive(Clone, Debug, Default)]
struct Received {
    line: String,
    /// The fields; several lines of one name are joined by commas.
    fields: HashMap<String, String>,
    content: String,
}

impl Received {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

/// Serves one connection at a time with an empty 200, and keeps what came. Returns its URL.
async fn upstream() -> (String, Rc<RefCell<Received>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received = Rc::new(RefCell::new(Received::default()));
    let kept = received.clone();
    tokio::task::spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = Vec::new();
            let whole = loop {
                if stream.read_buf(&mut text).await.unwrap() == 0 {
                    break None;
                }
                let found = read(&String::from_utf8(text.clone()).unwrap());
                if found.is_some() {
                    break found;
                }
            };
            if let Some(whole) = whole {
                kept.replace(whole);
                let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
                stream.write_all(head).await.unwrap();
            }
        }
    });
    (url, received)
}

/// Returns the request if all of it is there.
fn read(text: &str) -> Option<Received> {
    let (head, content) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let mut received =
        Received { line: lines.next()?.to_owned(), content: content.to_owned(), ..Received::default() };
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        let known = received.fields.entry(name.to_ascii_lowercase()).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(value);
    }
    let length = received.field("content-length").parse().unwrap_or(0);
    (content.len() == length).then_some(received)
}

/// Sends a request to a real upstream; returns what came there.
async fn sent(configuration: &str, line: &str, change: impl Fn(Asking) -> Asking) -> (Received, Outcome) {
    let (url, received) = upstream().await;
    let stage = Stage::before(&url, configuration);
    let outcome = Forward::new(Rc::new(Pool::default())).call(change(stage.ask(line)).routed()).await;
    let received = received.borrow().clone();
    (received, outcome)
}

#[test]
fn a_request_is_sent_with_fields_about_its_client() {
    on_worker(async {
        let (received, outcome) = sent("", "GET /a?b", |asking| asking.field("x-a", "1")).await;
        assert_eq!(content(outcome.unwrap()).await.unwrap(), "hello");
        assert_eq!(received.line, "GET /a?b HTTP/1.1");
        for (name, value) in [
            ("host", "example.com"),
            ("x-a", "1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "example.com"),
            ("forwarded", "for=192.0.2.1;host=example.com;proto=http"),
        ] {
            assert_eq!(received.field(name), value, "{name}");
        }
        assert!(received.field("via").starts_with("2 pillion"), "{received:?}");
        assert_eq!(received.field("x-request-id").len(), 32);
    });
}

#[test]
fn claims_of_a_client_are_replaced_and_those_of_a_trusted_proxy_extended() {
    on_worker(async {
        let says = |asking: Asking| {
            asking
                .field("x-forwarded-for", "198.51.100.1")
                .field("x-forwarded-proto", "https")
                .field("x-real-ip", "198.51.100.1")
                .field("x-request-id", "told")
        };
        let (received, _) = sent("", "GET /a", says).await;
        let names = ["x-forwarded-for", "x-forwarded-proto", "x-real-ip"];
        assert_eq!(names.map(|name| received.field(name)), ["192.0.2.1", "http", ""]);
        assert_ne!(received.field("x-request-id"), "told");
        let configuration = "[server]\ntrusted_proxies = ['192.0.2.0/24']";
        let (received, _) = sent(configuration, "GET /a", says).await;
        assert_eq!(
            names.map(|name| received.field(name)),
            ["198.51.100.1, 192.0.2.1", "https", "198.51.100.1"]
        );
        assert_eq!(received.field("x-request-id"), "told");
    });
}

#[test]
fn a_request_is_edited_by_its_routes() {
    on_worker(async {
        let configuration = "
            [[routes]]
            match = '* /v1/**'
            rewrite = '/api/**'
            set_request = { x-version = '1' }
            [[routes]]
            match = '* /api/**'
            set_request = { x-tenant = 'a' }
            remove_request = ['x-debug']
        ";
        let debug = |asking: Asking| asking.field("x-debug", "1").field("x-tenant", "b");
        let (received, _) = sent(configuration, "GET /v1/a", debug).await;
        assert_eq!(received.line, "GET /api/a HTTP/1.1");
        assert_eq!(["x-version", "x-tenant", "x-debug"].map(|name| received.field(name)), ["1", "a", ""]);
    });
}

#[test]
fn the_host_of_the_upstream_is_sent_if_it_is_configured() {
    on_worker(async {
        let (received, _) = sent("[upstream]\npreserve_host = false", "GET /a", |asking| asking).await;
        assert!(received.field("host").starts_with("127.0.0.1:"), "{received:?}");
        assert_eq!(received.field("x-forwarded-host"), "example.com");
    });
}

#[test]
fn a_body_is_buffered_and_sent_with_its_length() {
    on_worker(async {
        let (sender, body) = arriving(None);
        sender.send(Ok("hel".into())).unwrap();
        sender.send(Ok("lo".into())).unwrap();
        drop(sender);
        let body = Rc::new(RefCell::new(Some(body)));
        let (received, outcome) = sent("", "POST /a", move |asking| asking.body(body.take().unwrap())).await;
        assert_eq!(outcome.unwrap().status(), 200);
        assert_eq!((received.field("content-length"), received.content.as_str()), ("5", "hello"));
    });
}

#[test]
fn an_upstream_that_cannot_be_reached_is_an_error() {
    on_worker(async {
        // The port was free a moment ago, and nothing listens there.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let stage = Stage::before(&format!("http://{address}"), "[upstream]\nretries = 0");
        let outcome = Forward::new(Rc::new(Pool::default())).call(stage.ask("GET /a").routed()).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ForwardError::Connect(..))), "{error}");
    });
}
