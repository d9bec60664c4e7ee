//! The rules under which a route's responses are stored, as a number that is part of each cache key: responses that were
//! stored under other rules are not found.

use std::time::Duration;

use crate::cache::settings::{CacheSettings, RouteCacheSettings};
use crate::policy::cache::RouteCache;
use crate::policy::{FieldEdits, Policy, RoutePolicy};
use crate::rendering::digest::Digest;

/// Version of the members; it changes when a member changes its meaning.
const VERSION: u8 = 1;

/// Returns the digest of everything that decides who shares responses under a route. It holds the upstream's name and
/// not its URL, so that replicas which reach the upstream by other addresses agree.
pub(crate) fn digest(policy: &Policy, route: &RoutePolicy) -> u64 {
    let mut digest = Digest::new("route", VERSION);
    let upstream = policy.upstreams.get(route.upstream.unwrap_or(0));
    digest.list("upstream", upstream.map(|upstream| upstream.name.as_str()));
    add_route(&mut digest, &route.cache);
    let FieldEdits { remove, set, append } = &route.request;
    digest.list("remove_request", remove);
    digest.list("set_request", set.iter().flat_map(|(name, value)| [name.as_ref(), value.as_bytes()]));
    digest.list("append_request", append.iter().flat_map(|(name, value)| [name.as_ref(), value.as_bytes()]));
    // Absent for most routes, so that their digests are those of versions without it.
    if let Some(when) = &route.when {
        digest.number("when", when.number());
    }
    add_cache(&mut digest, &policy.cache);
    digest.list("principal", policy.identity.source_names());
    digest.list("token", policy.identity.token_place());
    digest.list("trusted_proxies", policy.server.trusted_proxies.iter().map(ToString::to_string));
    digest.finish()
}

fn add_route(digest: &mut Digest, cache: &RouteCache) {
    let RouteCache { written, route_settings, tags, keys_by_user } = cache;
    let RouteCacheSettings {
        scope,
        ttl,
        overrides,
        ttl_by_status,
        stale_while_revalidate,
        stale_if_error,
        error_500,
        // None of these decides who shares a response.
        refresh: _,
        serve_stale_after: _,
        redis: _,
        key_headers,
        key_query,
        strip_query,
        key_body,
    } = route_settings;
    digest.number("written", *written);
    digest.number("scope", *scope as u8);
    digest.maybe_number("ttl", ttl.as_ref().map(Duration::as_nanos));
    digest.number("override", *overrides as u8);
    let by_status =
        ttl_by_status.iter().map(|(status, ttl)| format!("{}={}", status.as_u16(), ttl.as_nanos()));
    digest.list("ttl_by_status", by_status);
    digest.number("stale_while_revalidate", stale_while_revalidate.as_nanos());
    digest.maybe_number("stale_if_error", stale_if_error.as_ref().map(Duration::as_nanos));
    digest.number("error_500", *error_500);
    digest.list("key_headers", key_headers);
    digest.number("key_query_given", key_query.is_some());
    digest.list("key_query", key_query.iter().flatten());
    digest.number("strip_query", *strip_query);
    digest.number("key_body", *key_body);
    digest.list("tags", tags.iter().map(ToString::to_string));
    digest.number("keys_by_user", *keys_by_user);
}

fn add_cache(digest: &mut Digest, settings: &CacheSettings) {
    digest.list("ignore_query", &settings.ignore_query);
    for (name, patterns) in settings.ignore_cookies.patterns() {
        digest.list(name, patterns);
    }
    digest.list("targeted", &settings.targeted);
    digest.number("heuristic_max", settings.heuristic_max.as_nanos());
    digest.number("max_ttl", settings.max_ttl.as_nanos());
    digest.number("cache_stale_if_error", settings.stale_if_error.as_nanos());
    digest.text("version", &settings.version);
}

/// Returns the number in this process's cache keys. It differs from the digest by the upstream's URLs: what came from
/// another URL is not found here either.
pub(crate) fn local(policy: &Policy, route: &RoutePolicy) -> u64 {
    let upstream = policy.upstreams.get(route.upstream.unwrap_or(0));
    let mut local = Digest::new("local route", VERSION);
    local.number("route", digest(policy, route));
    let urls = upstream.iter().flat_map(|upstream| &upstream.endpoints).map(|endpoint| endpoint.url.as_str());
    local.list("urls", urls);
    local.finish()
}
