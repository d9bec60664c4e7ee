//! Requests that change something: what they invalidate, and when.
//!
//! A guard is armed when the request is sent. It stamps when the app answers without an error, before its response
//! is passed on, and once more when that has ended. Where no response comes, how much of the request left decides: a
//! stranger can send anything and cut it off, and must not purge what is stored for others.

use std::borrow::Cow;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use tower::Service;

use super::purge::is_purge;
use super::webdav::{self, Tree};
use super::{CacheFuture, CacheLayer, CacheResult, outlive, settings};
use crate::cache::Cache;
use crate::cache::counters::TARGET;
use crate::cache::invalidation::Mode;
use crate::cache::invalidation::delayed::{Client, Repeat};
use crate::cache::invalidation::key::InvalidationKey;
use crate::fields::{forwarded, host, structured};
use crate::http1::client::Sent;
use crate::layer::routed::Routed;
use crate::layer::cache::classify::{BypassReason, FwdReason};
use crate::layer::cache::exchange::{CacheExchange, Purpose};
use crate::layer::cache::stored_response;
use crate::layer::record::{ByCache, RequestRecord};
use crate::message::body::{Body, BodyError};
use crate::message::error::BoxError;
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
    cache: Arc<Cache>,
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

/// How far the invalidation of a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Nothing,
    Target,
    /// The target, and rules as they say of a redirect; whether it says that the write was done.
    Redirect {
        done: bool,
    },
    /// The target and all rules.
    All,
}

/// What becomes of a write, by the status of its response, or without one, and by how much of the request left: how
/// far its invalidation goes, and whether the app may still be working on it.
fn outcome(status: Option<StatusCode>, sent: Sent) -> (Extent, bool) {
    let Some(status) = status else {
        return match sent {
            Sent::Nothing => (Extent::Nothing, false),
            // RFC 9112 8: no app may act on a request that it did not receive whole; some do on its head.
            Sent::Part => (Extent::Target, true),
            Sent::Whole => (Extent::All, true),
        };
    };
    match status.as_u16() {
        101 | 200..=299 => (Extent::All, false),
        // RFC 9110 15.4: these tell that the request was done and where to go now; 307 and 308 that it is to be sent
        // there once more.
        301..=303 => (Extent::Redirect { done: true }, false),
        307 | 308 => (Extent::Redirect { done: false }, false),
        300..=399 => (Extent::Target, false),
        // A proxy behind us does not know either.
        502 | 504 => outcome(None, sent),
        _ => (Extent::Nothing, false),
    }
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Sends a request on that changes something.
    pub(super) fn write(&mut self, routed: Box<Routed>) -> CacheFuture<S::Future> {
        let guard = InvalidationGuard::new(&routed, self.cache.clone());
        routed.record.set_cache_outcome(ByCache::Write);
        self.send(routed, Purpose::Write(Box::new(guard)))
    }

    /// Sends a request on that the cache has nothing to do with.
    pub(super) fn pass(&mut self, routed: Box<Routed>, why: BypassReason) -> CacheFuture<S::Future> {
        routed.record.cached().count(crate::cache::counters::Event::Bypass);
        routed.record.set_cache_outcome(ByCache::Bypass);
        routed.record.not_stored(why.as_str());
        self.send(routed, Purpose::Pass(why.forwarded()))
    }
}

