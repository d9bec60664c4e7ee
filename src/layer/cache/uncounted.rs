//! Requests with parameters outside the cache key (`utm_*`, or all but those of `key_query`). They are forwarded
//! unchanged (RFC 9110 7.7), so the response may depend on something that no key distinguishes: it is neither stored
//! nor shared. Stored responses are still used for these requests. If there is none, the same request without these
//! parameters is made in the background, and its response is stored.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, Response, Uri};
use tower::Service;

use super::classify::{Lookup, selecting, unserved};
use super::exchange::{CacheExchange, Fetching, Purpose};
use super::future::CacheFuture;
use super::miss::Miss;
use super::service::{CacheLayer, Start};
use super::unattended::{outlive, unattended};
use super::{classify, invalidation_keys};
use crate::cache::collapse;
use crate::cache::collapse::CollapsedFetch;
use crate::cache::counters::Event;
use crate::cache::key;
use crate::cache::rules::conditions::is_conditional;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::storability::RequestTraits;
use crate::cache::selection::{Candidate, is_fresh};
use crate::layer::record::CacheHandling;
use crate::layer::routed::Routed;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock;
use crate::runtime::clock::Instant;

/// The reason why such a response is not stored.
pub(super) const UNCOUNTED: &str = "uncounted-parameters";

/// Removes the parameters that are not part of the key; returns false if the rest is not a valid target.
pub(super) fn take_out(routed: &mut Routed) -> bool {
    let target = routed.request.uri();
    let Some(query) = target.query() else { return true };
    let only = routed.route.cache.route_settings.key_query.as_deref();
    let ignored = &routed.record.info.snapshot.policy.cache.ignore_query;
    let left = match key::counted_query(query, only, ignored) {
        Some(query) => PathAndQuery::try_from(format!("{}?{query}", target.path())),
        None => PathAndQuery::try_from(target.path()),
    };
    match left {
        Ok(left) => *routed.request.uri_mut() = Uri::from(left),
        Err(_) => return false,
    }
    true
}

impl<S> CacheLayer<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin + 'static,
{
    /// Sends such a request to the upstream, or lets it wait for the fetch of the same request without the parameters.
    pub(super) fn start_as_it_came(
        &mut self,
        mut routed: Box<Routed>,
        mut miss: Miss,
        now: Instant,
    ) -> Start<S::Future> {
        if routed.route.cache.route_settings.strip_query && take_out(&mut routed) {
            // The upstream does not see the parameters, so this is a request like any other.
            miss.read.uncounted = false;
            return self.start(routed, miss, now);
        }
        // The same request without the parameters may be in progress.
        let follows = unserved(&routed, &miss.read, miss.candidate.as_ref()).follows_without_parameters();
        if follows && let Some(fetch) = self.find_fetch(&routed, &miss.read, now) {
            return Start::Follow(Box::new((routed, miss, fetch)));
        }
        Start::Sent(self.send_as_it_came(routed, miss, now))
    }

    fn find_fetch(&self, routed: &Routed, read: &Lookup, now: Instant) -> Option<Arc<CollapsedFetch>> {
        let key = self.collapse_key(routed, read, now);
        self.cache.fetches.find(&key, &self.cache.invalidation, || routed.record.info.client_slot())
    }

    /// Sends the request unchanged; see the head of the file.
    pub(super) fn send_as_it_came(
        &mut self,
        routed: Box<Routed>,
        miss: Miss,
        now: Instant,
    ) -> CacheFuture<S::Future> {
        let Miss { mut read, why, candidate, .. } = miss;
        routed.record.cache.set_handling(if candidate.is_some() {
            CacheHandling::Expired
        } else {
            CacheHandling::Miss
        });
        let request = unserved(&routed, &read, candidate.as_ref());
        if !request.shows_storability(|class| self.knows(&read, class, now)) {
            classify::recycle(read.key);
            routed.record.cache.set_not_stored(UNCOUNTED);
            return self.send(routed, Purpose::Pass(why));
        }
        read.traits.conditional = is_conditional(routed.request.headers());
        let fill = self.fill_without(&routed, &read, candidate.as_ref());
        let watched = invalidation_keys::watch(&routed, &self.cache);
        let begun = self.cache.invalidation.begin(&watched, now);
        let headers = Some(routed.request.headers().clone());
        let fetching = Fetching {
            read,
            candidate,
            asks: false,
            leader: None,
            known: None,
            _watched: watched,
            begun,
            requested: now,
            headers,
            fill,
        };
        self.send(routed, Purpose::Fetch(why, Box::new(fetching)))
    }

