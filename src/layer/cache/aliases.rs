//! The paths under which responses for one URL may be stored. Where `when` decides whether a route rewrites a path, a
//! write and a read of the same URL may reach the upstream by different paths.

use crate::fields::host;
use crate::layer::routed::Routed;
use crate::policy::path;

/// Returns the paths in normal form, beside `path`, that another request for the URL of this one may be sent to.
pub(super) fn paths_beside(routed: &Routed, path: &str) -> Vec<String> {
    let routes = &routed.record.info.snapshot.policy.routes;
    if !routes.has_conditions() {
        return Vec::new();
    }
    let target = routed.record.info.target.as_ref();
    let asked = target.and_then(|target| path::normalise(target.path()).ok());
    let Some(asked) = asked.map(|path| path.normal) else { return Vec::new() };
    let mut all = routes.rewritten(host::text(routed.request.headers()), &asked);
    all.push(asked.into_owned());
    all.sort_unstable();
    all.dedup();
    all.retain(|other| other != path);
    all
}
