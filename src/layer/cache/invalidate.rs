//! Requests that change something: what they invalidate, and when.
//!
//! A guard is armed when the request is sent. It stamps when the app answers without an error, before its response
//! is passed on, and once more when that has ended. Where no response comes, how much of the request left decides: a
//! stranger can send anything and cut it off, and must not purge what is stored for others.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Response, StatusCode, header};

use super::extent::{Extent, outcome};
use super::purge::is_purge;
use super::redirect::asked_for;
use super::webdav::{self, Tree};
use crate::cache::Cache;
use crate::cache::counters::TARGET;
use crate::cache::invalidation::Mode;
use crate::cache::invalidation::delayed::{Client, Repeat};
use crate::cache::invalidation::key::InvalidationKey;
use crate::fields::{host, structured};
use crate::http1::client::Sent;
use crate::layer::record::RequestRecord;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::policy::cache::InvalidateRule;
use crate::policy::redirect::{AskedFor, OnRedirect, same_origin};
use crate::policy::{loose, path};
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// Groups to invalidate (RFC 9875 3).
const GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
/// The outcome of a gRPC call that failed before it said anything, among the fields of its response.
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What one rule, or the request itself, invalidates.
struct PendingInvalidation {
    /// The rule, or the cause.
    label: Cow<'static, str>,
    invalidation_keys: Vec<InvalidationKey>,
    mode: Mode,
    settle: Duration,
    /// Of a rule; `None`: redirects do not decide about it.
    on_redirect: Option<OnRedirect>,
}

/// See the head of the file.
pub(crate) struct InvalidationGuard {
    pub(super) cache: Arc<Cache>,
    record: Rc<RequestRecord>,
    /// The target's first, then those of the rules that take the request.
    stamps: Vec<PendingInvalidation>,
    /// What a write of WebDAV takes beside its target, if its response says that it was done.
    tree: Option<Tree>,
    /// To judge redirects by; only where a rule takes the request.
    asked: AskedFor,
    /// The client for which repeated stamps count.
    client: Client,
    /// How long the response is waited for when the client has left.
    timeout: Duration,
    armed: bool,
}

impl InvalidationGuard {
    pub(super) fn new(routed: &Routed, cache: Arc<Cache>) -> InvalidationGuard {
        let key_hasher = cache.invalidation.key_hasher;
        let path = path::normalise(routed.request.uri().path()).map(|path| path.normal).unwrap_or_default();
        // An app that reads it loosely changes that.
        let loosely = path::is_odd(&path).then(|| loose::reading(&path));
        let invalidation_keys =
            [&*path].into_iter().chain(loosely.as_deref()).map(|path| key_hasher.path(path)).collect();
        // RFC 9111 4.4: the target itself, whatever the rules say.
        let target = PendingInvalidation {
            label: Cow::Borrowed(TARGET),
            invalidation_keys,
            mode: Mode::Hard,
            settle: Duration::ZERO,
            on_redirect: None,
        };
        let mut stamps = vec![target];
        let tree = Tree::from_request(routed, &cache, &path);
        // What is not for us is for the app alone.
        if !is_purge(routed.request.method()) {
            stamps.extend(of_rules(routed, &cache, &path, |_| true));
            for stamp in loosely.iter().flat_map(|read| of_rules(routed, &cache, read, |_| true)) {
                // A rule that takes both readings is one rule.
                match stamps.iter_mut().find(|known| known.label == stamp.label) {
                    Some(known) => known.invalidation_keys.extend(stamp.invalidation_keys),
                    None => stamps.push(stamp),
                }
            }
        }
        let mut guard = InvalidationGuard::with_pending(routed, cache, &path, stamps);
        guard.tree = tree;
        guard
    }

