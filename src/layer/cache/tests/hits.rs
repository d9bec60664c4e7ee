//! Stored responses, and the requests that they serve.

use std::time::Duration;

use http::header;

use super::{Cached, cache_status};
use crate::layer::cache::error::CacheError;
use crate::layer::testing::{Asking, Scripted, arriving, content, field, on_worker, response, until};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn a_response_with_a_lifetime_is_stored_and_serves_the_next_request() {
    on_worker(async {
        let cached = Cached::new("", Scripted::queue([response(200, &[FRESH, ("x-a", "1")], "hello")]));
        let first = cached.get("/a").await;
        assert_eq!(cache_status(&first), "fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(content(first).await.unwrap(), "hello");
        let second = cached.get("/a").await;
        assert_eq!(cache_status(&second), "hit; ttl=60");
        assert!(field(second.headers(), "age").parse::<u32>().unwrap() < 60);
        assert_eq!(field(second.headers(), "x-a"), "1");
        assert_eq!(field(second.headers(), "x-cache"), "HIT");
        assert_eq!(content(second).await.unwrap(), "hello");
        assert_eq!(cached.upstream.count(), 1);
    });
}

#[test]
fn content_that_arrives_in_pieces_is_passed_on_and_stored_at_its_end() {
    on_worker(async {
        for length in [Some(5), None] {
            let (sender, body) = arriving(length);
            let mut arrives = response(200, &[FRESH], "");
            *arrives.body_mut() = body;
            let cached = Cached::new("", Scripted::queue([arrives]));
            let first = cached.get("/a").await;
            assert_eq!(cache_status(&first), "fwd=uri-miss; fwd-status=200; stored");
            for piece in ["hel", "lo"] {
                sender.send(Ok(piece.into())).unwrap();
            }
            drop(sender);
            assert_eq!(content(first).await.unwrap(), "hello");
            until("the response is stored", || cached.stage.cache().store.len() == 1).await;
            assert_eq!(content(cached.get("/a").await).await.unwrap(), "hello");
        }
    });
}

#[test]
fn content_that_breaks_off_is_not_stored() {
    on_worker(async {
        let (sender, body) = arriving(Some(5));
        let mut breaks = response(200, &[FRESH], "");
        *breaks.body_mut() = body;
        let cached = Cached::new("", Scripted::queue([breaks, response(200, &[], "again")]));
        let first = cached.get("/a").await;
        sender.send(Ok("hel".into())).unwrap();
        sender.send(Err(crate::message::body::BodyError::UpstreamGone)).unwrap();
        assert!(content(first).await.is_err());
        assert_eq!(content(cached.get("/a").await).await.unwrap(), "again");
        assert_eq!(cached.stage.cache().store.len(), 0);
    });
}

#[test]
fn head_is_served_from_a_stored_response_to_get() {
    on_worker(async {
        let cached = Cached::new("", Scripted::queue([response(200, &[FRESH], "hello")]));
        cached.get("/a").await;
        let head = cached.send(cached.stage.ask("HEAD /a")).await.unwrap();
        assert_eq!(cache_status(&head), "hit; ttl=60");
        assert_eq!(field(head.headers(), "content-length"), "5");
        assert_eq!(content(head).await.unwrap(), "");
    });
}

#[test]
fn a_response_without_a_lifetime_is_not_stored() {
    on_worker(async {
        let cached = Cached::new("", Scripted::by(|_| Ok(response(200, &[("etag", "\"a\"")], "hello"))));
        for _ in 0..2 {
            let response = cached.get("/a").await;
            assert_eq!(cache_status(&response), "fwd=uri-miss; fwd-status=200");
        }
        assert_eq!(cached.upstream.count(), 2);
    });
}

#[test]
fn the_lifetime_of_a_route_holds_where_the_response_has_none() {
    on_worker(async {
        let configuration = "[[routes]]\nmatch = 'GET /a'\ncache = { ttl = '60s', scope = 'shared' }";
        let cached = Cached::new(configuration, Scripted::by(|_| Ok(response(200, &[], "hello"))));
        cached.get("/a").await;
        assert_eq!(cached.status("GET /a", |asking| asking).await, "hit; ttl=60");
        let later = |seconds| Duration::from_secs(seconds);
        assert_eq!(
            cached.status("GET /a", |asking| asking.later(later(61))).await,
            "fwd=stale; fwd-status=200; stored"
        );
    });
}

#[test]
fn a_response_serves_only_requests_with_the_fields_that_it_varies_with() {
    on_worker(async {
        let upstream = Scripted::by(|asked| {
            Ok(response(200, &[FRESH, ("vary", "accept-language")], asked.field("accept-language")))
        });
        let cached = Cached::new("", upstream);
        let language = |value: &'static str| move |asking: Asking| asking.field("accept-language", value);
        assert_eq!(cached.status("GET /a", language("en")).await, "fwd=uri-miss; fwd-status=200; stored");
        assert_eq!(cached.status("GET /a", language("fr")).await, "fwd=vary-miss; fwd-status=200; stored");
        assert_eq!(cached.status("GET /a", language("en")).await, "hit; ttl=60");
        assert_eq!(cached.status("GET /a", language("fr")).await, "hit; ttl=60");
    });
}

#[test]
fn a_request_with_credentials_gets_only_what_is_for_all() {
    on_worker(async {
        for (directives, wanted) in [
            ("max-age=60", "fwd=miss; fwd-status=200"),
            ("must-revalidate, max-age=60", "fwd=miss; fwd-status=200"),
            ("public, max-age=60", "hit; ttl=60"),
            ("s-maxage=60", "hit; ttl=60"),
        ] {
            let cached = Cached::new(
                "",
                Scripted::by(move |_| Ok(response(200, &[("cache-control", directives)], ""))),
            );
            cached.get("/a").await;
            let found = cached.status("GET /a", |asking| asking.field("cookie", "session=1")).await;
            assert_eq!(found, wanted, "{directives}");
            assert_eq!(cached.status("GET /a", |asking| asking).await, "hit; ttl=60", "{directives}");
        }
    });
}

#[test]
fn each_principal_has_a_copy_with_scope_user() {
    on_worker(async {
        let configuration = "[[routes]]\nmatch = 'GET /a'\ncache = { ttl = '60s', scope = 'user' }";
        let upstream = Scripted::by(|asked| {
            Ok(response(200, &[("cache-control", "private")], asked.field("authorization")))
        });
        let cached = Cached::new(configuration, upstream);
        for _ in 0..2 {
            for user in ["Bearer one", "Bearer two"] {
                let asking = cached.stage.ask("GET /a").field("authorization", user);
                assert_eq!(content(cached.send(asking).await.unwrap()).await.unwrap(), user);
            }
        }
        assert_eq!(cached.upstream.count(), 2);
    });
}

#[test]
fn fields_for_pillion_do_not_reach_the_client() {
    on_worker(async {
        let lines = [("pillion-cache-control", "max-age=60"), ("cache-tag", "a"), ("surrogate-key", "b")];
        let cached = Cached::new("", Scripted::queue([response(200, &lines, "hello")]));
        for _ in 0..2 {
            let response = cached.get("/a").await;
            assert!(lines.iter().all(|(name, _)| !response.headers().contains_key(*name)), "{response:?}");
        }
        assert_eq!(cached.status("GET /a", |asking| asking).await, "hit; ttl=60");
    });
}

#[test]
fn conditions_and_ranges_of_the_client_are_not_part_of_a_fetch() {
    on_worker(async {
        let cached = Cached::new("", Scripted::by(|_| Ok(response(200, &[FRESH], "hello"))));
        cached.status("GET /a", |asking| asking.field("if-none-match", "\"a\"")).await;
        assert!(!cached.upstream.last().headers.contains_key(header::IF_NONE_MATCH));
        // A range request is forwarded unchanged, and what it gets serves no other.
        let partial = cached.status("GET /b", |asking| asking.field("range", "bytes=0-0")).await;
        assert_eq!(partial, "fwd=partial; fwd-status=200; stored");
        assert_eq!(cached.upstream.last().field("range"), "bytes=0-0");
    });
}

#[test]
fn only_if_cached_is_refused_without_a_stored_response() {
    on_worker(async {
        let cached = Cached::new("", Scripted::queue([response(200, &[FRESH], "hello")]));
        let only = || cached.send(cached.stage.ask("GET /a").field("cache-control", "only-if-cached"));
        let error = only().await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(CacheError::OnlyIfCached)), "{error}");
        assert_eq!(cached.upstream.count(), 0);
        cached.get("/a").await;
        assert_eq!(cache_status(&only().await.unwrap()), "hit; ttl=60");
    });
}

#[test]
fn content_above_the_maximum_is_passed_on_and_not_stored() {
    on_worker(async {
        let upstream = Scripted::by(|_| Ok(response(200, &[FRESH], "hello")));
        let cached = Cached::new("[cache]\nmax_object_size = '4B'\ndebug_header = true", upstream);
        let response = cached.get("/a").await;
        assert_eq!(cache_status(&response), "fwd=uri-miss; fwd-status=200; key=\"/a\"; detail=too-large");
        assert_eq!(content(response).await.unwrap(), "hello");
    });
}

#[test]
fn nothing_is_stored_where_the_cache_is_off() {
    on_worker(async {
        let upstream = Scripted::by(|_| Ok(response(200, &[FRESH], "hello")));
        let cached = Cached::new("[cache]\nenabled = false", upstream);
        for _ in 0..2 {
            assert!(!cached.get("/a").await.headers().contains_key("cache-status"));
        }
        assert_eq!(cached.upstream.count(), 2);
    });
}
