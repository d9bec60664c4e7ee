//! Writes, purges and sessions, and the stored responses that they invalidate.

use std::task::Poll;

use futures_util::future::poll_fn;
use http::{HeaderMap, Method};

use super::Cached;
use crate::layer::cache::sessions;
use crate::layer::testing::{Asking, Scripted, arriving, content, on_worker, response, until};
use crate::upstream::ForwardError;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");
const HIT: &str = "hit; ttl=60";
const RULES: &str = "
    [[routes]]
    match = 'GET /api/{id}'
    cache = { ttl = '60s', tags = ['item:{id}'] }
    [[invalidate]]
    on = 'POST,PUT,DELETE /api/{id}/**'
    tags = ['item:{id}']
    paths = ['/list/**']
";
/// The path that writes ask for, one that a rule invalidates by a tag, one by a path, and one that no rule names.
const PATHS: [&str; 4] = ["/api/1/part", "/api/1", "/list/all", "/other"];

/// Stores all of [`PATHS`], sends a write, and returns which of them are still stored.
async fn left_by(configuration: &str, change: impl Fn(Asking) -> Asking, written: Written) -> [bool; 4] {
    let upstream = Scripted::by(move |asked| match asked.method {
        Method::GET => Ok(response(200, &[FRESH], "hello")),
        _ => match written {
            Written::Response(status, lines) => Ok(response(status, lines, "")),
            Written::Nothing => Err(ForwardError::Closed.into()),
        },
    });
    let cached = Cached::new(configuration, upstream);
    for path in PATHS {
        cached.get(path).await;
    }
    let _ = cached.send(change(cached.stage.ask("POST /api/1/part"))).await;
    let mut left = [false; 4];
    for (path, left) in PATHS.iter().zip(&mut left) {
        *left = cached.status(&format!("GET {path}"), |asking| asking).await == HIT;
    }
    left
}

#[derive(Clone, Copy, Debug)]
enum Written {
    Response(u16, &'static [(&'static str, &'static str)]),
    /// No response comes, and nothing was sent.
    Nothing,
}

#[test]
fn a_write_invalidates_its_target_and_what_rules_name() {
    on_worker(async {
        const ALL: [bool; 4] = [false, false, false, true];
        const TARGET: [bool; 4] = [false, true, true, true];
        const NONE: [bool; 4] = [true; 4];
        let location = |to| -> &'static [(&'static str, &'static str)] {
            match to {
                "login" => &[("location", "/login?next=/api/1/part")],
                "elsewhere" => &[("location", "https://sso.example.org/")],
                _ => &[("location", "/api/1")],
            }
        };
        for (written, left) in [
            (Written::Response(200, &[]), ALL),
            (Written::Response(204, &[]), ALL),
            (Written::Response(302, location("here")), ALL),
            (Written::Response(303, location("here")), ALL),
            (Written::Response(302, location("login")), TARGET),
            (Written::Response(303, location("elsewhere")), TARGET),
            (Written::Response(307, location("here")), TARGET),
            (Written::Response(304, &[]), TARGET),
            (Written::Response(400, &[]), NONE),
            (Written::Response(401, &[]), NONE),
            (Written::Response(403, &[]), NONE),
            (Written::Response(500, &[]), NONE),
            // Nothing was sent, so nothing can have changed.
            (Written::Response(502, &[]), NONE),
            (Written::Nothing, NONE),
        ] {
            assert_eq!(left_by(RULES, |asking| asking, written).await, left, "{written:?}");
        }
    });
}

#[test]
fn a_write_without_a_rule_invalidates_its_target_and_the_places_that_its_response_names() {
    on_worker(async {
        for (lines, left) in [
            (&[][..], [false, true, true, true]),
            (&[("location", "/other")], [false, true, true, false]),
            (&[("content-location", "/list/all")], [false, true, false, true]),
            (&[("location", "https://elsewhere.example/other")], [false, true, true, true]),
        ] {
            let found = left_by("", |asking| asking, Written::Response(201, lines)).await;
            assert_eq!(found, left, "{lines:?}");
        }
    });
}

#[test]
fn a_write_invalidates_as_an_upgrade_too() {
    on_worker(async {
        let upgrade = |asking: Asking| asking.upgrade("websocket");
        let left = left_by(RULES, upgrade, Written::Response(200, &[])).await;
        assert_eq!(left, [false, false, false, true]);
    });
}

#[test]
fn a_soft_rule_makes_responses_stale() {
    on_worker(async {
        let configuration = "
            [[routes]]
            match = 'GET /a'
            cache = { ttl = '60s', tags = ['a'], stale_while_revalidate = '60s' }
            [[invalidate]]
            on = 'POST /b'
            tags = ['a']
            mode = 'soft'
        ";
        let cached = Cached::new(configuration, Scripted::by(|_| Ok(response(200, &[], "hello"))));
        cached.get("/a").await;
        cached.send(cached.stage.ask("POST /b")).await.unwrap();
        assert_eq!(cached.status("GET /a", |asking| asking).await, "hit; ttl=0");
        until("it is fetched anew", || cached.upstream.count() == 3).await;
    });
}

