//! Tests that one user's response never reaches another user: collapsed fetches, unlisted credentials, empty
//! credentials, and cookies.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::harness::holding::Raise;
use crate::harness::origin::*;
use crate::harness::*;

/// An app with a login: alice and bob get pages of their own, everyone else 403. It can hold requests.
struct Clinic {
    app: Script,
    /// Number of requests that have arrived and are held.
    held: Arc<AtomicUsize>,
    /// Number of requests that have arrived.
    seen: Arc<AtomicUsize>,
    holds: Arc<AtomicBool>,
    /// Releases the held requests when set.
    release: Arc<AtomicBool>,
    fields: Arc<Mutex<HashMap<String, &'static str>>>,
}

impl Clinic {
    fn new() -> Clinic {
        let (held, seen): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let (holds, release): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let fields: Arc<Mutex<HashMap<String, &'static str>>> = Default::default();
        let app = {
            let (held, seen, holds) = (held.clone(), seen.clone(), holds.clone());
            let (release, fields) = (release.clone(), fields.clone());
            Script::answering(move |request| {
                seen.fetch_add(1, Ordering::SeqCst);
                if holds.load(Ordering::SeqCst) {
                    held.fetch_add(1, Ordering::SeqCst);
                    let deadline = now() + PATIENCE;
                    while !release.load(Ordering::SeqCst) && now() < deadline {
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                    held.fetch_sub(1, Ordering::SeqCst);
                }
                let path = request.line.split(' ').nth(1).unwrap().to_owned();
                let fields = fields.lock().unwrap().get(&path).copied().unwrap_or_default();
                let who = request.field("authorization").or(request.field("cookie")).unwrap_or("nobody");
                match who.trim_start_matches("session=") {
                    "alice" => answer(request, fields, "page of alice"),
                    // Each page has an entity tag of its own.
                    "bob" => answer(request, &fields.replace("\"1\"", "\"2\""), "page of bob"),
                    "nobody" if path.starts_with("/open") => answer(request, fields, "page of nobody"),
                    _ => answer(request, "status: 403", "not for you"),
                }
            })
        };
        Clinic { app, held, seen, holds, release, fields }
    }

    fn says(&self, path: &str, fields: &'static str) {
        self.fields.lock().unwrap().insert(path.to_owned(), fields);
    }

    fn hold(&self) {
        self.release.store(false, Ordering::SeqCst);
        self.holds.store(true, Ordering::SeqCst);
    }

    fn let_go(&self) {
        self.holds.store(false, Ordering::SeqCst);
        self.release.store(true, Ordering::SeqCst);
    }
}

fn collapsed(pillion: &Pillion) -> u64 {
    let stats =
        exchange(pillion.admin, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let text = stats.text();
    let lines = text.lines().filter(|line| line.contains("cache") && line.contains("\"collapsed\""));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn n1_1_a_follower_of_a_fetch_takes_only_what_a_stored_copy_would_give_it() {
    let clinic = Clinic::new();
    let pillion = Config::new(clinic.app.address).start();
    let _raise = Raise(&clinic.release);
    for (at, fields) in [
        "cache-control: max-age=0, must-revalidate\netag: \"1\"",
        "cache-control: s-maxage=0\netag: \"1\"",
        "cache-control: public, max-age=0\netag: \"1\"",
        "cache-control: public, no-cache\netag: \"1\"",
        "cache-control: public, max-age=0, stale-while-revalidate=0, stale-if-error=60",
        "cache-control: s-maxage=0, stale-if-error=60\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT",
    ]
    .into_iter()
    .enumerate()
    {
        for (stranger, status) in
            [("authorization: bob", 200), ("authorization: mallory", 403), ("x-none: 1", 403)]
        {
            let path = format!("/{at}/{status}{}", stranger.len());
            clinic.says(&path, fields);
            let line = format!("GET {path}");
            assert_eq!(ask(&pillion, &line, &["authorization: alice"]).text(), "page of alice");
            clinic.hold();
            std::thread::scope(|scope| {
                let alice = scope.spawn(|| ask(&pillion, &line, &["authorization: alice"]));
                eventually("alice's request", || (clinic.held.load(Ordering::SeqCst) == 1).then_some(()));
                let before = (collapsed(&pillion), clinic.seen.load(Ordering::SeqCst));
                let other = scope.spawn(|| ask(&pillion, &line, &[stranger]));
                eventually("the other waits, or goes by itself", || {
                    let now = (collapsed(&pillion), clinic.seen.load(Ordering::SeqCst));
                    (now.0 > before.0 || now.1 > before.1).then_some(())
                });
                clinic.let_go();
                assert_eq!(alice.join().unwrap().text(), "page of alice");
                let other = other.join().unwrap();
                assert_eq!(other.status, status, "{fields:?} {stranger}: {}", other.text());
                assert!(!other.text().contains("alice"), "{fields:?} {stranger}: {}", other.text());
            });
        }
    }
}

#[test]
fn n1_1_those_who_cannot_take_a_response_go_to_the_app_side_by_side() {
    const WAITING: usize = 20;
    let clinic = Clinic::new();
    let pillion = Config::new(clinic.app.address).start();
    let _raise = Raise(&clinic.release);
    clinic.says("/open", "cache-control: max-age=0\netag: \"1\"");
    for round in 0..2 {
        clinic.hold();
        std::thread::scope(|scope| {
            let before = collapsed(&pillion);
            let asked: Vec<_> = (0..WAITING).map(|_| scope.spawn(|| get(&pillion, "/open"))).collect();
            eventually("all wait for one, or are with the app", || {
                let with_app = clinic.held.load(Ordering::SeqCst) as u64;
                (collapsed(&pillion) - before + with_app == WAITING as u64).then_some(())
            });
            if round == 0 {
                assert_eq!(clinic.held.load(Ordering::SeqCst), 1, "nothing is known of the key");
                // The first request is released; all others arrive together and are held.
                clinic.release.store(true, Ordering::SeqCst);
                eventually("the first", || (clinic.held.load(Ordering::SeqCst) == 0).then_some(()));
            } else {
                let with_app = clinic.held.load(Ordering::SeqCst);
                assert_eq!(with_app, WAITING, "nobody waits for what nobody may take");
            }
            clinic.let_go();
            for response in asked {
                assert_eq!(response.join().unwrap().text(), "page of nobody");
            }
        });
    }
    assert_eq!(clinic.seen.load(Ordering::SeqCst), 2 * WAITING);
}

#[test]
fn n1_1_a_fetch_longer_than_the_lifetime_serves_those_who_waited_unless_stale_is_forbidden() {
    let clinic = Clinic::new();
    let pillion = Config::new(clinic.app.address).start();
    let _raise = Raise(&clinic.release);
    for (path, fields, fetches) in [
        ("/open/1", "cache-control: max-age=1", 1),
        ("/open/2", "cache-control: max-age=1, must-revalidate", 4),
    ] {
        clinic.says(path, fields);
        clinic.hold();
        let before = (clinic.seen.load(Ordering::SeqCst), collapsed(&pillion));
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| get(&pillion, path))).collect();
            eventually("three wait", || (collapsed(&pillion) - before.1 == 3).then_some(()));
            let since = now();
            eventually("the lifetime is over", || (since.elapsed().as_millis() > 1_100).then_some(()));
            clinic.let_go();
            asked.into_iter().for_each(|response| assert_eq!(response.join().unwrap().status, 200));
        });
        assert_eq!(clinic.seen.load(Ordering::SeqCst) - before.0, fetches, "{fields}");
    }
}

