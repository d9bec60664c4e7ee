//! Requests with parameters outside the cache key.

use super::Cached;
use crate::layer::testing::{Scripted, content, on_worker, response, until};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn echo() -> Scripted {
    Scripted::by(|asked| Ok(response(200, &[FRESH], &asked.target)))
}

#[test]
fn they_are_forwarded_unchanged_and_what_is_stored_is_fetched_without_them() {
    on_worker(async {
        let cached = Cached::new("", echo());
        let first = cached.get("/a?utm_source=1&b=2").await;
        assert_eq!(super::cache_status(&first), "fwd=uri-miss; fwd-status=200");
        assert_eq!(content(first).await.unwrap(), "/a?utm_source=1&b=2");
        until("the response without them is stored", || cached.stage.cache().store.len() == 1).await;
        assert_eq!(cached.upstream.last().target, "/a?b=2");
        assert_eq!(content(cached.get("/a?b=2&utm_source=9").await).await.unwrap(), "/a?b=2");
        assert_eq!(cached.status("GET /a?b=2", |asking| asking).await, "hit; ttl=60");
        assert_eq!(cached.upstream.count(), 2);
    });
}

#[test]
fn nothing_is_fetched_without_them_where_it_could_not_be_stored() {
    on_worker(async {
        let cached =
            Cached::new("", Scripted::by(|_| Ok(response(200, &[("cache-control", "no-store")], ""))));
        for _ in 0..2 {
            let found = cached.status("GET /a?utm_source=1", |asking| asking).await;
            assert_eq!(found, "fwd=uri-miss; fwd-status=200");
        }
        tokio::task::yield_now().await;
        assert_eq!(cached.upstream.count(), 2);
    });
}

#[test]
fn strip_query_takes_them_out_of_the_request() {
    on_worker(async {
        let configuration =
            "[[routes]]\nmatch = 'GET /a'\ncache = { ttl = '60s', key_query = ['b'], strip_query = true }";
        let cached = Cached::new(configuration, echo());
        assert_eq!(content(cached.get("/a?c=1&b=2").await).await.unwrap(), "/a?b=2");
        assert_eq!(cached.status("GET /a?b=2&d=3", |asking| asking).await, "hit; ttl=60");
    });
}

#[test]
fn they_wait_for_the_same_request_without_them() {
    on_worker(async {
        let cached = Cached::new("", echo());
        cached.upstream.hold();
        let leads = cached.send(cached.stage.ask("GET /a"));
        let follows = cached.send(cached.stage.ask("GET /a?utm_source=1"));
        cached.upstream.release();
        let (one, other) = futures_util::future::join(leads, follows).await;
        assert_eq!(content(one.unwrap()).await.unwrap(), "/a");
        let other = other.unwrap();
        assert_eq!(super::cache_status(&other), "fwd=uri-miss; ttl=60; collapsed");
        assert_eq!(content(other).await.unwrap(), "/a");
    });
}
