//! The cache endpoints of the admin listener: statistics, lookup of stored responses by URL, and purging. They never
//! show response content.

use http::StatusCode;
use serde_json::{Value, json};

use super::control::Control;
use super::report::Report;
use crate::cache::counters::HitRatio;
use crate::cache::invalidation::Mode;
use crate::cache::key;
use crate::cache::store::Entry;
use crate::cache::store::stored::StoredResponse;
use crate::fleet::copies::Peek;
use crate::log::{Secrets, masked};
use crate::policy::path;
use crate::policy::secrets::NO_SECRET_SEGMENTS;
use crate::runtime::clock;

/// Maximum stored entries that a lookup of one URL lists.
const MAX_SHOWN: usize = 100;

fn refused(detail: impl Into<String>) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, detail.into())
}

/// Host (if the URL names one), normalized path, and query (if the URL names one).
type Place = (Option<String>, String, Option<String>);

/// Parses a URL, or a path with or without a query. A path that does not normalize is an error.
fn url(text: &str) -> Result<Place, (StatusCode, String)> {
    let (host, rest) = match text.split_once("://") {
        Some((_, rest)) => {
            let (host, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(host.to_ascii_lowercase()), rest)
        }
        None => (None, text),
    };
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    let path = if path.is_empty() { "/" } else { path };
    if !path.starts_with('/') {
        return Err(refused(format!("{text:?} is neither a URL nor a path")));
    }
    let normal = path::normalise(path).map_err(|error| refused(format!("{text:?}: {error}")))?.normal;
    Ok((host, normal.into_owned(), query.map(str::to_owned)))
}

/// Handles `POST /cache/purge`: invalidates by URL, prefix, tag, principal, or everything, in all processes of a fleet.
/// Waits for those that are alive, for two seconds at most.
pub(super) async fn purge(control: &Control, parameters: &[(String, String)]) -> Report {
    let cache = &control.shared_state.cache;
    let snapshot = control.live.load();
    let mut targets = cache.targets();
    let mut mode = Mode::Hard;
    for (name, value) in parameters {
        match (name.as_str(), value.as_str()) {
            ("mode", "hard") => mode = Mode::Hard,
            ("mode", "soft") => mode = Mode::Soft,
            ("mode", other) => return Err(refused(format!("mode is {other:?}; expected hard or soft"))),
            ("everything", "" | "true") => targets.everything(),
            ("everything", other) => {
                return Err(refused(format!("everything is {other:?}; expected true, or no such parameter")));
            }
            ("url", value) => targets.path(&url(value)?.1),
            ("prefix", value) => {
                targets.prefix(&url(value.trim_end_matches("**"))?.1);
            }
            ("tag", "") => return Err(refused("an empty tag")),
            ("tag", value) => targets.tag(value),
            ("principal", value) => {
                let identity = &snapshot.policy.identity;
                let (source, value) = value
                    .split_once('=')
                    .ok_or_else(|| refused("a principal is SOURCE=VALUE, like cookie:session=abc"))?;
                if !identity.lists(source) {
                    return Err(refused(format!("{source:?} is not listed in identity.principal")));
                }
                targets.credential(&identity.hasher().credential(source, [value.as_bytes()]));
            }
            (other, _) => {
                return Err(refused(format!(
                    "unknown parameter {other:?}; expected url, prefix, tag, principal, everything \
                    and mode"
                )));
            }
        }
    }
    if targets.is_empty() {
        return Err(refused("nothing to purge is named; give url, prefix, tag, principal or everything"));
    }
    let now = clock::now();
    cache.invalidate(&targets, mode, now);
    cache.counters.count_invalidation("purge");
    if mode == Mode::Hard {
        // Frees the memory of invalidated responses at once instead of waiting for eviction.
        cache.store.retain(|stored| stored.head.age_if_valid(&cache.invalidation, now).is_some());
    }
    let word = if mode == Mode::Hard { "hard" } else { "soft" };
    let mut shown = json!({ "status": "purged", "mode": word, "names": targets.keys().len() });
    if let Some(fleet) = &control.shared_state.fleet {
        let applied = fleet.settle().await;
        shown["applied_by"] = applied.by.into();
        shown["processes"] = applied.of.into();
    }
    Ok(shown)
}

/// Handles `GET /cache/stats`: sizes, hit ratios in total and by route, and counts of cache operations.
pub(super) fn stats(control: &Control) -> Value {
    let cache = &control.shared_state.cache;
    let held = &cache.store.budget;
    let events: serde_json::Map<String, Value> =
        cache.counters.totals().into_iter().map(|(name, count)| (name, count.into())).collect();
    let shown = |ratio: &HitRatio| {
        let HitRatio { hits, lookups, bypassed } = ratio;
        json!({ "hits": hits, "lookups": lookups, "bypassed": bypassed, "hit_ratio": ratio.ratio() })
    };
    let by_route = cache.counters.hits_by_route();
    let whole = by_route.iter().fold(HitRatio::default(), |whole, (_, route)| whole.and(*route));
    let routes: serde_json::Map<String, Value> =
        by_route.iter().map(|(label, route)| (label.clone(), shown(route))).collect();
    json!({
        "bytes": held.get(),
        "max_bytes": held.max(),
        "keys": cache.store.len(),
        "evictions": cache.store.evictions.get(),
        "fetches_in_progress": cache.fetches.len(),
        "hits": whole.hits,
        "lookups": whole.lookups,
        "bypassed": whole.bypassed,
        "hit_ratio": whole.ratio(),
        "routes": routes,
        "operations": events,
    })
}

