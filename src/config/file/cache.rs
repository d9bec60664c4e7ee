//! `[identity]`, `[cache]`, `cache = {...}` of a route and `[[invalidate]]`, as they are written.

use std::time::Duration;

use crate::cache::invalidation::Mode;
use crate::cache::settings::{Override, Refresh, Scope};
use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::keys::{cache, identity, invalidate, jwt, route_cache, warm};
use crate::config::table_reader::{AutoOr, Section, Size, Spanned};
use crate::config::value::{EMPTY, Node, Table, Value};
use crate::policy::login_redirect::OnRedirect;

/// The keys of `[identity]`.
pub(crate) struct Identity {
    pub principal: Vec<Spanned<String>>,
    pub api_key: Spanned<String>,
    pub hash_key: Spanned<String>,
    pub jwt: Option<Jwt>,
}

/// `[identity.jwt]`.
pub(crate) struct Jwt {
    pub span: Span,
    pub keys: Vec<Spanned<String>>,
    pub hs256: Spanned<String>,
    pub jwks_url: Spanned<String>,
    pub token: Spanned<String>,
    pub issuer: Spanned<String>,
    pub audience: Spanned<String>,
    pub require_exp: Spanned<bool>,
}

pub(crate) struct Cache {
    pub enabled: Spanned<bool>,
    pub max_size: Spanned<AutoOr<Size>>,
    pub max_object_size: Spanned<Size>,
    pub tiers: Vec<(Spanned<String>, Spanned<Duration>)>,
    pub heuristic_max: Spanned<Duration>,
    pub max_ttl: Spanned<Duration>,
    pub version: Spanned<String>,
    pub stale_while_revalidate: Spanned<Duration>,
    pub stale_if_error: Spanned<Duration>,
    pub ignore_query: Vec<Spanned<String>>,
    pub ignore_cookies: Vec<Spanned<String>>,
    pub targeted: Vec<Spanned<String>>,
    pub groups: Spanned<bool>,
    pub x_cache: Spanned<bool>,
    pub debug_header: Spanned<bool>,
    pub purge_from: Vec<Spanned<String>>,
}

/// `cache = {...}` of a route.
pub(crate) struct RouteCache {
    pub span: Span,
    pub tier: Option<Spanned<String>>,
    pub ttl: Option<Spanned<Duration>>,
    pub scope: Scope,
    pub tags: Vec<Spanned<String>>,
    pub overrides: Override,
    pub ttl_by_status: Vec<(Spanned<String>, Spanned<Duration>)>,
    pub stale_while_revalidate: Option<Spanned<Duration>>,
    pub stale_if_error: Option<Spanned<Duration>>,
    pub key_headers: Vec<Spanned<String>>,
    /// `None` where it is not written.
    pub key_query: Option<Vec<Spanned<String>>>,
    pub strip_query: Spanned<bool>,
    pub key_body: Spanned<bool>,
    pub error_500: Spanned<bool>,
    pub refresh: Refresh,
    pub serve_stale_after: Option<Spanned<Duration>>,
    pub redis: bool,
}

/// A rule of `[[invalidate]]` in the configuration.
pub(crate) struct Invalidate {
    pub span: Span,
    pub has_on: bool,
    pub on: Option<Spanned<String>>,
    pub tags: Vec<Spanned<String>>,
    pub paths: Vec<Spanned<String>>,
    pub mode: Mode,
    pub settle: Spanned<Duration>,
    pub except: Vec<Spanned<String>>,
    pub principal: Spanned<bool>,
    pub on_redirect: OnRedirect,
}

pub(super) fn read_identity(table: Option<&Table>, p: &mut Diagnostics) -> Identity {
    let mut s = Section::new("identity", table.unwrap_or(EMPTY));
    let jwt = s.table(identity::JWT.name, p).map(|(table, span)| {
        let mut s = Section::new("identity.jwt", table);
        let jwt = Jwt {
            span,
            keys: s.read(&jwt::KEYS, p),
            hs256: s.read(&jwt::HS256, p),
            jwks_url: s.read(&jwt::JWKS_URL, p),
            token: s.read(&jwt::TOKEN, p),
            issuer: s.read(&jwt::ISSUER, p),
            audience: s.read(&jwt::AUDIENCE, p),
            require_exp: s.read(&jwt::REQUIRE_EXP, p),
        };
        s.finish(p);
        jwt
    });
    let identity = Identity {
        principal: s.read(&identity::PRINCIPAL_KEY, p),
        api_key: s.read(&identity::API_KEY, p),
        hash_key: s.read(&identity::HASH_KEY, p),
        jwt,
    };
    s.finish(p);
    identity
}

