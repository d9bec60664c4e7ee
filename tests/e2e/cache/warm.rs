//! `[[warm]]`: responses that are in the cache before a client asks for them.

use crate::harness::origin::*;
use crate::harness::*;

const ROUTES: &str = "[[routes]]\nmatch = \"GET /mine\"\ncache = { ttl = \"1h\", scope = \"user\" }\n\
    [[routes]]\nmatch = \"GET /**\"\ncache = { ttl = \"1h\", scope = \"shared\" }\n";

fn warm(lines: &str) -> String {
    format!("{ROUTES}[[warm]]\n{lines}\n")
}

/// Waits until the app was asked so often.
fn asked(origin: &Origin, count: usize) {
    eventually("the app is asked", || (origin.count() >= count).then_some(()));
}

fn metric(pillion: &Pillion, result: &str) -> u64 {
    let sample = format!("pillion_warm_requests_total{{result=\"{result}\"}} ");
    let text = pillion.admin_get("/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0, |count| count.parse().unwrap())
}

fn is_hit(answer: &Answer) -> bool {
    answer.field("cache-status").unwrap().contains("; hit")
}

#[test]
fn the_first_client_of_a_named_host_is_served_from_the_cache() {
    let origin = Origin::new();
    let config = warm("paths = [\"/a?x=1\", \"/b\"]\nhosts = [\"a.example\"]");
    let pillion = pillion(&origin, &config);
    asked(&origin, 2);
    eventually("both are stored", || (metric(&pillion, "fetched") == 2).then_some(()));
    assert!(is_hit(&get(&pillion, "/a?x=1")) && is_hit(&get(&pillion, "/b")));
    assert_eq!(origin.count(), 2);
    let seen = origin.last();
    assert_eq!(seen.field("host"), Some("a.example"));
    for none in ["authorization", "cookie", "cache-control"] {
        assert_eq!(seen.field(none), None, "{none}");
    }
    let log = pillion.admin_get("/metrics").text();
    assert!(!log.contains("pillion_requests_total{"), "no client asked: {log}");
}

#[test]
fn hosts_are_those_that_clients_ask_for() {
    let origin = Origin::new();
    let pillion = pillion(&origin, &warm("paths = [\"/a\", \"/b\"]"));
    // Before any client it is the name of the upstream.
    eventually("both are stored", || (metric(&pillion, "fetched") == 2).then_some(()));
    get(&pillion, "/other");
    eventually("they are for that host", || (metric(&pillion, "fetched") == 4).then_some(()));
    assert!(is_hit(&get(&pillion, "/a")) && is_hit(&get(&pillion, "/b")));
}

#[test]
fn it_is_fetched_again_when_it_is_invalidated() {
    let origin = Origin::new();
    let pillion = pillion(&origin, &warm("paths = [\"/a\"]\nhosts = [\"a.example\"]"));
    eventually("it is stored", || (metric(&pillion, "fetched") == 1).then_some(()));
    let before = get(&pillion, "/a").text();
    ask(&pillion, "POST /a", &["content-length: 0"]);
    eventually("it is fetched again", || (metric(&pillion, "fetched") == 2).then_some(()));
    let answer = get(&pillion, "/a");
    assert!(is_hit(&answer));
    assert_ne!(answer.text(), before);
}

#[test]
fn it_is_fetched_again_before_its_end_and_at_its_interval() {
    for (cache, every) in [("max-age=2", ""), ("max-age=3600", "every = \"1s\"")] {
        let origin = Origin::new();
        origin.says("/a", &[&format!("cache-control: {cache}"), "etag: \"e\""]);
        let config = "[[routes]]\nmatch = \"GET /**\"\ncache = { scope = \"shared\" }\n[[warm]]\n".to_owned();
        let pillion =
            pillion(&origin, &(config + &format!("paths = [\"/a\"]\nhosts = [\"a.example\"]\n{every}\n")));
        asked(&origin, 3);
        let last = origin.last();
        assert_eq!(last.field("if-none-match"), Some("\"e\""), "it is revalidated");
        assert!(is_hit(&get(&pillion, "/a")));
    }
}

#[test]
fn what_is_not_stored_for_all_is_told_and_not_asked_for_again_and_again() {
    let origin = Origin::new();
    origin.says("/private", &["cache-control: private, max-age=60"]);
    let config = warm("paths = [\"/private\"]\nhosts = [\"a.example\"]");
    let pillion = pillion(&origin, &config);
    eventually("it is told", || pillion.log().contains("is not stored for all users").then_some(()));
    assert_eq!(metric(&pillion, "not-stored"), 1);
    ask(&pillion, "POST /private", &["content-length: 0"]);
    let count = origin.count();
    get(&pillion, "/b");
    assert_eq!(origin.count(), count + 1);
}

#[test]
fn an_app_that_fails_is_asked_less_and_less_often() {
    let origin = Origin::new();
    origin.says("/a", &["status: 503"]);
    let pillion = pillion(&origin, &warm("paths = [\"/a\"]\nhosts = [\"a.example\"]"));
    eventually("it failed three times", || (metric(&pillion, "failed") >= 3).then_some(()));
    assert!(origin.count() <= 8, "{}", origin.count());
    origin.says("/a", &[]);
    eventually("it is stored", || (metric(&pillion, "fetched") == 1).then_some(()));
}

#[test]
fn limits_do_not_count_it_and_a_reload_changes_it() {
    let origin = Origin::new();
    let limit = "[rate_limit.tiers.free.limits]\nrequests = { rate = \"1/h\", burst = 1 }\n";
    let config = warm("paths = [\"/a\", \"/b\", \"/c\"]\nhosts = [\"a.example\"]") + limit;
    let pillion = pillion(&origin, &config);
    eventually("all are stored", || (metric(&pillion, "fetched") == 3).then_some(()));
    let text = format!("[upstream]\nurl = \"http://{}\"\n{config}", origin.script.address);
    pillion.reload(&text.replace("\"/c\"", "\"/d\""));
    eventually("the new one is stored", || (metric(&pillion, "fetched") == 4).then_some(()));
    assert_eq!(get(&pillion, "/d").status, 200, "the first request of a client");
}
