//! Purges one URL, as `PURGE` asks for it: here, and in the other processes of a fleet.

use crate::cache::Cache;
use crate::cache::invalidation::outbox::Purged;
use crate::cache::key;
use crate::fields::host;
use crate::policy::{loose, path};

/// Keeps responses of the URL that are on their way from being stored. It comes before [`run`].
pub(crate) fn overtake(cache: &Cache, purged: &Purged) {
    let key_hasher = cache.invalidation.key_hasher;
    let paths = purged.paths.iter().map(|path| &**path);
    let odd = paths.clone().filter(|path| path::is_odd(path)).map(loose::reading);
    let mut invalidation_keys: Vec<_> = odd.map(|path| key_hasher.path(&path)).collect();
    invalidation_keys.extend(paths.map(|path| key_hasher.path(path)));
    cache.invalidation.overtake(&invalidation_keys);
}

/// Removes the stored responses of the URL; returns how many. It looks through the whole store, so it must not run on a
/// thread that others wait for.
pub(crate) fn run(cache: &Cache, purged: &Purged) -> usize {
    let Purged { host, paths, queries } = purged;
    cache.store.purge(|key| {
        key::read(key).is_some_and(|shown| {
            let is_host = |known: &[u8]| plain(known).eq_ignore_ascii_case(plain(host.as_bytes()));
            let mut hosts = [Some(shown.host), shown.told_host].into_iter().flatten();
            hosts.any(is_host)
                && paths.iter().any(|path| path::is_same(shown.path, path))
                && queries.as_ref().is_none_or(|all| all.iter().any(|query| shown.is_query(query)))
        })
    })
}

/// Removes the default port of either scheme from an authority.
fn plain(authority: &[u8]) -> &[u8] {
    host::without_default_port(host::without_default_port(authority, true), false)
}
