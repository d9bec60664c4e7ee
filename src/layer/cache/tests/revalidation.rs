//! Stored responses that are revalidated, refreshed in the background, or used in place of an error.

use std::time::Duration;

use super::{Cached, cache_status};
use crate::cache::invalidation::Mode;
use crate::layer::testing::{Asking, Scripted, content, field, on_worker, response, until};
use crate::runtime::clock;
use crate::upstream::ForwardError;

/// A response that is stale on arrival, so that no test waits for it to be.
const STALE: [(&str, &str); 3] = [("age", "100"), ("cache-control", "max-age=60"), ("etag", "\"a\"")];
const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn a_304_freshens_the_stored_response_with_its_fields() {
    on_worker(async {
        let unchanged = response(304, &[FRESH, ("etag", "\"a\""), ("x-a", "2"), ("set-cookie", "a=b")], "");
        let cached = Cached::new("", Scripted::queue([response(200, &STALE, "hello"), unchanged]));
        cached.get("/a").await;
        let second = cached.get("/a").await;
        assert_eq!(cached.upstream.last().field("if-none-match"), "\"a\"");
        assert_eq!(cache_status(&second), "fwd=stale; fwd-status=304; ttl=60; stored");
        assert_eq!(field(second.headers(), "x-cache"), "REVALIDATED");
        assert_eq!((field(second.headers(), "x-a"), field(second.headers(), "set-cookie")), ("2", "a=b"));
        assert_eq!(content(second).await.unwrap(), "hello");
        let third = cached.get("/a").await;
        assert_eq!(cache_status(&third), "hit; ttl=60");
        assert_eq!(field(third.headers(), "x-a"), "2");
        assert!(!third.headers().contains_key("set-cookie"), "the cookie is for the second client alone");
    });
}

#[test]
fn another_response_replaces_the_stored_one() {
    on_worker(async {
        let changed = response(200, &[FRESH, ("etag", "\"b\"")], "other");
        let cached = Cached::new("", Scripted::queue([response(200, &STALE, "hello"), changed]));
        cached.get("/a").await;
        assert_eq!(cached.status("GET /a", |asking| asking).await, "fwd=stale; fwd-status=200; stored");
        assert_eq!(content(cached.get("/a").await).await.unwrap(), "other");
    });
}

#[test]
fn a_304_about_another_response_removes_the_stored_one() {
    on_worker(async {
        let other = response(304, &[FRESH, ("etag", "\"b\"")], "");
        let last = response(200, &[FRESH], "new");
        let cached = Cached::new("", Scripted::queue([response(200, &STALE, "hello"), other, last]));
        cached.get("/a").await;
        assert_eq!(cached.status("GET /a", |asking| asking).await, "fwd=stale; fwd-status=304; ttl=-40");
        assert_eq!(cached.status("GET /a", |asking| asking).await, "fwd=uri-miss; fwd-status=200; stored");
    });
}

#[test]
fn a_replacement_that_cannot_be_stored_removes_the_stored_response() {
    on_worker(async {
        let secret = || response(200, &[("cache-control", "no-store")], "secret");
        let cached = Cached::new("", Scripted::queue([response(200, &STALE, "hello"), secret(), secret()]));
        cached.get("/a").await;
        assert_eq!(cached.status("GET /a", |asking| asking).await, "fwd=stale; fwd-status=200");
        assert_eq!(cached.stage.cache().store.len(), 0);
        assert_eq!(cached.status("GET /a", |asking| asking).await, "fwd=uri-miss; fwd-status=200");
    });
}

#[test]
fn a_request_with_no_cache_revalidates_a_fresh_response() {
    on_worker(async {
        let fresh = response(200, &[FRESH, ("etag", "\"a\"")], "hello");
        let unchanged = response(304, &[("etag", "\"a\"")], "");
        let cached = Cached::new("", Scripted::queue([fresh, unchanged]));
        cached.get("/a").await;
        let found = cached.status("GET /a", |asking| asking.field("cache-control", "no-cache")).await;
        assert_eq!(found, "fwd=request; fwd-status=304; ttl=60; stored");
    });
}

