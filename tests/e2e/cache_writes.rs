//! Tests of writes and the cache: what a write invalidates, and what strangers cannot invalidate.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::holding::Raise;
use crate::harness::origin::*;
use crate::harness::*;

/// Tagged reads, and a rule for writes with the same tag.
const RULES: &str = r#"
[[routes]]
match = "GET /**"
cache = { ttl = "1h", scope = "shared", tags = ["orders"] }
[[invalidate]]
on   = "POST,PUT,DELETE /orders/**"
tags = ["orders"]
"#;

/// An app that holds writes until they are released, and then responds with this status.
struct Holding {
    script: Script,
    /// Number of heads of writes that reached the app.
    began: Arc<AtomicUsize>,
    /// Number of complete writes that reached the app.
    whole: Arc<AtomicUsize>,
    /// Number of connections that ended during a write.
    broken: Arc<AtomicUsize>,
    released: Arc<AtomicBool>,
    says: Arc<Mutex<String>>,
}

impl Holding {
    fn new() -> Holding {
        let [began, whole, broken, reads] = [(); 4].map(|()| Arc::new(AtomicUsize::new(0)));
        let released = Arc::new(AtomicBool::new(false));
        let says = Arc::new(Mutex::new("200 OK".to_owned()));
        let (start, end, cut, release, line) =
            (began.clone(), whole.clone(), broken.clone(), released.clone(), says.clone());
        let script = Script::new(move |mut tcp| {
            while let Some(head) = script::head(&mut tcp) {
                let writes = !head.starts_with("GET ");
                if !writes {
                    let number = reads.fetch_add(1, Ordering::SeqCst);
                    if tcp.write_all(&ok(&format!("#{number}"))).is_err() {
                        return;
                    }
                    continue;
                }
                start.fetch_add(1, Ordering::SeqCst);
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse::<usize>().unwrap())
                });
                let mut body = vec![0; length.unwrap_or(0)];
                if std::io::Read::read_exact(&mut tcp, &mut body).is_err() {
                    cut.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                end.fetch_add(1, Ordering::SeqCst);
                tcp.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                while !release.load(Ordering::SeqCst) {
                    match tcp.peek(&mut [0]) {
                        Ok(0) => {
                            cut.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                        Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                        Err(_) => {}
                    }
                }
                tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                let line = line.lock().unwrap().clone();
                let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n");
                if tcp.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Holding { script, began, whole, broken, released, says }
    }

    fn pillion(&self, config: &str) -> Pillion {
        Pillion::with(&format!("[upstream]\nurl = \"http://{}\"\n{config}", self.script.address))
    }
}

fn wait_for(what: &str, count: &AtomicUsize, wanted: usize) {
    eventually(what, || (count.load(Ordering::SeqCst) >= wanted).then_some(()));
}

/// Sends `request` and keeps the connection open.
fn begin(pillion: &Pillion, request: &str) -> TcpStream {
    let mut client = connect(pillion.http);
    client.write_all(request.as_bytes()).unwrap();
    client
}

fn leave(client: TcpStream) {
    let _ = client.shutdown(Shutdown::Both);
}

fn gone(pillion: &Pillion) {
    eventually("the client is gone", || (pillion.metric("pillion_client_connections") < 1.0).then_some(()));
}

fn is_hit(pillion: &Pillion, path: &str) -> bool {
    status_of(&get(pillion, path)).contains("; hit")
}

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

#[test]
fn n5_7_a_rule_is_not_for_what_it_excepts() {
    let origin = Origin::new();
    let config =
        format!("{RULES}except = [\"POST /orders/{{id}}/views\", \"DELETE other.example/orders/**\"]\n");
    let pillion = pillion(&origin, &config);
    for (line, takes) in [
        ("POST /orders/7/views", false),
        ("PUT /orders/7/views", true),
        ("POST /orders/7", true),
        ("DELETE /orders/7", true),
    ] {
        get(&pillion, "/orders/8");
        assert_eq!(ask(&pillion, line, &["content-length: 0"]).status, 200);
        assert_eq!(!is_hit(&pillion, "/orders/8"), takes, "{line}");
    }
}

/// Regression: 256 fetches continued where 32 are promised, because fetches past their head were not counted.
#[test]
fn n3_5_reads_whose_clients_left_are_bounded_wherever_they_are() {
    const CLIENTS: usize = 50;
    let (began, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (start, end) = (began.clone(), broken.clone());
    let script = Script::new(move |mut tcp| {
        let Some(head) = script::head(&mut tcp) else { return };
        start.fetch_add(1, Ordering::SeqCst);
        if head.contains("/body") {
            let head = "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nbegin";
            let _ = tcp.write_all(head.as_bytes());
        }
        while matches!(std::io::Read::read(&mut tcp, &mut [0]), Ok(1..)) {}
        end.fetch_add(1, Ordering::SeqCst);
    });
    let config = |more: &str| {
        format!(
            "[upstream]\nurl = \"http://{}\"\n{more}[[routes]]\nmatch = \"GET /**\"\ncache = {{ ttl = \"1h\", scope = \"shared\" }}\n",
            script.address
        )
    };
    for (more, most) in [("", 32), ("max_connections = 128\n", 16)] {
        let pillion = Pillion::with(&config(more));
        let before = [&began, &broken].map(|count| count.load(Ordering::SeqCst));
        let ask = |path: &str| begin(&pillion, &format!("GET {path} HTTP/1.1\r\nhost: a.example\r\n\r\n"));
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            clients.push(ask(&format!("/head/{number}")));
            let mut client = ask(&format!("/body/{number}"));
            assert!(script::head(&mut client).unwrap().starts_with("HTTP/1.1 200"));
            clients.push(client);
        }
        wait_for("all are asked for", &began, before[0] + 2 * CLIENTS);
        clients.into_iter().for_each(leave);
        gone(&pillion);
        wait_for("the others are given up", &broken, before[1] + 2 * CLIENTS - most);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(broken.load(Ordering::SeqCst), before[1] + 2 * CLIENTS - most, "and these go on");
    }
}

/// A fetch in the background, while stale responses are served, never has a client.
#[test]
fn n3_5_fetches_in_the_background_are_bounded_too() {
    let (held, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, released) = (held.clone(), release.clone());
    let script = Script::answering(move |request| {
        if request.field("if-none-match").is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            while !released.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        answer(request, "cache-control: max-age=0, stale-while-revalidate=600\r\netag: \"1\"", "content")
    });
    let pillion = Pillion::in_front_of(script.address);
    let _released = Raise(&release);
    let all =
        || (0..60).for_each(|number| assert_eq!(get(&pillion, &format!("/{number}")).text(), "content"));
    all();
    all();
    wait_for("the first of them", &held, 32);
    all();
    assert_eq!(held.load(Ordering::SeqCst), 32);
    release.store(true, Ordering::SeqCst);
    eventually("the others have their turn", || {
        all();
        (held.load(Ordering::SeqCst) >= 60).then_some(())
    });
}

#[test]
fn n4_12_webdav_takes_trees_away() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"* /dav/**\"\nrewrite = \"/files/**\"\n\
         [[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n",
    );
    let paths = ["/files/a", "/files/a/1", "/files/a/b/2", "/files/ab", "/files/c/3", "/files/d"];
    let lost = |line: &str, destination: &str, says: &str| {
        origin.says("/files/a", &[]);
        paths.iter().for_each(|path| drop(get(&pillion, path)));
        paths.iter().for_each(|path| drop(get(&pillion, path)));
        assert!(paths.iter().all(|path| is_hit(&pillion, path)), "{line}");
        ["/files/a", "/files/a/"].iter().for_each(|path| origin.says(path, &[says]));
        ask(&pillion, line, &[&format!("destination: {destination}"), "content-length: 0"]);
        origin.says("/files/a", &[]);
        paths.map(|path| !is_hit(&pillion, path))
    };
    let (none, source) = ([false; 6], [true, true, true, false, false, false]);
    let both = [true, true, true, false, true, false];
    for (line, destination, says, wanted) in [
        ("MOVE /files/a", "http://a.example/files/c", "status: 201", both),
        ("COPY /files/a", "https://a.example:8443/files/c/", "status: 204", both),
        // The path in the destination is stored on the other host.
        ("COPY /files/a", "https://elsewhere.example/files/c/", "status: 204", source),
        ("MOVE /files/a/", "/files/c", "status: 207", both),
        ("MOVE /dav/a", "http://a.example/dav/c?x", "status: 201", both),
        ("COPY /files/a", "/files/%63", "status: 201", both),
        ("DELETE /files/a", "-", "status: 204\r\ndav: 1", source),
        ("DELETE /files/a", "-", "status: 207", source),
        ("MOVE /files/a", "/files/c", "status: 403", none),
        ("DELETE /files/a", "-", "status: 401", none),
        (
            "DELETE /files/a",
            "-",
            "status: 302\r\nlocation: /login",
            [true, false, false, false, false, false],
        ),
        ("PUT /files/a", "/files/c", "status: 204", [true, false, false, false, false, false]),
    ] {
        assert_eq!(lost(line, destination, says), wanted, "{line} {destination} {says}");
    }
}

