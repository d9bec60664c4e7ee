//! Answers from what is stored, and stores what may be: the adapter of the cache engine.
//!
//! `asked` reads what a request asks of the cache; `lookup` finds what is stored and says what becomes of it;
//! `exchange` goes with a request to the app and decides about its answer; `arrive` stores that; `freshen` says what a 304 or
//! a response to HEAD leaves of what is stored; `uncounted` sends requests on whose parameters are not all part of the key;
//! `follow` waits for another request's answer; `write` invalidates, `webdav` trees; `response` makes
//! answers of what is stored; `purge` takes out a URL; `sessions` heeds cookies that begin and end sessions; `compare` looks whether what is shared may be.

pub(in crate::layer) mod classify;
mod collapsed;
mod compare;
mod exchange;
mod freshen;
mod invalidate;
mod lookup;
mod on_response;
mod pump;
pub(in crate::layer) mod purge;
pub(in crate::layer) mod sessions;
mod stored_response;
mod uncounted;
mod webdav;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use tower::Service;

use super::routed::Routed;
use crate::cache::Cache;
use crate::cache::counters::TARGET;
use crate::cache::rules::storability::NotStorable;
use crate::cache::variant::SelectingFields;
use crate::layer::cache::classify::RequestClass;
use crate::layer::cache::exchange::{CacheExchange, Purpose, WithoutClient};
use crate::layer::record::ByCache;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::policy::cache::is_safe;
use crate::upstream::ForwardError;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum CacheError {
    /// 504: the request takes nothing but what is stored (RFC 9111 5.2.1.7).
    OnlyIfCached,
    /// The fetch failed for which several requests waited.
    Shared(Arc<BoxError>),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::OnlyIfCached => f.write_str("nothing is stored for it, and only that was asked for"),
            CacheError::Shared(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CacheError {}

type CacheResult = Result<Response<Body>, BoxError>;
type Working = Pin<Box<dyn Future<Output = CacheResult>>>;

/// See the head of the file.
#[derive(Clone)]
pub(super) struct CacheLayer<S> {
    inner: S,
    cache: Arc<Cache>,
}

impl<S> CacheLayer<S> {
    /// Around `inner`.
    pub(super) fn new(inner: S, cache: Arc<Cache>) -> CacheLayer<S> {
        CacheLayer { inner, cache }
    }
}

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
        if !routed.record.snapshot.policy.cache.enabled {
            return CacheFuture::Below(Some(self.inner.call(routed)), None);
        }
        // Whatever it calls itself, a request that writes invalidates.
        if !is_safe(routed.request.method()) && (routed.upgrade.is_some() || routed.record.grpc) {
            return self.write(routed);
        }
        // An upgrade is no answer, and gRPC answers in trailers.
        if routed.upgrade.is_some() || routed.record.grpc {
            return CacheFuture::Below(Some(self.inner.call(routed)), None);
        }
        match RequestClass::classify(&routed, &self.cache) {
            RequestClass::Write if purge::is_for_us(&routed.request, &routed.record, &routed.peer) => {
                let layer = self.clone();
                CacheFuture::Working(Box::pin(layer.purge(routed)))
            }
            RequestClass::Write => self.write(routed),
            RequestClass::Pass(reason) => self.pass(routed, reason),
            RequestClass::Content => {
                let layer = self.clone();
                CacheFuture::Working(Box::pin(layer.with_content(routed)))
            }
            RequestClass::Read(read) => {
                self.read(&mut routed, read).unwrap_or_else(|miss| self.go(routed, miss))
            }
        }
    }
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Sends a request on; `errand` says what is to be done with its answer.
    fn send(&mut self, routed: Box<Routed>, errand: Purpose) -> CacheFuture<S::Future> {
        let exchange = CacheExchange::new(self.cache.clone(), &routed, errand);
        CacheFuture::Below(Some(self.inner.call(routed)), Some(Box::new(exchange)))
    }
}

/// The answer, from wherever it comes.
pub(super) enum CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    Ready(Option<Box<CacheResult>>),
    /// From below; what goes with it decides about it.
    Below(Option<F>, Option<Box<CacheExchange>>),
    /// After something that takes time.
    Working(Working),
}

impl<F> CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    fn ready(response: CacheResult) -> CacheFuture<F> {
        CacheFuture::Ready(Some(Box::new(response)))
    }
}