pub(super) fn read_cache(table: Option<&Table>, p: &mut Diagnostics) -> Cache {
    let mut s = Section::new("cache", table.unwrap_or(EMPTY));
    let tiers = s.read(&cache::TIERS, p);
    let cache = Cache {
        enabled: s.read(&cache::ENABLED, p),
        max_size: s.read(&cache::MAX_SIZE, p),
        max_object_size: s.read(&cache::MAX_OBJECT_SIZE, p),
        tiers,
        heuristic_max: s.read(&cache::HEURISTIC_MAX, p),
        max_ttl: s.read(&cache::MAX_TTL, p),
        version: s.read(&cache::VERSION, p),
        stale_while_revalidate: s.read(&cache::STALE_WHILE_REVALIDATE, p),
        stale_if_error: s.read(&cache::STALE_IF_ERROR, p),
        ignore_query: s.read(&cache::IGNORE_QUERY, p),
        ignore_cookies: s.read(&cache::IGNORE_COOKIES, p),
        targeted: s.read(&cache::TARGETED, p),
        groups: s.read(&cache::GROUPS, p),
        x_cache: s.read(&cache::X_CACHE, p),
        debug_header: s.read(&cache::DEBUG_HEADER, p),
        purge_from: s.read(&cache::PURGE_FROM, p),
    };
    s.finish(p);
    cache
}

pub(super) fn read_route_cache(table: &Table, span: Span, p: &mut Diagnostics) -> RouteCache {
    let mut s = Section::new("routes.cache", table);
    let cache = RouteCache {
        span,
        tier: s.read(&route_cache::TIER, p),
        ttl: s.read(&route_cache::TTL, p),
        scope: s.read(&route_cache::SCOPE, p),
        tags: s.read(&route_cache::TAGS, p),
        overrides: s.read(&route_cache::OVERRIDE, p),
        ttl_by_status: s.read(&route_cache::TTL_BY_STATUS, p),
        stale_while_revalidate: s.read(&route_cache::STALE_WHILE_REVALIDATE, p),
        stale_if_error: s.read(&route_cache::STALE_IF_ERROR, p),
        key_headers: s.read(&route_cache::KEY_HEADERS, p),
        key_query: s.read(&route_cache::KEY_QUERY, p),
        strip_query: s.read(&route_cache::STRIP_QUERY, p),
        key_body: s.read(&route_cache::KEY_BODY, p),
        error_500: s.read(&route_cache::ERROR_500, p),
        refresh: s.read(&route_cache::REFRESH, p),
        serve_stale_after: s.read(&route_cache::SERVE_STALE_AFTER, p),
        redis: s.read(&route_cache::REDIS, p).value,
    };
    s.finish(p);
    cache
}

/// One of `[[warm]]` in the configuration.
pub(crate) struct Warm {
    pub span: Span,
    pub paths: Vec<Spanned<String>>,
    pub hosts: Vec<Spanned<String>>,
    pub every: Option<Spanned<Duration>>,
}

pub(super) fn read_warm(node: Option<&Node>, p: &mut Diagnostics) -> Vec<Warm> {
    let Some(node) = node else { return Vec::new() };
    let Value::Array(items) = &node.value else {
        p.at(&node.span, format!("warm is {}", node.value.shown())).help("expected [[warm]] tables");
        return Vec::new();
    };
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let Value::Table(table) = &item.value else {
            p.at(&item.span, format!("one of warm is {}", item.value.kind())).help("expected a table");
            continue;
        };
        let mut s = Section::new("warm", table);
        all.push(Warm {
            span: item.span.clone(),
            paths: s.read(&warm::PATHS, p),
            hosts: s.read(&warm::HOSTS, p),
            every: s.read(&warm::EVERY, p),
        });
        s.finish(p);
    }
    all
}

pub(super) fn read_invalidate(node: Option<&Node>, p: &mut Diagnostics) -> Vec<Invalidate> {
    let Some(node) = node else { return Vec::new() };
    let Value::Array(items) = &node.value else {
        p.at(&node.span, format!("invalidate is {}", node.value.shown()))
            .help("expected [[invalidate]] tables");
        return Vec::new();
    };
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        let Value::Table(table) = &item.value else {
            p.at(&item.span, format!("a rule is {}", item.value.kind())).help("expected a table");
            continue;
        };
        let mut s = Section::new("invalidate", table);
        rules.push(Invalidate {
            span: item.span.clone(),
            has_on: s.has(invalidate::ON.name),
            on: s.read(&invalidate::ON, p),
            tags: s.read(&invalidate::TAGS, p),
            paths: s.read(&invalidate::PATHS, p),
            mode: s.read(&invalidate::MODE, p),
            settle: s.read(&invalidate::SETTLE, p),
            except: s.read(&invalidate::EXCEPT, p),
            principal: s.read(&invalidate::PRINCIPAL, p),
            on_redirect: s.read(&invalidate::ON_REDIRECT, p),
        });
        s.finish(p);
    }
    rules
}
