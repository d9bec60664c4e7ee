//! Tests of timeouts of HTTP/2 upstreams, and of requests they did not process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::tools::{app, echo, over_h2c, post, serve_all};
use crate::harness::{connect, read_answer};

#[tokio::test(flavor = "multi_thread")]
async fn the_response_timeout_runs_from_the_last_byte_of_the_request() {
    let app = app(|connection, _| serve_all(connection)).await;
    let pillion = over_h2c(app, "response_timeout = \"300ms\"\n");
    tokio::task::block_in_place(|| {
        let mut tcp = connect(pillion.http);
        let write =
            |tcp: &mut std::net::TcpStream, bytes: &[u8]| std::io::Write::write_all(tcp, bytes).unwrap();
        write(&mut tcp, b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
        for byte in b"hello" {
            // A slow upload: each pause is shorter than the timeout, but the whole is longer.
            std::thread::sleep(Duration::from_millis(120));
            write(&mut tcp, &[*byte]);
        }
        let answer = read_answer(&mut tcp);
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_answers_is_504_and_so_is_one_that_takes_nothing() {
    let app = app(|mut connection, _| async move {
        let mut held = Vec::new();
        // The app never opens windows again, so large requests are never complete.
        while let Some(Ok(stream)) = connection.accept().await {
            held.push(stream);
        }
    })
    .await;
    let pillion = over_h2c(app, "response_timeout = \"300ms\"\nbody_timeout = \"500ms\"\nretries = 0\n");
    tokio::task::block_in_place(|| {
        assert_eq!(pillion.get("/").status, 504);
        assert_eq!(post(&pillion, &"x".repeat(1_000_000)).status, 504);
    });
}

/// A refused stream was not processed (RFC 9113 8.7), so even a POST is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_the_app_refused_unread_is_sent_again() {
    let (seen, refused): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let counts = (seen.clone(), refused.clone());
    let app = app(move |mut connection, number| {
        let (seen, refused) = counts.clone();
        async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if number == 0 {
                    refused.fetch_add(1, Ordering::SeqCst);
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    continue;
                }
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(request, respond));
            }
        }
    })
    .await;
    let pillion = over_h2c(app, "");
    let answer = tokio::task::block_in_place(|| post(&pillion, "once"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "once"));
    assert!(refused.load(Ordering::SeqCst) > 0);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "processed once");
}

/// gRPC servers close connections with GOAWAY after a while. No POST may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_goes_away_gracefully_loses_no_post() {
    let seen: Arc<AtomicUsize> = Arc::default();
    let count = seen.clone();
    let app = app(move |mut connection, _| {
        let seen = count.clone();
        async move {
            // Five requests on each connection, then a GOAWAY.
            for _ in 0..5 {
                let Some(Ok((request, respond))) = connection.accept().await else { return };
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(request, respond));
            }
            connection.graceful_shutdown();
            while let Some(Ok((request, respond))) = connection.accept().await {
                seen.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(echo(request, respond));
            }
        }
    })
    .await;
    let pillion = over_h2c(app, "");
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(post(&pillion, "once").status, 200)));
            }
        });
    });
    assert_eq!(seen.load(Ordering::SeqCst), 200, "each of them once");
}

/// Interim responses are forwarded to HTTP/1.1 clients (RFC 9110 15.2).
#[tokio::test(flavor = "multi_thread")]
async fn n4_10_interim_responses_of_an_app_over_http2_pass() {
    let app = app(|mut connection, _| async move {
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            // HTTP/2 has no 101 (RFC 9113 8.6).
            for status in [102, 101, 103] {
                let interim =
                    http::Response::builder().status(status).header("link", "</a.css>; rel=preload").body(());
                respond.send_informational(interim.unwrap()).unwrap();
            }
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data("final".into(), true).unwrap();
        }
    })
    .await;
    let pillion = over_h2c(app, "");
    tokio::task::block_in_place(|| {
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let said = String::from_utf8(crate::harness::raw(pillion.http, request)).unwrap();
        let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what}: {said}"));
        assert!(
            at("HTTP/1.1 102 ") < at("HTTP/1.1 103 ") && at("HTTP/1.1 103 ") < at("HTTP/1.1 200 "),
            "{said}"
        );
        assert!(said.contains("link: </a.css>; rel=preload\r\n") && said.ends_with("final"), "{said}");
        assert!(!said.contains("HTTP/1.1 101 "), "it would end HTTP for this client: {said}");
    });
}

/// An authenticated connection is not shared, even if the upstream uses HTTP/2.
#[tokio::test(flavor = "multi_thread")]
async fn n1_7_an_authenticated_connection_over_http2_is_shared_with_nobody() {
    let app = app(|mut connection, number| async move {
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            stream.send_data(number.to_string().into(), true).unwrap();
        }
    })
    .await;
    let pillion = crate::harness::Pillion::with(&format!(
        "{}[cache]\nenabled = false\n[upstream]\nurl = \"h2c://{app}\"\n",
        super::tools::ONE_WORKER
    ));
    tokio::task::block_in_place(|| {
        let get = |tcp: &mut std::net::TcpStream, field: &str| {
            let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{field}\r\n");
            std::io::Write::write_all(tcp, request.as_bytes()).unwrap();
            read_answer(tcp).text()
        };
        let [mut alice, mut bob, mut stranger] = [0; 3].map(|_| connect(pillion.http));
        let credential = "authorization: Negotiate YII\r\n";
        assert_eq!(get(&mut stranger, ""), "0");
        assert_eq!(get(&mut alice, credential), "1");
        assert_eq!(get(&mut bob, credential), "2");
        for _ in 0..2 {
            assert_eq!([get(&mut alice, ""), get(&mut bob, ""), get(&mut stranger, "")], ["1", "2", "0"]);
        }
    });
}
