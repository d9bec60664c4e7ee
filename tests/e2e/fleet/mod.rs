//! Several processes that share one Redis: what one invalidates, all invalidate; and no fault of Redis is felt by a
//! client.

mod copies;
mod faults;
mod limits;
mod own_writes;
mod topologies;

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cache::tools::{Holding, RULES};
use crate::harness::origin::*;
use crate::harness::redis::RedisServer;
use crate::harness::*;

/// The secret that all processes of a fleet have.
const HASH_KEY: &str = "0123456789abcdef0123456789abcdef";

/// A configuration in a fleet.
fn in_fleet(app: impl std::fmt::Display, url: &str) -> Config {
    let redis = format!("url = {url:?}\nprefix = \"test\"\n");
    let identity = format!("hash_key = \"{HASH_KEY}\"\nprincipal = [\"header:x-user\"]\n");
    Config::new(app).table("[redis]", &redis).table("[identity]", &identity)
}

/// Waits until a process reads the log and sees so many processes.
fn sees(pillion: &Pillion, count: usize) {
    eventually("the process sees its fleet", || {
        let fleet = pillion.admin_get("/fleet").json();
        let live = |process: &&serde_json::Value| process["live"] == true;
        let found = fleet["processes"].as_array().unwrap().iter().filter(live).count();
        (fleet["status"] == "connected" && found == count).then_some(())
    });
}

/// Starts two processes in front of one app.
fn two(app: impl std::fmt::Display + Copy, url: &str, tables: &str) -> [Pillion; 2] {
    let pillions = [(); 2].map(|()| Pillion::with(&(in_fleet(app, url).text() + tables)));
    pillions.iter().for_each(|pillion| sees(pillion, 2));
    pillions
}

/// Waits until a response of a process is another than this one.
fn changes(pillion: &Pillion, path: &str, before: &str) {
    eventually("the stored response is invalidated", || (get(pillion, path).text() != before).then_some(()));
}

/// Invalidations that were missed.
fn losses(pillion: &Pillion) -> u64 {
    let fleet = pillion.admin_get("/fleet").json();
    fleet["losses"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn a_write_through_one_process_invalidates_in_the_other() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(
        origin.script.address,
        &redis.url(),
        r#"
[[routes]]
match = "GET /api/{name}"
cache = { ttl = "1h", scope = "shared", tags = ["{name}"] }
[[routes]]
match = "GET /mine"
cache = { ttl = "1h", scope = "user" }
[[invalidate]]
on = "POST /tag/{name}"
tags = ["{name}"]
[[invalidate]]
on = "POST /prefix"
paths = ["/api/**"]
[[invalidate]]
on = "POST /leave"
principal = true
"#,
    );
    let mine = |user: &str| ask(&other, "GET /mine", &[&format!("x-user: {user}")]).text();
    let read = || [get(&other, "/api/a").text(), get(&other, "/api/b").text(), mine("ann"), mine("bob")];
    for (write, fields, changed) in [
        ("POST /tag/a", &[][..], [true, false, false, false]),
        ("PUT /api/b", &[], [false, true, false, false]),
        ("POST /prefix", &[], [true, true, false, false]),
        ("POST /leave", &["x-user: ann"], [false, false, true, false]),
        ("POST /other", &[], [false; 4]),
    ] {
        let before = read();
        assert_eq!(read(), before, "{write}: stored");
        let fields: Vec<&str> = fields.iter().copied().chain(["content-length: 0"]).collect();
        assert_eq!(ask(&one, write, &fields).status, 200);
        if let Some(at) = changed.iter().position(|changed| *changed) {
            eventually("it is invalidated", || (read()[at] != before[at]).then_some(()));
        }
        let after = read();
        assert_eq!([0, 1, 2, 3].map(|at| before[at] != after[at]), changed, "{write}");
    }
    assert_eq!((losses(&one), losses(&other)), (0, 0));
}

#[test]
fn a_purge_says_how_many_processes_applied_it() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let before = get(&other, "/orders/1").text();
    let purged = one.admin_post("/cache/purge?tag=orders").json();
    assert_eq!((&purged["applied_by"], &purged["processes"]), (&2.into(), &2.into()));
    assert_ne!(get(&other, "/orders/1").text(), before, "it is applied when the purge returns");
}

