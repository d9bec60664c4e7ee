//! The keys by which the response to a request can be invalidated, as far as the request and its route decide.

use crate::cache::Cache;
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::identity::principal::Principal;
use crate::layer::routed::Routed;
use crate::policy::{RoutePolicy, loose, path};

/// Watches the path of a request that is about to fetch and needs no other invalidation keys yet.
pub(super) fn watch(routed: &Routed, cache: &Cache) -> WatchedPaths {
    let key_hasher = cache.invalidation.key_hasher;
    let path = path::normalise(routed.request.uri().path()).map(|path| path.normal).unwrap_or_default();
    let written = key_hasher.path(&path);
    if path::is_odd(&path) {
        return cache.invalidation.watch(&[written, key_hasher.path(&loose::reading(&path))]);
    }
    cache.invalidation.watch(&[written])
}

/// Returns the invalidation keys and tags of a response, as far as the request decides them.
pub(crate) fn for_request(
    routed: &Routed,
    cache: &Cache,
    principal: Option<&Principal>,
) -> (Vec<InvalidationKey>, Vec<Box<str>>) {
    for_path(routed.request.uri().path(), &routed.route, cache, principal)
}

/// See [`for_request`].
pub(super) fn for_path(
    path: &str,
    route: &RoutePolicy,
    cache: &Cache,
    principal: Option<&Principal>,
) -> (Vec<InvalidationKey>, Vec<Box<str>>) {
    let key_hasher = cache.invalidation.key_hasher;
    let path = path::normalise(path).map(|path| path.normal).unwrap_or_default();
    let tags: Vec<Box<str>> = route.cache.tags.iter().map(|tag| tag.fill(&path).into_boxed_str()).collect();
    let mut invalidation_keys =
        vec![key_hasher.everything(), key_hasher.path(&path), key_hasher.route(&route.label)];
    invalidation_keys.extend(key_hasher.prefixes(&path));
    if path::is_odd(&path) {
        // An upstream that reads the path leniently responds as for the other reading.
        let read = loose::reading(&path);
        invalidation_keys.push(key_hasher.path(&read));
        invalidation_keys.extend(key_hasher.prefixes(&read));
        invalidation_keys.extend(route.cache.tags.iter().map(|tag| key_hasher.tag(&tag.fill(&read))));
    }
    invalidation_keys.extend(tags.iter().map(|tag| key_hasher.tag(tag)));
    let credentials = principal.iter().flat_map(|principal| &principal.credentials);
    invalidation_keys.extend(credentials.map(|credential| key_hasher.credential(credential)));
    add_user_keys(&mut invalidation_keys, 0, route, cache, principal);
    (invalidation_keys, tags)
}

/// Adds keys for rules that invalidate the stored responses of one user alone: each key from index `first` on, combined
/// with each credential.
pub(super) fn add_user_keys(
    invalidation_keys: &mut Vec<InvalidationKey>,
    first: usize,
    route: &RoutePolicy,
    cache: &Cache,
    principal: Option<&Principal>,
) {
    let Some(principal) = principal.filter(|_| route.cache.keys_by_user) else { return };
    let key_hasher = cache.invalidation.key_hasher;
    let of_all: Vec<InvalidationKey> = invalidation_keys.get(first..).unwrap_or_default().to_vec();
    for credential in &principal.credentials {
        invalidation_keys.extend(
            of_all.iter().map(|invalidation_key| key_hasher.of_credential(credential, *invalidation_key)),
        );
    }
}
