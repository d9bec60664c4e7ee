//! Decides whether a stored response may be used for a request (RFC 9111 4, 4.2.4, 5.2.1).

use std::time::Duration;

use http::StatusCode;

use super::freshness::Freshness;
use crate::fields::cache_control::{MaxStale, RequestDirectives};

/// The reason why the upstream is asked although a response is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RevalidateReason {
    /// The response is stale, or must be revalidated before each use.
    Stale,
    /// The request demands it (no-cache, max-age, min-fresh).
    Request,
}

/// The use of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    Fresh,
    /// It is used stale, because the request accepts that (5.2.1.2).
    MaxStale,
    /// It is used stale while it is revalidated (RFC 5861 3).
    WhileRevalidate,
    /// It is revalidated before its use.
    Revalidate(RevalidateReason),
}

/// The age of a response, and how long ago it was invalidated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Age {
    /// The current age (RFC 9111 4.2.3).
    pub current: Duration,
    /// Time since a soft invalidation.
    pub invalidated: Option<Duration>,
}

impl Age {
    /// Returns the remaining freshness lifetime in seconds; negative once it is stale.
    pub(crate) fn ttl(&self, freshness: &Freshness) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        match self.staleness(freshness) {
            Some(stale) => -seconds(stale),
            // In whole seconds like Age, so that both add up to the lifetime.
            None => seconds(freshness.lifetime) - seconds(self.current),
        }
    }

    /// Returns how long it has been stale; `None` while it is fresh.
    pub(crate) fn staleness(&self, freshness: &Freshness) -> Option<Duration> {
        // 4.2: fresh while the lifetime exceeds the age.
        let by_age = (freshness.lifetime <= self.current).then(|| self.current - freshness.lifetime);
        by_age.max(self.invalidated)
    }
}

/// Decides about a stored response; see the head of the file.
pub(crate) fn reuse(freshness: &Freshness, age: Age, asks: &RequestDirectives) -> Reuse {
    if asks.no_cache {
        return Reuse::Revalidate(RevalidateReason::Request);
    }
    if freshness.no_cache {
        return Reuse::Revalidate(RevalidateReason::Stale);
    }
    let stale = age.staleness(freshness);
    let too_old = asks.max_age.is_some_and(|max| age.current > max) && asks.max_stale.is_none();
    let left = freshness.lifetime.saturating_sub(age.current);
    let too_soon = asks.min_fresh.is_some_and(|min| stale.is_some() || left < min);
    if too_old || too_soon {
        return Reuse::Revalidate(if stale.is_some() {
            RevalidateReason::Stale
        } else {
            RevalidateReason::Request
        });
    }
    let Some(stale) = stale else { return Reuse::Fresh };
    if freshness.must_revalidate {
        return Reuse::Revalidate(RevalidateReason::Stale);
    }
    let taken = match asks.max_stale {
        Some(MaxStale::Any) => age.invalidated.is_none(),
        Some(MaxStale::For(max)) => age.invalidated.is_none() && stale <= max,
        None => false,
    };
    if taken {
        Reuse::MaxStale
    } else if stale <= freshness.while_revalidate && !freshness.while_revalidate.is_zero() {
        Reuse::WhileRevalidate
    } else {
        Reuse::Revalidate(RevalidateReason::Stale)
    }
}

/// Returns whether a request demands a response that the upstream sends for it, and not for an earlier request.
pub(crate) fn demands_upstream(asks: &RequestDirectives) -> bool {
    asks.no_cache || asks.max_age.is_some_and(|max| max.is_zero())
}

/// The failure of a request to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// No response arrived from the upstream.
    Unreachable,
    /// The upstream responded with this status.
    Status(StatusCode),
}

