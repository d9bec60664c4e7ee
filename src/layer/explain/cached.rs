//! Collects the decisions of the cache about a request, and the invalidation that a write to its URL causes.

use std::sync::Arc;

use http::Method;

use super::facts::{
    CacheFacts, InvalidationFacts, LifetimeFacts, ReadFacts, RuleFacts, StoredView, Treatment, Whose,
};
use crate::cache::Cache;
use crate::cache::key;
use crate::fields::host;
use crate::layer::cache::classify::{Lookup, RequestClass};
use crate::layer::cache::invalidation_keys;
use crate::layer::cache::purge;
use crate::layer::routed::Routed;
use crate::policy::cache::is_safe;
use crate::policy::path;

/// Returns the treatment of a request by the cache, with its cache key, tags and freshness lifetime.
pub(super) fn cache(routed: &Routed, grpc: bool, cache: &Arc<Cache>) -> CacheFacts {
    let scope = routed.route.cache.route_settings.scope;
    CacheFacts { treatment: treatment(routed, grpc, cache), scope, lifetime: lifetime(routed) }
}

fn treatment(routed: &Routed, grpc: bool, cache: &Arc<Cache>) -> Treatment {
    if !routed.record.info.snapshot.policy.cache.enabled {
        return Treatment::Off;
    }
    let write = !is_safe(routed.request.method());
    if let Some(protocols) = &routed.upgrade {
        let protocols = protocols.to_str().unwrap_or("another protocol").to_owned();
        return Treatment::Upgrade { protocols, write };
    }
    if grpc {
        return Treatment::Grpc { write };
    }
    if purge::is_for_us(&routed.request, &routed.record, &routed.peer) {
        return Treatment::Purge;
    }
    match RequestClass::classify(routed, cache) {
        RequestClass::Write => Treatment::Write,
        RequestClass::Content => Treatment::Content,
        RequestClass::Pass(why) => Treatment::Bypass(why),
        RequestClass::Read(lookup) => Treatment::Read(Box::new(read(routed, *lookup, cache))),
    }
}

fn read(routed: &Routed, lookup: Lookup, cache: &Arc<Cache>) -> ReadFacts {
    let policy = &routed.record.info.snapshot.policy;
    let (_, tags) = invalidation_keys::for_request(routed, cache, lookup.principal.as_ref());
    let stored = key::read(&lookup.key).map(|shown| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let query = if shown.query.is_empty() { String::new() } else { format!("?{}", text(shown.query)) };
        StoredView {
            https: shown.https,
            host: text(shown.host),
            told_host: shown.told_host.map(text),
            target: format!("{}{query}", text(shown.path)),
            upstream: text(shown.upstream),
            whose: Whose::new(shown.principal, policy),
        }
    });
    ReadFacts {
        stored,
        personal: lookup.traits.personal,
        fragments: lookup.fragments,
        uncounted: lookup.uncounted.then_some(routed.route.cache.route_settings.strip_query),
        directives: lookup.directives,
        tags: tags.into_iter().map(String::from).collect(),
        version: policy.cache.version.clone(),
        fields: routed.request.headers().clone(),
        key: lookup.key,
    }
}

fn lifetime(routed: &Routed) -> LifetimeFacts {
    let route_settings = &routed.route.cache.route_settings;
    let settings = &routed.record.info.snapshot.policy.cache;
    LifetimeFacts {
        ttl: route_settings.ttl,
        overrides: route_settings.overrides,
        heuristic_max: settings.heuristic_max,
        max_ttl: settings.max_ttl,
        ttl_by_status: route_settings.ttl_by_status.clone(),
        stale_while_revalidate: route_settings.stale_while_revalidate,
        stale_if_unreachable: route_settings.stale_if_error.unwrap_or(settings.stale_if_error),
        stale_if_error: route_settings.stale_if_error.unwrap_or_default(),
    }
}

/// Returns the invalidation that a write to this URL causes.
pub(super) fn invalidation(routed: &Routed, method: &Method) -> Option<InvalidationFacts> {
    let policy = &routed.record.info.snapshot.policy;
    let normal = path::normalise(routed.request.uri().path()).ok()?;
    let host = host::text(routed.request.headers());
    let writes = !is_safe(method);
    let mut found = InvalidationFacts { writes, path: normal.normal.to_string(), rules: Vec::new() };
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
        found.rules.push(RuleFacts {
            label: rule.label.clone(),
            tags: rule.tags.iter().map(|tag| tag.fill(&normal.normal)).collect(),
            paths: rule.paths.iter().map(|path| (path.path.fill(&normal.normal), path.prefix)).collect(),
            of_principal: rule.principal,
            mode: rule.mode,
            on_redirect: rule.on_redirect,
        });
    }
    Some(found)
}
