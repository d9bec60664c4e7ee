//! What the configuration says about storing answers: for all of them, and for those of one route.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::fields::cookie::Ignored;

/// Whose answers are kept, and who gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One copy for all where nothing says who asks; else only what says that it is for all (RFC 9111 3.5,
    /// read for cookies too).
    #[default]
    Auto,
    /// One copy for all, whoever asks.
    Shared,
    /// One copy for each principal.
    User,
    Off,
}

/// What a route's lifetime wins over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Override {
    /// Nothing: it holds where the app says nothing.
    #[default]
    None,
    Lifetime,
    NoStore,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteCacheSettings {
    /// See [`Scope`].
    pub scope: Scope,
    /// The lifetime of what is 200, 203, 204, 300, 301 or 308.
    pub ttl: Option<Duration>,
    /// See [`Override`].
    pub overrides: Override,
    /// The lifetime by status, which goes before `ttl`.
    pub ttl_by_status: Vec<(StatusCode, Duration)>,
    /// Where the app says nothing of it (RFC 5861 3).
    pub stale_while_revalidate: Duration,
    /// Where the app says nothing of it (RFC 5861 4); `None`: the route says nothing either.
    pub stale_if_error: Option<Duration>,
    /// Whether a 500 is an error in that sense, also where the app does not say so.
    pub error_500: bool,
    /// Fields of the request that are part of the key.
    pub key_headers: Vec<HeaderName>,
    /// The parameters of the query that alone are part of the key; `None`: all that are not ignored.
    pub key_query: Option<Vec<String>>,
    /// Whether parameters that are not part of the key are taken out of requests before they go to the app.
    pub strip_query: bool,
    /// Whether POST is a read here, keyed by its content.
    pub key_body: bool,
}

impl RouteCacheSettings {
    /// The route's lifetime for a status.
    pub(crate) fn ttl(&self, status: StatusCode) -> Option<Duration> {
        let by_status = self.ttl_by_status.iter().find(|(known, _)| *known == status);
        match by_status {
            Some((_, ttl)) => Some(*ttl),
            None if matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308) => self.ttl,
            None => None,
        }
    }
}

/// What holds for all routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    /// Whether there is a cache.
    pub enabled: bool,
    /// Bytes, with everything that is kept for an answer.
    pub max_size: usize,
    /// The longest content that is stored; bytes.
    pub max_object_size: usize,
    /// Maximum freshness lifetime derived from Last-Modified; zero: none is derived.
    pub heuristic_max: Duration,
    /// Maximum freshness lifetime, and maximum stale window, that an app can give.
    pub max_ttl: Duration,
    /// How long a response is used stale where no response could be had and neither app nor route says how long.
    pub stale_if_error: Duration,
    /// Part of every cache key: another version finds nothing of what this one stored.
    pub version: String,
    /// Parameters of queries that are not part of the key.
    pub ignore_query: Vec<String>,
    /// Cookies that do not make a request personal.
    pub ignore_cookies: Ignored,
    /// The fields that take the place of Cache-Control, in order (RFC 9213).
    pub targeted: Vec<HeaderName>,
    /// Whether Cache-Groups are obeyed (RFC 9875).
    pub groups: bool,
    /// Whether `X-Cache` tells in a word what `Cache-Status` tells.
    pub x_cache: bool,
    /// Whether Cache-Status tells the key, and details.
    pub debug_header: bool,
}