/// Handles `GET /cache/lookup?url=`: lists stored responses that match a URL, without their content.
pub(super) async fn lookup(control: &Control, parameters: &[(String, String)]) -> Report {
    let given = parameters.iter().find(|(name, _)| name == "url");
    let (_, given) =
        given.ok_or_else(|| refused("the parameter url is missing; give a path, or a URL with its host"))?;
    let (host, path, query) = url(given)?;
    let cache = &control.shared_state.cache;
    let fits = |key: &[u8]| {
        key::read(key).is_some_and(|shown| {
            path::is_same(shown.path, &path)
                && host.as_ref().is_none_or(|host| {
                    let mut hosts = [Some(shown.host), shown.told_host].into_iter().flatten();
                    hosts.any(|known| known.eq_ignore_ascii_case(host.as_bytes()))
                })
                && query.as_ref().is_none_or(|query| shown.is_query(query))
        })
    };
    let found = cache.store.find(MAX_SHOWN, fits);
    let shown: Vec<Value> = found.iter().map(|(key, entry)| entry_shown(control, key, entry)).collect();
    let mut document = json!({ "url": given, "found": shown });
    if let Some((_, text)) = parameters.iter().find(|(name, _)| name == "key") {
        let key = from_hex(text).ok_or_else(|| refused("the parameter key is not in hexadecimal"))?;
        document["redis"] = in_redis(control, &key).await;
    }
    Ok(document)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Says what Redis has under a cache key.
async fn in_redis(control: &Control, key: &[u8]) -> Value {
    let Some(copies) = &control.shared_state.copies else { return json!({ "result": "off" }) };
    match copies.peek(key).await {
        Ok(Peek::Response { age, lifetime, left, position, status, content }) => json!({
            "result": "hit",
            "age": age.as_secs(),
            "ttl": i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX).saturating_sub_unsigned(age.as_secs()),
            "kept_for": left.as_secs(),
            "position": position.to_string(),
            "status": status.as_u16(),
            "content_bytes": content,
        }),
        Ok(Peek::Names(names)) => json!({
            "result": "varies",
            "vary": names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
        }),
        Err(read) => json!({ "result": read.as_str() }),
    }
}

fn entry_shown(control: &Control, key: &[u8], entry: &Entry) -> Value {
    let Some(shown) = key::read(key) else { return Value::Null };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "scheme": if shown.https { "https" } else { "http" },
        "host": text(shown.host),
        "told_host": shown.told_host.map(text),
        "path": text(shown.path),
        "query": query(control, &text(shown.query)),
        "upstream": text(shown.upstream),
        "principal": shown.principal.map(key::principal_hash),
        "variants": entry.variants().iter().map(|stored| stored_shown(control, stored)).collect::<Vec<_>>(),
    })
}

fn query(control: &Control, query: &str) -> String {
    let snapshot = control.live.load();
    let secrets = Secrets { names: &snapshot.policy.log.mask, segments: &NO_SECRET_SEGMENTS };
    masked(&format!("?{query}"), secrets).trim_start_matches('?').to_owned()
}

fn stored_shown(control: &Control, stored: &StoredResponse) -> Value {
    let now = clock::now();
    let head = &stored.head;
    let age = head.age_if_valid(&control.shared_state.cache.invalidation, now);
    let state = match age {
        None => "invalidated",
        Some(age) if age.staleness(&head.freshness).is_some() => "stale",
        Some(_) => "fresh",
    };
    let codings: serde_json::Map<String, Value> =
        stored.content.made().into_iter().map(|(name, size)| (name.to_owned(), size.into())).collect();
    json!({
        "state": state,
        "status": head.status.as_u16(),
        "age": head.age(now).as_secs(),
        "lifetime": head.freshness.lifetime.as_secs(),
        "ttl": age.map(|age| age.ttl(&head.freshness)),
        "stale_while_revalidate": head.freshness.while_revalidate.as_secs(),
        "stale_if_error": head.freshness.if_error.as_secs(),
        "stale_if_unreachable": head.freshness.if_unreachable.as_secs(),
        "vary": head.variant.fields().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>(),
        "tags": head.tags,
        "content_bytes": stored.content.pieces().len(),
        "bytes": stored.content.size(),
        "made": codings,
        "hits": stored.content.hits.load(std::sync::atomic::Ordering::Relaxed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(
            url("https://A.example/x/../y?z=1").unwrap(),
            (Some("a.example".to_owned()), "/y".to_owned(), Some("z=1".to_owned()))
        );
        assert_eq!(url("/x").unwrap(), (None, "/x".to_owned(), None));
        assert!(url("x").is_err() && url("/%00").is_err());
    }
}