impl InvalidationGuard {
    fn new(routed: &Routed, cache: Arc<Cache>) -> InvalidationGuard {
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
    fn fire_again_later(&self) {
        let now = clock::now();
        for stamp in &self.stamps {
            self.cache.repeat(&stamp.invalidation_keys, stamp.mode, Repeat::UnknownOutcome, self.client, now);
        }
    }

    fn fire(&self, now: Instant) {
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

    /// The response, or why there is none.
    pub(crate) fn on_response(
        mut self: Box<Self>,
        exchange: &CacheExchange,
        result: CacheResult,
    ) -> CacheResult {
        // Where there is none, dropping the guard stamps.
        let response = result?;
        if !self.judge(exchange, &response) {
            return Ok(exchange.passed(response, FwdReason::Method, None));
        }
        let response = exchange.passed(response, FwdReason::Method, None);
        let (parts, body) = response.into_parts();
        if body.content().is_some() || body.is_tunnel() {
            return Ok(Response::from_parts(parts, body));
        }
        let endless = body.is_endless();
        let mut body = Body::streaming(Watched { body, guard: Some(self) });
        if endless {
            body.set_endless();
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Stamps what the response to a read says.
    pub(crate) fn heed(&mut self, exchange: &CacheExchange, response: &Response<Body>) {
        self.judge(exchange, response);
    }

    /// Stamps as far as a response says; false: not at all.
    fn judge(&mut self, exchange: &CacheExchange, response: &Response<Body>) -> bool {
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
            self.told_by(exchange, response.headers(), done);
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
    fn told_by(&mut self, exchange: &CacheExchange, response: &HeaderMap, done: bool) {
        let key_hasher = self.cache.invalidation.key_hasher;
        let host = &exchange.host;
        let mut invalidation_keys: Vec<InvalidationKey> = [header::LOCATION, header::CONTENT_LOCATION]
            .iter()
            .filter(|_| done)
            .filter_map(|name| response.get(name)?.to_str().ok())
            .filter_map(|reference| same_origin(reference, exchange.path(), host))
            .map(|path| key_hasher.path(&path))
            .collect();
        if settings(&exchange.record).groups
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

/// What redirects are judged by.
pub(super) fn asked_for(routed: &Routed, path: &str) -> AskedFor {
    let policy = &routed.record.snapshot.policy;
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
        .target
        .as_ref()
        .and_then(|target| path::normalise(target.path()).ok().map(|path| path.normal.into_owned()));
    AskedFor { hosts, paths: as_it_came.into_iter().chain([path.to_owned()]).collect() }
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

/// The response to a write: when it has ended, or nobody wants its rest, what it changed is changed.
struct Watched {
    body: Body,
    /// `None` once it has stamped.
    guard: Option<Box<InvalidationGuard>>,
}

impl Watched {
    fn ended(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.fire(clock::now());
        }
    }
}

impl Drop for Watched {
    /// The app goes on although nobody wants the rest: where a rule takes the write, its end is waited for.
    fn drop(&mut self) {
        let Some(guard) = self.guard.take() else { return };
        let body = std::mem::replace(&mut self.body, Body::empty());
        guard.fire(clock::now());
        if guard.waits().is_none() || body.is_endless() {
            guard.fire_again_later();
            return;
        }
        let place = guard.cache.unattended.write();
        outlive(async move {
            let _place = place;
            stored_response::to_its_end(body).await;
            guard.fire(clock::now());
        });
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n3_8_how_far_a_write_invalidates() {
        use Extent::{All, Nothing, Redirect, Target};
        let (part, whole) = (Sent::Part, Sent::Whole);
        for (status, sent, wanted) in [
            (None, Sent::Nothing, (Nothing, false)),
            (None, part, (Target, true)),
            (None, whole, (All, true)),
            (Some(101), whole, (All, false)),
            (Some(200), whole, (All, false)),
            (Some(207), whole, (All, false)),
            (Some(200), part, (All, false)),
            (Some(300), whole, (Target, false)),
            (Some(301), whole, (Redirect { done: true }, false)),
            (Some(302), whole, (Redirect { done: true }, false)),
            (Some(303), part, (Redirect { done: true }, false)),
            (Some(304), whole, (Target, false)),
            (Some(307), whole, (Redirect { done: false }, false)),
            (Some(308), whole, (Redirect { done: false }, false)),
            (Some(400), whole, (Nothing, false)),
            (Some(401), part, (Nothing, false)),
            (Some(413), part, (Nothing, false)),
            (Some(500), whole, (Nothing, false)),
            (Some(502), whole, (All, true)),
            (Some(502), part, (Target, true)),
            (Some(503), whole, (Nothing, false)),
            (Some(504), whole, (All, true)),
            (Some(504), part, (Target, true)),
        ] {
            let code = status.map(|code| StatusCode::from_u16(code).unwrap());
            assert_eq!(outcome(code, sent), wanted, "{status:?} {sent:?}");
        }
    }
}