    /// The rules that take a request that is no write, because they name its method; `None` where there are none.
    pub(crate) fn of_read(routed: &Routed, cache: &Arc<Cache>) -> Option<Box<InvalidationGuard>> {
        let policy = &routed.record.snapshot.policy;
        if !policy.invalidate.iter().any(|rule| rule.names_reads()) {
            return None;
        }
        let path = path::normalise(routed.request.uri().path()).map(|path| path.normal).ok()?;
        let stamps = of_rules(routed, cache, &path, InvalidateRule::names_reads);
        if stamps.is_empty() {
            return None;
        }
        Some(Box::new(InvalidationGuard::with_pending(routed, cache.clone(), &path, stamps)))
    }

    fn with_pending(
        routed: &Routed,
        cache: Arc<Cache>,
        path: &str,
        stamps: Vec<PendingInvalidation>,
    ) -> InvalidationGuard {
        let policy = &routed.record.snapshot.policy;
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
            client: policy.limits.network(routed.record.client),
            timeout: routed.route.timeout.or(of_route).or(of_upstream).unwrap_or_default(),
            armed: true,
        };
        if guard.has_rules() {
            guard.asked = asked_for(routed, path);
        }
        guard
    }

    fn has_rules(&self) -> bool {
        self.stamps.iter().any(|stamp| stamp.on_redirect.is_some())
    }

    /// How long its response is waited for when its client has left; `None`: it is given up. Where a rule takes it,
    /// only the app can say whether there is something to invalidate.
    pub(crate) fn waits(&self) -> Option<Duration> {
        let waits = self.has_rules() && self.record.upstream.how_much_left() == Sent::Whole;
        waits.then_some(self.timeout)
    }

    /// Keeps the stamps that go so far; false: none.
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

    /// No response came, or none that says what became of the request.
    fn end_without_response(&mut self) {
        self.armed = false;
        let (extent, unknown) = outcome(None, self.record.upstream.how_much_left());
        if self.limit_to(extent, false) {
            self.fire_first();
            if unknown {
                self.fire_again_later();
            }
        }
    }

    /// The outcome of the request is unknown, so the app may still be working on it.
    pub(super) fn fire_again_later(&self) {
        let now = clock::now();
        for stamp in &self.stamps {
            self.cache.repeat(&stamp.invalidation_keys, stamp.mode, Repeat::UnknownOutcome, self.client, now);
        }
    }

    pub(super) fn fire(&self, now: Instant) {
        for stamp in &self.stamps {
            self.cache.invalidation.stamp(&stamp.invalidation_keys, stamp.mode, now);
        }
    }

    /// Counted, and stamped once more where a rule wants that, once for a request.
    fn fire_first(&self) {
        let now = clock::now();
        self.fire(now);
        for stamp in &self.stamps {
            self.cache.counters.count_invalidation(&stamp.label);
            if !stamp.settle.is_zero() {
                let repeat = Repeat::Settle(stamp.settle);
                self.cache.repeat(&stamp.invalidation_keys, stamp.mode, repeat, self.client, now);
            }
        }
    }

    /// Stamps what the response to a read says.
    pub(super) fn heed(&mut self, asked: (&str, &str), response: &Response<Body>) {
        self.judge(asked, response);
    }

    /// Stamps as far as a response says; false: not at all.
    pub(super) fn judge(&mut self, asked: (&str, &str), response: &Response<Body>) -> bool {
        self.armed = false;
        let seen = Seen::scan(response.headers());
        let (extent, unknown) = match seen.grpc_status && has_failed(response.headers()) {
            true => (Extent::Nothing, false),
            false => outcome(Some(response.status()), self.record.upstream.how_much_left()),
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

    /// Adds the stamp of a tree where the response says that it was changed.
    fn take_tree(&mut self, status: StatusCode, says_dav: bool) {
        let Some(tree) = self.tree.take() else { return };
        let speaks = says_dav || webdav::is_spoken_by_upstream(&self.cache, &self.record);
        if !tree.is_done(status, speaks) {
            return;
        }
        self.stamps.push(PendingInvalidation {
            label: Cow::Borrowed(webdav::LABEL),
            invalidation_keys: tree.invalidation_keys,
            mode: Mode::Hard,
            settle: Duration::ZERO,
            on_redirect: None,
        });
    }

    /// Whether a redirect leads to a login.
    fn is_refused(&self, response: &HeaderMap) -> bool {
        let location =
            response.get(header::LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()));
        location.is_some_and(|location| self.asked.is_refused_by(&location))
    }

    /// What the response names: Location and Content-Location of the same origin (RFC 9111 4.4) where the write was
    /// done, and groups.
    fn told_by(&mut self, (host, path): (&str, &str), response: &HeaderMap, done: bool) {
        let key_hasher = self.cache.invalidation.key_hasher;
        let mut invalidation_keys: Vec<InvalidationKey> = [header::LOCATION, header::CONTENT_LOCATION]
            .iter()
            .filter(|_| done)
            .filter_map(|name| response.get(name)?.to_str().ok())
            .filter_map(|reference| same_origin(reference, path, host))
            .map(|path| key_hasher.path(&path))
            .collect();
        if self.record.cache_settings().groups
            && let Some(groups) = structured::strings(response, &GROUP_INVALIDATION)
        {
            invalidation_keys.extend(groups.iter().map(|group| key_hasher.group(host.as_bytes(), group)));
        }
        // RFC 9111 4.4, RFC 9875 3: of writes alone.
        if let Some(target) = self.stamps.first_mut().filter(|stamp| stamp.on_redirect.is_none()) {
            target.invalidation_keys.extend(invalidation_keys);
        }
    }
}

