//! Stored responses that the processes of a fleet share: one fetches, all serve; and nothing that was invalidated, or is
//! for somebody else, is served by any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{HASH_KEY, in_fleet, sees};
use crate::cache::tools::RULES;
use crate::harness::origin::*;
use crate::harness::redis::{RedisServer, Relay};
use crate::harness::*;

const USERS: &str = "[[routes]]\nmatch = \"GET /mine/**\"\ncache = { ttl = \"1h\", scope = \"user\" }\n";

/// Lets requests wait for Redis for as long as a machine with other work needs.
fn patient(config: &str) -> String {
    config.replace("[redis]\n", "[redis]\ntimeout = \"2s\"\nsoft_timeout = \"1s\"\n")
}

/// Starts two processes in front of one app.
fn two(app: impl std::fmt::Display + Copy, url: &str, tables: &str) -> [Pillion; 2] {
    let pillions = [(); 2].map(|()| Pillion::with(&patient(&(in_fleet(app, url).text() + tables))));
    pillions.iter().for_each(|pillion| sees(pillion, 2));
    pillions
}

/// The names of the shared responses in Redis.
fn names(redis: &RedisServer) -> Vec<String> {
    let names = redis.run(&["KEYS", "{test}:c1:*"]);
    names.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Waits until Redis has so many shared responses.
fn are_there(redis: &RedisServer, count: usize) {
    eventually("they are in Redis", || (names(redis).len() == count).then_some(()));
}

/// A number of the metric of reads.
fn reads(pillion: &Pillion, result: &str) -> f64 {
    let sample = format!("pillion_fleet_copy_reads_total{{result=\"{result}\"}}");
    let text = pillion.admin_get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&sample)).unwrap_or("0");
    line.trim().parse().unwrap()
}

fn cached(answer: &Answer) -> String {
    answer.field("cache-status").unwrap_or_default()
}

/// Asks twice, so that the response is worth sharing, and waits until it is.
fn share(pillion: &Pillion, redis: &RedisServer, path: &str, fields: &[&str]) -> String {
    let before = names(redis).len();
    let text = ask(pillion, &format!("GET {path}"), fields).text();
    assert_eq!(ask(pillion, &format!("GET {path}"), fields).text(), text, "it is stored");
    eventually("it is in Redis", || (names(redis).len() > before).then_some(()));
    text
}

/// Waits until both processes have applied what this one invalidated.
fn settle(pillion: &Pillion) {
    let purged = pillion.admin_post("/cache/purge?tag=another").json();
    assert_eq!(purged["applied_by"], 2);
}

#[test]
fn what_one_process_fetched_another_serves() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    origin.says("/orders/1", &["x-a: b", "cache-control: max-age=60", "age: 7", "etag: \"e\""]);
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let text = share(&one, &redis, "/orders/1", &[]);
    let count = origin.count();
    let answer = get(&other, "/orders/1");
    assert_eq!((answer.text(), origin.count()), (text, count));
    assert!(answer.head.starts_with("HTTP/1.1 200 X"), "{}", answer.head);
    assert_eq!((answer.field("x-a").as_deref(), answer.field("etag").as_deref()), (Some("b"), Some("\"e\"")));
    let age: u64 = answer.field("age").unwrap().parse().unwrap();
    assert!((7..20).contains(&age), "{age}");
    assert!(cached(&answer).contains("; hit"), "{}", cached(&answer));
    assert_eq!((reads(&other, "hit"), reads(&one, "miss")), (1.0, 1.0));
    // From here on it is in the memory of the other, too.
    get(&other, "/orders/1");
    assert_eq!((reads(&other, "hit"), origin.count()), (1.0, count));
    let operations = other.admin_get("/metrics").text();
    assert!(!operations.contains("result=\"miss\",route=\"GET /**\""), "a hit in Redis is no miss");
}

#[test]
fn a_write_through_any_process_ends_what_is_in_redis() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    for writer in [&one, &other] {
        let before = share(&one, &redis, "/orders/1", &[]);
        assert_eq!(ask(writer, "POST /orders/1", &["content-length: 0"]).status, 200);
        settle(writer);
        // The other never had the response, so only Redis has what was before the write.
        let after = get(&other, "/orders/1").text();
        assert_ne!(after, before);
        assert_eq!(get(&other, "/orders/1").text(), after);
        redis.run(&["FLUSHALL"]);
        sees(&one, 2);
        sees(&other, 2);
    }
}

