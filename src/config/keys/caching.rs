//! `[cache]`, `cache = {...}` of a route and `[[invalidate]]`.

use super::declare::table;
use super::kind::{
    AutoSize, Durations, Optional, TEXT, Text, Texts, Value, Word, WrittenTexts, auto_size, duration,
    duration_to, flag, optional_duration, size, texts,
};
use crate::cache::invalidation::Mode;
use crate::cache::settings::{Override, Refresh, Scope};
use crate::config::table_reader::Size;
use crate::policy::login_redirect::OnRedirect;
use std::time::Duration;

/// The default of `cache.ignore_cookies`: those that analytics, consent tools and balancers set.
pub(crate) const IGNORED_COOKIES: [&str; 27] = [
    "_ga*",
    "_gid",
    "_gat*",
    "_gcl_*",
    "_fbp",
    "_fbc",
    "_pk_*",
    "_hj*",
    "_dd_s",
    "__utm*",
    "ai_user",
    "ai_session",
    "mp_*_mixpanel",
    "amplitude_*",
    "intercom-*",
    "Optanon*",
    "CookieConsent",
    "hubspotutk",
    "__hs*",
    "__cf_bm",
    "cf_clearance",
    "AWSALB*",
    "_uet*",
    "_clck",
    "_clsk",
    "_ttp",
    "wordpress_test_cookie",
];

const TIERS_BY_DEFAULT: [(&str, Duration); 3] = [
    ("short", Duration::from_secs(30)),
    ("medium", Duration::from_secs(60)),
    ("long", Duration::from_secs(300)),
];

/// No cache can do with less.
const MIN_SIZE: u64 = 64 << 10;

/// The longest wait for a second invalidation.
const MAX_SETTLE: Duration = Duration::from_secs(3600);

table! {
    /// `[cache]`.
    cache, in caching, requires [];
    ENABLED "enabled": Value<bool> = flag(true), Reload,
        "Whether responses are stored.";
    MAX_SIZE "max_size": AutoSize = auto_size(MIN_SIZE), Reload,
        "Maximum memory of the cache; \"auto\" is 256MiB, or a quarter of the cgroup's memory where that is less.";
    MAX_OBJECT_SIZE "max_object_size": Value<Size> = size(8 << 20), Reload,
        "Maximum size of one stored response.";
    TIERS "tiers": Durations = Durations(&TIERS_BY_DEFAULT), Reload,
        "Freshness lifetimes by names that routes use.";
    HEURISTIC_MAX "heuristic_max": Value<Duration> = duration(0), Reload,
        "Maximum lifetime guessed from Last-Modified where a response has none; \"0s\" guesses nothing.";
    MAX_TTL "max_ttl": Value<Duration> = duration(86_400), Reload,
        "Maximum of each duration that an upstream sets.";
    VERSION "version": Text = Text(""), Reload,
        "Text in every cache key: a new one finds nothing of what was stored before.";
    STALE_WHILE_REVALIDATE "stale_while_revalidate": Value<Duration> = duration(0), Reload,
        "How long a stale response may be served while it is fetched anew, on routes with a lifetime.";
    STALE_IF_ERROR "stale_if_error": Value<Duration> = duration(300), Reload,
        "How long a stale response may be served while the upstream gives none.";
    IGNORE_QUERY "ignore_query": Texts = texts(&["utm_*", "fbclid", "gclid"]), Reload,
        "Query parameters that are not part of the cache key.";
    IGNORE_COOKIES "ignore_cookies": Texts = texts(&IGNORED_COOKIES), Reload,
        "Cookies that do not make a request personal.";
    TARGETED "targeted": Texts = texts(&["pillion-cache-control"]), Reload,
        "Fields that hold in place of Cache-Control (RFC 9213), in order.";
    GROUPS "groups": Value<bool> = flag(true), Reload,
        "Whether Cache-Groups and Cache-Group-Invalidation (RFC 9875) hold.";
    X_CACHE "x_cache": Value<bool> = flag(true), Reload,
        "Whether responses have X-Cache beside Cache-Status.";
    DEBUG_HEADER "debug_header": Value<bool> = flag(false), Reload,
        "Whether Cache-Status shows the cache key and a detail.";
    PURGE_FROM "purge_from": Texts = texts(&[]), Reload,
        "Networks, or \"private\", whose PURGE requests purge stored responses.";
}

const SCOPES: [(&str, Scope); 4] =
    [("auto", Scope::Auto), ("shared", Scope::Shared), ("user", Scope::User), ("off", Scope::Off)];

const OVERRIDES: [(&str, Override); 3] =
    [("none", Override::None), ("lifetime", Override::Lifetime), ("no-store", Override::NoStore)];

const REFRESHES: [(&str, Refresh); 2] = [("stale", Refresh::Stale), ("ahead", Refresh::Ahead)];

