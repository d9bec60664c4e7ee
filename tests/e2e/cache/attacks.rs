//! Regression tests for attacks on the cache.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::origin::*;
use crate::harness::*;

fn status(answer: &Answer) -> String {
    answer.field("cache-status").unwrap_or_default()
}

fn is_hit(answer: &Answer) -> bool {
    status(answer).contains("; hit")
}

#[test]
fn what_one_requests_own_fields_bring_about_is_nobody_elses() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    for (code, field) in
        [("416", "range: bytes=99-"), ("412", "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT")]
    {
        let path = format!("/{code}");
        origin.says(&path, &[&format!("status: {code}"), "cache-control: max-age=60"]);
        let line = format!("GET {path}");
        ask(&pillion, &line, &["range: bytes=0-1", field]);
        origin.says(&path, &["cache-control: max-age=60"]);
        assert_eq!(get(&pillion, &path).status, 200, "{code}");
    }
}

#[test]
fn spellings_of_a_path_have_their_own_answers() {
    let origin = Origin::new();
    let pillion = pillion(
        &origin,
        "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\", key_query = [\"page\"] }\n",
    );
    for (one, other) in [
        ("//x", "/x"),
        ("/a//b", "/a/b"),
        ("/%61", "/a"),
        ("/q?p%61ge=2", "/q"),
        ("/q?page=1;x=2", "/q?page=1"),
    ] {
        let (a, b) = (get(&pillion, one), get(&pillion, other));
        assert_ne!(a.text(), b.text(), "{one} {other}");
        assert!(is_hit(&get(&pillion, one)) && is_hit(&get(&pillion, other)));
    }
    // A write to one of the spellings also invalidates all of them.
    ask(&pillion, "PUT /a/b", &["content-length: 0"]);
    assert!(!is_hit(&get(&pillion, "/a//b")));
}

#[test]
fn fields_that_mislead_apps_pass_the_cache_by() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60"]);
    get(&pillion, "/a");
    for field in [
        "x-http-method-override: DELETE",
        "x_http_method_override: DELETE",
        "X-Original-URL: /b",
        "front-end-https: on",
    ] {
        let answer = ask(&pillion, "GET /a", &[field]);
        assert!(status(&answer).contains("fwd=bypass"), "{field}: {}", status(&answer));
    }
    let fat = ask(&pillion, "GET /a", &["content-length: 3", "\r\nabc\r\n"]);
    assert!(!is_hit(&fat));
    assert!(is_hit(&get(&pillion, "/a")));
}

#[test]
fn every_listed_field_says_who_is_asking() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "[identity]\nprincipal = [\"header:x-api-key\"]\n");
    origin.says("/a", &["cache-control: max-age=60"]);
    let alice = ask(&pillion, "GET /a", &["x-api-key: alice"]);
    assert_ne!(ask(&pillion, "GET /a", &["x-api-key: bob"]).text(), alice.text());
    assert_ne!(get(&pillion, "/a").text(), alice.text());
}

#[test]
fn requests_of_other_kinds_do_not_keep_an_answer_from_being_stored() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    for (what, fields) in [
        ("who they are", "authorization: a"),
        ("a part", "range: bytes=0-1"),
        ("nothing stored", "cache-control: no-store"),
    ] {
        let path = format!("/{}", what.replace(' ', "-"));
        origin.says(&path, &["cache-control: max-age=60"]);
        let line = format!("GET {path}");
        ask(&pillion, &line, &[fields]);
        get(&pillion, &path);
        ask(&pillion, &line, &[fields]);
        assert!(is_hit(&get(&pillion, &path)), "{what}");
    }
    origin.says("/down", &["status: 503", "cache-control: max-age=0"]);
    get(&pillion, "/down");
    origin.says("/down", &["cache-control: max-age=60"]);
    get(&pillion, "/down");
    assert!(is_hit(&get(&pillion, "/down")), "the first answer after it is up again");
}