#[test]
fn a_response_that_a_write_overtook_is_not_stored() {
    on_worker(async {
        let cached =
            Cached::new("[cache]\ndebug_header = true", Scripted::by(|_| Ok(response(200, &[FRESH], ""))));
        cached.upstream.hold();
        let mut reads = Box::pin(cached.send(cached.stage.ask("GET /a")));
        poll_fn(|cx| {
            assert!(reads.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        // The write gets its response while the read is on its way.
        let mut writes = Box::pin(cached.send(cached.stage.ask("POST /a")));
        poll_fn(|cx| {
            assert!(writes.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        cached.upstream.release();
        writes.await.unwrap();
        let read = reads.await.unwrap();
        assert_eq!(super::cache_status(&read), "fwd=uri-miss; fwd-status=200; key=\"/a\"; detail=overtaken");
        assert_eq!(cached.stage.cache().store.len(), 0);
    });
}

#[test]
fn what_is_read_while_a_write_responds_is_invalidated_at_its_end() {
    on_worker(async {
        let (sender, body) = arriving(None);
        let mut body = Some(body);
        let cached = Cached::new(
            "",
            Scripted::by(move |asked| {
                let mut found = response(200, &[FRESH], "");
                if asked.method == Method::POST {
                    *found.body_mut() = body.take().unwrap();
                }
                Ok(found)
            }),
        );
        let write = cached.send(cached.stage.ask("POST /a")).await.unwrap();
        cached.get("/a").await;
        assert_eq!(cached.status("GET /a", |asking| asking).await, HIT);
        drop(sender);
        content(write).await.unwrap();
        assert_eq!(cached.status("GET /a", |asking| asking).await, "fwd=stale; fwd-status=200; stored");
    });
}

#[test]
fn a_webdav_write_invalidates_its_tree_if_the_upstream_confirms_it() {
    on_worker(async {
        for (line, status, left) in [
            ("MOVE /a", 201, [false, false, true]),
            ("MOVE /a", 207, [false, false, true]),
            ("MOVE /a", 200, [false, true, true]),
            ("MOVE /a", 403, [true, true, true]),
            ("DELETE /a", 204, [false, true, true]),
        ] {
            let cached = Cached::new(
                "",
                Scripted::by(move |asked| match asked.method {
                    Method::GET => Ok(response(200, &[FRESH], "hello")),
                    _ => Ok(response(status, &[], "")),
                }),
            );
            let paths = ["/a", "/a/b", "/c"];
            for path in paths {
                cached.get(path).await;
            }
            cached.send(cached.stage.ask(line)).await.unwrap();
            for (path, left) in paths.into_iter().zip(left) {
                let found = cached.status(&format!("GET {path}"), |asking| asking).await;
                assert_eq!(found == HIT, left, "{line} {status}: {path}");
            }
        }
    });
}

#[test]
fn a_purge_from_a_listed_network_removes_a_url_in_all_variants() {
    on_worker(async {
        let upstream = Scripted::by(|_| Ok(response(200, &[FRESH], "hello")));
        let cached = Cached::new("[cache]\npurge_from = ['192.0.2.0/24']", upstream);
        let purge =
            |target: &str, client| cached.send(cached.stage.ask(&format!("PURGE {target}")).from(client));
        for target in ["/a", "/a?b=1", "/c"] {
            cached.get(target).await;
        }
        let asked = cached.upstream.count();
        let done = purge("/a", [192, 0, 2, 9]).await.unwrap();
        assert_eq!(done.status(), 200);
        assert_eq!(content(done).await.unwrap(), r#"{"count":2,"status":"purged"}"#);
        let again = purge("/a", [192, 0, 2, 9]).await.unwrap();
        assert_eq!(again.status(), 404);
        assert_eq!(content(again).await.unwrap(), r#"{"count":0,"status":"not stored"}"#);
        assert_eq!(cached.upstream.count(), asked, "the upstream is not asked");
        assert_eq!(cached.status("GET /c", |asking| asking).await, HIT);
        // From elsewhere it is a write like any other.
        purge("/c", [198, 51, 100, 1]).await.unwrap();
        assert_eq!(cached.upstream.last().method.as_str(), "PURGE");
        assert_eq!(cached.status("GET /c", |asking| asking).await, "fwd=stale; fwd-status=200; stored");
    });
}

#[test]
fn a_session_that_ends_or_begins_invalidates_the_copies_of_its_user() {
    on_worker(async {
        for (method, given, set, wanted) in [
            ("GET", "sid=1", "sid=; Max-Age=0", "fwd=stale; fwd-status=200; stored"),
            ("GET", "sid=1", "sid=2", HIT),
            ("POST", "sid=1", "sid=2", HIT),
            ("POST", "sid=1", "theme=dark", HIT),
        ] {
            let configuration = "[[routes]]\nmatch = 'GET /a'\ncache = { ttl = '60s', scope = 'user' }";
            let cached = Cached::new(configuration, Scripted::by(|_| Ok(response(200, &[], "hello"))));
            let mine = |asking: Asking| asking.field("cookie", given);
            cached.status("GET /a", mine).await;
            let routed = mine(cached.stage.ask("GET /a")).routed();
            let mut says = HeaderMap::new();
            says.insert("set-cookie", set.parse().unwrap());
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            sessions::heed(&routed.record, &method, routed.request.headers(), &says);
            assert_eq!(cached.status("GET /a", mine).await, wanted, "{method} {given} {set}");
        }
    });
}