/// An app announces WebDAV once, or the request is a WebDAV request. A DELETE in an API deletes no collection.
#[test]
fn n4_12_a_delete_takes_a_tree_where_the_app_speaks_webdav() {
    let route = "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n";
    let paths = ["/files/a", "/files/a/1", "/b"];
    for (before, says, depth, tree) in [
        (None, "status: 204", "x-none: 1", false),
        (None, "status: 200", "depth: infinity", false),
        (None, "status: 204", "depth: infinity", true),
        (Some(("OPTIONS /files/a", "dav: 1, 2")), "status: 204", "x-none: 1", true),
        (Some(("PROPFIND /files/a", "status: 207")), "status: 200", "x-none: 1", true),
        (Some(("OPTIONS /files/a", "dav: 1")), "status: 302\r\nlocation: /files", "depth: infinity", false),
    ] {
        let origin = Origin::new();
        let pillion = pillion(&origin, route);
        if let Some((line, says)) = before {
            origin.says("/files/a", &[says]);
            ask(&pillion, line, &[]);
            origin.says("/files/a", &[]);
        }
        (0..2).for_each(|_| paths.iter().for_each(|path| drop(get(&pillion, path))));
        assert!(paths.iter().all(|path| is_hit(&pillion, path)), "{before:?}");
        origin.says("/files/a", &[says]);
        ask(&pillion, "DELETE /files/a", &[depth]);
        origin.says("/files/a", &[]);
        let lost = paths.map(|path| !is_hit(&pillion, path));
        assert_eq!(lost, [true, tree, false], "{before:?} {says} {depth}");
    }
}