table! {
    /// `cache = {...}` of a route.
    route_cache, in caching, requires [];
    TIER "tier": Optional<String> = TEXT, Reload,
        "Name of a lifetime in cache.tiers, in place of ttl.";
    TTL "ttl": Optional<Duration> = optional_duration(true), Reload,
        "Freshness lifetime of responses with status 200, 203, 204, 300, 301 or 308.";
    SCOPE "scope": Word<Scope> = Word { words: &SCOPES, default: Scope::Auto }, Reload,
        "Who shares a stored response: all, each principal (\"user\"), or whom the response allows (\"auto\").";
    TAGS "tags": Texts = texts(&[]), Reload,
        "Tags by which stored responses are invalidated, filled with what match captures.";
    OVERRIDE "override": Word<Override> = Word { words: &OVERRIDES, default: Override::None }, Reload,
        "What of the upstream's Cache-Control the route's lifetime overrides.";
    TTL_BY_STATUS "ttl_by_status": Durations = Durations(&[]), Reload,
        "Freshness lifetimes of responses by their status.";
    STALE_WHILE_REVALIDATE "stale_while_revalidate": Optional<Duration> = optional_duration(true), Reload,
        "The route's own value of cache.stale_while_revalidate.";
    STALE_IF_ERROR "stale_if_error": Optional<Duration> = optional_duration(true), Reload,
        "The route's own value of cache.stale_if_error, which then also covers 502 to 504 of the upstream.";
    KEY_HEADERS "key_headers": Texts = texts(&[]), Reload,
        "Request fields that are part of the cache key.";
    KEY_QUERY "key_query": WrittenTexts = WrittenTexts, Reload,
        "The only query parameters that are part of the cache key.";
    STRIP_QUERY "strip_query": Value<bool> = flag(false), Reload,
        "Whether the upstream gets the request without parameters that are not part of the cache key.";
    KEY_BODY "key_body": Value<bool> = flag(false), Reload,
        "Whether POST is a read whose content is part of the cache key.";
    ERROR_500 "error_500": Value<bool> = flag(false), Reload,
        "Whether a 500 of the upstream is an error for stale_if_error.";
    REFRESH "refresh": Word<Refresh> = Word { words: &REFRESHES, default: Refresh::Stale }, Reload,
        "When a stored response is fetched anew: once it is \"stale\", or in the background shortly before (\"ahead\").";
    SERVE_STALE_AFTER "serve_stale_after": Optional<Duration> = optional_duration(true), Reload,
        "How long a request waits for the upstream if a stale response may be served within stale_if_error.";
    REDIS "redis": Value<bool> = flag(true), Reload,
        "Whether the other processes of [redis] may have the route's stored responses.";
}

const MODES: [(&str, Mode); 2] = [("hard", Mode::Hard), ("soft", Mode::Soft)];

const REDIRECTS: [(&str, OnRedirect); 3] =
    [("auto", OnRedirect::Auto), ("always", OnRedirect::Always), ("never", OnRedirect::Never)];

table! {
    /// One of `[[warm]]`.
    warm, in caching, requires ["paths"];
    PATHS "paths": Texts = texts(&[]), Reload,
        "Paths, with their query, whose responses are fetched before a client asks for them.";
    HOSTS "hosts": Texts = texts(&[]), Reload,
        "Hosts for which they are fetched, with https:// in front where clients use that; by default those that clients ask for.";
    EVERY "every": Optional<Duration> = optional_duration(false), Reload,
        "Interval at which they are fetched anew, beside when they are invalidated or soon not fresh any more.";
}

table! {
    /// One of `[[invalidate]]`.
    invalidate, in caching, requires ["on"];
    ON "on": Optional<String> = TEXT, Reload,
        "Requests that the rule takes, as METHOD[,METHOD] [host]path.";
    EXCEPT "except": Texts = texts(&[]), Reload,
        "Requests that the rule does not take although on does.";
    TAGS "tags": Texts = texts(&[]), Reload,
        "Tags whose stored responses are invalidated.";
    PATHS "paths": Texts = texts(&[]), Reload,
        "Paths whose stored responses are invalidated; /** adds all below one.";
    MODE "mode": Word<Mode> = Word { words: &MODES, default: Mode::Hard }, Reload,
        "Whether stored responses are removed (\"hard\") or made stale (\"soft\").";
    SETTLE "settle": Value<Duration> = duration_to(0, MAX_SETTLE), Reload,
        "Time after which the rule invalidates once more, for upstreams that read from replicas.";
    PRINCIPAL "principal": Value<bool> = flag(false), Reload,
        "Whether only stored responses of the writer's own principal are invalidated.";
    ON_REDIRECT "on_redirect": Word<OnRedirect> = Word { words: &REDIRECTS, default: OnRedirect::Auto }, Reload,
        "Whether a redirect counts as a successful write.";
}