/// Returns whether a stale response may be used in place of an error (RFC 5861 4). A fresh response that a request had
/// revalidated may not: it is not stale. An error that the upstream itself sent says more than silence, so a stale
/// response replaces it only if the response or the route allows that.
pub(crate) fn may_replace_error(
    freshness: &Freshness,
    age: Age,
    asks: &RequestDirectives,
    failed: Failed,
) -> bool {
    let window = match failed {
        Failed::Unreachable => freshness.if_unreachable,
        Failed::Status(status) => match status.as_u16() {
            502..=504 => freshness.if_error,
            500 if freshness.error_500 => freshness.if_error,
            _ => Duration::ZERO,
        },
    };
    let Some(stale) = age.staleness(freshness) else { return false };
    !asks.no_cache
        && !freshness.no_cache
        && !freshness.must_revalidate
        && stale <= window
        && !window.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::rules::freshness::Source;
    use crate::fields::cache_control::RequestDirectives;
    use http::HeaderMap;
    use proptest::prelude::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const MINUTE: Freshness = Freshness {
        lifetime: secs(60),
        source: Source::App,
        no_cache: false,
        must_revalidate: false,
        while_revalidate: Duration::ZERO,
        if_unreachable: Duration::ZERO,
        if_error: Duration::ZERO,
        error_500: false,
    };

    fn asks(value: &str) -> RequestDirectives {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", value.parse().unwrap());
        RequestDirectives::from_headers(&headers)
    }

    #[test]
    fn verdicts() {
        use Reuse::{Fresh, Revalidate, WhileRevalidate};
        let swr = Freshness { while_revalidate: secs(30), ..MINUTE };
        let strict = Freshness { must_revalidate: true, ..swr };
        let no_cache = Freshness { no_cache: true, ..swr };
        let (stale, request) = (Revalidate(RevalidateReason::Stale), Revalidate(RevalidateReason::Request));
        for (freshness, age, says, wanted) in [
            (MINUTE, 0, "", Fresh),
            (MINUTE, 59, "", Fresh),
            (MINUTE, 60, "", stale),
            (MINUTE, 10, "no-cache", request),
            (MINUTE, 10, "max-age=10", Fresh),
            (MINUTE, 11, "max-age=10", request),
            (MINUTE, 0, "max-age=0", Fresh),
            (MINUTE, 61, "max-age=10", stale),
            (MINUTE, 11, "max-age=10, max-stale", Fresh),
            (MINUTE, 50, "min-fresh=10", Fresh),
            (MINUTE, 51, "min-fresh=10", request),
            (MINUTE, 70, "min-fresh=0", stale),
            (MINUTE, 70, "max-stale", Reuse::MaxStale),
            (MINUTE, 70, "max-stale=10", Reuse::MaxStale),
            (MINUTE, 71, "max-stale=10", stale),
            (MINUTE, 70, "max-stale=x", stale),
            (swr, 90, "", WhileRevalidate),
            (swr, 91, "", stale),
            (swr, 60, "", WhileRevalidate),
            (swr, 70, "no-cache", request),
            (strict, 70, "", stale),
            (strict, 70, "max-stale", stale),
            (no_cache, 0, "", stale),
            (no_cache, 0, "max-stale", stale),
        ] {
            let age = Age { current: secs(age), invalidated: None };
            assert_eq!(reuse(&freshness, age, &asks(says)), wanted, "{age:?} {says}");
        }
        let soft = Age { current: secs(1), invalidated: Some(secs(5)) };
        assert_eq!(reuse(&MINUTE, soft, &asks("")), stale);
        assert_eq!(reuse(&MINUTE, soft, &asks("max-stale")), stale, "it is known to be wrong");
        assert_eq!(reuse(&swr, soft, &asks("")), WhileRevalidate);
    }

    #[test]
    fn n5_5_a_stale_response_in_place_of_an_error() {
        let unreachable = Freshness { if_unreachable: secs(30), ..MINUTE };
        let said = Freshness { if_error: secs(30), ..unreachable };
        let said_500 = Freshness { error_500: true, ..said };
        let gone = Failed::Unreachable;
        let status = |code| Failed::Status(StatusCode::from_u16(code).unwrap());
        for (freshness, age, says, failed, wanted) in [
            (unreachable, 60, "", gone, true),
            (unreachable, 90, "", gone, true),
            (unreachable, 91, "", gone, false),
            (unreachable, 10, "", gone, false),
            (unreachable, 70, "no-cache", gone, false),
            (unreachable, 70, "", status(500), false),
            (unreachable, 70, "", status(502), false),
            (unreachable, 70, "", status(503), false),
            (unreachable, 70, "", status(504), false),
            (said, 70, "", status(502), true),
            (said, 70, "", status(503), true),
            (said, 70, "", status(504), true),
            (said, 91, "", status(503), false),
            (said, 70, "", status(500), false),
            (said, 70, "", status(501), false),
            (said, 70, "", status(505), false),
            (said, 70, "", status(404), false),
            (said_500, 70, "", status(500), true),
            (MINUTE, 60, "", gone, false),
            (Freshness { must_revalidate: true, ..said }, 70, "", gone, false),
            (Freshness { no_cache: true, ..said }, 70, "", gone, false),
        ] {
            let age = Age { current: secs(age), invalidated: None };
            let found = may_replace_error(&freshness, age, &asks(says), failed);
            assert_eq!(found, wanted, "{age:?} {says} {failed:?}");
        }
    }

    proptest! {
        /// A response past its lifetime is used only if a directive or the route allows that.
        #[test]
        fn stale_only_where_it_is_allowed(
            lifetime in 0u64..100, current in 0u64..200, invalidated in proptest::option::of(0u64..50),
            swr in 0u64..50, must: bool, no_cache: bool, stale in proptest::option::of(0u64..50),
        ) {
            let freshness = Freshness {
                lifetime: secs(lifetime), while_revalidate: secs(swr), must_revalidate: must, no_cache, ..MINUTE
            };
            let age = Age { current: secs(current), invalidated: invalidated.map(secs) };
            let request = RequestDirectives {
                max_stale: stale.map(|max| MaxStale::For(secs(max))), ..RequestDirectives::default()
            };
            let found = reuse(&freshness, age, &request);
            let fresh = current < lifetime && invalidated.is_none();
            match found {
                Reuse::Fresh => prop_assert!(fresh && !no_cache),
                Reuse::MaxStale => prop_assert!(!fresh && !must && !no_cache && stale.is_some()),
                Reuse::WhileRevalidate => prop_assert!(!fresh && !must && !no_cache && swr > 0),
                Reuse::Revalidate(_) => prop_assert!(!fresh || no_cache),
            }
        }
    }
}
