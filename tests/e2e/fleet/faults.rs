//! Redis that is absent, killed, paused, cut off or lost: requests go on as if there were none, and all is well again
//! when it is back.

use std::time::Duration;

use super::{changes, in_fleet, losses, sees, two};
use crate::cache::tools::RULES;
use crate::harness::origin::*;
use crate::harness::redis::{RedisServer, Relay};
use crate::harness::*;

/// Waits until the check of health has a state, and returns its detail.
fn redis_is(pillion: &Pillion, state: &str) -> String {
    eventually("the check of Redis has its state", || {
        let check = pillion.admin_get("/health/redis").json();
        (check["status"] == state).then(|| check["detail"].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_process_starts_without_redis_and_joins_later() {
    let origin = Origin::new();
    let mut redis = RedisServer::new();
    redis.kill();
    let [one, other] =
        [(); 2].map(|()| Pillion::with(&(in_fleet(origin.script.address, &redis.url()).text() + RULES)));
    assert!(redis_is(&one, "unhealthy").contains("refused"));
    assert_eq!(one.admin_get("/ready").status, 200, "nobody required it");
    let before = get(&other, "/orders/1").text();
    assert_eq!(ask(&one, "POST /orders/1", &["content-length: 0"]).status, 200);
    assert_eq!(get(&other, "/orders/1").text(), before, "alone, as without Redis");
    redis.restart();
    changes(&other, "/orders/1", &before);
    sees(&one, 2);
    redis_is(&one, "healthy");
    assert_eq!(losses(&other), 0);
}

#[test]
fn readiness_may_require_redis() {
    let origin = Origin::new();
    let mut redis = RedisServer::new();
    redis.kill();
    let config =
        in_fleet(origin.script.address, &redis.url()).table("[health]", "ready_requires = [\"redis\"]");
    let pillion = config.start();
    let ready = || pillion.admin_get("/ready");
    assert_eq!(ready().status, 503);
    assert!(ready().text().contains("redis: "), "{}", ready().text());
    redis.restart();
    eventually("it is ready", || (ready().status == 200).then_some(()));
}

#[test]
fn what_is_invalidated_while_redis_is_away_reaches_the_others_when_it_is_back() {
    let (origin, mut redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let before = get(&other, "/orders/1").text();
    redis.kill();
    for _ in 0..5 {
        let began = now();
        assert_eq!(ask(&one, "POST /orders/1", &["content-length: 0"]).status, 200);
        assert!(now() - began < Duration::from_secs(1));
    }
    assert_eq!(get(&other, "/orders/1").text(), before);
    eventually("the reason is told", || redis_is(&other, "unhealthy").contains("refused").then_some(()));
    redis.restart();
    changes(&other, "/orders/1", &before);
    sees(&other, 2);
    // The entries of before the fault are sent again to a server that lost them, and nothing is missing.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!((losses(&one), losses(&other)), (0, 0), "{}", other.admin_get("/fleet").text());
}

#[test]
fn a_link_that_was_cut_or_lost_goes_on_where_it_ended() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let relay = Relay::to(redis.address);
    let one = Pillion::with(&(in_fleet(origin.script.address, &redis.url()).text() + RULES));
    let other = Pillion::with(&(in_fleet(origin.script.address, &relay.url()).text() + RULES));
    sees(&other, 2);
    for fault in [Relay::cut, Relay::swallow] {
        let before = get(&other, "/orders/1").text();
        fault(&relay);
        redis_is(&other, "unhealthy");
        assert_eq!(ask(&one, "POST /orders/1", &["content-length: 0"]).status, 200);
        assert_eq!(get(&other, "/orders/1").text(), before);
        relay.pass();
        changes(&other, "/orders/1", &before);
        sees(&other, 2);
    }
    assert_eq!(losses(&other), 0, "{}", other.admin_get("/fleet").text());
}

#[test]
fn a_redis_that_is_paused_is_not_waited_for() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let before = get(&other, "/orders/1").text();
    redis.run(&["CLIENT", "PAUSE", "4000", "ALL"]);
    for _ in 0..10 {
        let began = now();
        assert_eq!(ask(&one, "POST /orders/1", &["content-length: 0"]).status, 200);
        assert_eq!(get(&one, "/orders/1").status, 200);
        assert!(now() - began < Duration::from_secs(1));
    }
    changes(&other, "/orders/1", &before);
    sees(&one, 2);
}

#[test]
fn a_log_that_was_trimmed_before_it_was_read_invalidates_everything() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let relay = Relay::to(redis.address);
    let one = Pillion::with(&(in_fleet(origin.script.address, &redis.url()).text() + RULES));
    let other = Pillion::with(&(in_fleet(origin.script.address, &relay.url()).text() + RULES));
    sees(&other, 2);
    let before = get(&other, "/orders/1").text();
    relay.cut();
    redis_is(&other, "unhealthy");
    for _ in 0..3 {
        ask(&one, "POST /orders/1", &["content-length: 0"]);
    }
    redis.run(&["XTRIM", "{test}:log", "MAXLEN", "1"]);
    relay.pass();
    changes(&other, "/orders/1", &before);
    assert!(losses(&other) > 0);
    eventually("it is told", || other.log().contains("may have been missed").then_some(()));
}

#[test]
fn while_the_log_is_lost_stored_responses_may_be_revalidated() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let relay = Relay::to(redis.address);
    let text = in_fleet(origin.script.address, &relay.url()).text();
    let text = text.replace("prefix = \"test\"", "prefix = \"test\"\non_lost = \"revalidate\"") + RULES;
    let pillion = Pillion::with(&text);
    sees(&pillion, 1);
    let hits = || get(&pillion, "/orders/1").field("x-cache").as_deref() == Some("HIT");
    get(&pillion, "/orders/1");
    assert!(hits());
    relay.cut();
    eventually("nothing is served without the upstream", || (!hits()).then_some(()));
    relay.pass();
    eventually("stored responses are served again", || hits().then_some(()));
}

#[test]
fn another_hash_key_is_found_and_invalidates_everything() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let text = in_fleet(origin.script.address, &redis.url()).text() + RULES;
    let one = Pillion::with(&text);
    sees(&one, 1);
    let other = Pillion::with(&text.replace(super::HASH_KEY, "fedcba9876543210fedcba9876543210"));
    let log = eventually("it is told", || Some(other.log()).filter(|log| log.contains("identity.hash_key")));
    assert!(log.contains("cannot be read") && losses(&other) > 0);
}

#[test]
fn an_operation_that_redis_refuses_is_told_and_does_not_reconnect_again_and_again() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    // The name of the log is taken by something else.
    redis.run(&["SET", "{test}:log", "x"]);
    let pillion = in_fleet(origin.script.address, &redis.url()).start();
    let log =
        eventually("it is told", || Some(pillion.log()).filter(|log| log.contains("refuses an operation")));
    assert!(log.contains("WRONGTYPE"), "{log}");
    assert!(redis_is(&pillion, "unhealthy").contains("log"));
    assert!(pillion.metric("pillion_redis_connects_total{link=\"reader\",result=\"connected\"}") < 3.0);
    redis.run(&["DEL", "{test}:log"]);
    sees(&pillion, 1);
}

#[test]
fn a_log_that_is_full_or_not_writable_stops_no_write() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, _other] = two(origin.script.address, &redis.url(), RULES);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    for _ in 0..5 {
        let began = now();
        assert_eq!(ask(&one, "POST /orders/1", &["content-length: 0"]).status, 200);
        assert!(now() - began < Duration::from_secs(1));
    }
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("what waited is published", || {
        (one.admin_get("/fleet").json()["waiting_names"] == 0).then_some(())
    });
}
