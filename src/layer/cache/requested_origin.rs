//! The hosts and paths that a request asked for; redirects of the upstream are judged by them.

use crate::fields::{forwarded, host};
use crate::layer::routed::Routed;
use crate::policy::login_redirect::AskedFor;
use crate::policy::path;

/// Returns the hosts and paths by which redirects are judged.
pub(super) fn asked_for(routed: &Routed, path: &str) -> AskedFor {
    let policy = &routed.record.info.snapshot.policy;
    let headers = routed.request.headers();
    let mut hosts = vec![host::text(headers).to_owned()];
    if policy.server.trusts(routed.peer.address.ip()) {
        let told = headers.get(forwarded::X_FORWARDED_HOST).and_then(|told| told.to_str().ok());
        hosts.extend(told.into_iter().flat_map(|told| told.split(',')).map(|told| told.trim().to_owned()));
        let told = forwarded::in_older_words(headers).1;
        hosts.extend(told.and_then(|told| told.to_str().ok().map(str::to_owned)));
    }
    if let Some(upstream) = policy.upstreams.get(routed.route.upstream.unwrap_or(0)) {
        hosts.extend(upstream.endpoints.iter().map(|endpoint| endpoint.authority.to_string()));
    }
    let as_it_came = routed
        .record
        .info
        .target
        .as_ref()
        .and_then(|target| path::normalise(target.path()).ok().map(|path| path.normal.into_owned()));
    AskedFor { hosts, paths: as_it_came.into_iter().chain([path.to_owned()]).collect() }
}
