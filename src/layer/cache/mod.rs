//! The cache layer: serves stored responses and stores new ones, around the engine in `crate::cache`.
//!
//! - A request: `classify` decides how the cache treats it, `lookup` finds its stored response, `exchange` accompanies
//!   it to the upstream, `fleet` looks for a response that another process stored, `collapsed` waits for another request's fetch, `uncounted` handles parameters outside the
//!   cache key.
//! - A response: `on_response` stores it, `pump` moves its content, `freshen` updates stored ones, `stored_response`
//!   builds it.
//! - Invalidation: `invalidate` by writes, `webdav` of trees, `purge` of a URL, `sessions` by cookies. `compare` checks
//!   whether a shared route is really shared.

mod aliases;
pub(super) mod classify;
mod collapsed;
mod compare;
pub(super) mod error;
mod exchange;
mod fleet;
mod freshen;
mod future;
mod invalidate;
pub(super) mod invalidation_keys;
mod lookup;
mod miss;
mod on_response;
mod pump;
pub(super) mod purge;
mod requested_origin;
pub(super) mod service;
pub(super) mod sessions;
mod stale_if_error;
mod stored_response;
#[cfg(test)]
mod tests;
pub(super) mod unattended;
mod uncounted;
mod watched_body;
pub(super) mod webdav;

use std::task::{Context, Poll};

use http::Response;
use tower::Service;

use super::routed::Routed;
use crate::cache::counters::TARGET;
use crate::cache::rules::eligibility::{BypassReason, FwdReason};
use crate::cache::rules::not_stored::{self, Unkept};
use crate::cache::rules::storability::NotStorable;
use crate::layer::record::CacheHandling;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::policy::cache::is_safe;
use classify::RequestClass;
use future::CacheFuture;
pub(super) use invalidate::GROUP_INVALIDATION;
use service::CacheLayer;

impl<S> Service<Box<Routed>> for CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = CacheFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut routed: Box<Routed>) -> Self::Future {
        if !routed.record.info.snapshot.policy.cache.enabled {
            return CacheFuture::Below(Some(self.inner.call(routed)), None);
        }
        // A request with an unsafe method invalidates, even as an upgrade or as gRPC.
        if !is_safe(routed.request.method()) && (routed.upgrade.is_some() || routed.record.info.grpc) {
            return self.write(routed);
        }
        // An upgrade has no response to store, and gRPC ends in trailers.
        if routed.upgrade.is_some() || routed.record.info.grpc {
            return CacheFuture::Below(Some(self.inner.call(routed)), None);
        }
        match RequestClass::classify(&routed, &self.cache) {
            RequestClass::Write if purge::is_for_us(&routed.request, &routed.record, &routed.peer) => {
                CacheFuture::Working(Box::pin(purge::purge(self.cache.clone(), routed)))
            }
            RequestClass::Write => self.write(routed),
            RequestClass::Pass(reason) => {
                if reason == BypassReason::Nobody {
                    warn_of_nobody(&routed);
                }
                self.pass(routed, reason)
            }
            RequestClass::Content => {
                let layer = self.clone();
                CacheFuture::Working(Box::pin(layer.with_content(routed)))
            }
            RequestClass::Read(read) => {
                if let Some(token) = self.token(&routed) {
                    let layer = self.clone();
                    return CacheFuture::Working(Box::pin(layer.after_own_write(routed, read, token)));
                }
                self.read(&mut routed, read).unwrap_or_else(|miss| self.go(routed, miss))
            }
        }
    }
}

/// Logs once for a route which cookies and fields its requests carry, if many of them name no user.
#[cold]
fn warn_of_nobody(routed: &Routed) {
    if let Some((cookies, fields)) = routed.record.cache_counters().nameless.note(routed.request.headers()) {
        let route = routed.route.label.as_str();
        tracing::warn!(
            route,
            cookies,
            fields,
            "100 requests of a route with scope = \"user\" named no user, so nothing was stored for them; list the \
            cookie or field that tells users apart in identity.principal"
        );
    }
}

/// Returns all words for why a response was not stored or the cache was not used.
pub(crate) fn not_stored_words() -> Vec<&'static str> {
    let refusals = NotStorable::ALL.map(NotStorable::as_str).into_iter();
    let unkept = Unkept::ALL.map(Unkept::as_str).into_iter();
    let passed = BypassReason::ALL.map(BypassReason::as_str).into_iter();
    refusals.chain(unkept).chain(passed).chain([uncounted::UNCOUNTED]).collect()
}

/// Returns a sentence about why a response was not stored or the cache was not used, by the word for it.
pub(crate) fn not_stored_sentence(word: &str) -> Option<&'static str> {
    let passed = BypassReason::ALL.into_iter().find(|reason| reason.as_str() == word);
    let uncounted = (word == uncounted::UNCOUNTED).then_some(
        "the request has parameters that are not part of the cache key, and the upstream got them",
    );
    not_stored::sentence(word).or(passed.map(BypassReason::sentence)).or(uncounted)
}

/// Returns all words that the cache shows users, by where they appear.
pub(super) fn words() -> Vec<(&'static str, Vec<&'static str>)> {
    let not_stored = not_stored_words();
    let others = [
        on_response::KNOWN,
        lookup::RECEIVED,
        CacheHandling::StaleIfError.as_str(),
        CacheHandling::StaleIfSlow.as_str(),
    ];
    let detail = not_stored.iter().copied().chain(others).collect();
    let causes = vec![TARGET, webdav::LABEL, sessions::LABEL, purge::LABEL];
    vec![
        ("Cache-Status fwd", FwdReason::ALL.map(FwdReason::as_str).to_vec()),
        ("Cache-Status detail", detail),
        ("log not_stored", not_stored),
        ("log cache", CacheHandling::ALL.map(CacheHandling::as_str).to_vec()),
        ("metrics rule (beside the rules that are configured)", causes),
    ]
}