#[test]
fn a_purge_by_method_reaches_all_processes() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let purges = "[cache]\npurge_from = [\"127.0.0.1\"]\n".to_owned() + RULES;
    let [one, other] = two(origin.script.address, &redis.url(), &purges);
    let before = get(&other, "/orders/1").text();
    ask(&one, "PURGE /orders/1", &[]);
    changes(&other, "/orders/1", &before);
}

#[test]
fn a_process_that_is_killed_in_a_write_invalidates_in_the_others() {
    let (app, redis) = (Holding::new(), RedisServer::new());
    let [one, other] = two(app.script.address, &redis.url(), RULES);
    let before = get(&other, "/orders/1").text();
    let entries = || redis.run(&["XLEN", "{test}:log"]);
    let known = entries();
    let mut tcp = connect(one.http);
    std::io::Write::write_all(&mut tcp, b"POST /orders/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx")
        .unwrap();
    eventually("the write is at the app", || (app.whole.load(Ordering::SeqCst) == 1).then_some(()));
    eventually("it is announced", || (entries() != known).then_some(()));
    assert_eq!(get(&other, "/orders/1").text(), before, "nobody knows its outcome");
    drop(one);
    changes(&other, "/orders/1", &before);
    app.released.store(true, Ordering::SeqCst);
    assert_eq!(losses(&other), 0);
}

#[test]
fn a_process_that_stops_is_not_seen_any_more() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    assert!(one.stop().success());
    sees(&other, 1);
    assert_eq!(losses(&other), 0);
}

/// Whatever is written, nothing of it can be read in Redis.
#[test]
fn nothing_in_redis_is_readable() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, _other] = two(
        origin.script.address,
        &redis.url(),
        r#"
[[routes]]
match = "GET /s3cret-path/{name}"
cache = { ttl = "1h", scope = "user", tags = ["s3cret-tag:{name}"] }
[[invalidate]]
on = "POST /s3cret-path/{name}"
tags = ["s3cret-tag:{name}"]
principal = true
"#,
    );
    for name in ["s3cret-a", "s3cret-b"] {
        let path = format!("/s3cret-path/{name}");
        ask(&one, &format!("GET {path}"), &["x-user: s3cret-user"]);
        ask(&one, &format!("POST {path}"), &["x-user: s3cret-user", "content-length: 0"]);
    }
    one.admin_post("/cache/purge?tag=s3cret-tag:c");
    let keys = redis.run(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key.starts_with("{test}:")), "{keys}");
    redis.run(&["SAVE"]);
    let dump = std::fs::read(redis.folder.path("dump.rdb")).unwrap();
    let log = redis.run(&["XRANGE", "{test}:log", "-", "+"]) + &redis.run(&["HGETALL", "{test}:fleet"]);
    for text in [String::from_utf8_lossy(&dump).into_owned(), log] {
        for secret in ["s3cret", HASH_KEY, "path", "credential"] {
            assert!(!text.contains(secret), "{secret}");
        }
    }
    assert!(dump.len() > 1000, "the entries are there");
}

#[test]
fn writes_are_not_slower_than_redis_is() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, _other] = two(origin.script.address, &redis.url(), RULES);
    // A server that takes no writes for a while holds none of Pillion's for longer than the timeout.
    redis.run(&["CLIENT", "PAUSE", "3000", "WRITE"]);
    for _ in 0..20 {
        let began = now();
        assert_eq!(ask(&one, "POST /orders/1", &["content-length: 0"]).status, 200);
        assert!(now() - began < Duration::from_secs(1), "50 ms and what this machine adds");
    }
}