#[test]
fn what_the_app_takes_back_is_not_used_any_more() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    for taken in ["status: 404", "status: 410", "cache-control: no-store", "cache-control: private"] {
        let path = format!("/{}", taken.replace([' ', ':'], ""));
        origin.says(&path, &["cache-control: max-age=0, stale-while-revalidate=600"]);
        let first = get(&pillion, &path).text();
        origin.says(&path, &[taken]);
        eventually(taken, || (get(&pillion, &path).text() != first).then_some(()));
        assert_ne!(get(&pillion, &path).text(), first, "{taken}");
    }
}

#[test]
fn a_304_about_something_else_updates_nothing() {
    let said = Arc::new(AtomicUsize::new(0));
    let count = said.clone();
    let script = Script::answering(move |request| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if request.field("if-none-match").is_some() {
            return b"HTTP/1.1 304 Not Modified\r\netag: \"other\"\r\ncache-control: max-age=60\r\n\r\n"
                .to_vec();
        }
        let fields = format!("cache-control: max-age=0\r\netag: \"{number}\"");
        answer(request, &fields, &format!("content {number}"))
    });
    let pillion = Pillion::in_front_of(script.address);
    get(&pillion, "/a");
    let odd = get(&pillion, "/a");
    assert_ne!(odd.field("etag").as_deref(), Some("\"other\""), "its content is not that");
    let next = get(&pillion, "/a");
    assert!(status(&next).contains("fwd-status=200") && next.text() == "content 2", "{}", status(&next));
}

#[test]
fn a_write_is_followed_to_its_end_although_its_client_left() {
    let value = Arc::new(AtomicUsize::new(0));
    let (release, written) = (Arc::new(AtomicUsize::new(0)), value.clone());
    let (hold, asked) = (release.clone(), Arc::new(AtomicUsize::new(0)));
    let arrived = asked.clone();
    let script = Script::answering(move |request| {
        if request.line.starts_with("PUT") {
            arrived.fetch_add(1, Ordering::SeqCst);
            eventually("the release", || (hold.load(Ordering::SeqCst) > 0).then_some(()));
            written.store(1, Ordering::SeqCst);
        }
        answer(request, "", &format!("value {}", written.load(Ordering::SeqCst)))
    });
    let pillion =
        Config::new(script.address).route("GET /a", r#"cache = { ttl = "1h", scope = "shared" }"#).start();
    assert_eq!(get(&pillion, "/a").text(), "value 0");
    let mut client = connect(pillion.http);
    client.write_all(b"PUT /a HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\n\r\n").unwrap();
    eventually("the write", || (asked.load(Ordering::SeqCst) == 1).then_some(()));
    drop(client);
    eventually("the client is gone", || (pillion.metric("pillion_client_connections") <= 1.0).then_some(()));
    // A response read before the upstream has executed the write is stored, and invalidated when the write ends.
    get(&pillion, "/a");
    release.store(1, Ordering::SeqCst);
    eventually("the new value", || (get(&pillion, "/a").text() == "value 1").then_some(()));
    assert_eq!(value.load(Ordering::SeqCst), 1);
}

#[test]
fn whatever_a_write_calls_itself_it_invalidates() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: max-age=60"]);
    for fields in [
        &["connection: upgrade, close", "upgrade: websocket", "content-length: 0"][..],
        &["content-type: application/grpc", "content-length: 0"],
    ] {
        let first = get(&pillion, "/a").text();
        assert_eq!(get(&pillion, "/a").text(), first);
        ask(&pillion, "PUT /a", fields);
        assert_ne!(get(&pillion, "/a").text(), first, "{fields:?}");
    }
}

#[test]
fn long_keys_do_not_fill_the_memory() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/k", &["cache-control: max-age=60"]);
    let long = format!("/k?{}", "x".repeat(20_000));
    get(&pillion, &long);
    assert!(status(&get(&pillion, &long)).contains("fwd=bypass"));
    let shorter = format!("/k?{}", "x".repeat(4_000));
    get(&pillion, &shorter);
    assert!(is_hit(&get(&pillion, &shorter)));
    assert!(pillion.metric("pillion_cache_bytes") > 4_000.0, "keys are weighed");
}