#[test]
fn a_purge_of_a_url_reaches_what_is_in_redis() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let purges = "[cache]\npurge_from = [\"127.0.0.1\"]\n".to_owned() + RULES;
    let [one, other] = two(origin.script.address, &redis.url(), &purges);
    let before = share(&one, &redis, "/orders/1?a=1", &[]);
    assert_eq!(ask(&one, "PURGE /orders/1?a=1", &[]).status, 200);
    assert_ne!(get(&one, "/orders/1?a=1").text(), before, "it does not come back where it was purged");
    settle(&one);
    assert_ne!(get(&other, "/orders/1?a=1").text(), before);
}

#[test]
fn a_soft_invalidation_leaves_nothing_fresh_in_redis() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let rules = RULES.to_owned() + "mode = \"soft\"\n";
    let [one, other] = two(origin.script.address, &redis.url(), &rules);
    let before = share(&one, &redis, "/orders/1", &[]);
    ask(&one, "POST /orders/1", &["content-length: 0"]);
    settle(&one);
    assert_ne!(get(&other, "/orders/1").text(), before);
}

#[test]
fn users_have_their_own_and_only_if_it_is_asked_for() {
    for (cache, shares) in [("shared", false), ("all", true), ("off", false)] {
        let (origin, redis) = (Origin::new(), RedisServer::new());
        let config = in_fleet(origin.script.address, &redis.url()).text();
        let config = config.replace("[redis]\n", &format!("[redis]\ncache = {cache:?}\n")) + USERS + RULES;
        let [one, other] = [(); 2].map(|()| Pillion::with(&patient(&config)));
        [&one, &other].into_iter().for_each(|pillion| sees(pillion, 2));
        let mine =
            |pillion: &Pillion, user: &str| ask(pillion, "GET /mine/a", &[&format!("x-user: {user}")]).text();
        let of_ann = mine(&one, "ann");
        assert_eq!(mine(&one, "ann"), of_ann);
        if shares {
            are_there(&redis, 1);
        }
        let text = get(&one, "/orders/1").text();
        get(&one, "/orders/1");
        if cache != "off" {
            are_there(&redis, if shares { 2 } else { 1 });
        }
        assert_eq!(mine(&other, "ann") == of_ann, shares, "{cache}");
        assert_ne!(mine(&other, "bob"), of_ann, "{cache}");
        assert_eq!(get(&other, "/orders/1").text() == text, cache != "off", "{cache}");
        assert_eq!(names(&redis).len(), if shares { 2 } else { usize::from(cache != "off") }, "{cache}");
    }
}

#[test]
fn each_variant_is_found_by_its_own_requests() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    origin.says("/orders/1", &["vary: accept-language", "cache-control: max-age=60"]);
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let german = share(&one, &redis, "/orders/1", &["accept-language: de"]);
    let english = share(&one, &redis, "/orders/1", &["accept-language: en"]);
    are_there(&redis, 3);
    let read =
        |language: &str| ask(&other, "GET /orders/1", &[&format!("accept-language: {language}")]).text();
    assert_eq!((read("de"), read("en")), (german.clone(), english.clone()));
    let french = read("fr");
    assert!(french != german && french != english);
}

#[test]
fn a_process_that_starts_finds_what_the_others_have() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let texts: Vec<String> =
        (0..20).map(|number| share(&one, &redis, &format!("/orders/{number}"), &[])).collect();
    for number in 0..5 {
        ask(&one, &format!("POST /other/{number}"), &["content-length: 0"]);
    }
    assert!(other.stop().success());
    let count = origin.count();
    let other = Pillion::with(&patient(&(in_fleet(origin.script.address, &redis.url()).text() + RULES)));
    sees(&other, 2);
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(get(&other, &format!("/orders/{number}")).text(), *text);
    }
    assert_eq!(origin.count(), count);
}

#[test]
fn a_route_may_keep_its_responses_to_itself() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let own =
        "[[routes]]\nmatch = \"GET /own\"\ncache = { ttl = \"1h\", scope = \"shared\", redis = false }\n";
    let [one, other] = two(origin.script.address, &redis.url(), &(own.to_owned() + RULES));
    let text = get(&one, "/own").text();
    assert_eq!(get(&one, "/own").text(), text);
    share(&one, &redis, "/orders/1", &[]);
    assert_ne!(get(&other, "/own").text(), text);
    assert_eq!(names(&redis).len(), 1);
}

