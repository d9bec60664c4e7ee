//! Tests of upstreams that refuse, are slow, or fall silent.

use std::io::{Read, Write};
use std::time::Duration;

use super::tools::sample;
use crate::harness::{
    Config, Pillion, Request, Script, absent_app, connect, eventually, now, ok, read_answer,
};

#[test]
fn a_refused_connection_is_502_and_says_nothing_of_where_the_app_is() {
    let nowhere = absent_app();
    let pillion = Pillion::in_front_of(nowhere);
    let answer = pillion.get("/");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["type"], "urn:pillion:problem:upstream-unreachable");
    assert!(
        !answer.text().contains(&nowhere.port().to_string()) && !answer.text().contains("127.0.0.1"),
        "{}",
        answer.text()
    );
    assert_eq!(sample(&pillion, "pillion_upstream_failures_total", "kind=\"connect\""), Some(1.0));
}

#[test]
fn an_app_that_thinks_too_long_is_504_and_a_route_may_give_it_more_or_less() {
    let app = Script::answering(|request| {
        let line = &request.line;
        std::thread::sleep(Duration::from_millis(if line.contains("/slow") { 700 } else { 0 }));
        ok("")
    });
    let pillion = Config::new(app.address)
        .upstream("response_timeout", "300ms")
        .route("* /slow/patient", r#"timeout = "10s""#)
        .route("* /slow/hasty", r#"timeout = "50ms""#)
        .start();
    let since = now();
    let late = pillion.get("/slow");
    assert_eq!(late.status, 504);
    assert_eq!(late.json()["type"], "urn:pillion:problem:upstream-timeout");
    assert!(since.elapsed() < Duration::from_millis(680), "it was not tried again: {:?}", since.elapsed());
    assert_eq!(pillion.get("/slow/patient").status, 200);
    let since = now();
    assert_eq!(pillion.get("/slow/hasty").status, 504);
    assert!(since.elapsed() < Duration::from_millis(280), "{:?}", since.elapsed());
    assert_eq!(pillion.get("/fast").status, 200);
}

#[test]
fn the_response_timeout_runs_from_the_last_byte_of_the_request() {
    let app = Script::echo();
    let config = format!("[upstream]\nurl = \"http://{}\"\nresponse_timeout = \"300ms\"\n", app.address);
    let pillion = Pillion::with(&config);
    let mut tcp = connect(pillion.http);
    tcp.write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n").unwrap();
    for byte in b"hello" {
        // A slow upload: each pause is shorter than the timeout, but the whole is longer.
        std::thread::sleep(Duration::from_millis(120));
        tcp.write_all(&[*byte]).unwrap();
    }
    let answer = read_answer(&mut tcp);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["body"], "hello");
}

#[test]
fn an_answer_that_falls_silent_is_cut_visibly() {
    for (head, body) in [("content-length: 10", "hello"), ("transfer-encoding: chunked", "5\r\nhello\r\n")] {
        let app = Script::new(move |mut tcp| {
            if Request::read(&mut tcp).is_some() {
                let _ = tcp.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes());
                let _ = Request::read(&mut tcp);
            }
        });
        let config = format!("[upstream]\nurl = \"http://{}\"\nbody_timeout = \"300ms\"\n", app.address);
        let pillion = Pillion::with(&config);
        let since = now();
        let mut tcp = connect(pillion.http);
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        // A reset shows the end as well as a close.
        let _ = tcp.read_to_end(&mut seen);
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.ends_with(body), "{head}: what came was passed on, and no end: {seen:?}");
        assert!(since.elapsed() > Duration::from_millis(250) && since.elapsed() < Duration::from_secs(5));
        eventually("the permit is back", || {
            (sample(&pillion, "pillion_upstream_connections_in_use", "") == Some(0.0)).then_some(())
        });
    }
}

#[test]
fn an_answer_that_drips_is_bounded_by_the_response_timeout_as_a_whole() {
    let app = Script::new(|mut tcp| {
        if Request::read(&mut tcp).is_some() {
            // One byte at a time, each well within the timeout.
            for byte in "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".bytes() {
                if tcp.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let pillion = Config::new(app.address).upstream("response_timeout", "400ms").start();
    let since = now();
    assert_eq!(pillion.get("/").status, 504);
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}