fn is_hit(answer: &Answer) -> bool {
    status_of(answer).contains("; hit")
}

/// Returns whether the second request gets the response of the first.
fn shares(pillion: &Pillion, path: &str, one: &[&str], other: &[&str]) -> bool {
    let line = format!("GET {path}");
    let first = ask(pillion, &line, one);
    let second = ask(pillion, &line, other);
    assert_eq!(first.text() == second.text(), is_hit(&second), "{one:?} {other:?}: {}", status_of(&second));
    is_hit(&second)
}

#[test]
fn n1_2_must_revalidate_lifts_the_ban_for_authorization_alone() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    let (alice, bob) = (&["authorization: alice"][..], &["authorization: bob"][..]);
    for (at, (says, one, other, wanted)) in [
        ("public, max-age=60", alice, bob, true),
        ("s-maxage=60", alice, bob, true),
        ("max-age=60, must-revalidate", alice, bob, true),
        ("max-age=60", alice, bob, false),
        ("public, max-age=60", &["cookie: a=1"], &["cookie: a=2"], true),
        ("s-maxage=60", &["cookie: a=1"], &["cookie: a=2"], true),
        ("max-age=60, must-revalidate", &["cookie: a=1"], &["cookie: a=2"], false),
        ("max-age=60, must-revalidate", &[], &["cookie: a=2"], false),
        ("max-age=60, must-revalidate", &[], bob, true),
        ("max-age=60, must-revalidate", &["authorization: alice", "cookie: a=1"], &[], false),
        ("max-age=60, must-revalidate", &["x-auth-token: 1"], &[], false),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{at}");
        origin.says(&path, &[&format!("cache-control: {says}")]);
        assert_eq!(shares(&pillion, &path, one, other), wanted, "{says} {one:?} {other:?}");
    }
}

