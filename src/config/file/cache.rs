//! `[identity]`, `[cache]`, `cache = {...}` of a route and `[[invalidate]]`, as they are written.

use std::time::Duration;

use super::{EMPTY, seconds, text};
use crate::cache::invalidation::Mode;
use crate::cache::settings::{Override, Scope};
use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::table_reader::{AutoOr, FromNode, Section, Size, Spanned};
use crate::config::value::{Node, Table, Value};
use crate::policy::redirect::OnRedirect;

/// The default of `identity.principal`: Authorization, and the session cookies of frameworks. Names of cookies are
/// compared without regard to case, and without the prefixes `__Secure-` and `__Host-`.
pub(crate) const PRINCIPAL: [&str; 31] = [
    "header:authorization",
    "cookie:session",
    "cookie:sessionid",
    "cookie:*_session",
    "cookie:*-session",
    "cookie:_*_key",
    "cookie:sid",
    "cookie:*.sid",
    "cookie:connect.sid",
    "cookie:JSESSIONID*",
    "cookie:PHPSESSID*",
    "cookie:*session-token",
    "cookie:*session-token.*",
    "cookie:sb-*-auth-token*",
    "cookie:ASP.NET_SessionId",
    "cookie:.AspNetCore.*",
    "cookie:.ASPXAUTH",
    "cookie:wordpress_logged_in_*",
    "cookie:wordpress_sec_*",
    "cookie:SESS*",
    "cookie:SSESS*",
    "cookie:ci_session*",
    "cookie:__session",
    "cookie:appSession*",
    "cookie:_oauth2_proxy*",
    "cookie:remember_*",
    "cookie:MoodleSession*",
    "cookie:access_token",
    "cookie:auth_token",
    "cookie:jwt",
    "cookie:token",
];

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
}

/// A rule of `[[invalidate]]` in the configuration.
pub(crate) struct Invalidate {
    pub span: Span,
    pub on: Option<Spanned<String>>,
    pub tags: Vec<Spanned<String>>,
    pub paths: Vec<Spanned<String>>,
    pub mode: Mode,
    pub settle: Spanned<Duration>,
    pub except: Vec<Spanned<String>>,
    pub principal: Spanned<bool>,
    pub on_redirect: OnRedirect,
}

/// A table whose keys are names, or its default.
fn map<T: FromNode>(
    s: &mut Section<'_>,
    key: &'static str,
    default: Vec<(&str, T)>,
    p: &mut Diagnostics,
) -> Vec<(Spanned<String>, Spanned<T>)> {
    let written = s.table(key, p);
    s.list_key(key, p, || {
        let pairs: Vec<String> =
            default.iter().map(|(name, value)| format!("{name} = {}", value.written())).collect();
        (format!("a table of names, each {}", T::EXPECTED), Some(format!("{{ {} }}", pairs.join(", "))))
    });
    let Some((table, _)) = written else {
        let pair = |(name, value)| (Spanned { value: text(name), span: None }, Spanned { value, span: None });
        return default.into_iter().map(pair).collect();
    };
    let mut found = Vec::new();
    for (name, node) in &table.entries {
        let key = Spanned { value: name.name.clone(), span: Some(name.span.clone()) };
        match T::from_node(node) {
            Some(value) => found.push((key, Spanned { value, span: Some(node.span.clone()) })),
            None => s.mismatch(&name.name, node, T::EXPECTED, p),
        }
    }
    found
}

pub(super) fn read_identity(table: Option<&Table>, p: &mut Diagnostics) -> Identity {
    let mut s = Section::new("identity", table.unwrap_or(EMPTY));
    let jwt = s.table("jwt", p).map(|(table, span)| {
        let mut s = Section::new("identity.jwt", table);
        let jwt = Jwt {
            span,
            keys: s.list("keys", Vec::new(), p),
            hs256: s.or("hs256", text(""), p),
            jwks_url: s.or("jwks_url", text(""), p),
            token: s.or("token", text("header:authorization"), p),
            issuer: s.or("issuer", text(""), p),
            audience: s.or("audience", text(""), p),
            require_exp: s.or("require_exp", true, p),
        };
        s.finish(p);
        jwt
    });
    let identity = Identity {
        principal: s.list("principal", PRINCIPAL.map(text).to_vec(), p),
        api_key: s.or("api_key", text("header:x-api-key"), p),
        hash_key: s.or("hash_key", text(""), p),
        jwt,
    };
    s.finish(p);
    identity
}

