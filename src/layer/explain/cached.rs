//! Explains the decisions of the cache about a request, and the invalidation that a write to its URL causes.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::explanation::{Explanation, StoredView, Whose};
use crate::cache::Cache;
use crate::cache::key;
use crate::cache::rules::storability::Personal;
use crate::cache::settings::{Override, Scope};
use crate::fields::cache_control::RequestDirectives;
use crate::fields::host;
use crate::layer::cache::classify::RequestClass;
use crate::layer::cache::invalidation_keys;
use crate::layer::cache::purge;
use crate::layer::routed::Routed;
use crate::policy::cache::is_safe;
use crate::policy::login_redirect::OnRedirect;
use crate::policy::path;

/// Explains whether the cache handles the request, and its cache key, tags and freshness lifetime.
pub(super) fn cache(told: &mut Explanation, routed: &Routed, grpc: bool, cache: &Arc<Cache>) {
    let settings = &routed.record.info.snapshot.policy.cache;
    if !settings.enabled {
        told.say("cache", "off: cache.enabled is false");
        return;
    }
    let route_settings = &routed.route.cache.route_settings;
    let scope = match route_settings.scope {
        Scope::Auto => {
            "auto: one copy for all if nothing identifies the user; otherwise only responses that \
            are marked as public"
        }
        Scope::Shared => "shared: one copy for all",
        Scope::User => "user: one copy for each principal",
        Scope::Off => "off",
    };
    let passed = match &routed.upgrade {
        Some(protocols) => {
            let protocols = protocols.to_str().unwrap_or("another protocol");
            Some(format!("bypassed: the request asks for an upgrade to {protocols}"))
        }
        None => grpc.then(|| "bypassed: gRPC responds in trailers".to_owned()),
    };
    if let Some(passed) = passed {
        let writes = if is_safe(routed.request.method()) { "" } else { "a write, and " };
        told.say("cache", format!("{writes}{passed}"));
        return;
    }
    if purge::is_for_us(&routed.request, &routed.record, &routed.peer) {
        told.say("cache", "answered by Pillion: stored responses for this URL are purged (cache.purge_from)");
        return;
    }
    match RequestClass::classify(routed, cache) {
        RequestClass::Write => {
            told.say("cache", "a write: its response never comes from the cache");
            return;
        }
        RequestClass::Content => {
            told.say("cache", format!("scope {scope}; the content is part of the cache key"))
        }
        RequestClass::Pass(why) => {
            told.say("cache", format!("bypassed: {} (scope {scope})", why.sentence()));
            return;
        }
        RequestClass::Read(read) => {
            told.say("cache", format!("scope {scope}"));
            if route_settings.scope == Scope::Auto {
                match read.traits.personal {
                    Personal::No => {}
                    Personal::Authorization => told.say(
                        "cache",
                        "it identifies the user: only responses with public, s-maxage or \
                        must-revalidate are used and stored",
                    ),
                    Personal::Otherwise => told.say(
                        "cache",
                        "it identifies the user, by a cookie or a field: only responses with public \
                        or s-maxage are used and stored",
                    ),
                }
            }
            if !read.fragments.is_empty() {
                let names: Vec<&str> = read.fragments.iter().map(|name| name.as_str()).collect();
                let names = names.join(" and ");
                told.say(
                    "cache",
                    format!(
                        "it may ask for a fragment: only responses whose Vary names {names} are \
                        used and stored"
                    ),
                );
            }
            if read.uncounted {
                let stripped = routed.route.cache.route_settings.strip_query;
                told.say(
                    "cache",
                    match stripped {
                        true => {
                            "the upstream gets it without the parameters that are not part of \
                            the cache key (strip_query)"
                        }
                        false => {
                            "it has parameters that are not part of the cache key: it uses \
                            what is stored without them, and leaves nothing"
                        }
                    },
                );
            }
            directives(told, &read.directives);
            if let Some(shown) = key::read(&read.key) {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let query =
                    if shown.query.is_empty() { String::new() } else { format!("?{}", text(shown.query)) };
                let (host, path) = (text(shown.host), text(shown.path));
                let told_host = shown.told_host.map(text);
                let by = told_host.as_ref().map_or(String::new(), |host| format!(", forwarded as {host}"));
                let whose = if shown.principal.is_some() { ", of this principal" } else { "" };
                let version = match settings.version.as_str() {
                    "" => String::new(),
                    version => format!(", version {version:?}"),
                };
                told.say("key", format!("{host}{path}{query}{by}{whose}{version}"));
                told.stored = Some(StoredView {
                    https: shown.https,
                    host,
                    told_host,
                    target: format!("{path}{query}"),
                    upstream: text(shown.upstream),
                    whose: Whose::new(shown.principal, &routed.record.info.snapshot.policy),
                });
            }
            let principal = read.principal.as_ref();
            let (_, tags) = invalidation_keys::for_request(routed, cache, principal);
            let names: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
            match names.is_empty() {
                true => told.say("tags", "none but those the upstream sends"),
                false => told.say("tags", names.join(", ")),
            }
        }
    }
    lifetime(told, routed);
}