impl Drop for InvalidationGuard {
    fn drop(&mut self) {
        if self.armed {
            self.end_without_response();
        }
    }
}

/// What the rules invalidate that take a request and that `applies` lets.
fn of_rules(
    routed: &Routed,
    cache: &Cache,
    path: &str,
    applies: impl Fn(&InvalidateRule) -> bool,
) -> Vec<PendingInvalidation> {
    let (key_hasher, headers) = (cache.invalidation.key_hasher, routed.request.headers());
    let policy = &routed.record.snapshot.policy;
    let (host, method) = (host::text(headers), routed.request.method());
    let rules = policy.invalidate.iter().filter(|rule| applies(rule) && rule.takes(method, host, path));
    let mut stamps = Vec::new();
    for rule in rules {
        let tags = rule.tags.iter().map(|tag| key_hasher.tag(&tag.fill(path)));
        let paths = rule.paths.iter().map(|invalid| {
            let filled = invalid.path.fill(path);
            if invalid.prefix { key_hasher.prefix(&filled) } else { key_hasher.path(&filled) }
        });
        let mut invalidation_keys: Vec<InvalidationKey> = tags.chain(paths).collect();
        if rule.principal {
            let claims = routed.record.verified_claims(headers).as_ref().ok().and_then(Option::as_ref);
            let principal = policy.identity.principal(headers, claims);
            let credentials = principal.iter().flat_map(|principal| &principal.credentials);
            invalidation_keys = match invalidation_keys.as_slice() {
                [] => credentials.map(|hash| key_hasher.credential(hash)).collect(),
                invalidation_keys => credentials
                    .flat_map(|hash| {
                        invalidation_keys
                            .iter()
                            .map(|invalidation_key| key_hasher.of_credential(hash, *invalidation_key))
                    })
                    .collect(),
            };
            // Nothing is stored for nobody.
            if invalidation_keys.is_empty() {
                continue;
            }
        }
        stamps.push(PendingInvalidation {
            label: Cow::Owned(rule.label.clone()),
            invalidation_keys,
            mode: rule.mode,
            settle: rule.settle,
            on_redirect: Some(rule.on_redirect),
        });
    }
    stamps
}

/// Whether a gRPC call failed before it said anything: its status is 200 all the same.
fn has_failed(response: &HeaderMap) -> bool {
    response.get(&GRPC_STATUS).is_some_and(|status| status != "0")
}

/// Which of the fields that are asked for are there: the map is gone through once.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    grpc_status: bool,
    /// `DAV`: the app speaks WebDAV.
    dav: bool,
    /// One that names what else is invalidated.
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