impl<F> Future for CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    type Output = CacheResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CacheResult> {
        match &mut *self {
            CacheFuture::Ready(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(*response))
            }
            CacheFuture::Below(below, exchange) => {
                let Some(future) = below else { return Poll::Pending };
                let result = ready!(poll_below(future, exchange.as_deref_mut(), cx));
                *below = None;
                Poll::Ready(match exchange.take() {
                    Some(exchange) => exchange.on_response(result),
                    None => result,
                })
            }
            CacheFuture::Working(working) => working.as_mut().poll(cx),
        }
    }
}

impl<F> Drop for CacheFuture<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    /// A fetch outlives the client that began it: others may wait for it already, and what comes can be stored. So
    /// does a write that a rule takes: whether it invalidates is for the app to say.
    fn drop(&mut self) {
        let CacheFuture::Below(below, exchange) = self else { return };
        let (Some(mut below), Some(mut exchange)) = (below.take(), exchange.take()) else { return };
        let (place, timeout) = match exchange.without_its_client() {
            WithoutClient::Ends => return,
            // Beyond the bound it ends here: those who wait for it ask again.
            WithoutClient::Reads => {
                match crate::layer::cache::exchange::unattended(&exchange.cache, &exchange.record) {
                    Some(place) => (place, None),
                    None => return,
                }
            }
            WithoutClient::Writes(timeout) => (exchange.cache.unattended.write(), Some(timeout)),
        };
        exchange.client_is_gone();
        outlive(async move {
            let _place = place;
            let below = poll_fn(|cx| poll_below(&mut below, Some(&mut exchange), cx));
            let result = match timeout {
                None => below.await,
                Some(timeout) => tokio::time::timeout(timeout, below)
                    .await
                    .unwrap_or_else(|_| Err(ForwardError::TimedOut.into())),
            };
            if let Ok(response) = exchange.on_response(result) {
                crate::layer::cache::stored_response::to_its_end(response.into_body()).await;
            }
        });
    }
}

/// What comes from below; where nothing does yet, those who wait for it are told whether it waits in line itself.
fn poll_below<F>(
    below: &mut F,
    exchange: Option<&mut CacheExchange>,
    cx: &mut Context<'_>,
) -> Poll<CacheResult>
where
    F: Future<Output = CacheResult> + Unpin,
{
    let result = Pin::new(below).poll(cx);
    if let (Poll::Pending, Some(exchange)) = (&result, exchange) {
        exchange.tell_of_line();
    }
    result
}

/// Goes on with something after its request is gone. Nothing does while the runtime is taken down.
fn outlive(future: impl Future<Output = ()> + 'static) {
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::task::spawn_local(future);
    }
}

/// What decides which stored response fits a request.
fn selecting<'a>(routed: &'a Routed, read: &'a crate::layer::cache::classify::Lookup) -> SelectingFields<'a> {
    let fields = SelectingFields::new(routed.request.headers(), &settings(&routed.record).ignore_cookies);
    SelectingFields { fragments: &read.fragments, ..fields }
}

/// What all parts of this layer read of a request's policy.
fn settings(record: &Rc<super::record::RequestRecord>) -> &crate::cache::settings::CacheSettings {
    &record.snapshot.policy.cache
}

/// The words that the cache tells users, by where they stand.
pub(super) fn words() -> Vec<(&'static str, Vec<&'static str>)> {
    let refusals = NotStorable::ALL.map(NotStorable::as_str).into_iter();
    let unkept = crate::layer::cache::on_response::Unkept::ALL
        .map(crate::layer::cache::on_response::Unkept::as_str)
        .into_iter();
    let passed = crate::layer::cache::classify::BypassReason::ALL
        .map(crate::layer::cache::classify::BypassReason::as_str)
        .into_iter();
    let not_stored: Vec<_> = refusals.chain(unkept).chain(passed).chain([uncounted::UNCOUNTED]).collect();
    let others = [crate::layer::cache::on_response::KNOWN, ByCache::StaleIfError.as_str()];
    let detail = not_stored.iter().copied().chain(others).collect();
    let causes = vec![TARGET, webdav::LABEL, sessions::LABEL, purge::LABEL];
    vec![
        (
            "Cache-Status fwd",
            crate::layer::cache::classify::FwdReason::ALL
                .map(crate::layer::cache::classify::FwdReason::as_str)
                .to_vec(),
        ),
        ("Cache-Status detail", detail),
        ("log not_stored", not_stored),
        ("log cache", ByCache::ALL.map(ByCache::as_str).to_vec()),
        ("metrics rule (beside the rules that are configured)", causes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_every_request_are_allocated_quickly() {
        let sizes =
            [size_of::<CacheExchange>(), size_of::<exchange::Fetching>(), size_of::<classify::Lookup>()];
        assert!(sizes.into_iter().all(super::super::is_quick), "{sizes:?}");
    }
}