fn lifetime(told: &mut Explanation, routed: &Routed) {
    let route_settings = &routed.route.cache.route_settings;
    let settings = &routed.record.info.snapshot.policy.cache;
    match route_settings.ttl {
        Some(ttl) => {
            let over = match route_settings.overrides {
                Override::None => "if the upstream gives none",
                Override::Lifetime => "whatever max-age, no-cache and Expires say (override = \"lifetime\")",
                Override::NoStore => {
                    "whatever max-age, no-cache, Expires and no-store say (override = \"no-store\")"
                }
            };
            told.say("lifetime", format!("{ttl:?}, by the route, {over}"));
        }
        None => {
            let derived = match settings.heuristic_max {
                Duration::ZERO => "none".to_owned(),
                max => format!("a tenth of the time since Last-Modified, at most {max:?}"),
            };
            told.say(
                "lifetime",
                format!("set by the upstream's Cache-Control or Expires; otherwise {derived}"),
            );
        }
    }
    if route_settings.ttl.is_none() || route_settings.overrides == Override::None {
        let max = settings.max_ttl;
        told.say("lifetime", format!("the upstream can set at most {max:?} (cache.max_ttl)"));
    }
    for (status, ttl) in &route_settings.ttl_by_status {
        told.say("lifetime", format!("{ttl:?} for {}", status.as_u16()));
    }
    let unreachable = route_settings.stale_if_error.unwrap_or(settings.stale_if_error);
    let stale = [
        ("while it is revalidated", route_settings.stale_while_revalidate),
        ("if the upstream sends no response", unreachable),
        ("in place of the upstream's own 502 to 504", route_settings.stale_if_error.unwrap_or_default()),
    ];
    for (when, window) in stale.iter().filter(|(_, window)| *window > Duration::ZERO) {
        told.say(
            "lifetime",
            format!("then stale for {window:?} {when}, if the upstream gives no other time"),
        );
    }
}

/// Explains the invalidation that a write to this URL causes.
pub(super) fn invalidation(told: &mut Explanation, routed: &Routed, method: &Method) {
    let policy = &routed.record.info.snapshot.policy;
    let Ok(normal) = path::normalise(routed.request.uri().path()) else { return };
    let host = host::text(routed.request.headers());
    let writes = !is_safe(method);
    let would = if writes { "" } else { "a write here would invalidate " };
    told.say("invalidates", format!("{would}its own path: {}", normal.normal));
    // `PURGE` is either for Pillion or for the app, so no rule applies to it.
    let rules = policy.invalidate.iter().filter(|_| !purge::is_purge(method));
    for rule in rules {
        if !rule.on.template.takes(&normal.normal) || !rule.on.host.takes(host) {
            continue;
        }
        // For a read, this lists what any write would invalidate, and the rules that name the read itself.
        let applies = (writes || rule.names_reads()) && rule.takes(method, host, &normal.normal);
        if writes && !applies {
            continue;
        }
        let tags = rule.tags.iter().map(|tag| tag.fill(&normal.normal));
        let paths = rule.paths.iter().map(|path| {
            format!("{}{}", path.path.fill(&normal.normal), if path.prefix { "/**" } else { "" })
        });
        let mut all: Vec<String> = tags.chain(paths).collect();
        if rule.principal {
            let whose =
                if all.is_empty() { "all copies of the writer" } else { "among the copies of the writer" };
            all.push(whose.to_owned());
        }
        let on_redirect = match rule.on_redirect {
            OnRedirect::Auto => "",
            OnRedirect::Always => ", on every redirect",
            OnRedirect::Never => ", on no redirect",
        };
        let mode = rule.mode.as_str();
        told.say("invalidates", format!("{} by {:?} ({mode}{on_redirect})", all.join(", "), rule.label));
    }
}

/// Explains the cache directives of the request (RFC 9111 5.2.1).
fn directives(told: &mut Explanation, directives: &RequestDirectives) {
    let said = [
        (directives.no_store, "no-store: its response is not stored"),
        (directives.no_cache, "no-cache: a stored response is revalidated before it is used"),
        (directives.only_if_cached, "only-if-cached: 504 if no stored response can be used"),
        (directives.max_age.is_some(), "max-age: no older stored response is used"),
        (directives.min_fresh.is_some(), "min-fresh: no stored response is used that is fresh for less time"),
        (directives.max_stale.is_some(), "max-stale: stale responses are accepted too"),
    ];
    for (_, what) in said.iter().filter(|(says, _)| *says) {
        told.say("cache", format!("the request says {what}"));
    }
}