#[test]
fn a_slow_response_is_shared_at_once_and_a_large_one_not_at_all() {
    let slow = Script::answering(|request| {
        let size = if request.line.contains("large") { 3 << 20 } else { 100_000 };
        std::thread::sleep(Duration::from_millis(30));
        answer(request, "", &"a".repeat(size))
    });
    let redis = RedisServer::new();
    let [one, other] = two(slow.address, &redis.url(), RULES);
    let whole = get(&one, "/orders/slow").text();
    are_there(&redis, 1);
    assert_eq!((get(&other, "/orders/slow").text() == whole, reads(&other, "hit")), (true, 1.0));
    get(&one, "/orders/large");
    get(&one, "/orders/large");
    share(&one, &redis, "/orders/next", &[]);
    assert_eq!(names(&redis).len(), 2);
}

/// Whoever may write to Redis can take responses away, and nothing else.
#[test]
fn what_is_planted_or_moved_in_redis_is_not_served() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let first = share(&one, &redis, "/orders/1", &[]);
    let of_first = names(&redis).pop().unwrap();
    share(&one, &redis, "/orders/2", &[]);
    let of_second = names(&redis).into_iter().find(|name| *name != of_first).unwrap();
    redis.run(&["COPY", &of_first, &of_second, "REPLACE"]);
    let second = get(&other, "/orders/2").text();
    assert!(second.starts_with("/orders/2") && second != first, "{second}");
    assert_eq!(reads(&other, "unreadable"), 1.0);
    redis.run(&["SETRANGE", &of_first, "60", "x"]);
    assert_ne!(get(&other, "/orders/1").text(), first);
    assert_eq!(reads(&other, "unreadable"), 2.0);
}

#[test]
fn nothing_of_a_shared_response_is_readable_in_redis() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    origin.says("/s3cret-path/1", &["x-s3cret-field: s3cret-value", "cache-tag: s3cret-tag", "vary: x-user"]);
    let [one, _other] = two(origin.script.address, &redis.url(), RULES);
    share(&one, &redis, "/s3cret-path/1", &["x-user: s3cret-user"]);
    redis.run(&["SAVE"]);
    let dump = std::fs::read(redis.folder.path("dump.rdb")).unwrap();
    let dump = String::from_utf8_lossy(&dump);
    for secret in ["s3cret", "orders", "vary", "x-user", HASH_KEY] {
        assert!(!dump.contains(secret), "{secret}");
    }
}

#[test]
fn requests_do_not_wait_for_a_redis_that_is_slow_or_gone() {
    let origin = Origin::new();
    let mut redis = RedisServer::new();
    let relay = Relay::to(redis.address);
    let url = format!("redis://{}", relay.address);
    let [one, _other] = super::two(origin.script.address, &url, RULES);
    let quick = |path: &str| {
        let began = now();
        assert_eq!(get(&one, path).status, 200);
        now() - began
    };
    relay.slow();
    let times: Vec<Duration> = (0..40).map(|number| quick(&format!("/orders/slow/{number}"))).collect();
    let waited = times.iter().filter(|time| **time >= Duration::from_millis(10)).count();
    assert!(waited < 20, "a few find out that it is slow: {waited}");
    redis.kill();
    for number in 0..20 {
        assert!(quick(&format!("/orders/gone/{number}")) < Duration::from_secs(1));
    }
}

#[test]
fn another_redis_may_have_the_responses() {
    let (origin, log, copies) = (Origin::new(), RedisServer::new(), RedisServer::new());
    let config = in_fleet(origin.script.address, &log.url()).text();
    let with = format!("[redis]\ncache_url = \"{}\"\n", copies.url());
    let config = config.replace("[redis]\n", &with) + RULES;
    let [one, other] = [(); 2].map(|()| Pillion::with(&patient(&config)));
    [&one, &other].into_iter().for_each(|pillion| sees(pillion, 2));
    let text = share(&one, &copies, "/orders/1", &[]);
    assert_eq!((get(&other, "/orders/1").text(), names(&log).len()), (text, 0));
    drop(copies);
    assert_eq!(get(&other, "/orders/2").status, 200);
    assert_eq!(other.admin_get("/health/redis").json()["status"], "healthy", "the log is there");
}

