//! The law of request collapsing, tested on random schedules: no request receives a response that a cache without
//! collapsing could not have given. The decisions are the real ones; the law is written from the directives alone.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use proptest::prelude::*;

use super::Cache;
use crate::cache::collapse;
use crate::cache::collapse::{FetchOutcome, Join, Line, Offer, Share};
use crate::cache::rules::freshness;
use crate::cache::rules::freshness::Times;
use crate::cache::rules::reuse::{Age, Reuse, reuse};
use crate::cache::rules::storability::{Personal, RequestTraits, Storable, evaluate};
use crate::cache::settings::{RouteCacheSettings, Scope};
use crate::fields::cache_control::{RequestDirectives, ResponseDirectives};
use crate::memory::buffers::ClientSlot;
use crate::runtime::clock;

/// The Cache-Control directives of one response.
#[derive(Clone, Copy, Debug)]
struct Says {
    max_age: Option<u64>,
    s_maxage: Option<u64>,
    public: bool,
    private: bool,
    no_cache: bool,
    must_revalidate: bool,
}

impl Says {
    fn fields(self) -> HeaderMap {
        let mut words = Vec::new();
        words.extend(self.max_age.map(|seconds| format!("max-age={seconds}")));
        words.extend(self.s_maxage.map(|seconds| format!("s-maxage={seconds}")));
        for (said, word) in [
            (self.public, "public"),
            (self.private, "private"),
            (self.no_cache, "no-cache"),
            (self.must_revalidate, "must-revalidate"),
        ] {
            words.extend(said.then(|| word.to_owned()));
        }
        let mut fields = HeaderMap::new();
        fields.insert(header::CACHE_CONTROL, words.join(", ").parse().expect("a field value"));
        fields.insert(header::ETAG, "\"x\"".parse().expect("a field value"));
        fields
    }

    /// The law: returns whether a cache without collapsing could give one user's response to another, `age` seconds
    /// after it arrived and `fetch` seconds after it was requested.
    fn may_be_given(self, to: Personal, age: u64, fetch: u64) -> bool {
        let everyone = self.public || self.s_maxage.is_some();
        let authorized = everyone || self.must_revalidate;
        let audience = match to {
            Personal::No => true,
            Personal::Authorization => authorized,
            Personal::Otherwise => everyone,
        };
        let lifetime = self.s_maxage.or(self.max_age).unwrap_or(0);
        let strict = self.must_revalidate || self.s_maxage.is_some();
        let age = if strict { age + fetch } else { age };
        !self.private && !self.no_cache && audience && age < lifetime
    }
}

