//! The settings of the cache: those of all routes and those of one route.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::fields::cookie::Ignored;

/// The requests that share one stored response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One copy serves all requests that carry no credentials. Requests with credentials share it only if the response
    /// allows that explicitly (RFC 9111 3.5, applied to cookies too).
    #[default]
    Auto,
    /// One copy serves all requests, with or without credentials.
    Shared,
    /// Each principal has a copy of its own.
    User,
    Off,
}

/// The response directives that the route's freshness lifetime overrides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Override {
    /// None: the route's lifetime applies only if the response gives none.
    #[default]
    None,
    Lifetime,
    NoStore,
}

/// When a stored response is fetched anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// When a request finds it stale.
    #[default]
    Stale,
    /// Also shortly before, in the background, if it is still used.
    Ahead,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteCacheSettings {
    /// The requests that share one stored response; see [`Scope`].
    pub scope: Scope,
    /// Freshness lifetime of responses with status 200, 203, 204, 300, 301 or 308.
    pub ttl: Option<Duration>,
    /// The response directives that `ttl` overrides; see [`Override`].
    pub overrides: Override,
    /// Freshness lifetime by status; takes precedence over `ttl`.
    pub ttl_by_status: Vec<(StatusCode, Duration)>,
    /// Stale-while-revalidate window of responses that give none (RFC 5861 3).
    pub stale_while_revalidate: Duration,
    /// Stale-if-error window of responses that give none (RFC 5861 4); `None` if the route sets none either.
    pub stale_if_error: Option<Duration>,
    /// Whether stale-if-error covers status 500 even if the response does not say so.
    pub error_500: bool,
    /// When stored responses are fetched anew; see [`Refresh`].
    pub refresh: Refresh,
    /// How long a request waits for the upstream if it can have a stale response instead.
    pub serve_stale_after: Option<Duration>,
    /// Request fields that are part of the cache key.
    pub key_headers: Vec<HeaderName>,
    /// The only query parameters that are part of the cache key; `None`: all parameters that are not ignored.
    pub key_query: Option<Vec<String>>,
    /// Whether query parameters outside the cache key are removed from requests to the upstream.
    pub strip_query: bool,
    /// Whether POST counts as a read on this route, with the request content as part of the cache key.
    pub key_body: bool,
    /// Whether the other processes of a fleet may have its stored responses.
    pub redis: bool,
}

impl RouteCacheSettings {
    /// Returns the route's freshness lifetime for a status.
    pub(crate) fn ttl(&self, status: StatusCode) -> Option<Duration> {
        let by_status = self.ttl_by_status.iter().find(|(known, _)| *known == status);
        match by_status {
            Some((_, ttl)) => Some(*ttl),
            None if matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308) => self.ttl,
            None => None,
        }
    }
}

/// The cache settings of all routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    /// Whether the cache is enabled at all.
    pub enabled: bool,
    /// Cache size limit in bytes, including everything kept beside the content.
    pub max_size: usize,
    /// Maximum size of stored content in bytes.
    pub max_object_size: usize,
    /// Maximum freshness lifetime derived from Last-Modified; zero derives none.
    pub heuristic_max: Duration,
    /// Maximum freshness lifetime and maximum stale window that a response can set.
    pub max_ttl: Duration,
    /// Stale window when the upstream is unreachable and neither the response nor the route sets stale-if-error.
    pub stale_if_error: Duration,
    /// Part of every cache key: another version finds no response that this one stored.
    pub version: String,
    /// Query parameters that are not part of the cache key.
    pub ignore_query: Vec<String>,
    /// Cookies that do not make a request personal.
    pub ignore_cookies: Ignored,
    /// Targeted fields that replace Cache-Control, in order of precedence (RFC 9213).
    pub targeted: Vec<HeaderName>,
    /// Whether Cache-Groups are obeyed (RFC 9875).
    pub groups: bool,
    /// Whether `X-Cache` repeats the result of `Cache-Status` in one word.
    pub x_cache: bool,
    /// Whether `Cache-Status` includes the cache key and details.
    pub debug_header: bool,
}
