//! Limits that several processes count together, with Redis and without.

use super::*;
use crate::harness::redis::Relay;

/// Processes in front of one app, with one limit.
fn limited(app: &Origin, url: &str, redis: &str, limit: &str) -> [Pillion; 2] {
    let config = in_fleet(app.script.address, url).text().replace("prefix =", &format!("{redis}\nprefix ="));
    let limits = format!("[rate_limit.tiers.free.limits.requests]\n{limit}\n");
    let pillions = [(); 2].map(|()| Pillion::with(&format!("{config}{limits}")));
    pillions.iter().for_each(|pillion| sees(pillion, 2));
    pillions
}

/// Sends requests to the processes in turn; returns how many passed, and how many were refused.
fn send(pillions: &[Pillion], count: usize) -> (usize, usize) {
    let statuses: Vec<u16> =
        (0..count).map(|number| get(&pillions[number % pillions.len()], "/a").status).collect();
    let of = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!(of(200) + of(429), count, "{statuses:?}");
    (of(200), of(429))
}

fn metric(pillion: &Pillion, name: &str) -> f64 {
    let text = pillion.admin_get("/metrics").text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_small_limit_is_counted_exactly_by_all_processes() {
    let (app, redis) = (Origin::new(), RedisServer::new());
    let pillions = limited(&app, &redis.url(), "", "rate = \"6/h\"");
    assert_eq!(send(&pillions, 14), (6, 8));
    let refused = get(&pillions[0], "/a");
    let seconds: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((595..=600).contains(&seconds), "{seconds}");
    assert!(refused.field("ratelimit").unwrap().contains("r=0"), "{:?}", refused.field("ratelimit"));
}

#[test]
fn a_large_limit_is_leased_and_hardly_asked_for() {
    let (app, redis) = (Origin::new(), RedisServer::new());
    let pillions = limited(&app, &redis.url(), "", "rate = \"300/h\"");
    let (passed, _) = send(&pillions, 500);
    // A process holds few tokens that it does not spend, and few are refilled meanwhile.
    assert!((290..=305).contains(&passed), "{passed}");
    for pillion in &pillions {
        let asked = metric(pillion, "pillion_limit_shared_questions_total{result=\"succeeded\"}");
        assert!(asked < 60.0, "{asked} questions for 250 requests");
        assert_eq!(metric(pillion, "pillion_limit_shared "), 1.0);
    }
}

#[test]
fn sync_exact_asks_for_each_request() {
    let (app, redis) = (Origin::new(), RedisServer::new());
    let pillions = limited(&app, &redis.url(), "", "rate = \"100/h\"\nsync = \"exact\"");
    assert_eq!(send(&pillions, 120), (100, 20));
}

#[test]
fn several_limits_are_taken_together_or_not_at_all() {
    let (app, redis) = (Origin::new(), RedisServer::new());
    let limits = "rate = \"1000/h\"\n[rate_limit.tiers.free.limits.few]\nrate = \"4/h\"";
    let pillions = limited(&app, &redis.url(), "", limits);
    assert_eq!(send(&pillions, 20), (4, 16));
    let status = pillions[1].admin_get("/limits/status?key=127.0.0.1").json();
    let of = |name: &str| {
        let limits = status["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["limit"] == name).unwrap()["remaining"].as_u64().unwrap()
    };
    assert_eq!((of("few"), status["shared"].as_bool()), (0, Some(true)));
    // The refused requests took nothing of it; what is leased is not spent yet.
    assert!((990..=996).contains(&of("requests")), "{status}");
}

#[test]
fn a_reset_holds_for_all_processes() {
    let (app, redis) = (Origin::new(), RedisServer::new());
    let pillions = limited(&app, &redis.url(), "", "rate = \"3/h\"");
    assert_eq!(send(&pillions, 6), (3, 3));
    let reset = pillions[1].admin_post("/limits/reset?key=127.0.0.1");
    assert_eq!((reset.status, &reset.json()["shared"]), (200, &true.into()), "{}", reset.text());
    // The other one remembers its refusal for two seconds at most.
    eventually("the other process asks again", || (get(&pillions[0], "/a").status == 200).then_some(()));
    assert_eq!(pillions[1].admin_post("/limits/reset?key=nobody").status, 404);
    assert_eq!(pillions[1].admin_post("/limits/reset").status, 400);
}

#[test]
fn without_redis_each_process_counts_its_share() {
    let (app, mut redis) = (Origin::new(), RedisServer::new());
    let pillions = limited(&app, &redis.url(), "", "rate = \"40/h\"");
    let (passed, _) = send(&pillions, 20);
    assert_eq!(passed, 20);
    redis.kill();
    let (passed, _) = send(&pillions, 60);
    // Each goes on from half of what was left: 10; and has a few leased tokens.
    assert!((18..=30).contains(&passed), "{passed}");
    assert!(metric(&pillions[0], "pillion_limit_shared_alone_total") > 0.0);
    assert_eq!(metric(&pillions[0], "pillion_limit_shared "), 0.0);
    redis.restart();
    eventually("limits are shared again", || {
        get(&pillions[0], "/a");
        get(&pillions[1], "/a");
        let shared = |pillion: &Pillion| metric(pillion, "pillion_limit_shared ") == 1.0;
        pillions.iter().all(shared).then_some(())
    });
}

#[test]
fn on_error_decides_while_redis_is_away() {
    for (on_error, wanted) in [("open", 200), ("closed", 503)] {
        let (app, mut redis) = (Origin::new(), RedisServer::new());
        let on_error = format!("on_error = \"{on_error}\"");
        let pillions = limited(&app, &redis.url(), &on_error, "rate = \"2/h\"");
        assert_eq!(send(&pillions, 4), (2, 2));
        redis.kill();
        eventually("the processes know", || {
            let statuses = [0, 1].map(|at| get(&pillions[at], "/a").status);
            (statuses == [wanted; 2]).then_some(())
        });
        let last = get(&pillions[0], "/a");
        assert_eq!(last.status, wanted);
        if wanted == 503 {
            assert!(last.text().contains("limits-unavailable"), "{}", last.text());
            assert!(last.field("retry-after").is_some());
        }
    }
}

#[test]
fn a_slow_redis_delays_no_request_for_long() {
    let (app, redis) = (Origin::new(), RedisServer::new());
    let relay = Relay::to(redis.address);
    let pillions = limited(&app, &relay.url(), "", "rate = \"1000/h\"");
    relay.slow();
    eventually("the processes do not wait", || {
        let (passed, _) = send(&pillions, 2);
        assert_eq!(passed, 2);
        (metric(&pillions[0], "pillion_limit_shared ") == 0.0).then_some(())
    });
    assert_eq!(send(&pillions, 40).0, 40);
}

#[test]
fn rate_limit_false_lets_each_process_count_by_itself() {
    let (app, redis) = (Origin::new(), RedisServer::new());
    let pillions = limited(&app, &redis.url(), "rate_limit = false", "rate = \"5/h\"");
    assert_eq!(send(&pillions, 20), (10, 10));
    assert!(!pillions[0].admin_get("/metrics").text().contains("pillion_limit_shared"));
}
