//! What a client reads after its own write, through a process that has not read of the write yet.

use super::{in_fleet, sees};
use crate::cache::tools::RULES;
use crate::harness::origin::*;
use crate::harness::redis::{RedisServer, Relay};
use crate::harness::*;

/// A process that writes, one that is told of it over a slow link, and the link.
fn fleet(origin: &Origin, redis: &RedisServer, by: &str, tables: &str) -> (Pillion, Pillion, Relay) {
    let relay = Relay::to(redis.address);
    let start = |url: &str| {
        let config = in_fleet(origin.script.address, url).text();
        // A request waits for as long as the link takes; limits and shared responses are not of interest.
        let keys = format!("[redis]\nread_your_writes = {by:?}\ncache = \"off\"\ntimeout = \"900ms\"\n");
        Pillion::with(&(config.replace("[redis]\n", &keys) + tables))
    };
    let (one, other) = (start(&redis.url()), start(&format!("redis://{}", relay.address)));
    [&one, &other].into_iter().for_each(|pillion| sees(pillion, 2));
    (one, other, relay)
}

/// The field that a client sends after a write, by what the write's response gave it.
fn carried(answer: &Answer) -> Option<String> {
    let cookie = answer.field("set-cookie").map(|cookie| {
        for wanted in ["Max-Age=30", "Path=/", "HttpOnly", "SameSite=Lax"] {
            assert!(cookie.contains(wanted), "{cookie}");
        }
        format!("cookie: {}", cookie.split(';').next().unwrap())
    });
    cookie.or_else(|| answer.field("pillion-written").map(|token| format!("pillion-written: {token}")))
}

fn write(pillion: &Pillion) -> Option<String> {
    let answer = ask(pillion, "POST /orders/1", &["content-length: 0"]);
    assert_eq!(answer.status, 200);
    carried(&answer)
}

#[test]
fn a_client_reads_its_own_write_through_any_process() {
    for by in ["cookie", "header"] {
        let (origin, redis) = (Origin::new(), RedisServer::new());
        let (one, other, relay) = fleet(&origin, &redis, by, RULES);
        relay.slow();
        for _ in 0..5 {
            let before = get(&other, "/orders/1").text();
            assert_eq!(get(&other, "/orders/1").text(), before, "it is stored");
            let token = write(&one).expect("a write gives a token");
            let answer = ask(&other, "GET /orders/1", &[&token]);
            assert_ne!(answer.text(), before, "{by}");
            let cached = answer.field("cache-status").unwrap();
            assert!(!cached.contains("bypass"), "it waited: {cached}");
            // Its token makes the request no other one: everybody is served what it left.
            assert_eq!(get(&other, "/orders/1").text(), answer.text(), "{by}");
            let hit = ask(&other, "GET /orders/1", &[&token]);
            assert!(hit.field("cache-status").unwrap().contains("; hit"), "{by}");
        }
        assert_eq!(carried(&get(&one, "/orders/1")), None);
    }
}

#[test]
fn a_process_that_cannot_read_of_a_write_serves_its_client_nothing_stored() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let (one, other, relay) = fleet(&origin, &redis, "cookie", RULES);
    let before = get(&other, "/orders/1").text();
    relay.swallow();
    let token = write(&one).unwrap();
    let answer = ask(&other, "GET /orders/1", &[&token]);
    assert_ne!(answer.text(), before);
    assert!(answer.field("cache-status").unwrap().contains("fwd=bypass"));
    assert_eq!(get(&other, "/orders/1").text(), before, "the others are served as before");
    for wrong in ["cookie: pillion-written=", "cookie: pillion-written=AAAA", "cookie: a=b"] {
        ask(&other, "GET /orders/1", &[wrong]);
    }
    assert_eq!(ask(&other, "GET /orders/1", &["cookie: pillion-written=x"]).text(), before);
}

#[test]
fn a_client_that_wrote_is_served_nothing_stale() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let rules = "[[routes]]\nmatch = \"GET /**\"\n\
        cache = { ttl = \"1ms\", scope = \"shared\", stale_while_revalidate = \"1h\" }\n";
    let (one, _other, _relay) = fleet(&origin, &redis, "header", rules);
    get(&one, "/orders/2");
    let token = write(&one).unwrap();
    let stale = get(&one, "/orders/2");
    assert!(stale.field("cache-status").unwrap().contains("; hit"), "{:?}", stale.field("cache-status"));
    let answer = ask(&one, "GET /orders/2", &[&token]);
    let cached = answer.field("cache-status").unwrap();
    assert!(!cached.contains("; hit"), "{cached}");
}
