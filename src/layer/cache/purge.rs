//! The `PURGE` method, by which content management systems remove one URL from a cache in front of them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::error::CacheResult;
use crate::cache::Cache;
use crate::cache::key;
use crate::fields::{forwarded, host};
use crate::layer::record::{CacheHandling, RequestRecord};
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::inbound::Peer;
use crate::policy::{loose, path};

/// The label of these invalidations in metrics.
pub(super) const LABEL: &str = "purge";

/// Returns whether the method is `PURGE`, which no registry has.
pub(crate) fn is_purge(method: &Method) -> bool {
    method.as_str() == "PURGE"
}

/// Fields that proxies add to forwarded requests: their own names and the address of their client.
const PASSED_ON: [&str; 16] = [
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-original-forwarded-for",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "fastly-client-ip",
    "fly-client-ip",
    "x-azure-clientip",
    "x-envoy-external-address",
    "cdn-loop",
];

/// Returns whether it is a `PURGE` for Pillion: its client is one of `purge_from`. A forwarded request may be from any
/// client, unless its proxy is trusted and reports the client in a field that is believed.
pub(crate) fn is_for_us(request: &Request<Body>, record: &RequestRecord, peer: &Peer) -> bool {
    if !is_purge(request.method()) {
        return false;
    }
    let policy = &record.info.snapshot.policy;
    let headers = request.headers();
    let says = headers.contains_key(forwarded::X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
    let believed = says && policy.server.trusts(peer.address.ip());
    let client = record.info.client;
    policy.purge_from.iter().any(|network| network.contains(&client)) && (believed || !is_passed_on(headers))
}

fn is_passed_on(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| PASSED_ON.contains(&name.as_str()))
}

/// Removes the stored responses of a URL, in all variants and for all users; a URL without a query covers all
/// queries. Responses for this path that are on their way from the upstream are not stored.
pub(super) async fn purge(cache: Arc<Cache>, routed: Box<Routed>) -> CacheResult {
    let target = routed.request.uri();
    let normal = path::normalise(target.path())?.normal.into_owned();
    let policy = &routed.record.info.snapshot.policy;
    let asked = host::text(routed.request.headers()).to_owned();
    let query = target.query().map(|query| {
        // The query as a GET of this URL has it in its key.
        let order = policy.routes.table.find(&Method::GET, &asked, &normal, 0);
        let only = routed.record.info.snapshot.route(order).cache.route_settings.key_query.clone();
        key::counted_query(query, only.as_deref(), &policy.cache.ignore_query).unwrap_or_default()
    });
    routed.record.cache.set_handling(CacheHandling::Purge);
    let key_hasher = cache.invalidation.key_hasher;
    let mut invalidation_keys = vec![key_hasher.path(&normal)];
    if path::is_odd(&normal) {
        invalidation_keys.push(key_hasher.path(&loose::reading(&normal)));
    }
    cache.invalidation.overtake(&invalidation_keys);
    cache.counters.count_invalidation(LABEL);
    // The search goes through the whole store, so it does not run on a worker that serves clients.
    let looked = tokio::task::spawn_blocking(move || {
        cache.store.purge(|key| {
            key::read(key).is_some_and(|shown| {
                let is_host = |known: &[u8]| plain(known).eq_ignore_ascii_case(plain(asked.as_bytes()));
                let mut hosts = [Some(shown.host), shown.told_host].into_iter().flatten();
                hosts.any(is_host)
                    && path::is_same(shown.path, &normal)
                    && query.as_ref().is_none_or(|query| shown.is_query(query))
            })
        })
    });
    Ok(told(looked.await?))
}

/// Removes the default port of either scheme from an authority.
fn plain(authority: &[u8]) -> &[u8] {
    host::without_default_port(host::without_default_port(authority, true), false)
}

fn told(count: usize) -> Response<Body> {
    let content =
        serde_json::json!({ "status": if count > 0 { "purged" } else { "not stored" }, "count": count });
    let mut response = Response::new(Body::full(Bytes::from(content.to_string())));
    *response.status_mut() = if count > 0 { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
