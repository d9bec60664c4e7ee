//! Writes: what they invalidate, and when.
//!
//! A guard is armed when the request is sent. It stamps when the upstream responds without an error, before the
//! response is passed on, and once more when the response has ended. If no response arrives, the part of the request
//! that was sent decides: any client can cut a request off, and must not purge stored responses that way.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Response, StatusCode, header};

use super::aliases;
use super::purge::is_purge;
use super::requested_origin::asked_for;
use super::webdav::{self, Tree};
use crate::cache::Cache;
use crate::cache::counters::TARGET;
use crate::cache::invalidation::Mode;
use crate::cache::invalidation::delayed::{Client, Repeat};
use crate::cache::invalidation::extent::{Extent, outcome};
use crate::cache::invalidation::outbox::WriteId;
use crate::cache::invalidation::targets::Targets;
use crate::fields::{host, structured};
use crate::http1::client::Sent;
use crate::layer::record::RequestRecord;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::policy::cache::InvalidateRule;
use crate::policy::login_redirect::{AskedFor, OnRedirect, same_origin};
use crate::policy::{loose, path};
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// The response field with the cache groups to invalidate (RFC 9875 3).
pub(crate) const GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
/// The outcome of a gRPC call that failed before its first message, among the fields of its response.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The invalidation by one rule, or by the request itself.
struct PendingInvalidation {
    /// The rule or the cause, for metrics.
    label: Cow<'static, str>,
    targets: Targets,
    mode: Mode,
    settle: Duration,
    /// How a rule treats redirects; `None`: they do not matter.
    on_redirect: Option<OnRedirect>,
}

/// Stamps what a write invalidates; see the head of the file.
pub(crate) struct InvalidationGuard {
    pub(super) cache: Arc<Cache>,
    record: Rc<RequestRecord>,
    /// The invalidation of the target first, then those of the rules that match the request.
    stamps: Vec<PendingInvalidation>,
    /// The trees that a WebDAV write invalidates beside its target, if its response confirms the change.
    tree: Option<Tree>,
    /// The requested hosts and paths, to judge redirects by; only set if a rule matches the request.
    asked: AskedFor,
    /// The client whose limit repeated invalidations count against.
    client: Client,
    /// How long to wait for the response after the client disconnected.
    timeout: Duration,
    armed: bool,
    /// The announcement to other processes, until they know the outcome.
    announced: Option<WriteId>,
}

impl InvalidationGuard {
    pub(super) fn new(routed: &Routed, cache: Arc<Cache>) -> InvalidationGuard {
        let path = path::normalise(routed.request.uri().path()).map(|path| path.normal).unwrap_or_default();
        let mut others = aliases::paths_beside(routed, &path);
        // An upstream that reads the path leniently changes the resource of the other reading.
        let odd = [&*path].into_iter().chain(others.iter().map(String::as_str));
        let loosely: Vec<String> = odd.filter(|path| path::is_odd(path)).map(loose::reading).collect();
        others.extend(loosely);
        let all = [&*path].into_iter().chain(others.iter().map(String::as_str));
        let mut targets = cache.targets();
        all.for_each(|path| targets.path(path));
        // RFC 9111 4.4: the target is invalidated whatever the rules say.
        let target = PendingInvalidation {
            label: Cow::Borrowed(TARGET),
            targets,
            mode: Mode::Hard,
            settle: Duration::ZERO,
            on_redirect: None,
        };
        let mut stamps = vec![target];
        let tree = Tree::from_request(routed, &cache, &path, &others);
        // A PURGE that is not for Pillion is for the upstream alone, and no rule applies.
        if !is_purge(routed.request.method()) {
            stamps.extend(of_rules(routed, &cache, &path, |_| true));
            for stamp in others.iter().flat_map(|read| of_rules(routed, &cache, read, |_| true)) {
                // A rule that matches several of them counts once.
                match stamps.iter_mut().find(|known| known.label == stamp.label) {
                    Some(known) => known.targets.extend(stamp.targets),
                    None => stamps.push(stamp),
                }
            }
        }
        let mut guard = InvalidationGuard::with_pending(routed, cache, &path, stamps);
        guard.tree = tree;
        guard.announce();
        guard
    }

    /// Creates a guard for a read that rules name by its method; `None` if no rule matches.
    pub(crate) fn of_read(routed: &Routed, cache: &Arc<Cache>) -> Option<Box<InvalidationGuard>> {
        let policy = &routed.record.info.snapshot.policy;
        if !policy.invalidate.iter().any(|rule| rule.names_reads()) {
            return None;
        }
        let path = path::normalise(routed.request.uri().path()).map(|path| path.normal).ok()?;
        let stamps = of_rules(routed, cache, &path, InvalidateRule::names_reads);
        if stamps.is_empty() {
            return None;
        }
        let mut guard = InvalidationGuard::with_pending(routed, cache.clone(), &path, stamps);
        guard.announce();
        Some(Box::new(guard))
    }