#[test]
fn n1_3_an_empty_credential_names_nobody_and_is_personal_all_the_same() {
    let origin = Origin::new();
    let pillion =
        pillion(&origin, "[[routes]]\nmatch = \"GET /user\"\ncache = { ttl = \"1m\", scope = \"user\" }\n");
    origin.says("/auto", &["cache-control: max-age=60"]);
    for empty in [
        "cookie: session=",
        "cookie: session=\"\"",
        "authorization: ",
        "authorization: Basic",
        "authorization: Bearer",
        "authorization: bearer ",
        "authorization: Basic Og==",
    ] {
        let user = ask(&pillion, "GET /user", &[empty]);
        assert!(status_of(&user).contains("fwd=bypass"), "{empty}: {}", status_of(&user));
        assert!(!shares(&pillion, "/auto", &[empty], &[empty]), "{empty}");
    }
}

#[test]
fn n1_4_a_request_with_a_credential_nobody_listed_is_personal() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "[[routes]]\nmatch = \"GET /route/**\"\ncache = { ttl = \"1m\" }\n");
    for (at, (field, wanted)) in [
        ("private-token: 1", false),
        ("jwt: 1", false),
        ("x-amzn-oidc-data: 1", false),
        ("ocp-apim-subscription-key: 1", false),
        ("x-forwarded-groups: admin", false),
        ("dpop: 1", false),
        ("x-csrf-token: 1", false),
        ("x-remote-user:", false),
        ("x-user-agent: 1", true),
        ("sec-fetch-user: ?1", true),
        ("idempotency-key: 1", true),
    ]
    .into_iter()
    .enumerate()
    {
        for path in [format!("/route/{at}"), format!("/app/{at}")] {
            origin.says(&path, if path.starts_with("/app") { &["cache-control: max-age=60"] } else { &[] });
            assert_eq!(shares(&pillion, &path, &[field], &[]), wanted, "{path} {field}");
            let after = ask(&pillion, &format!("GET {path}"), &[field]);
            assert_eq!(is_hit(&after), wanted, "{path} {field}");
        }
    }
}