/// An app with session middleware: a request without a cookie gets one. Under `/chunked` the length is not known before
/// the end.
fn sessions() -> Script {
    let count = AtomicUsize::new(0);
    Script::new(move |mut tcp| {
        while let Some(request) = Request::read(&mut tcp) {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let path = request.line.split(' ').nth(1).unwrap();
            let is_known = request.field("cookie").is_some();
            let is_odd = request.field("x-t").is_some();
            let accepts_html = request.field("accept").is_some_and(|accept| accept == "text/html");
            let public = "cache-control: public, max-age=600";
            let said = match path {
                "/404" if is_odd => "status: 404".to_owned(),
                "/410" if is_odd => "status: 410".to_owned(),
                "/private" if is_known => "cache-control: private\netag: \"own\"".to_owned(),
                "/private" => format!("{public}\netag: \"all\""),
                "/same" if is_odd => "cache-control: private\netag: \"all\"".to_owned(),
                "/same" => format!("{public}\netag: \"all\""),
                "/no-store" if is_odd => "cache-control: no-store".to_owned(),
                "/chunked/vary" if accepts_html => "cache-control: no-store\nvary: accept".to_owned(),
                "/chunked/vary" => format!("{public}\nvary: accept"),
                "/cookie" | "/chunked" if !is_known => format!("{public}\nset-cookie: sid=new"),
                _ => public.to_owned(),
            };
            let whole = answer(&request, &said, &format!("{path} #{number}"));
            if !path.starts_with("/chunked") {
                if tcp.write_all(&whole).is_err() {
                    return;
                }
                continue;
            }
            let head = String::from_utf8(whole).unwrap();
            let (head, content) = head.split_once("\r\n\r\n").unwrap();
            let length = format!("content-length: {}", content.len());
            let head = head.replace(&length, "transfer-encoding: chunked");
            let begins = format!("{head}\r\n\r\n{:x}\r\n{content}\r\n", content.len());
            if tcp.write_all(begins.as_bytes()).is_err() {
                return;
            }
            // Late enough not to be taken for content of known length.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let _ = tcp.write_all(b"0\r\n\r\n");
        }
    })
}

#[test]
fn n3_8_what_one_client_is_told_takes_no_fresh_copy_from_others() {
    let app = sessions();
    let pillion = Pillion::in_front_of(app.address);
    let mut taken = Vec::new();
    for (method, path, fields) in [
        ("GET", "/cookie", &[][..]),
        ("GET", "/chunked", &[]),
        ("HEAD", "/cookie", &[]),
        ("GET", "/404", &["x-t: a"]),
        ("GET", "/410", &["x-t: a"]),
        ("GET", "/no-store", &["x-t: a"]),
        ("GET", "/no-store", &["x-t: a", "authorization: a"]),
        ("GET", "/same", &["x-t: a"]),
        ("GET", "/private", &["cookie: sid=1"]),
        ("HEAD", "/private", &["cookie: sid=1"]),
        ("HEAD", "/no-store", &["x-t: a"]),
    ] {
        let visit = || match path {
            "/private" => get(&pillion, path),
            _ => ask(&pillion, &format!("GET {path}"), &["cookie: _ga=1"]),
        };
        let first = eventually(path, || Some(visit()).filter(is_hit));
        for asks in
            ["cache-control: no-cache", "cache-control: max-age=0", "cache-control: no-cache, no-store"]
        {
            let fields: Vec<&str> = fields.iter().copied().chain([asks]).collect();
            let other = ask(&pillion, &format!("{method} {path}"), &fields);
            assert!(!is_hit(&other), "{method} {path} {asks}");
            let next = visit();
            if !is_hit(&next) || next.text() != first.text() {
                taken.push(format!("{method} {path} {asks}: {}", status(&next)));
                eventually(path, || Some(visit()).filter(is_hit));
                break;
            }
        }
    }
    assert!(taken.is_empty(), "{taken:#?}");
}