    fn with_pending(
        routed: &Routed,
        cache: Arc<Cache>,
        path: &str,
        stamps: Vec<PendingInvalidation>,
    ) -> InvalidationGuard {
        let policy = &routed.record.info.snapshot.policy;
        let of_route = routed.rewritten_by.as_ref().and_then(|route| route.timeout);
        let of_upstream = policy
            .upstreams
            .get(routed.route.upstream.unwrap_or(0))
            .map(|upstream| upstream.response_timeout);
        let mut guard = InvalidationGuard {
            cache,
            record: routed.record.clone(),
            stamps,
            tree: None,
            asked: AskedFor::default(),
            client: policy.limits.network(routed.record.info.client),
            timeout: routed.route.timeout.or(of_route).or(of_upstream).unwrap_or_default(),
            armed: true,
            announced: None,
        };
        if guard.has_rules() {
            guard.asked = asked_for(routed, path);
        }
        guard
    }

    /// Announces the write to other processes, which invalidate if this one dies before its outcome.
    fn announce(&mut self) {
        let Some(outbox) = self.cache.outbox() else { return };
        let trees = self.tree.iter().map(|tree| &tree.targets);
        let targets = self.stamps.iter().map(|stamp| &stamp.targets).chain(trees);
        self.announced = outbox.announce(targets.flat_map(|targets| targets.names().iter().cloned()));
    }

    /// Tells other processes that the outcome is known.
    fn settle(&mut self) {
        if let (Some(id), Some(outbox)) = (self.announced.take(), self.cache.outbox()) {
            outbox.done(id);
        }
    }

    fn has_rules(&self) -> bool {
        self.stamps.iter().any(|stamp| stamp.on_redirect.is_some())
    }

    /// Returns how long to wait for the response after the client disconnected; `None`: the request is dropped. If a
    /// rule matches, only the upstream can say whether there is something to invalidate.
    pub(crate) fn waits(&self) -> Option<Duration> {
        let waits = self.has_rules() && self.record.upstream.progress.sent_part() == Sent::Whole;
        waits.then_some(self.timeout)
    }

    /// Keeps the invalidations within an extent; returns false if none is left.
    fn limit_to(&mut self, extent: Extent, refused: bool) -> bool {
        self.stamps.retain(|stamp| match (extent, stamp.on_redirect) {
            (Extent::Nothing, _) => false,
            (_, None) | (Extent::All, _) => true,
            (Extent::Target, Some(_)) => false,
            (Extent::Redirect { done }, Some(on_redirect)) => match on_redirect {
                OnRedirect::Auto => done && !refused,
                OnRedirect::Always => true,
                OnRedirect::Never => false,
            },
        });
        !self.stamps.is_empty()
    }

    /// Ends a write without a response, or with one that does not tell its outcome.
    fn end_without_response(&mut self) {
        self.armed = false;
        let (extent, unknown) = outcome(None, self.record.upstream.progress.sent_part());
        if self.limit_to(extent, false) {
            self.fire_first();
            if unknown {
                self.fire_again_later();
            }
        }
    }

    /// Schedules repeats, because the outcome is unknown and the upstream may still be working on the request.
    pub(super) fn fire_again_later(&self) {
        let now = clock::now();
        for stamp in &self.stamps {
            self.cache.repeat(&stamp.targets, stamp.mode, Repeat::UnknownOutcome, self.client, now);
        }
    }

    pub(super) fn fire(&self, now: Instant) {
        for stamp in &self.stamps {
            self.cache.invalidate(&stamp.targets, stamp.mode, now);
        }
    }

    /// Stamps for the first time: counts the invalidation, and schedules its repeat if a rule has `settle`.
    fn fire_first(&self) {
        let now = clock::now();
        self.fire(now);
        for stamp in &self.stamps {
            self.cache.counters.count_invalidation(&stamp.label);
            if !stamp.settle.is_zero() {
                let repeat = Repeat::Settle(stamp.settle);
                self.cache.repeat(&stamp.targets, stamp.mode, repeat, self.client, now);
            }
        }
    }

    /// Stamps by the response to a read.
    pub(super) fn heed(&mut self, asked: (&str, &str), response: &Response<Body>) {
        self.judge(asked, response);
    }

    /// Stamps as far as the response allows; returns false if nothing was stamped.
    pub(super) fn judge(&mut self, asked: (&str, &str), response: &Response<Body>) -> bool {
        self.armed = false;
        let seen = Seen::scan(response.headers());
        let (extent, unknown) = match seen.grpc_status && has_failed(response.headers()) {
            true => (Extent::Nothing, false),
            false => outcome(Some(response.status()), self.record.upstream.progress.sent_part()),
        };
        let refused = matches!(extent, Extent::Redirect { .. }) && self.is_refused(response.headers());
        let done = !refused && matches!(extent, Extent::All | Extent::Redirect { done: true });
        if !self.limit_to(extent, refused) {
            return false;
        }
        self.take_tree(response.status(), seen.dav);
        if !unknown && seen.names_others {
            self.told_by(asked, response.headers(), done);
        }
        self.fire_first();
        if unknown {
            self.fire_again_later();
        }
        true
    }