#[test]
fn n1_5_scope_user_keys_on_every_credential_and_cookie_that_counts() {
    let origin = Origin::new();
    let pillion =
        pillion(&origin, "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1m\", scope = \"user\" }\n");
    let token = "authorization: Bearer undefined";
    for (at, (one, other, wanted)) in [
        (&[token, "cookie: sid=1"][..], &[token, "cookie: sid=2"][..], false),
        (&[token, "cookie: mine=1"], &[token, "cookie: mine=2"], false),
        (&[token, "x-remote-user: a"], &[token, "x-remote-user: b"], false),
        (&[token, "x-tenant-token: a"], &[token], false),
        (&[token, "cookie: _ga=1 sid=2"], &[token, "cookie: _ga=1 sid=3"], false),
        (&["cookie: SESSION=a"], &["cookie: SESSION=b"], false),
        (&["cookie: __Host-my_session=a"], &["cookie: __Host-my_session=b"], false),
        (&[token, "x-csrf-token: 1"], &[token, "x-csrf-token: 2"], true),
        (&[token, "cookie: csrftoken=1"], &[token, "cookie: csrftoken=2"], true),
        (&[token, "cookie: _ga_XY=1; _hjSession_1=a; ai_session=1"], &[token, "cookie: _clck=2"], true),
        (&[token, "cookie: a=1; b=2"], &[token, "cookie: b=2; a=1"], true),
        (&["cookie: connect.sid=a"], &["cookie: connect.sid=a; OptanonConsent=x"], true),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{at}");
        assert_eq!(shares(&pillion, &path, one, other), wanted, "{one:?} {other:?}");
    }
}

#[test]
fn n1_6_every_session_cookie_of_the_field_names_somebody() {
    let origin = Origin::new();
    let pillion =
        pillion(&origin, "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1m\", scope = \"user\" }\n");
    for name in [
        "session",
        "sessionid",
        "SESSION",
        "laravel_session",
        "app-session",
        "sid",
        "koa.sid",
        "connect.sid",
        "JSESSIONID",
        "JSESSIONIDSSO",
        "PHPSESSID",
        "next-auth.session-token",
        "__Secure-next-auth.session-token.0",
        "__Host-sid",
        "sb-abc-auth-token.1",
        "ASP.NET_SessionId",
        ".AspNetCore.Cookies",
        ".ASPXAUTH",
        "wordpress_logged_in_x",
        "wordpress_sec_x",
        "SESSabc",
        "SSESSabc",
        "ci_session",
        "__session",
        "appSession",
        "_oauth2_proxy",
        "_oauth2_proxy_0",
        "remember_web_x",
        "MoodleSession",
        "access_token",
        "auth_token",
        "jwt",
        "token",
    ] {
        let cookie = |value: &str| format!("cookie: {name}={value}");
        let path = format!("/{name}");
        assert!(shares(&pillion, &path, &[&cookie("a")], &[&cookie("a")]), "{name}");
        assert!(!shares(&pillion, &path, &[&cookie("a")], &[&cookie("b")]), "{name}");
    }
}

/// Some name matches both `my_*` and `*_session`, namely `my_session`, although neither pattern includes the other.
#[test]
fn n1_6_an_ignored_pattern_takes_no_session_cookie_that_it_does_not_name() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "[cache]\nignore_cookies = [\"my_*\"]\n");
    for (cookie, shared) in [("my_session", false), ("my_app.sid", false), ("my_theme", true)] {
        let path = format!("/{cookie}");
        origin.says(&path, &["cache-control: max-age=60"]);
        let of = |value: &str| format!("cookie: {cookie}={value}");
        assert_eq!(shares(&pillion, &path, &[&of("a")], &[&of("b")]), shared, "{cookie}");
    }
}

#[test]
fn n1_8_an_odd_cookie_counts_wherever_cookies_do() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: public, max-age=60", "vary: cookie"]);
    for (one, other, wanted) in [
        ("_ga=1", "_ga=2", true),
        ("_ga,session=evil", "_ga=2", false),
        ("_ga=1 session=evil", "_ga=2", false),
        ("_ga=\"1; session=evil\"", "_ga=3", false),
        ("_gid=1, session=evil", "_gid=1, session=other", false),
    ] {
        let of = |cookie: &str| ask(&pillion, "GET /a", &[&format!("cookie: {cookie}")]).text();
        assert_eq!(of(one) == of(other), wanted, "{one} {other}");
    }
}

#[test]
fn n1_5_one_warning_names_the_cookie_that_keeps_copies_apart() {
    let origin = Origin::new();
    let pillion =
        pillion(&origin, "[[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1m\", scope = \"user\" }\n");
    for number in 0..40 {
        ask(&pillion, "GET /a", &["authorization: a", &format!("cookie: theme=dark; page-view={number}")]);
    }
    let said = "are never used twice";
    let log = eventually("the warning", || Some(pillion.log()).filter(|log| log.contains(said)));
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(said)).collect();
    assert!(lines.len() == 1 && lines[0].contains("page-view"), "{lines:?}");
}

