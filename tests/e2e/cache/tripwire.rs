//! Tests of the tripwire: a shared route whose responses depend on the user is found out, and strangers cannot stop one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::origin::*;
use crate::harness::*;

#[test]
fn a_shared_route_that_is_not_is_found_out() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = fetched.clone();
    let script = Script::answering(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        let own = request.line.contains("/own");
        let who = request.field("authorization").filter(|_| own).unwrap_or("nobody").to_owned();
        answer(request, "", &format!("for {who}"))
    });
    let pillion = Config::new(script.address)
        .route("GET /own/**", r#"cache = { ttl = "1h", scope = "shared" }"#)
        .route("GET /same/**", r#"cache = { ttl = "1h", scope = "shared" }"#)
        .start();
    let of =
        |path: &str, who: &str| ask(&pillion, &format!("GET {path}"), &[&format!("authorization: {who}")]);
    for path in ["/own/a", "/same/a"] {
        assert_eq!(of(path, "a").status, 200);
    }
    let compared = "pillion_cache_tripwire_comparisons_total";
    for (path, count) in [("/same/a", 1.0), ("/own/a", 2.0)] {
        (0..2).for_each(|_| drop(of(path, "a")));
        of(path, "b");
        eventually("a comparison", || (pillion.metric(compared) == count).then_some(()));
    }
    assert!(of("/own/a", "b").field("cache-status").unwrap().contains("hit"), "once is not enough");
    eventually("it stops", || {
        for who in ["a", "b"] {
            of("/own/a", who);
        }
        (pillion.metric("pillion_cache_tripwire_stops_total") == 1.0).then_some(())
    });
    eventually("the warning", || pillion.log().contains("it is not cached for an hour").then_some(()));
    assert_eq!(of("/own/a", "b").text(), "for b");
    assert_eq!(of("/own/a", "a").text(), "for a");
    assert!(of("/same/a", "b").field("cache-status").unwrap().contains("hit"));
}

/// An app whose response varies by any field, as apps vary by language, and names the user.
fn by_fields(scope: &str) -> (Script, Pillion) {
    let script = Script::answering(move |request| {
        let said = ["authorization", "accept-language", "user-agent", "x-forwarded-for", "x-member"];
        let said: Vec<&str> = said.iter().map(|name| request.field(name).unwrap_or("-")).collect();
        answer(request, "cache-control: public, max-age=600", &said.join(" "))
    });
    let pillion = Config::new(script.address)
        .server("trusted_proxies", ["127.0.0.0/8"])
        .route("GET /**", &format!("cache = {{ scope = \"{scope}\" }}"))
        .start();
    (script, pillion)
}

/// Regression: six requests of one stranger stopped caching on a shared route that varies by other fields only.
#[test]
fn n3_9_what_a_stranger_asks_for_stops_no_shared_route() {
    let (_app, pillion) = by_fields("shared");
    let metric = |name: &str| pillion.metric(&format!("pillion_cache_tripwire_{name}_total"));
    let fields =
        ["accept-language: en", "user-agent: a", "x-forwarded-for: 1.1.1.1, 10.9.9.9", "x-member: a"];
    let of = |at: usize, who: &str, more: &str| {
        ask(&pillion, &format!("GET /{at}"), &[&format!("authorization: {who}"), more, "x-request-id: 1"])
    };
    // Longer than two comparisons take.
    let until = now() + Duration::from_secs(4);
    while now() < until {
        for (at, field) in fields.iter().enumerate() {
            for (who, more) in [("a", *field), ("b", "x-none: 1")] {
                assert_eq!(of(at, who, more).status, 200);
            }
        }
    }
    assert_eq!((metric("comparisons"), metric("stops")), (0.0, 0.0));
    // Requests with equal fields are still compared.
    eventually("a comparison", || {
        for who in ["a", "b"] {
            of(0, who, fields[0]);
        }
        (metric("comparisons") == 1.0).then_some(())
    });
}

/// A page that shows its own trace id does not depend on the user, although the trace differs in each request.
#[test]
fn n3_9_a_page_that_shows_its_trace_stops_no_shared_route() {
    let script = Script::answering(|request| {
        let trace = request.field("traceparent").unwrap_or("-").to_owned();
        answer(request, "cache-control: public, max-age=600", &trace)
    });
    let pillion = Config::new(script.address).route("GET /**", r#"cache = { scope = "shared" }"#).start();
    let metric = |name: &str| pillion.metric(&format!("pillion_cache_tripwire_{name}_total"));
    let trace = |at: u8| format!("traceparent: 00-{:032x}-{:016x}-01", u32::from(at) + 7, at + 1);
    eventually("two comparisons", || {
        for (at, who) in ["a", "b"].into_iter().enumerate() {
            ask(&pillion, "GET /a", &[&format!("authorization: {who}"), &trace(at as u8)]);
        }
        (metric("comparisons") >= 1.0).then_some(())
    });
    // A comparison that differs is repeated after a second; one that does not, not before a minute.
    let until = now() + Duration::from_secs(3);
    while now() < until {
        for (at, who) in ["a", "b"].into_iter().enumerate() {
            ask(&pillion, "GET /a", &[&format!("authorization: {who}"), &trace(at as u8)]);
        }
    }
    assert_eq!((metric("comparisons"), metric("stops")), (1.0, 0.0));
}

#[test]
fn n3_9_in_scope_auto_an_operator_is_warned_and_nothing_is_stopped() {
    let (_app, pillion) = by_fields("auto");
    let is_warned = || pillion.log().contains("the route still shares responses");
    eventually("the warning", || {
        for who in ["a", "b"] {
            let answer = ask(&pillion, "GET /a", &[&format!("x-member: {who}")]);
            assert_eq!(answer.status, 200);
        }
        is_warned().then_some(())
    });
    assert_eq!(pillion.metric("pillion_cache_tripwire_stops_total"), 0.0);
    assert!(ask(&pillion, "GET /a", &["x-member: c"]).field("cache-status").unwrap().contains("hit"));
    assert_eq!(pillion.log().matches("the route still shares responses").count(), 1);
}