    /// Adds the invalidation of trees if the response confirms their change.
    fn take_tree(&mut self, status: StatusCode, says_dav: bool) {
        let Some(tree) = self.tree.take() else { return };
        let speaks = says_dav || webdav::is_spoken_by_upstream(&self.cache, &self.record);
        if !tree.is_done(status, speaks) {
            return;
        }
        self.stamps.push(PendingInvalidation {
            label: Cow::Borrowed(webdav::LABEL),
            targets: tree.targets,
            mode: Mode::Hard,
            settle: Duration::ZERO,
            on_redirect: None,
        });
    }

    /// Returns whether a redirect leads to a login.
    fn is_refused(&self, response: &HeaderMap) -> bool {
        let location =
            response.get(header::LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()));
        location.is_some_and(|location| self.asked.is_refused_by(&location))
    }

    /// Adds the keys that the response names: Location and Content-Location of the same origin (RFC 9111 4.4) if the
    /// write is confirmed, and cache groups.
    fn told_by(&mut self, (host, path): (&str, &str), response: &HeaderMap, done: bool) {
        let mut targets = self.cache.targets();
        [header::LOCATION, header::CONTENT_LOCATION]
            .iter()
            .filter(|_| done)
            .filter_map(|name| response.get(name)?.to_str().ok())
            .filter_map(|reference| same_origin(reference, path, host))
            .for_each(|path| targets.path(&path));
        if self.record.info.cache_settings().groups
            && let Some(groups) = structured::strings(response, &GROUP_INVALIDATION)
        {
            groups.iter().for_each(|group| targets.group(host, group));
        }
        // RFC 9111 4.4, RFC 9875 3: only for writes.
        if let Some(target) = self.stamps.first_mut().filter(|stamp| stamp.on_redirect.is_none()) {
            target.targets.extend(targets);
        }
    }
}

impl Drop for InvalidationGuard {
    fn drop(&mut self) {
        if self.armed {
            self.end_without_response();
        }
        self.settle();
    }
}

/// Returns the invalidations by rules that match a request and that `applies` admits.
fn of_rules(
    routed: &Routed,
    cache: &Cache,
    path: &str,
    applies: impl Fn(&InvalidateRule) -> bool,
) -> Vec<PendingInvalidation> {
    let headers = routed.request.headers();
    let policy = &routed.record.info.snapshot.policy;
    let (host, method) = (host::text(headers), routed.request.method());
    let rules = policy.invalidate.iter().filter(|rule| applies(rule) && rule.takes(method, host, path));
    let mut stamps = Vec::new();
    for rule in rules {
        let mut targets = cache.targets();
        rule.tags.iter().for_each(|tag| targets.tag(&tag.fill(path)));
        for invalid in &rule.paths {
            let filled = invalid.path.fill(path);
            if invalid.prefix { targets.prefix(&filled) } else { targets.path(&filled) }
        }
        if rule.principal {
            let claims = routed.record.verified_claims(headers).as_ref().ok().and_then(Option::as_ref);
            let principal = policy.identity.principal(headers, claims);
            let credentials = principal.as_ref().map(|principal| &*principal.credentials).unwrap_or_default();
            if targets.is_empty() {
                credentials.iter().for_each(|hash| targets.credential(hash));
            } else {
                targets = targets.of_credentials(credentials);
            }
            // A request without credentials has no stored responses of its own.
            if targets.is_empty() {
                continue;
            }
        }
        stamps.push(PendingInvalidation {
            label: Cow::Owned(rule.label.clone()),
            targets,
            mode: rule.mode,
            settle: rule.settle,
            on_redirect: Some(rule.on_redirect),
        });
    }
    stamps
}

/// Returns whether a gRPC call failed before its first message; its status is 200 all the same.
fn has_failed(response: &HeaderMap) -> bool {
    response.get(&GRPC_STATUS).is_some_and(|status| status != "0")
}

/// The presence of the fields that matter, found in one pass over the map.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    grpc_status: bool,
    /// `DAV`: the upstream speaks WebDAV.
    dav: bool,
    /// A field that names further keys to invalidate.
    names_others: bool,
}

impl Seen {
    fn scan(headers: &HeaderMap) -> Seen {
        headers.keys().fold(Seen::default(), |seen, name| Seen {
            grpc_status: seen.grpc_status | (*name == GRPC_STATUS),
            dav: seen.dav | (*name == webdav::DAV),
            names_others: seen.names_others
                | (*name == header::LOCATION)
                | (*name == header::CONTENT_LOCATION)
                | (*name == GROUP_INVALIDATION),
        })
    }
}
