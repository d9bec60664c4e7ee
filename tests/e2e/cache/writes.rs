//! Tests of writes and the cache: what a write invalidates, and what strangers cannot invalidate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tools::{Holding, RULES, begin, gone, is_hit, leave, wait_for};
use crate::harness::holding::Raise;
use crate::harness::origin::*;
use crate::harness::*;

/// Regression: 8,000 truncated POSTs to paths that do not exist emptied the whole cache.
#[test]
fn n3_8_a_write_that_was_cut_takes_away_its_target_and_no_more() {
    let app = Holding::new();
    let pillion = app.pillion(RULES);
    let paths = ["/orders/7", "/orders/8", "/other"];
    paths.iter().for_each(|path| drop(get(&pillion, path)));
    assert!(paths.iter().all(|path| is_hit(&pillion, path)));
    // More than is buffered before the upstream is asked.
    let part = "x".repeat(100_000);
    let client = begin(
        &pillion,
        &format!("POST /orders/7 HTTP/1.1\r\nhost: a.example\r\ncontent-length: 900000\r\n\r\n{part}"),
    );
    wait_for("its head", &app.began, 1);
    leave(client);
    wait_for("the cut", &app.broken, 1);
    assert!(!is_hit(&pillion, "/orders/7"), "nobody knows what the app did");
    assert!(is_hit(&pillion, "/orders/8"), "no rule is stamped by what was cut");
    assert!(is_hit(&pillion, "/other"));
    assert_eq!(pillion.metric("pillion_cache_invalidations_total{rule=\"POST,PUT,DELETE /orders/**\"}"), 0.0);
}