/// An app that takes this long, and the number of requests that reached it.
fn slow_app(time: Duration, size: usize) -> (Script, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let script = Script::answering(move |request| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(time);
        answer(request, "", &format!("#{number}{}", " ".repeat(size)))
    });
    (script, count)
}

#[test]
fn one_process_fetches_for_all_where_a_fetch_takes_long() {
    let ((app, count), redis) = (slow_app(Duration::from_millis(300), 0), RedisServer::new());
    let [one, other] = two(app.address, &redis.url(), RULES);
    // Each learns how long a fetch takes.
    for (pillion, path) in [(&one, "/a"), (&other, "/b")] {
        get(pillion, path);
    }
    for round in 0..3 {
        let (path, before) = (format!("/orders/{round}"), count.load(Ordering::SeqCst));
        let texts: Vec<String> = std::thread::scope(|scope| {
            let ask = |pillion: &'_ Pillion| get(pillion, &path).text();
            let asked: Vec<_> =
                [&one, &other, &one, &other].map(|pillion| scope.spawn(move || ask(pillion))).into();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        assert_eq!(count.load(Ordering::SeqCst) - before, 1);
    }
}

/// A response that is not shared after all, and a process that dies, let the others go on.
#[test]
fn a_lock_that_is_not_given_up_ends_by_itself() {
    let ((app, count), redis) = (slow_app(Duration::from_millis(300), 2 << 20), RedisServer::new());
    let [one, other] = two(app.address, &redis.url(), RULES);
    for (pillion, path) in [(&one, "/a"), (&other, "/b")] {
        get(pillion, path);
    }
    let before = count.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        for pillion in [&one, &other] {
            scope.spawn(move || assert_eq!(get(pillion, "/large").status, 200));
        }
    });
    assert_eq!(count.load(Ordering::SeqCst) - before, 2, "it is too large, so each fetched it");
    let held = connect(one.http);
    std::io::Write::write_all(&mut &held, b"GET /killed HTTP/1.1\r\nhost: a.example\r\n\r\n").unwrap();
    eventually("it is fetched", || (count.load(Ordering::SeqCst) - before == 3).then_some(()));
    drop(one);
    let began = now();
    assert_eq!(get(&other, "/killed").status, 200);
    assert!(now() - began < Duration::from_secs(5));
}

#[test]
fn explain_says_what_redis_has_and_why_a_response_is_valid() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    origin.says("/orders/varied", &["vary: accept-language"]);
    let [one, other] = two(origin.script.address, &redis.url(), RULES);
    let folder = Folder::new();
    let file = folder.write("explained.toml", in_fleet(origin.script.address, &redis.url()).text() + RULES);
    let told = |path: &str| {
        let (admin, url) = (other.admin.to_string(), format!("http://a.example{path}"));
        let mut command = std::process::Command::new(binary());
        command.arg("explain").arg("-c").arg(&file).args(["--admin", &admin, "--live", "GET", &url]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert!(told("/orders/1").contains("in Redis     nothing"), "{}", told("/orders/1"));
    share(&one, &redis, "/orders/1", &[]);
    let text = told("/orders/1");
    for part in ["in Redis     a response with status 200 and ", "fresh for 3", "valid from position 1"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("stored       nothing"), "it is not in the memory of this one: {text}");
    share(&one, &redis, "/orders/varied", &["accept-language: de"]);
    assert!(told("/orders/varied").contains("in Redis     responses that vary with [\"accept-language\"]"));
    assert_eq!(other.admin_get("/cache/lookup?url=/a&key=0g").status, 400);
}

#[test]
fn a_redis_that_may_grow_without_bound_is_told_once() {
    let (origin, redis) = (Origin::new(), RedisServer::new());
    let [one, _other] = two(origin.script.address, &redis.url(), RULES);
    let told = "it has no maxmemory, so stored responses may take all memory of its host";
    eventually("it is told", || one.log().contains(told).then_some(()));
    assert_eq!(one.log().matches(told).count(), 1);
    let bounded = RedisServer::with(&["maxmemory 100mb", "maxmemory-policy volatile-lru"]);
    let [one, _other] = two(origin.script.address, &bounded.url(), RULES);
    share(&one, &bounded, "/orders/1", &[]);
    assert!(!one.log().contains("maxmemory"), "{}", one.log());
}