#[test]
fn n3_8_what_an_app_says_of_one_request_alone_takes_nothing_from_others() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    for status in ["302", "303", "307", "400", "405", "406", "413", "415", "431", "500"] {
        let path = format!("/{status}");
        let line = format!("GET {path}");
        origin.says(&path, &["cache-control: max-age=60"]);
        let first = get(&pillion, &path);
        origin.says(&path, &[&format!("status: {status}")]);
        assert_eq!(ask(&pillion, &line, &["cache-control: no-cache"]).status.to_string(), status);
        origin.says(&path, &["cache-control: max-age=60"]);
        assert_eq!(get(&pillion, &path).text(), first.text(), "{status}");
    }
}

#[test]
fn n1_1_a_follower_does_not_get_what_the_leaders_own_bytes_brought_about() {
    let (held, release): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
    let app = {
        let (held, release) = (held.clone(), release.clone());
        Script::new(move |mut tcp| {
            while let Some(request) = Request::read(&mut tcp) {
                if request.field("x-evil").is_some() {
                    held.fetch_add(1, Ordering::SeqCst);
                    let deadline = now() + PATIENCE;
                    while !release.load(Ordering::SeqCst) && now() < deadline {
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                    return;
                }
                let _ = std::io::Write::write_all(
                    &mut tcp,
                    &answer(&request, "cache-control: max-age=60", "page"),
                );
            }
        })
    };
    let pillion = Config::new(app.address).start();
    let _raise = Raise(&release);
    std::thread::scope(|scope| {
        let evil = scope.spawn(|| ask(&pillion, "GET /a", &["x-evil: 1"]));
        eventually("the leader is with the app", || (held.load(Ordering::SeqCst) >= 1).then_some(()));
        let others: Vec<_> = (0..3).map(|_| scope.spawn(|| get(&pillion, "/a"))).collect();
        eventually("others wait", || (collapsed(&pillion) == 3).then_some(()));
        release.store(true, Ordering::SeqCst);
        assert_eq!(evil.join().unwrap().status, 502);
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap().text(), "page"));
    });
}

#[test]
fn n1_1_variants_that_are_known_do_not_wait_for_one_another() {
    let clinic = Clinic::new();
    let pillion = Config::new(clinic.app.address).start();
    let _raise = Raise(&clinic.release);
    clinic.says("/open", "cache-control: max-age=60\nvary: accept-language");
    get(&pillion, "/open");
    clinic.hold();
    std::thread::scope(|scope| {
        let language = |at: usize| format!("accept-language: l{}", at % 3);
        let pillion = &pillion;
        let asked: Vec<_> =
            (0..6).map(|at| scope.spawn(move || ask(pillion, "GET /open", &[&language(at)]))).collect();
        eventually("one of each language is with the app", || {
            (clinic.held.load(Ordering::SeqCst) == 3 && collapsed(pillion) == 3).then_some(())
        });
        clinic.let_go();
        asked.into_iter().for_each(|one| assert_eq!(one.join().unwrap().status, 200));
    });
    assert_eq!(clinic.seen.load(Ordering::SeqCst), 1 + 3);
}

#[test]
fn n2_1_what_is_stale_at_once_is_not_fetched_a_second_time_without_its_parameters() {
    let origin = Origin::new();
    let pillion = pillion(&origin, "");
    origin.says("/a", &["cache-control: public, max-age=0", "etag: \"1\""]);
    for number in 0..5 {
        assert_eq!(get(&pillion, &format!("/a?utm_source={number}")).status, 200);
    }
    get(&pillion, "/b");
    let targets: Vec<String> =
        origin.seen.lock().unwrap().iter().map(|request| request.line.clone()).collect();
    assert!(targets.iter().all(|line| !line.starts_with("GET /a ")), "{targets:?}");
}
