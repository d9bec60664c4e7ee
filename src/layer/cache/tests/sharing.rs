//! Requests that ask for the same at the same time, and keys that are not waited for.

use std::task::Poll;

use futures_util::future::{join, poll_fn};

use super::{Cached, cache_status};
use crate::layer::testing::{Outcome, Scripted, arriving, content, field, on_worker, response, until};
use crate::upstream::ForwardError;

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// Sends two requests for `/a` at once, and lets the upstream respond when as many have reached it as can.
async fn together(cached: &Cached, reach: usize) -> (Outcome, Outcome) {
    cached.upstream.hold();
    let begun = cached.upstream.count();
    let (one, other) = (cached.send(cached.stage.ask("GET /a")), cached.send(cached.stage.ask("GET /a")));
    let release = async {
        until("the requests reach the upstream", || cached.upstream.count() - begun == reach).await;
        cached.upstream.release();
    };
    join(join(one, other), release).await.0
}

#[test]
fn requests_for_the_same_share_one_response() {
    on_worker(async {
        let cached = Cached::new("", Scripted::queue([response(200, &[FRESH], "hello")]));
        let (one, other) = together(&cached, 1).await;
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(cache_status(&one), "fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(cache_status(&other), "fwd=uri-miss; ttl=60; collapsed");
        assert_eq!(
            (content(one).await.unwrap(), content(other).await.unwrap()),
            ("hello".into(), "hello".into())
        );
    });
}

#[test]
fn a_response_that_is_for_one_request_is_not_shared() {
    on_worker(async {
        for directives in ["private", "no-store", "max-age=0", "no-cache"] {
            let upstream = Scripted::by(move |_| {
                Ok(response(200, &[("cache-control", directives), ("etag", "\"a\"")], "hello"))
            });
            let cached = Cached::new("", upstream);
            let (one, other) = together(&cached, 1).await;
            assert_eq!(cached.upstream.count(), 2, "{directives}");
            for response in [one.unwrap(), other.unwrap()] {
                assert!(!field(response.headers(), "cache-status").contains("collapsed"), "{directives}");
            }
        }
    });
}

#[test]
fn requests_do_not_wait_for_keys_whose_responses_are_not_shared() {
    on_worker(async {
        let upstream = Scripted::by(|_| Ok(response(200, &[("cache-control", "no-store")], "hello")));
        let cached = Cached::new("[cache]\ndebug_header = true", upstream);
        cached.get("/a").await;
        // Both reach the upstream, although it has responded to neither.
        let (one, other) = together(&cached, 2).await;
        for response in [one.unwrap(), other.unwrap()] {
            assert_eq!(cache_status(&response), "fwd=uri-miss; fwd-status=200; key=\"/a\"; detail=known");
        }
    });
}

#[test]
fn a_key_is_stored_again_after_a_response_that_could_be() {
    on_worker(async {
        let secret = response(200, &[("cache-control", "no-store")], "secret");
        let fresh = || response(200, &[FRESH], "hello");
        let cached = Cached::new("", Scripted::queue([secret, fresh(), fresh()]));
        for wanted in [
            "fwd=uri-miss; fwd-status=200",
            "fwd=uri-miss; fwd-status=200",
            "fwd=uri-miss; fwd-status=200; stored",
            "hit; ttl=60",
        ] {
            assert_eq!(cached.status("GET /a", |asking| asking).await, wanted);
        }
    });
}

#[test]
fn content_of_known_length_reaches_all_readers_as_it_arrives() {
    on_worker(async {
        let (sender, body) = arriving(Some(5));
        let mut arrives = response(200, &[FRESH], "");
        *arrives.body_mut() = body;
        let cached = Cached::new("", Scripted::queue([arrives]));
        let (one, other) = together(&cached, 1).await;
        let (mut one, mut other) = (one.unwrap(), other.unwrap());
        assert_eq!(cache_status(&other), "fwd=uri-miss; ttl=60; collapsed");
        sender.send(Ok("hel".into())).unwrap();
        for response in [&mut one, &mut other] {
            let body = response.body_mut();
            let frame = poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut *body), cx)).await;
            assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "hel");
        }
        sender.send(Ok("lo".into())).unwrap();
        assert_eq!((content(one).await.unwrap(), content(other).await.unwrap()), ("lo".into(), "lo".into()));
    });
}

#[test]
fn a_failure_that_would_meet_all_is_told_to_all() {
    on_worker(async {
        for (error, requests) in [(true, 1), (false, 2)] {
            // A broken connection may be the request's own doing, silence is not.
            let upstream = Scripted::by(move |_| {
                Err(if error { ForwardError::TimedOut } else { ForwardError::Closed }.into())
            });
            let cached = Cached::new("", upstream);
            let (one, other) = together(&cached, 1).await;
            assert!(one.is_err() && other.is_err());
            assert_eq!(cached.upstream.count(), requests);
        }
    });
}

#[test]
fn a_refusal_of_one_client_sends_the_others_to_the_upstream_together() {
    on_worker(async {
        let cached =
            Cached::new("", Scripted::queue([response(403, &[], "no"), response(200, &[FRESH], "hello")]));
        cached.upstream.hold();
        let ask = || cached.send(cached.stage.ask("GET /a"));
        let release = async {
            cached.upstream.release_one();
            until("one of the others leads", || cached.upstream.count() == 2).await;
            cached.upstream.release();
        };
        let (one, two, three, ()) = tokio::join!(ask(), ask(), ask(), release);
        assert_eq!(one.unwrap().status(), 403);
        for response in [two.unwrap(), three.unwrap()] {
            assert_eq!(content(response).await.unwrap(), "hello");
        }
        assert_eq!(cached.upstream.count(), 2);
    });
}

#[test]
fn a_fetch_that_others_wait_for_outlives_its_client() {
    on_worker(async {
        let cached = Cached::new("", Scripted::queue([response(200, &[FRESH], "hello")]));
        cached.upstream.hold();
        let mut leaves = Box::pin(cached.send(cached.stage.ask("GET /a")));
        let mut waits = Box::pin(cached.send(cached.stage.ask("GET /a")));
        poll_fn(|cx| {
            assert!(leaves.as_mut().poll(cx).is_pending() && waits.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(leaves);
        cached.upstream.release();
        assert_eq!(content(waits.await.unwrap()).await.unwrap(), "hello");
        assert_eq!(cached.upstream.count(), 1);
    });
}

#[test]
fn a_fetch_that_nobody_waits_for_ends_with_its_client() {
    on_worker(async {
        let cached = Cached::new("", Scripted::by(|_| Ok(response(200, &[FRESH], "hello"))));
        cached.upstream.hold();
        let mut leaves = Box::pin(cached.send(cached.stage.ask("GET /a")));
        poll_fn(|cx| {
            assert!(leaves.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        drop(leaves);
        assert_eq!(cached.stage.cache().fetches.len(), 0);
        cached.upstream.release();
        assert_eq!(cached.status("GET /a", |asking| asking).await, "fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(cached.upstream.count(), 2);
    });
}
