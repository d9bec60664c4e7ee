//! Computes how long a response is fresh and how old it is on arrival (RFC 9111 4.2).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::cache::settings::{CacheSettings, Override, RouteCacheSettings};
use crate::fields::cache_control::ResponseDirectives;
use crate::fields::date;
use crate::runtime::clock::Instant;

/// The times of a fetch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When the request was sent.
    pub requested: Instant,
    /// When the response head arrived.
    pub received: Instant,
    /// When the response head arrived, by the wall clock.
    pub wall: SystemTime,
}

/// The origin of a freshness lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    App,
    Route,
    /// Derived from Last-Modified (RFC 9111 4.2.2).
    Heuristic,
    /// There is none, and none is derived.
    Nobody,
}

/// How long a response is fresh, and how long it may be used stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// Freshness lifetime (RFC 9111 4.2.1).
    pub lifetime: Duration,
    pub source: Source,
    /// Whether it must be revalidated before each use (RFC 9111 5.2.2.4).
    pub no_cache: bool,
    /// Whether it is never used stale (RFC 9111 4.2.4).
    pub must_revalidate: bool,
    /// How long it is used stale during its revalidation (RFC 5861 3).
    pub while_revalidate: Duration,
    /// How long it is used stale when no response arrives: no name, no connection, a broken one, a deadline (RFC 9111
    /// 4.2.4 allows that unless a directive forbids it).
    pub if_unreachable: Duration,
    /// How long it is used stale in place of an error status, as the response or the route allows (RFC 5861 4).
    pub if_error: Duration,
    /// Whether status 500 counts as such an error.
    pub error_500: bool,
}

/// Returns whether a lifetime may be derived for a status (RFC 9110 15.1), except for 206, which is not stored as it
/// is.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Returns whether anything gives a response a lifetime; for most responses of most upstreams nothing does. Its fields
/// decide whether it really has one.
pub(crate) fn may_have_lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    route_settings: &RouteCacheSettings,
    settings: &CacheSettings,
) -> bool {
    let derived = !settings.heuristic_max.is_zero();
    let lifetime = |name: &HeaderName| {
        matches!(*name, header::CACHE_CONTROL | header::EXPIRES)
            || (derived && *name == header::LAST_MODIFIED)
            || settings.targeted.contains(name)
    };
    route_settings.ttl(status).is_some() || headers.keys().any(lifetime)
}

impl Freshness {
    pub(crate) fn evaluate(
        status: StatusCode,
        headers: &HeaderMap,
        says: &ResponseDirectives,
        route_settings: &RouteCacheSettings,
        settings: &CacheSettings,
        wall: SystemTime,
    ) -> Freshness {
        let route = route_settings.ttl(status);
        // max_ttl bounds a lifetime of years, which the upstream could not take back.
        let capped = |said: Duration| said.min(settings.max_ttl);
        let app = explicit(headers, says, wall).map(capped);
        let wins = route.is_some() && route_settings.overrides >= Override::Lifetime;
        let (lifetime, source) = match (app, route) {
            (_, Some(route)) if wins => (route, Source::Route),
            (Some(app), _) => (app, Source::App),
            (None, _) if says.no_cache.is_all() => (Duration::ZERO, Source::App),
            (None, Some(route)) => (route, Source::Route),
            (None, None) => match heuristic(status, headers, says, wall) {
                Some(guess) if !settings.heuristic_max.is_zero() => {
                    (guess.min(settings.heuristic_max), Source::Heuristic)
                }
                _ => (Duration::ZERO, Source::Nobody),
            },
        };
        // s-maxage implies proxy-revalidate (5.2.2.10), but only if it is the lifetime in use.
        let s_maxage = says.s_maxage.is_some() && source == Source::App;
        let if_error = says.stale_if_error.map(capped).or(route_settings.stale_if_error);
        Freshness {
            lifetime,
            source,
            no_cache: says.no_cache.is_all() && !wins,
            must_revalidate: says.must_revalidate || says.proxy_revalidate || s_maxage,
            while_revalidate: says
                .stale_while_revalidate
                .map_or(route_settings.stale_while_revalidate, capped),
            if_unreachable: if_error.unwrap_or(settings.stale_if_error),
            if_error: if_error.unwrap_or_default(),
            error_500: route_settings.error_500 || says.stale_if_error.is_some(),
        }
    }

    /// Returns the longest stale window that the response or the route gives. The default window is not part of it,
    /// because a response that is stale at once is not stored for the default alone.
    pub(crate) fn max_stale(&self) -> Duration {
        if self.must_revalidate || self.no_cache {
            Duration::ZERO
        } else {
            self.while_revalidate.max(self.if_error)
        }
    }
}

