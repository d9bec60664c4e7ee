//! WebDAV: a write to a collection changes everything in it (RFC 4918 9.6, 9.8, 9.9).
//!
//! Any client can send DELETE, COPY and MOVE to an upstream that treats every method alike, and a tree may be all that
//! is stored. So only the upstream's response confirms that a tree was changed: no redirect, no error and no missing
//! response does, and the tree of `/` is never invalidated.

use http::{HeaderMap, HeaderName, Method, Response, StatusCode};

use super::requested_origin::asked_for;
use crate::cache::Cache;
use crate::cache::invalidation::targets::Targets;
use crate::cache::invalidation::webdav::TreeMethod;
use crate::layer::record::RequestRecord;
use crate::layer::routed::Routed;
use crate::policy::login_redirect::split_authority;
use crate::policy::{Action, loose, path};

/// The label of these invalidations in metrics.
pub(super) const LABEL: &str = "tree";
/// The response field of an upstream that speaks WebDAV (RFC 4918 10.1).
pub(super) const DAV: HeaderName = HeaderName::from_static("dav");
/// The request field that says how deep a write reaches into a collection (RFC 4918 10.2).
const DEPTH: HeaderName = HeaderName::from_static("depth");
/// The request field with the target of a move or copy (RFC 4918 10.3).
const DESTINATION: HeaderName = HeaderName::from_static("destination");

/// The trees that a WebDAV write changes beside its target.
pub(super) struct Tree {
    /// The path and its Destination, each with everything below.
    pub targets: Targets,
    method: TreeMethod,
}

impl Tree {
    /// Returns the trees of a request for a path in normal form; `None` if its method is not one of these. `others`: the
    /// further paths under which responses for the same URL may be stored.
    pub(super) fn from_request(
        routed: &Routed,
        cache: &Cache,
        path: &str,
        others: &[String],
    ) -> Option<Tree> {
        let headers = routed.request.headers();
        let method = match routed.request.method() {
            &Method::DELETE => TreeMethod::Delete { depth: headers.contains_key(DEPTH) },
            method if matches!(method.as_str(), "COPY" | "MOVE") => TreeMethod::CopyOrMove,
            _ => return None,
        };
        let mut targets = cache.targets();
        let mut add = |path: &str| {
            let loosely = path::is_odd(path).then(|| loose::reading(path));
            let both = [Some(path), loosely.as_deref()].into_iter().flatten();
            both.filter(|path| !is_root(path)).for_each(|path| targets.prefix(path));
        };
        add(path);
        others.iter().for_each(|other| add(other));
        if method == TreeMethod::CopyOrMove
            && let Some(destination) = destination(routed, path)
        {
            add(&destination);
            let before = routed.rewritten_by.as_ref();
            if let Some((Action::Rewrite(to), Some(pattern))) =
                before.map(|route| (&route.action, &route.pattern))
                && pattern.template.takes(&destination)
            {
                add(&to.fill(&pattern.template, &destination));
            }
        }
        (!targets.is_empty()).then_some(Tree { targets, method })
    }

    /// Returns whether a response confirms that the tree was changed. `speaks`: the upstream is known to speak WebDAV.
    pub(super) fn is_done(&self, status: StatusCode, speaks: bool) -> bool {
        self.method.is_done(status, speaks)
    }
}

/// The tree of `/` may be all that is stored.
fn is_root(path: &str) -> bool {
    path.bytes().all(|byte| byte == b'/')
}

/// Returns the path in normal form of a move's or copy's Destination on the requested host or on the upstream; `None`
/// on other hosts, whose responses are stored under other keys.
/// Returns the path in the Destination field of a request, if it names this host.
pub(crate) fn destination_path(routed: &Routed) -> Option<String> {
    let path = path::normalise(routed.request.uri().path()).ok()?;
    destination(routed, &path.normal)
}

fn destination(routed: &Routed, path: &str) -> Option<String> {
    let place = routed.request.headers().get(&DESTINATION)?.to_str().ok()?;
    let (authority, place) = split_authority(place.trim());
    if authority.is_some_and(|authority| !asked_for(routed, path).is_known_host(authority)) {
        return None;
    }
    path::normalise(place.split(['?', '#']).next()?).ok().map(|path| path.normal.into_owned())
}

fn upstream(record: &RequestRecord) -> Option<&str> {
    let upstream = record.route_policy().upstream.unwrap_or(0);
    record.info.snapshot.policy.upstreams.get(upstream).map(|upstream| &*upstream.name)
}

/// Returns whether the upstream is known to speak WebDAV.
pub(super) fn is_spoken_by_upstream(cache: &Cache, record: &RequestRecord) -> bool {
    upstream(record).is_some_and(|name| cache.webdav.contains(name))
}

/// Remembers an upstream whose response shows that it speaks WebDAV: by `DAV`, as to OPTIONS, or by 207, as to
/// PROPFIND.
#[inline(never)]
pub(super) fn heed<B>(cache: &Cache, record: &RequestRecord, response: &Response<B>) {
    let says = |headers: &HeaderMap| headers.keys().any(|name| *name == DAV);
    if (response.status() == StatusCode::MULTI_STATUS || says(response.headers()))
        && let Some(name) = upstream(record)
    {
        cache.webdav.insert(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_known_in_each_way_of_writing_it() {
        for (path, wanted) in [("/", true), ("", true), ("//", true), ("/a", false)] {
            assert_eq!(is_root(path), wanted, "{path:?}");
        }
    }
}