/// Regression: one `DELETE /` of a stranger emptied the whole cache of an app that responds alike to every method.
#[test]
fn n4_12_strangers_take_no_trees_away() {
    for says in [
        "200 OK",
        "204 No Content",
        "302 Found\r\nlocation: /home",
        "303 See Other\r\nlocation: /home",
        "401 Unauthorized",
        "502 Bad Gateway",
        "504 Gateway Timeout",
        "",
    ] {
        let app = Holding::new();
        app.says.lock().unwrap().replace_range(.., says);
        app.released.store(!says.is_empty(), Ordering::SeqCst);
        let _released = Raise(&app.released);
        let pillion = app.pillion(&format!("response_timeout = \"200ms\"\n{RULES}"));
        let paths = ["/a/b", "/c"];
        for (line, field) in [
            ("DELETE /", "x-none: 1"),
            ("DELETE /", "depth: infinity"),
            ("COPY /nowhere", "destination: /"),
            ("MOVE /nowhere", "destination: http://elsewhere.example/"),
            ("MOVE /", "destination: http://a.example/%2e/"),
        ] {
            paths.iter().for_each(|path| drop(get(&pillion, path)));
            ask(&pillion, line, &[field, "content-length: 0"]);
            let left = paths.map(|path| is_hit(&pillion, path));
            assert_eq!(left, [true; 2], "{line} {field} {says:?}");
        }
        // Stored responses below another path are invalidated only if the app confirms the operation.
        if says.starts_with("204") {
            continue;
        }
        for (line, field) in [
            ("DELETE /a", "depth: infinity"),
            ("COPY /nowhere", "destination: /a"),
            ("MOVE /a", "destination: /d"),
        ] {
            paths.iter().for_each(|path| drop(get(&pillion, path)));
            ask(&pillion, line, &[field, "content-length: 0"]);
            let left = paths.map(|path| is_hit(&pillion, path));
            assert_eq!(left, [true; 2], "{line} {field} {says:?}");
        }
    }
}

/// A stranger who sends a DELETE and leaves invalidates its path, but does not keep an upstream slot.
#[test]
fn n4_12_a_delete_that_no_rule_takes_is_given_up_with_its_client() {
    let app = Holding::new();
    let pillion = app.pillion(RULES);
    ["/a", "/a/b"].iter().for_each(|path| drop(get(&pillion, path)));
    let _released = Raise(&app.released);
    let client = begin(&pillion, "DELETE /a HTTP/1.1\r\nhost: a.example\r\ndepth: infinity\r\n\r\n");
    wait_for("the write", &app.whole, 1);
    leave(client);
    wait_for("the app is told", &app.broken, 1);
    assert!(!is_hit(&pillion, "/a") && is_hit(&pillion, "/a/b"));
}