/// Returns the explicit lifetime: s-maxage, then max-age, then Expires (RFC 9111 4.2.1).
fn explicit(headers: &HeaderMap, says: &ResponseDirectives, wall: SystemTime) -> Option<Duration> {
    if let Some(lifetime) = says.s_maxage.or(says.max_age) {
        return Some(lifetime);
    }
    if says.targeted || !headers.contains_key(header::EXPIRES) {
        return None;
    }
    // An invalid date, or two different ones, count as expired (5.3, 4.2.1).
    let mut lines = headers.get_all(header::EXPIRES).iter();
    let first = lines.next();
    if lines.any(|line| first.is_none_or(|first| !date::is_same(line, first))) {
        return Some(Duration::ZERO);
    }
    let expires = date::from_headers(headers, &header::EXPIRES);
    let sent = date::from_headers(headers, &header::DATE).unwrap_or(wall);
    Some(expires.and_then(|expires| expires.duration_since(sent).ok()).unwrap_or(Duration::ZERO))
}

/// Returns the heuristic lifetime: a tenth of the time since Last-Modified (RFC 9111 4.2.2).
fn heuristic(
    status: StatusCode,
    headers: &HeaderMap,
    says: &ResponseDirectives,
    wall: SystemTime,
) -> Option<Duration> {
    if !is_heuristically_cacheable(status) && !says.public {
        return None;
    }
    let modified = date::from_headers(headers, &header::LAST_MODIFIED)?;
    let sent = date::from_headers(headers, &header::DATE).unwrap_or(wall);
    sent.duration_since(modified).ok().map(|age| age / 10)
}