pub(super) fn read_cache(table: Option<&Table>, p: &mut Diagnostics) -> Cache {
    let mut s = Section::new("cache", table.unwrap_or(EMPTY));
    let tiers = vec![("short", seconds(30)), ("medium", seconds(60)), ("long", seconds(300))];
    let tiers = map(&mut s, "tiers", tiers, p);
    let cache = Cache {
        enabled: s.or("enabled", true, p),
        max_size: s.or("max_size", AutoOr(None), p),
        max_object_size: s.or("max_object_size", Size(8 * 1024 * 1024), p),
        tiers,
        heuristic_max: s.or("heuristic_max", seconds(0), p),
        max_ttl: s.or("max_ttl", seconds(86_400), p),
        version: s.or("version", text(""), p),
        stale_while_revalidate: s.or("stale_while_revalidate", seconds(0), p),
        stale_if_error: s.or("stale_if_error", seconds(300), p),
        ignore_query: s.list("ignore_query", ["utm_*", "fbclid", "gclid"].map(text).to_vec(), p),
        ignore_cookies: s.list("ignore_cookies", IGNORED_COOKIES.map(text).to_vec(), p),
        targeted: s.list("targeted", vec![text("pillion-cache-control")], p),
        groups: s.or("groups", true, p),
        x_cache: s.or("x_cache", true, p),
        debug_header: s.or("debug_header", false, p),
        purge_from: s.list("purge_from", Vec::new(), p),
    };
    s.finish(p);
    cache
}

pub(super) fn read_route_cache(table: &Table, span: Span, p: &mut Diagnostics) -> RouteCache {
    let mut s = Section::new("routes.cache", table);
    let scopes =
        [("auto", Scope::Auto), ("shared", Scope::Shared), ("user", Scope::User), ("off", Scope::Off)];
    let overrides =
        [("none", Override::None), ("lifetime", Override::Lifetime), ("no-store", Override::NoStore)];
    let cache = RouteCache {
        span,
        tier: s.get("tier", p),
        ttl: s.get("ttl", p),
        scope: s.choice("scope", &scopes, Scope::Auto, p),
        tags: s.list("tags", Vec::new(), p),
        overrides: s.choice("override", &overrides, Override::None, p),
        ttl_by_status: map(&mut s, "ttl_by_status", Vec::new(), p),
        stale_while_revalidate: s.get("stale_while_revalidate", p),
        stale_if_error: s.get("stale_if_error", p),
        key_headers: s.list("key_headers", Vec::new(), p),
        key_query: s.has("key_query").then(|| s.list("key_query", Vec::new(), p)),
        strip_query: s.or("strip_query", false, p),
        key_body: s.or("key_body", false, p),
        error_500: s.or("error_500", false, p),
    };
    s.finish(p);
    cache
}

pub(super) fn read_invalidate(node: Option<&Node>, p: &mut Diagnostics) -> Vec<Invalidate> {
    let Some(node) = node else { return Vec::new() };
    let Value::Array(items) = &node.value else {
        p.at(&node.span, format!("invalidate is {}", node.value.shown()))
            .help("expected [[invalidate]] tables");
        return Vec::new();
    };
    let redirects =
        [("auto", OnRedirect::Auto), ("always", OnRedirect::Always), ("never", OnRedirect::Never)];
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        let Value::Table(table) = &item.value else {
            p.at(&item.span, format!("a rule is {}", item.value.kind())).help("expected a table");
            continue;
        };
        let mut s = Section::new("invalidate", table);
        rules.push(Invalidate {
            span: item.span.clone(),
            on: s.get("on", p),
            tags: s.list("tags", Vec::new(), p),
            paths: s.list("paths", Vec::new(), p),
            mode: s.choice("mode", &[("hard", Mode::Hard), ("soft", Mode::Soft)], Mode::Hard, p),
            settle: s.or("settle", seconds(0), p),
            except: s.list("except", Vec::new(), p),
            principal: s.or("principal", false, p),
            on_redirect: s.choice("on_redirect", &redirects, OnRedirect::Auto, p),
        });
        s.finish(p);
    }
    rules
}