/// Regression: each such request marked the key as hit-for-miss for two more minutes.
#[test]
fn n3_8_what_one_client_is_told_keeps_no_response_to_others_out() {
    let app = sessions();
    let pillion = Pillion::in_front_of(app.address);
    for path in ["/cookie", "/chunked"] {
        let mut visits = 0;
        let stored = (0..4).any(|_| {
            get(&pillion, path);
            visits += 1;
            status(&ask(&pillion, &format!("GET {path}"), &["cookie: _ga=1"])).contains("stored")
        });
        assert!(stored && visits <= 2, "{path}: {visits} visits, each after one without a cookie");
    }
}

#[test]
fn n3_8_a_variant_that_is_not_stored_keeps_no_other_out() {
    let app = sessions();
    let pillion = Config::new(app.address).cache("debug_header", true).start();
    let accepts = |types: &str| ask(&pillion, "GET /chunked/vary", &[&format!("accept: {types}")]);
    assert!(!status(&accepts("text/html")).contains("stored"));
    let mut asked = 0;
    eventually("the other variant is stored", || {
        asked += 1;
        is_hit(&accepts("application/json")).then_some(())
    });
    assert!(asked <= 4, "{asked}: a surprise, one that is stored, hits");
    for _ in 0..2 {
        accepts("text/html");
    }
    let other = accepts("text/html");
    assert!(status(&other).contains("detail=known"), "nobody waits for this one: {}", status(&other));
    assert!(is_hit(&accepts("application/json")));
    let third = accepts("application/xml");
    assert!(status(&third).contains("stored"), "{}", status(&third));
}

/// A refusal of the request that leads a fetch concerns that request only. The waiting requests are sent to the
/// upstream one after the other only if one of them is refused too.
#[test]
fn n1_1_a_refusal_of_the_request_that_leads_sends_one_of_those_who_wait() {
    const OTHERS: usize = 8;
    for (refused, wanted) in [("x/none", 2), ("", 2 + OTHERS - 1)] {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let script = Script::answering(move |request| {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = released.lock().unwrap().recv_timeout(PATIENCE);
            let accepts = request.field("accept").unwrap_or_default();
            let said = if accepts.starts_with(refused) { "status: 406" } else { "cache-control: max-age=60" };
            answer(request, said, "content")
        });
        let pillion = Pillion::in_front_of(script.address);
        let begin = |accept: &str| {
            let mut tcp = connect(pillion.http);
            let head = format!("GET /a HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\n\r\n");
            tcp.write_all(head.as_bytes()).unwrap();
            tcp
        };
        let mut first = begin("x/none");
        eventually("it leads", || (seen.load(Ordering::SeqCst) == 1).then_some(()));
        let mut others: Vec<_> = (0..OTHERS).map(|_| begin("*/*")).collect();
        eventually("all wait", || {
            let text = pillion.admin_get("/metrics").text();
            let joined = text.lines().filter(|line| line.contains("cache") && line.contains("\"collapsed\""));
            let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
            (joined.map(count).sum::<usize>() == OTHERS).then_some(())
        });
        release.send(()).unwrap();
        assert_eq!(read_answer(&mut first).status, 406);
        (0..OTHERS).for_each(|_| release.send(()).unwrap());
        let status = if refused.is_empty() { 406 } else { 200 };
        others.iter_mut().for_each(|tcp| assert_eq!(read_answer(tcp).status, status));
        // A request between the end of the second fetch and its storing causes one more fetch.
        let seen = seen.load(Ordering::SeqCst);
        assert!((wanted..=wanted + 2).contains(&seen), "{seen} requests reached the app, {wanted} expected");
    }
}