fn says() -> impl Strategy<Value = Says> {
    let seconds = || proptest::option::of(0u64..6);
    (seconds(), seconds(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(max_age, s_maxage, public, private, no_cache, must_revalidate)| Says {
            max_age,
            s_maxage,
            public,
            private,
            no_cache,
            must_revalidate,
        },
    )
}

fn personal() -> impl Strategy<Value = Personal> {
    prop_oneof![Just(Personal::No), Just(Personal::Authorization), Just(Personal::Otherwise)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// One user's request leads; others join it before or after its head arrives.
    #[test]
    fn n1_1_nobody_receives_what_a_cache_without_collapsing_could_not_give(
        says in says(),
        leader in personal(),
        fetch in 0u64..6,
        others in proptest::collection::vec((personal(), 0u64..12), 1..6),
    ) {
        let start = clock::now();
        let seconds = Duration::from_secs;
        let settings = freshness::tests::settings();
        let route_settings = RouteCacheSettings { scope: Scope::Auto, ..RouteCacheSettings::default() };
        let fields = says.fields();
        let directives = ResponseDirectives::from_headers(&fields, &[]);
        let times = Times { requested: start, received: start + seconds(fetch), wall: clock::wall() };
        let traits = RequestTraits { personal: leader, ..RequestTraits::default() };
        let judged = evaluate(traits, (StatusCode::OK, &fields), &directives, (&route_settings, &settings), times.wall);
        let Ok(Storable { freshness, audience, .. }) = judged else { return Ok(()) };
        let initial_age = freshness::initial_age(&fields, times);
        for (other, arrives) in others {
            let waited = arrives < fetch;
            let age = initial_age + seconds(arrives.saturating_sub(fetch));
            let offer = Offer {
                is_valid: true,
                fits: true,
                may_use: audience.includes(other),
                freshness: &freshness,
                age,
                fetched_in: seconds(fetch),
                waited,
            };
            let asks = RequestDirectives::default();
            let taken = collapse::share(offer, &asks) == Share::Take;
            let since = arrives.saturating_sub(fetch);
            let allowed = says.may_be_given(other, since, fetch);
            prop_assert!(!taken || allowed, "{says:?} given to {other:?}, fetched in {fetch}, {since} later");
            // Collapsing also works: a response that could be used if stored is used.
            let stored = reuse(&freshness, Age { current: age, invalidated: None }, &asks) == Reuse::Fresh;
            prop_assert!(taken || !(stored && audience.includes(other)));
        }
    }
}

#[test]
fn n1_1_decisions_about_a_fetch_that_was_joined() {
    use Share::{GoAlone, JoinNext, Take};
    let fields = |value: &str| {
        let mut fields = HeaderMap::new();
        fields.insert(header::CACHE_CONTROL, value.parse().expect("a field value"));
        fields
    };
    for (says, asks, age, fetched_in, waited, wanted) in [
        ("max-age=60", "", 0, 0, true, Take),
        ("max-age=60", "", 59, 0, false, Take),
        ("max-age=60", "", 60, 0, false, GoAlone),
        ("max-age=0", "", 0, 0, true, GoAlone),
        ("public, max-age=0", "", 0, 0, true, GoAlone),
        ("s-maxage=0", "", 0, 0, true, GoAlone),
        ("max-age=0, must-revalidate", "", 0, 0, true, GoAlone),
        ("max-age=0, stale-while-revalidate=60", "", 0, 0, true, GoAlone),
        ("no-cache", "", 0, 0, true, GoAlone),
        ("no-cache, max-age=60", "", 0, 0, true, GoAlone),
        // A fetch that takes longer than its response is fresh.
        ("max-age=1", "", 3, 3, true, Take),
        ("max-age=1", "", 3, 3, false, GoAlone),
        ("max-age=1", "", 4, 3, true, GoAlone),
        ("max-age=1, must-revalidate", "", 3, 3, true, GoAlone),
        ("max-age=1, proxy-revalidate", "", 3, 3, true, GoAlone),
        ("s-maxage=1", "", 3, 3, true, GoAlone),
        ("max-age=1", "max-age=1", 3, 3, true, GoAlone),
        ("max-age=60", "max-age=1", 3, 3, true, GoAlone),
        ("max-age=60", "min-fresh=60", 3, 3, true, GoAlone),
        ("max-age=1", "max-stale", 3, 0, true, GoAlone),
    ] {
        let headers = fields(says);
        let directives = ResponseDirectives::from_headers(&headers, &[]);
        let settings = freshness::tests::settings();
        let route_settings = RouteCacheSettings::default();
        let freshness = freshness::Freshness::evaluate(
            StatusCode::OK,
            &headers,
            &directives,
            &route_settings,
            &settings,
            clock::wall(),
        );
        let (age, fetched_in) = (Duration::from_secs(age), Duration::from_secs(fetched_in));
        let offer = Offer {
            is_valid: true,
            fits: true,
            may_use: true,
            freshness: &freshness,
            age,
            fetched_in,
            waited,
        };
        let asks = RequestDirectives::from_headers(&fields(asks));
        assert_eq!(collapse::share(offer, &asks), wanted, "{says} {age:?} {fetched_in:?} {waited}");
        assert_eq!(collapse::share(Offer { is_valid: false, ..offer }, &asks), JoinNext);
        assert_eq!(collapse::share(Offer { fits: false, ..offer }, &asks), JoinNext);
        assert_eq!(collapse::share(Offer { may_use: false, ..offer }, &asks), GoAlone);
    }
}

/// A queue in which all other clients are served first.
#[derive(Debug)]
struct Last(ClientSlot);

impl Line for Last {
    fn serves_first(&self, client: ClientSlot) -> bool {
        client != self.0
    }
}

/// Holds also for a request that joined before the fetch was queued, as when it is retried.
#[test]
fn n3_4_a_fetch_that_waits_for_its_clients_share_keeps_only_that_client() {
    let cache = Cache::new(1, 1 << 20, clock::now());
    let (fetches, invalidation) = (&cache.fetches, &cache.invalidation);
    let slot = |last: u8| ClientSlot::new([192, 0, 2, last].into(), 64);
    let own = slot(1);
    let other = (2..).map(slot).find(|slot| *slot != own).expect("two clients differ");
    let join = |client: ClientSlot| {
        let watched = invalidation.watch(&[]);
        let begun = invalidation.begin(&watched, clock::now());
        fetches.join(b"key", &[], begun, invalidation, || client)
    };
    let Join::Leads(first) = join(own) else { panic!("nobody was there") };
    let Join::Follows(followed) = join(other) else { panic!("it is in progress") };
    let mut cx = Context::from_waker(Waker::noop());
    let mut of_own = pin!(first.fetch.arrival(Some(own)));
    let mut of_other = pin!(followed.arrival(Some(other)));
    assert!(of_own.as_mut().poll(&mut cx).is_pending() && of_other.as_mut().poll(&mut cx).is_pending());
    first.fetch.set_line(Some(Box::new(Last(own))));
    assert!(of_own.as_mut().poll(&mut cx).is_pending());
    assert!(matches!(of_other.as_mut().poll(&mut cx), Poll::Ready(FetchOutcome::Queued)));
    assert!(matches!(join(own), Join::Follows(fetch) if Arc::ptr_eq(&fetch, &first.fetch)));
    assert!(fetches.find(b"key", invalidation, || other).is_none());
    let Join::Leads(second) = join(other) else { panic!("it need not wait for that one") };
    // The end of the first fetch leaves the newer one in the table.
    first.fetch.set_line(None);
    drop(first);
    assert!(matches!(of_own.as_mut().poll(&mut cx), Poll::Ready(FetchOutcome::Overtaken)));
    assert!(matches!(join(own), Join::Follows(fetch) if Arc::ptr_eq(&fetch, &second.fetch)));
    drop(second);
    assert_eq!(fetches.len(), 0);
}