    /// Returns a function that fetches the same request without the parameters, to call if its response can be stored.
    fn fill_without(
        &self,
        routed: &Routed,
        read: &Lookup,
        candidate: Option<&Candidate>,
    ) -> Option<Box<dyn FnOnce()>> {
        let mut without = routed.again(clock::now())?;
        if !take_out(&mut without) {
            return None;
        }
        if read.head {
            *without.request.method_mut() = Method::GET;
        }
        let read = Box::new(Lookup {
            key: read.key.clone(),
            variant_key: read.variant_key.clone(),
            directives: Default::default(),
            traits: RequestTraits { conditional: false, ..read.traits },
            principal: read.principal.clone(),
            head: false,
            uncounted: false,
            received: false,
            follows_refused: false,
            fragments: read.fragments.clone(),
        });
        let (mut layer, candidate) = (self.clone(), candidate.cloned());
        Some(Box::new(move || layer.fill(without, read, candidate)))
    }

    fn fill(&mut self, mut routed: Box<Routed>, read: Box<Lookup>, candidate: Option<Candidate>) {
        let now = clock::now();
        let (invalidation_keys, tags) =
            invalidation_keys::for_request(&routed, &self.cache, read.principal.as_ref());
        let watched = self.cache.invalidation.watch(&invalidation_keys);
        let begun = self.cache.invalidation.begin(&watched, now);
        // Background fetches are limited to one for each key, and in number to those that may continue without clients.
        let key = self.collapse_key(&routed, &read, now);
        let (fetches, invalidation) = (&self.cache.fetches, &self.cache.invalidation);
        let led =
            fetches.lead(&key, &invalidation_keys, begun, invalidation, || routed.record.info.client_slot());
        let Some(leader) = led else { return };
        // Another fetch may have stored a response meanwhile.
        let entry = self.cache.store.get(&read.key, self.cache.second(now));
        let found = entry.as_ref().and_then(|entry| entry.select(selecting(&routed, &read)));
        if found.is_some_and(|found| is_fresh(found, &read.directives, &self.cache.invalidation, now)) {
            return;
        }
        let Some(place) = unattended(&self.cache, &routed.record) else { return };
        self.cache.counters.background.add(1);
        let asks = self.conditions(&mut routed, candidate.as_ref());
        let headers = Some(routed.request.headers().clone());
        let fetching = Fetching {
            read,
            candidate,
            asks,
            leader: Some(leader),
            known: Some((invalidation_keys, tags)),
            _watched: watched,
            begun,
            requested: now,
            headers,
            fill: None,
        };
        let future = self.send(routed, Purpose::Fetch(FwdReason::UriMiss, Box::new(fetching)));
        outlive(async move {
            let _place = place;
            drop(future.await);
        });
    }
}

impl CacheExchange {
    /// Passes the response to such a request on. It also shows whether the response without the parameters can be
    /// stored.
    pub(super) fn as_it_came(
        &self,
        why: FwdReason,
        mut fetching: Fetching,
        response: Response<Body>,
    ) -> Response<Body> {
        self.record.cache_counters().count(Event::Refused);
        let fill = fetching.fill.take();
        // A response that is stale at once would be fetched each time.
        let mut fits = || {
            let head = self.fit(&mut fetching, response.status(), response.headers(), response.body());
            head.is_ok_and(|head| collapse::is_shareable(&head.freshness, Duration::ZERO, Duration::ZERO))
        };
        if let Some(fill) = fill
            && fits()
        {
            fill();
        }
        self.record.cache.set_not_stored(UNCOUNTED);
        self.passed(response, why, Some(UNCOUNTED))
    }
}
