//! The laws of several limits at once, and of requests in flight.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::cells::{Key, Kind};
use super::gcra::Quota;
use super::tier::{Concurrency, Limit, Tier};
use super::{Ask, Decision, Limiter, Verdict, Which};
use crate::runtime::clock::{self, Instant};

fn limit(name: &str, count: u32, seconds: u64, burst: u32, named: bool) -> Limit {
    let quota = Quota::new(count, Duration::from_secs(seconds), NonZeroU32::new(burst).unwrap()).unwrap();
    let rule = Limit::rule_id("tier", name, &quota);
    let id = name.len() as u16;
    Limit { name: name.to_owned(), id, quota, named, exact: false, rule, series: 0, policy: String::new() }
}

fn tier(limits: Vec<Limit>) -> Tier {
    Tier::new("tier", 0, false, None, limits, 0)
}

fn ask(tier: &Tier, cost: u32) -> Ask<'_> {
    let key = Key { hash: 77 << 64, kind: Kind::Ip };
    Ask { key, tier, named: Some(&[]), cost: NonZeroU32::new(cost).unwrap(), concurrency: None }
}

/// The verdict of a limiter that shares nothing.
fn decided(limiter: &Arc<Limiter>, ask: &Ask<'_>, now: Instant) -> Verdict {
    match limiter.ask(ask, now) {
        Decision::Decided(verdict) => verdict,
        Decision::Undecided(_) => panic!("nobody is asked"),
    }
}

#[test]
fn a_refusal_by_one_takes_nothing_of_the_others() {
    let origin = clock::now();
    let limiter = Arc::new(Limiter::new(10, origin));
    let tier = tier(vec![limit("minute", 20, 60, 20, false), limit("hourly", 10, 3600, 10, false)]);
    for number in 0..10 {
        assert!(decided(&limiter, &ask(&tier, 1), origin).conforms(), "{number}");
    }
    for _ in 0..100 {
        let refused = decided(&limiter, &ask(&tier, 1), origin);
        assert_eq!(refused.violated[..], [Which::Quota(1)]);
        assert_eq!(refused.closest.unwrap().wait, Some(Duration::from_secs(360)));
    }
    let standing = limiter.standing(77 << 64, &tier, origin).unwrap();
    assert_eq!(standing.iter().map(|(_, standing)| standing.remaining).collect::<Vec<_>>(), [10, 0]);
}

#[test]
fn named_limits_hold_where_they_are_named() {
    let origin = clock::now();
    let limiter = Arc::new(Limiter::new(10, origin));
    let tier = tier(vec![limit("all", 100, 60, 100, false), limit("named", 1, 60, 1, true)]);
    for _ in 0..3 {
        assert!(decided(&limiter, &ask(&tier, 1), origin).conforms());
    }
    let on_route = Ask { named: Some(&[5]), ..ask(&tier, 1) };
    assert!(decided(&limiter, &on_route, origin).conforms());
    assert!(!decided(&limiter, &on_route, origin).conforms());
    let nowhere = Ask { named: None, ..ask(&tier, 1) };
    assert_eq!(decided(&limiter, &nowhere, origin).closest, None);
    assert_eq!(limiter.standing(77 << 64, &tier, origin).unwrap()[0].1.remaining, 96);
}

#[test]
fn requests_in_flight_are_capped_for_each_key_and_route() {
    let origin = clock::now();
    let limiter = Arc::new(Limiter::new(10, origin));
    let tier = tier(Vec::new());
    let of = |route: &str| Ask { concurrency: Some(Concurrency::new(route, 2)), ..ask(&tier, 1) };
    let (one, _two) = (decided(&limiter, &of("/a"), origin), decided(&limiter, &of("/a"), origin));
    let third = decided(&limiter, &of("/a"), origin);
    assert_eq!(third.violated[..], [Which::Concurrency]);
    assert!(third.permit.is_none());
    assert!(decided(&limiter, &of("/b"), origin).conforms());
    drop(one);
    assert!(decided(&limiter, &of("/a"), origin).conforms());
}

/// Threads of several workers on one cell let exactly as many requests pass as one thread would.
#[test]
fn exact_over_threads() {
    let origin = clock::now();
    let limiter = Arc::new(Limiter::new(10, origin));
    let tier = Arc::new(tier(vec![limit("all", 1, 3600, 1000, false)]));
    let passed: usize = std::thread::scope(|scope| {
        let ask_often = || (0..2000).filter(|_| decided(&limiter, &ask(&tier, 1), origin).conforms()).count();
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(ask_often)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(passed, 1000);
}

proptest! {
    /// Several quotas let a request pass exactly if each of them does, given only the requests that all let pass.
    #[test]
    fn several_windows_are_their_intersection(
        windows in proptest::collection::vec((1u32..50, 1u64..100, 1u32..20), 1..4),
        gaps in proptest::collection::vec((0u64..3_000_000_000, 1u32..4), 1..120),
    ) {
        let origin = clock::now();
        let limiter = Arc::new(Limiter::new(10, origin));
        let limits: Vec<Limit> = windows.iter().enumerate()
            .map(|(at, (count, seconds, burst))| limit(&"x".repeat(at + 1), *count, *seconds, *burst, false))
            .collect();
        let tier = tier(limits.clone());
        let mut alone = vec![0u64; limits.len()];
        let mut since = Duration::ZERO;
        for (gap, cost) in gaps {
            since += Duration::from_nanos(gap);
            let now = origin + since;
            let cost = cost.min(windows.iter().map(|window| window.2).min().unwrap());
            let verdict = decided(&limiter, &ask(&tier, cost), now);
            let cost = NonZeroU32::new(cost).unwrap();
            let tests: Vec<_> = limits.iter().zip(&alone)
                .map(|(limit, tat)| limit.quota.test(*tat, cost, limiter.since_origin(now)))
                .collect();
            let all = tests.iter().all(Result::is_ok);
            prop_assert_eq!(verdict.conforms(), all);
            prop_assert_eq!(verdict.violated.len(), tests.iter().filter(|test| test.is_err()).count());
            if all {
                alone = tests.into_iter().map(Result::unwrap).collect();
            } else {
                // After exactly this wait the request conforms; a nanosecond earlier it does not.
                let wait = tests.iter().filter_map(|test| test.err()).max().unwrap();
                prop_assert_eq!(verdict.closest.unwrap().wait, Some(wait));
                let then = limiter.since_origin(now) + wait.as_nanos() as u64;
                let conforms = |at| limits.iter().zip(&alone).all(|(limit, tat)| limit.quota.test(*tat, cost, at).is_ok());
                prop_assert!(conforms(then) && !conforms(then - 1));
            }
        }
    }
}