#[test]
fn a_stale_response_is_served_while_it_is_revalidated_once() {
    on_worker(async {
        let stale =
            [("age", "100"), ("cache-control", "max-age=60, stale-while-revalidate=600"), ("etag", "\"a\"")];
        let cached = Cached::new(
            "",
            Scripted::queue([response(200, &stale, "hello"), response(200, &[FRESH], "new")]),
        );
        cached.get("/a").await;
        cached.upstream.hold();
        for _ in 0..2 {
            let served = cached.get("/a").await;
            assert_eq!(cache_status(&served), "hit; ttl=-40");
            assert_eq!(field(served.headers(), "x-cache"), "STALE");
            assert_eq!(content(served).await.unwrap(), "hello");
        }
        until("the revalidation is sent", || cached.upstream.count() == 2).await;
        assert_eq!(cached.upstream.last().field("if-none-match"), "\"a\"");
        cached.upstream.release();
        until("the fetch ends", || cached.stage.cache().fetches.len() == 0).await;
        assert_eq!(content(cached.get("/a").await).await.unwrap(), "new");
        assert_eq!(cached.upstream.count(), 2);
    });
}

#[test]
fn a_stale_response_replaces_an_error_where_it_is_allowed() {
    on_worker(async {
        const SAYS: &str = "max-age=60, stale-if-error=600";
        // With the default, silence of the upstream is replaced, and an error that it sent is not.
        for (directives, status, wanted) in [
            ("max-age=60", None, Some("fwd=stale; ttl=-40")),
            ("max-age=60", Some(503), None),
            (SAYS, Some(503), Some("fwd=stale; fwd-status=503; ttl=-40")),
            (SAYS, Some(500), Some("fwd=stale; fwd-status=500; ttl=-40")),
            (SAYS, Some(404), None),
            (SAYS, None, Some("fwd=stale; ttl=-40")),
            ("must-revalidate, max-age=60", None, None),
        ] {
            let mut first = true;
            let cached = Cached::new(
                "",
                Scripted::by(move |_| match (std::mem::take(&mut first), status) {
                    (true, _) => Ok(response(
                        200,
                        &[("age", "100"), ("cache-control", directives), ("etag", "\"a\"")],
                        "hello",
                    )),
                    (false, Some(status)) => Ok(response(status, &[], "error")),
                    (false, None) => Err(ForwardError::TimedOut.into()),
                }),
            );
            cached.get("/a").await;
            let found = cached.send(cached.stage.ask("GET /a")).await;
            match (wanted, found) {
                (Some(wanted), Ok(found)) => {
                    assert_eq!(cache_status(&found), wanted, "{directives} {status:?}");
                    assert_eq!(content(found).await.unwrap(), "hello", "{directives} {status:?}");
                }
                (None, Ok(found)) => assert_eq!(Some(found.status().as_u16()), status, "{directives}"),
                (wanted, Err(_)) => assert_eq!((wanted, status), (None, None), "{directives}"),
            }
        }
    });
}

/// A route that waits for this long before it serves a stale response.
const IMPATIENT: &str = "[[routes]]\nmatch = \"GET /**\"\ncache = { serve_stale_after = \"20ms\" }\n";

#[test]
fn a_stale_response_is_served_after_a_while_and_the_fetch_goes_on() {
    on_worker(async {
        // In the first round each request fetches for itself, because no stale response is shared. In the second the
        // response is older by the time of its fetch alone, and one request waits for the fetch of the other.
        for (first, at, fetches) in [(&STALE[..], 0, 2), (&[FRESH], 100, 1)] {
            let new = || response(200, &[FRESH], "new");
            let cached =
                Cached::new(IMPATIENT, Scripted::queue([response(200, first, "hello"), new(), new()]));
            let early = clock::now() - Duration::from_secs(at);
            cached.send(cached.stage.ask("GET /a").at(early)).await.unwrap();
            cached.upstream.hold();
            let (one, other) = tokio::join!(cached.get("/a"), cached.get("/a"));
            for served in [one, other] {
                assert_eq!(cache_status(&served), "fwd=stale; ttl=-40");
                assert_eq!(field(served.headers(), "x-cache"), "STALE");
                assert_eq!(content(served).await.unwrap(), "hello");
            }
            assert_eq!(cached.upstream.count(), 1 + fetches);
            cached.upstream.release();
            until("the fetch ends", || cached.stage.cache().unattended.get() == 0).await;
            let third = cached.get("/a").await;
            assert_eq!(
                (cache_status(&third), cached.upstream.count()),
                ("hit; ttl=60".to_owned(), 1 + fetches)
            );
            assert_eq!(content(third).await.unwrap(), "new");
        }
    });
}

