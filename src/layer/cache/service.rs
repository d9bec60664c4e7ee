//! The service that holds the cache, and the three ways it sends a request on: for a response that may be stored, as a
//! write, or past the cache.

use std::future::Future;
use std::sync::Arc;

use http::Response;
use tower::Service;

use super::error::CacheResult;
use super::exchange::{CacheExchange, Purpose};
use super::future::CacheFuture;
use super::invalidate::InvalidationGuard;
use super::miss::Miss;
use crate::cache::Cache;
use crate::cache::collapse::CollapsedFetch;
use crate::cache::rules::eligibility::BypassReason;
use crate::fleet::copies::Copies;
use crate::fleet::own_writes::OwnWrites;
use crate::layer::record::CacheHandling;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::redis::link::Link;

/// The cache layer as a tower layer; see the head of the file.
#[derive(Clone)]
pub(crate) struct CacheLayer<S> {
    pub(super) inner: S,
    pub(super) cache: Arc<Cache>,
    pub(super) others: Others,
}

/// What the cache has of the other processes of a fleet, if it is in one.
#[derive(Clone, Default)]
pub(crate) struct Others {
    /// Their stored responses, and the link over which this worker reads them.
    pub copies: Option<(Arc<Copies>, Arc<Link>)>,
    /// What their clients read after own writes.
    pub own_writes: Option<Arc<OwnWrites>>,
}

impl<S> CacheLayer<S> {
    /// Wraps the service `inner` for one worker.
    pub(crate) fn new(inner: S, cache: Arc<Cache>, others: Others) -> CacheLayer<S> {
        CacheLayer { inner, cache, others }
    }
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Sends a request to the upstream; `errand` decides about its response.
    pub(super) fn send(&mut self, routed: Box<Routed>, errand: Purpose) -> CacheFuture<S::Future> {
        let exchange = CacheExchange::new(self.cache.clone(), &routed, errand);
        let exchange = exchange.giving_tokens(self.others.own_writes.as_ref());
        CacheFuture::Below(Some(self.inner.call(routed)), Some(Box::new(exchange)))
    }

    /// Forwards a write, with a guard that stamps by its response.
    pub(super) fn write(&mut self, routed: Box<Routed>) -> CacheFuture<S::Future> {
        let guard = InvalidationGuard::new(&routed, self.cache.clone());
        routed.record.cache.set_handling(CacheHandling::Write);
        self.send(routed, Purpose::Write(Box::new(guard)))
    }

    /// Forwards a request that bypasses the cache.
    pub(super) fn pass(&mut self, routed: Box<Routed>, why: BypassReason) -> CacheFuture<S::Future> {
        routed.record.cache_counters().count(crate::cache::counters::Event::Bypass);
        routed.record.cache.set_handling(CacheHandling::Bypass);
        routed.record.cache.set_not_stored(why.as_str());
        self.send(routed, Purpose::Pass(why.forwarded()))
    }
}

/// The way in which a request was started.
pub(super) enum Start<F>
where
    F: Future<Output = CacheResult> + Unpin + 'static,
{
    Sent(CacheFuture<F>),
    /// It waits for the fetch of another request.
    Follow(Box<(Box<Routed>, Miss, Arc<CollapsedFetch>)>),
}