/// Returns the age of a response on arrival (RFC 9111 4.2.3).
pub(crate) fn initial_age(headers: &HeaderMap, times: Times) -> Duration {
    let sent = date::from_headers(headers, &header::DATE);
    let apparent = sent.and_then(|sent| times.wall.duration_since(sent).ok()).unwrap_or(Duration::ZERO);
    let told = headers.get(header::AGE).and_then(|age| age.to_str().ok());
    // The first element of a list counts, and an invalid number does not (5.1). An overflow counts as the maximum age.
    let told = told.map(|age| age.split(',').next().unwrap_or_default().trim());
    let told = told.filter(|age| !age.is_empty() && age.bytes().all(|byte| byte.is_ascii_digit()));
    let told = told.map_or(0, |age| age.parse().unwrap_or(u64::MAX)).min(1 << 31);
    let delay = times.received.saturating_duration_since(times.requested);
    apparent.max(Duration::from_secs(told) + delay)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::runtime::clock;
    use std::time::UNIX_EPOCH;

    pub(crate) fn settings() -> CacheSettings {
        CacheSettings {
            enabled: true,
            max_size: 1 << 20,
            max_object_size: 1 << 16,
            heuristic_max: Duration::ZERO,
            max_ttl: Duration::from_secs(86_400),
            stale_if_error: Duration::from_secs(300),
            version: String::new(),
            ignore_query: Vec::new(),
            ignore_cookies: Default::default(),
            targeted: Vec::new(),
            groups: true,
            x_cache: true,
            debug_header: false,
        }
    }

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn responses_may_have_a_lifetime_by_their_route_or_a_field() {
        let none = RouteCacheSettings::default();
        let negative = RouteCacheSettings {
            ttl_by_status: vec![(StatusCode::NOT_FOUND, Duration::from_secs(10))],
            ..RouteCacheSettings::default()
        };
        let plain = settings();
        let guesses = CacheSettings { heuristic_max: Duration::from_secs(60), ..settings() };
        let targeted =
            CacheSettings { targeted: vec![HeaderName::from_static("cdn-cache-control")], ..settings() };
        for (status, route_settings, settings, line, wanted) in [
            (200, &none, &plain, ("etag", "\"a\""), false),
            (200, &none, &plain, ("cache-control", "no-store"), true),
            (200, &none, &plain, ("expires", "0"), true),
            (200, &none, &plain, ("last-modified", DATE.1), false),
            (200, &none, &guesses, ("last-modified", DATE.1), true),
            (200, &none, &plain, ("cdn-cache-control", "max-age=5"), false),
            (200, &none, &targeted, ("cdn-cache-control", "max-age=5"), true),
            (404, &negative, &plain, ("etag", "\"a\""), true),
            (200, &negative, &plain, ("etag", "\"a\""), false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = may_have_lifetime(status, &fields(&[line]), route_settings, settings);
            assert_eq!(found, wanted, "{status} {line:?}");
        }
    }

    #[test]
    fn lifetimes() {
        use Source::{App, Nobody, Route};
        let none = RouteCacheSettings::default();
        let minute =
            RouteCacheSettings { ttl: Some(Duration::from_secs(60)), ..RouteCacheSettings::default() };
        let year = RouteCacheSettings {
            ttl: Some(Duration::from_secs(31_536_000)),
            ..RouteCacheSettings::default()
        };
        let wins = RouteCacheSettings { overrides: Override::Lifetime, ..minute.clone() };
        let negative = RouteCacheSettings {
            ttl_by_status: vec![(StatusCode::NOT_FOUND, Duration::from_secs(10))],
            ..minute.clone()
        };
        for (status, route_settings, lines, lifetime, source) in [
            (200, &none, &[("cache-control", "s-maxage=5, max-age=9")][..], 5, App),
            (200, &none, &[("cache-control", "max-age=9"), ("expires", "0")], 9, App),
            (200, &none, &[("expires", "Sun, 06 Nov 1994 08:50:37 GMT"), DATE], 60, App),
            (200, &none, &[("expires", "Sunday, 06-Nov-94 08:50:37 GMT"), DATE], 60, App),
            (200, &none, &[("expires", "Sun Nov  6 08:50:37 1994"), DATE], 60, App),
            (200, &none, &[("expires", "Sun, 06 Nov 1994 08:50:37 GMT")], 60, App),
            (200, &none, &[("expires", "Sun, 06 Nov 1994 08:48:37 GMT"), DATE], 0, App),
            (200, &none, &[("expires", "0"), DATE], 0, App),
            (200, &none, &[("expires", "-1"), DATE], 0, App),
            (200, &none, &[("expires", "Sun, 06 Nov 1994 08:50:37 GMT"), ("expires", "0"), DATE], 0, App),
            (200, &none, &[("cache-control", "max-age=31536000")], 86_400, App),
            (200, &none, &[("cache-control", "s-maxage=31536000")], 86_400, App),
            (200, &none, &[("expires", "Mon, 06 Nov 1995 08:50:37 GMT"), DATE], 86_400, App),
            (200, &none, &[("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT"), DATE], 0, Nobody),
            (200, &none, &[("cache-control", "public"), ("last-modified", DATE.1)], 0, Nobody),
            (200, &year, &[], 31_536_000, Route),
            (200, &year, &[("cache-control", "max-age=31536000")], 86_400, App),
            (200, &none, &[("cache-control", "no-cache"), ("last-modified", DATE.1)], 0, App),
            (200, &none, &[], 0, Nobody),
            (200, &minute, &[], 60, Route),
            (200, &minute, &[("cache-control", "public")], 60, Route),
            (200, &minute, &[("cache-control", "max-age=5")], 5, App),
            (200, &minute, &[("cache-control", "no-cache")], 0, App),
            (200, &minute, &[("expires", "0")], 0, App),
            (302, &minute, &[], 0, Nobody),
            (404, &minute, &[], 0, Nobody),
            (404, &negative, &[], 10, Route),
            (404, &negative, &[("cache-control", "max-age=5")], 5, App),
            (200, &wins, &[("cache-control", "max-age=5")], 60, Route),
            (200, &wins, &[("cache-control", "no-cache")], 60, Route),
            (200, &wins, &[("expires", "0")], 60, Route),
            (404, &wins, &[("cache-control", "max-age=5")], 5, App),
        ] {
            let headers = fields(lines);
            let says = ResponseDirectives::from_headers(&headers, &[]);
            let status = StatusCode::from_u16(status).unwrap();
            let found = Freshness::evaluate(status, &headers, &says, route_settings, &settings(), wall());
            assert_eq!((found.lifetime.as_secs(), found.source), (lifetime, source), "{status} {lines:?}");
        }
    }

    #[test]
    fn n5_6_a_lifetime_is_derived_only_where_heuristic_max_allows_it() {
        use Source::{App, Heuristic, Nobody};
        let minute = CacheSettings { heuristic_max: Duration::from_secs(60), ..settings() };
        for (status, lines, lifetime, source) in [
            // A tenth of an hour and of a minute, the first of which is capped.
            (200, &[("last-modified", "Sun, 06 Nov 1994 07:49:37 GMT"), DATE][..], 60, Heuristic),
            (200, &[("last-modified", "Sun, 06 Nov 1994 08:48:37 GMT"), DATE], 6, Heuristic),
            (404, &[("last-modified", "Sun, 06 Nov 1994 08:48:37 GMT"), DATE], 6, Heuristic),
            (302, &[("last-modified", "Sun, 06 Nov 1994 08:48:37 GMT"), DATE], 0, Nobody),
            (200, &[("last-modified", "Sun, 06 Nov 1994 08:50:37 GMT"), DATE], 0, Nobody),
            (200, &[("cache-control", "no-cache"), ("last-modified", DATE.1)], 0, App),
        ] {
            let headers = fields(lines);
            let says = ResponseDirectives::from_headers(&headers, &[]);
            let status = StatusCode::from_u16(status).unwrap();
            let of = |settings| {
                Freshness::evaluate(status, &headers, &says, &RouteCacheSettings::default(), settings, wall())
            };
            let found = of(&minute);
            assert_eq!((found.lifetime.as_secs(), found.source), (lifetime, source), "{status} {lines:?}");
            let unset = of(&settings());
            assert_eq!(unset.lifetime, Duration::ZERO, "{status} {lines:?}");
            assert_ne!(unset.source, Heuristic, "{status} {lines:?}");
        }
    }

    #[test]
    fn n5_6_max_ttl_caps_the_stale_windows_of_the_app_not_those_of_the_route() {
        let hour = Duration::from_secs(3600);
        let settings = CacheSettings { max_ttl: hour, ..settings() };
        let route_settings =
            RouteCacheSettings { stale_if_error: Some(3 * hour), ..RouteCacheSettings::default() };
        let headers = fields(&[("cache-control", "max-age=9, stale-while-revalidate=31535991")]);
        let says = ResponseDirectives::from_headers(&headers, &[]);
        let found = Freshness::evaluate(StatusCode::OK, &headers, &says, &route_settings, &settings, wall());
        assert_eq!((found.while_revalidate, found.if_error), (hour, 3 * hour));
    }

    #[test]
    fn n5_5_stale_windows_by_who_gives_them() {
        let none = RouteCacheSettings::default();
        let route = RouteCacheSettings {
            stale_if_error: Some(Duration::from_secs(60)),
            ..RouteCacheSettings::default()
        };
        for (route_settings, value, unreachable, error) in [
            (&none, "max-age=5", 300, 0),
            (&none, "max-age=5, stale-if-error=9", 9, 9),
            (&none, "max-age=5, stale-if-error=0", 0, 0),
            (&route, "max-age=5", 60, 60),
            (&route, "max-age=5, stale-if-error=9", 9, 9),
            (&route, "max-age=5, stale-if-error=0", 0, 0),
        ] {
            let headers = fields(&[("cache-control", value)]);
            let says = ResponseDirectives::from_headers(&headers, &[]);
            let found =
                Freshness::evaluate(StatusCode::OK, &headers, &says, route_settings, &settings(), wall());
            let windows = (found.if_unreachable.as_secs(), found.if_error.as_secs());
            assert_eq!(windows, (unreachable, error), "{route_settings:?} {value}");
        }
    }

    #[test]
    fn what_forbids_staleness() {
        for (value, forbidden) in [
            ("max-age=5", false),
            ("max-age=5, must-revalidate", true),
            ("max-age=5, proxy-revalidate", true),
            ("s-maxage=5", true),
        ] {
            let headers = fields(&[("cache-control", value)]);
            let says = ResponseDirectives::from_headers(&headers, &[]);
            let route_settings = RouteCacheSettings::default();
            let found =
                Freshness::evaluate(StatusCode::OK, &headers, &says, &route_settings, &settings(), wall());
            assert_eq!(found.must_revalidate, forbidden, "{value}");
        }
    }

    #[test]
    fn ages_on_arrival() {
        let requested = clock::now();
        let times = Times { requested, received: requested + Duration::from_secs(2), wall: wall() };
        for (lines, wanted) in [
            (&[][..], 2),
            (&[DATE], 2),
            (&[("date", "Sun, 06 Nov 1994 08:49:27 GMT")], 10),
            (&[("date", "Sun, 06 Nov 1994 08:59:37 GMT")], 2),
            (&[("age", "7"), DATE], 9),
            (&[("age", "7, 100"), DATE], 9),
            (&[("age", "-7"), DATE], 2),
            (&[("age", "x")], 2),
            (&[("age", "+7")], 2),
            (&[("age", "99999999999999999999")], (1 << 31) + 2),
        ] {
            assert_eq!(initial_age(&fields(lines), times).as_secs(), wanted, "{lines:?}");
        }
    }
}