#[test]
fn a_stale_response_is_not_served_after_a_while_where_none_may_replace_an_error() {
    on_worker(async {
        for (directives, invalidates) in [
            ("max-age=60, must-revalidate", false),
            ("s-maxage=60", false),
            ("no-cache, max-age=60", false),
            ("max-age=60, stale-if-error=0", false),
            ("max-age=60", true),
        ] {
            let stale = [("age", "100"), ("cache-control", directives), ("etag", "\"a\"")];
            let script = [response(200, &stale, "hello"), response(200, &[FRESH], "new")];
            let cached = Cached::new(IMPATIENT, Scripted::queue(script));
            cached.get("/a").await;
            cached.upstream.hold();
            let release = async {
                until("the request is sent", || cached.upstream.count() == 2).await;
                if invalidates {
                    let invalidation = &cached.stage.cache().invalidation;
                    invalidation.stamp(&[invalidation.key_hasher.path("/a")], Mode::Hard, clock::now());
                }
                tokio::time::sleep(Duration::from_millis(60)).await;
                cached.upstream.release();
            };
            let (served, ()) = tokio::join!(cached.get("/a"), release);
            assert_eq!(content(served).await.unwrap(), "new", "{directives}");
        }
    });
}

#[test]
fn a_response_in_time_is_served_in_place_of_a_stale_one() {
    on_worker(async {
        let script = [response(200, &STALE, "hello"), response(200, &[FRESH], "new")];
        let patient = IMPATIENT.replace("20ms", "20s");
        let cached = Cached::new(&patient, Scripted::queue(script));
        cached.get("/a").await;
        assert_eq!(content(cached.get("/a").await).await.unwrap(), "new");
    });
}

#[test]
fn a_response_that_is_used_is_fetched_anew_shortly_before_its_end() {
    on_worker(async {
        const AHEAD: &str = "[[routes]]\nmatch = \"GET /**\"\ncache = { refresh = \"ahead\" }\n";
        const HALF_A_SECOND: Duration = Duration::from_millis(500);
        for (configuration, age, wanted) in [(AHEAD, "99", 2), (AHEAD, "80", 1), ("", "99", 1)] {
            let fresh =
                || response(200, &[("age", age), ("cache-control", "max-age=100"), ("etag", "\"a\"")], "a");
            let cached = Cached::new(configuration, Scripted::queue([fresh(), fresh()]));
            let now = clock::now();
            // The fetch took half a second, by which the response is older.
            cached.send(cached.stage.ask("GET /a").at(now - HALF_A_SECOND)).await.unwrap();
            for _ in 0..200 {
                let hit = cached.send(cached.stage.ask("GET /a").at(now)).await.unwrap();
                assert!(cache_status(&hit).starts_with("hit"), "{}", cache_status(&hit));
                tokio::task::yield_now().await;
                if cached.upstream.count() > 1 {
                    break;
                }
            }
            assert_eq!(cached.upstream.count(), wanted, "{configuration} {age}");
        }
    });
}

#[test]
fn a_response_to_head_freshens_or_removes_the_stored_response_to_get() {
    on_worker(async {
        for (head, served) in [
            (&[("etag", "\"a\""), FRESH, ("content-length", "5")][..], "hit; ttl=60"),
            (&[("etag", "\"b\""), FRESH], "fwd=uri-miss; fwd-status=200; stored"),
            (&[("etag", "\"a\""), FRESH, ("content-length", "9")], "fwd=uri-miss; fwd-status=200; stored"),
            (&[("etag", "\"b\""), ("cache-control", "private")], "fwd=stale; fwd-status=200; stored"),
            (&[FRESH], "fwd=stale; fwd-status=200; stored"),
        ] {
            let last = response(200, &[FRESH], "new");
            let script = [response(200, &STALE, "hello"), response(200, head, ""), last];
            let cached = Cached::new("", Scripted::queue(script));
            cached.get("/a").await;
            assert_eq!(
                cached.status("HEAD /a", |asking| asking).await,
                "fwd=stale; fwd-status=200",
                "{head:?}"
            );
            assert_eq!(cached.status("GET /a", |asking| asking).await, served, "{head:?}");
        }
    });
}

#[test]
fn an_invalidated_response_is_revalidated_by_a_strong_tag_alone() {
    on_worker(async {
        for (validator, wanted) in [(("etag", "\"a\""), "\"a\""), (("etag", "W/\"a\""), "")] {
            let cached =
                Cached::new("", Scripted::by(move |_| Ok(response(200, &[FRESH, validator], "hello"))));
            cached.get("/a").await;
            let invalidation = &cached.stage.cache().invalidation;
            invalidation.stamp(&[invalidation.key_hasher.path("/a")], Mode::Hard, clock::now());
            let later = |asking: Asking| asking.later(Duration::from_secs(1));
            assert_eq!(cached.status("GET /a", later).await, "fwd=stale; fwd-status=200; stored");
            assert_eq!(cached.upstream.last().field("if-none-match"), wanted);
        }
    });
}