#[test]
fn n3_8_a_write_of_which_nothing_was_sent_takes_nothing_away() {
    let app = Holding::new();
    let pillion = app.pillion(&format!("max_connections = 1\nqueue_timeout = \"300ms\"\n{RULES}"));
    for path in ["/orders/7", "/x"] {
        get(&pillion, path);
    }
    let _released = Raise(&app.released);
    let first = begin(&pillion, "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
    wait_for("the write that holds the only place", &app.whole, 1);
    let waiting = begin(&pillion, "POST /orders/7 HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n");
    let waits = |line: &str| line.starts_with("pillion_upstream_waits_total{") && line.ends_with(" 1.0");
    eventually("it waits", || pillion.admin_get("/metrics").text().lines().any(waits).then_some(()));
    leave(waiting);
    let refused = ask(&pillion, "PUT /orders/7", &["content-length: 0"]);
    assert_eq!(refused.status, 503);
    assert!(is_hit(&pillion, "/orders/7"));
    assert_eq!(app.began.load(Ordering::SeqCst), 1);
    drop(first);
    let absent = Pillion::in_front_of(absent_app());
    assert_eq!(ask(&absent, "POST /a", &["content-length: 0"]).status, 502);
    assert_eq!(absent.metric("pillion_cache_invalidations_total{rule=\"target\"}"), 0.0);
}

/// The upstream decides about what a rule names. A stranger who sends a write and leaves decides nothing.
#[test]
fn n3_8_a_write_that_a_rule_takes_keeps_its_place_until_its_response() {
    for (says, fields, invalidates) in [
        ("403 Forbidden", "", false),
        ("302 Found\r\nlocation: /login", "", false),
        ("200 OK", "", true),
        ("303 See Other\r\nlocation: /orders", "", true),
        ("403 Forbidden", "content-type: application/grpc\r\n", false),
        ("403 Forbidden", "connection: upgrade\r\nupgrade: x\r\n", false),
    ] {
        let app = Holding::new();
        app.says.lock().unwrap().replace_range(.., says);
        let pillion = app.pillion(&format!("max_connections = 1\nqueue_timeout = \"100ms\"\n{RULES}"));
        get(&pillion, "/orders/8");
        let _released = Raise(&app.released);
        let client = begin(
            &pillion,
            &format!("POST /orders/7 HTTP/1.1\r\nhost: a.example\r\n{fields}content-length: 0\r\n\r\n"),
        );
        wait_for("the write", &app.whole, 1);
        leave(client);
        gone(&pillion);
        assert!(is_hit(&pillion, "/orders/8"), "{says}: its response is not here");
        if fields.is_empty() {
            assert_eq!(get(&pillion, "/elsewhere").status, 503, "{says}: it keeps its place");
        }
        app.released.store(true, Ordering::SeqCst);
        if invalidates {
            eventually(says, || (!is_hit(&pillion, "/orders/8")).then_some(()));
        } else {
            eventually("its place is free", || (get(&pillion, "/elsewhere").status == 200).then_some(()));
            assert!(is_hit(&pillion, "/orders/8"), "{says} {fields}");
        }
        assert_eq!(app.broken.load(Ordering::SeqCst), 0, "{says}");
    }
}

#[test]
fn n3_8_a_write_that_no_rule_takes_is_given_up_with_its_client() {
    let app = Holding::new();
    let pillion = app.pillion(RULES);
    for path in ["/a", "/orders/8"] {
        get(&pillion, path);
    }
    let _released = Raise(&app.released);
    let client = begin(&pillion, "POST /a HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n");
    wait_for("the write", &app.whole, 1);
    leave(client);
    wait_for("the app is told", &app.broken, 1);
    assert!(!is_hit(&pillion, "/a"), "its target");
    assert!(is_hit(&pillion, "/orders/8"));
}

#[test]
fn n3_8_a_write_without_a_response_in_time_takes_away_what_rules_name() {
    let app = Holding::new();
    let pillion = app.pillion(&format!("response_timeout = \"300ms\"\n{RULES}"));
    let _released = Raise(&app.released);
    for fields in ["", "content-type: application/grpc\r\n"] {
        get(&pillion, "/orders/8");
        let before = app.whole.load(Ordering::SeqCst);
        let client = begin(
            &pillion,
            &format!("POST /orders/7 HTTP/1.1\r\nhost: a.example\r\n{fields}content-length: 0\r\n\r\n"),
        );
        wait_for("the write", &app.whole, before + 1);
        leave(client);
        eventually("response_timeout", || (!is_hit(&pillion, "/orders/8")).then_some(()));
        wait_for("its place is given back", &app.broken, before + 1);
    }
}

#[test]
fn n3_8_a_redirect_to_a_login_takes_away_its_target_alone() {
    let origin = Origin::new();
    let rules = |on_redirect: &str| {
        format!(
            "[[routes]]\nmatch = \"GET /**\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n\
             [[routes]]\nmatch = \"* /shop/**\"\nrewrite = \"/orders/**\"\n\
             [[invalidate]]\non = \"* /orders/**\"\npaths = [\"/list\"]\n{on_redirect}\n"
        )
    };
    let own = origin.script.address.to_string();
    let cases = [
        ("301", "/orders/8".to_owned(), true),
        ("302", "/orders/8".to_owned(), true),
        ("303", format!("http://{own}/orders/8"), true),
        ("302", "https://a.example/orders/8".to_owned(), true),
        ("302", "/login".to_owned(), false),
        ("303", "/accounts/login/".to_owned(), false),
        ("302", "/begin?next=%2Forders%2F7".to_owned(), false),
        ("302", "/begin?ReturnUrl=/shop/7".to_owned(), false),
        ("302", "https://sso.example/".to_owned(), false),
        ("307", "/orders/8".to_owned(), false),
        ("308", "/orders/8".to_owned(), false),
    ];
    for (on_redirect, wanted) in [
        ("", None),
        ("on_redirect = \"auto\"", None),
        ("on_redirect = \"always\"", Some(true)),
        ("on_redirect = \"never\"", Some(false)),
    ] {
        let pillion = pillion(&origin, &rules(on_redirect));
        for (status, location, auto) in &cases {
            let line = if location.contains("/shop/") { "PUT /shop/7" } else { "PUT /orders/7" };
            for path in ["/list", "/orders/7"] {
                get(&pillion, path);
                assert!(is_hit(&pillion, path));
            }
            origin.says("/orders/7", &[&format!("status: {status}"), &format!("location: {location}")]);
            assert_eq!(ask(&pillion, line, &["content-length: 0"]).status.to_string(), *status);
            origin.says("/orders/7", &[]);
            assert!(!is_hit(&pillion, "/orders/7"), "{status} {location}: RFC 9111 4.4");
            let invalidated = !is_hit(&pillion, "/list");
            assert_eq!(invalidated, wanted.unwrap_or(*auto), "{on_redirect} {status} {location}");
        }
    }
}

/// The app responds 200 although it refused the call.
#[test]
fn n3_8_a_grpc_call_that_was_refused_takes_nothing_away() {
    let origin = Origin::new();
    let pillion = pillion(&origin, RULES);
    for (status, refused) in [("16", true), ("0", false)] {
        get(&pillion, "/orders/8");
        origin.says("/orders/7", &[&format!("grpc-status: {status}")]);
        let call = ["content-type: application/grpc", "content-length: 0"];
        assert_eq!(ask(&pillion, "POST /orders/7", &call).status, 200);
        assert_eq!(is_hit(&pillion, "/orders/8"), refused, "{status}");
    }
}

/// The same for an app over HTTP/2, where another task sends the rest of a request.
#[tokio::test(flavor = "multi_thread")]
async fn n3_8_over_http_2_to_the_app_it_is_the_same() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (began, whole) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let (start, end, released) = (began.clone(), whole.clone(), release.clone());
    let serve = async move |request: http::Request<h2::RecvStream>,
                            mut respond: h2::server::SendResponse<_>| {
        let reads = request.method() == "GET";
        let mut status = http::StatusCode::OK;
        if !reads {
            start.fetch_add(1, Ordering::SeqCst);
            let mut body = request.into_body();
            while let Some(data) = body.data().await {
                let Ok(data) = data else { return };
                let _ = body.flow_control().release_capacity(data.len());
            }
            end.fetch_add(1, Ordering::SeqCst);
            released.acquire().await.unwrap().forget();
            status = http::StatusCode::FORBIDDEN;
        }
        let response = http::Response::builder().status(status).body(()).unwrap();
        let mut stream = respond.send_response(response, false).unwrap();
        let _ = stream.send_data(bytes::Bytes::from_static(b"content"), true);
    };
    tokio::spawn(async move {
        let serve = Arc::new(serve);
        while let Ok((tcp, _)) = accept(&listener).await {
            let serve = serve.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let serve = serve.clone();
                    tokio::spawn(async move { serve(request, respond).await });
                }
            });
        }
    });
    tokio::task::block_in_place(|| {
        let pillion = Pillion::with(&format!("[upstream]\nurl = \"h2c://{address}\"\n{RULES}"));
        let fill = || ["/orders/7", "/orders/8"].iter().for_each(|path| drop(get(&pillion, path)));
        fill();
        let part = "x".repeat(100_000);
        let head = "POST /orders/7 HTTP/1.1\r\nhost: a.example\r\ncontent-length";
        let client = begin(&pillion, &format!("{head}: 900000\r\n\r\n{part}"));
        wait_for("a part of it", &began, 1);
        leave(client);
        gone(&pillion);
        assert!(!is_hit(&pillion, "/orders/7") && is_hit(&pillion, "/orders/8"), "it was cut");
        fill();
        let client = begin(&pillion, &format!("{head}: 5\r\n\r\nwhole"));
        wait_for("all of it", &whole, 1);
        leave(client);
        gone(&pillion);
        release.add_permits(1);
        eventually("its response", || (release.available_permits() == 0).then_some(()));
        let in_use =
            |line: &str| line.starts_with("pillion_upstream_connections_in_use{") && line.ends_with(" 0");
        eventually("its place is free", || {
            pillion.admin_get("/metrics").text().lines().any(in_use).then_some(())
        });
        assert!(is_hit(&pillion, "/orders/7") && is_hit(&pillion, "/orders/8"), "it was refused");
    });
}
