//! The `PURGE` method, by which content management systems remove one URL from a cache in front of them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::aliases;
use super::error::CacheResult;
use crate::cache::Cache;
use crate::cache::invalidation::outbox::Purged;
use crate::cache::key;
use crate::fields::{forwarded, host};
use crate::fleet::purge as url;
use crate::layer::record::{CacheHandling, RequestRecord};
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::inbound::Peer;
use crate::policy::path;

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
    let mut paths = aliases::paths_beside(&routed, &normal);
    paths.push(normal);
    let queries = target.query().map(|query| {
        // The query as a GET of this URL has it in its key, under each route that its conditions may lead to.
        let routes = paths.iter().flat_map(|path| policy.routes.candidates(&Method::GET, &asked, path));
        let counted = routes.map(|route| {
            let only = route.cache.route_settings.key_query.as_deref();
            key::counted_query(query, only, &policy.cache.ignore_query).unwrap_or_default().into()
        });
        counted.collect()
    });
    let paths = paths.into_iter().map(String::into_boxed_str).collect();
    let purged = Purged { host: asked.into(), paths, queries };
    routed.record.cache.set_handling(CacheHandling::Purge);
    if let Some(outbox) = cache.outbox() {
        outbox.purge(purged.clone(), cache.invalidation.number());
    }
    url::overtake(&cache, &purged);
    cache.counters.count_invalidation(LABEL);
    if let Some(outbox) = cache.outbox() {
        outbox.wait().await;
    }
    // The search goes through the whole store, so it does not run on a worker that serves clients.
    let looked = tokio::task::spawn_blocking(move || url::run(&cache, &purged));
    Ok(told(looked.await?))
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
