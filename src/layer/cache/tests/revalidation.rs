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
