//! The path of one request to its response: an address, a permit, a connection, and another try if that is safe.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Response;

use super::address::Address;
use super::body::{Lease, Share};
use super::call::{Call, Progress, Streaming};
use super::connect::{self, Connected};
use super::endpoint::Endpoint;
use super::error::ForwardError;
use super::http2::Http2Connection;
use super::pinned::{self, Pinned};
use super::pool::Pool;
use super::retry::{Attempt, Tries, head_size, is_large, may_retry};
use super::state::Upstream;
use crate::http1::client::ClientConnection;
use crate::memory::buffers::OF_A_WAIT;
use crate::message::body::Body;
use crate::policy::Scheme;
use crate::runtime::clock;
use crate::runtime::clock::Instant;
use crate::upstream::admission::{Entered, Gate, class};
use crate::upstream::queue::{Permit, Place, Queued};

#[allow(
    clippy::manual_async_fn,
    reason = "an async fn holds its arguments twice: as they came, and as what it works with"
)]
impl Upstream {
    /// Sends a request and returns its response, with a body that still arrives.
    ///
    /// This future and those that it awaits are held for every request in flight, so they must be small.
    pub(crate) fn send<'a>(
        &'a self,
        pool: &'a Rc<Pool>,
        mut call: Call<'a>,
        mut now: Instant,
        progress: &'a Progress,
    ) -> impl Future<Output = Result<Response<Body>, ForwardError>> + 'a {
        async move {
            self.budget.deposit();
            let endpoints = self.endpoints_for(call.method);
            // Boxed because it is rare.
            let entered = Cell::new(match &self.gate {
                Some(gate) => Box::pin(self.enter(gate, &call, endpoints)).await?,
                None => None,
            });
            if self.gate.is_some() {
                // The wait at the gate says nothing about the upstream's latency; counted as latency, it would close
                // the gate.
                now = clock::now();
            }
            let mut tries = Tries::default();
            let mut unknown: Option<ForwardError> = None;
            loop {
                let content = call.body.content();
                let failed =
                    match self.attempt(pool, &mut call, endpoints, &tries, now, (progress, &entered)).await {
                        Ok(response) => {
                            if let Some(entered) = entered.take() {
                                entered.response_began(response.status(), progress.sent.get(), clock::now());
                            }
                            if !tries.blamed.is_empty() {
                                self.blame(&tries, progress);
                            }
                            return Ok(response);
                        }
                        Err(failed) => failed,
                    };
                let address = progress.address.borrow().clone();
                let large = failed.error.may_be_of_request()
                    && address.as_ref().is_some_and(|address| is_large(&call, address));
                let free = address.as_ref().is_some_and(|address| {
                    if !matches!(failed.error, ForwardError::Body(_)) {
                        endpoints.iter().for_each(|endpoint| endpoint.forget_missing(address.id));
                    }
                    self.note_try(&failed, address, large, &mut tries)
                });
                let spent = if free { 0 } else { progress.retries.get() };
                let again = tries.allow(&failed, large);
                let (policy, budget, counters) = (&self.policy, &self.budget, &self.counters);
                if !again || !may_retry(policy, budget, counters, &failed, &call, spent, content.is_some()) {
                    self.counters.failures[failed.error.kind_index()].add(1);
                    if !tries.blamed.is_empty() {
                        self.blame(&tries, progress);
                    }
                    // If an earlier try was sent, its error is reported, because its outcome is unknown.
                    return Err(unknown.unwrap_or(failed.error));
                }
                tries.apart |= failed.suspect;
                if !failed.nothing_sent {
                    unknown.get_or_insert(failed.error);
                }
                progress.retries.set(progress.retries.get() + u32::from(!free));
                now = clock::now();
                self.counters.retries.add(1);
                if let Some(content) = content {
                    call.body.begin_again(content);
                }
            }
        }
    }

    /// Takes a slot at the gate. Known streams bypass it. A streaming upload passes the gate like other requests, but
    /// holds no slot: its duration is not caused by the upstream.
    async fn enter(
        &self,
        gate: &Arc<Gate>,
        call: &Call<'_>,
        endpoints: &[Arc<Endpoint>],
    ) -> Result<Option<Entered>, ForwardError> {
        let is_http2 = |endpoint: &Arc<Endpoint>| {
            let resolved = endpoint.resolved.load();
            let mut addresses = resolved.addresses.iter();
            addresses.len() > 0 && addresses.all(|address| endpoint.speaks_http2(address))
        };
        match call.streaming {
            Streaming::Always => return Ok(None),
            Streaming::OverHttp2 if endpoints.iter().all(is_http2) => return Ok(None),
            Streaming::OverHttp2 | Streaming::No => {}
        }
        match gate.enter(class(call), call.rank, self.policy.queue_timeout).await {
            Some(entered) => {
                let whole = call.body.content().is_some();
                Ok(whole.then_some(entered))
            }
            None => {
                self.counters.failures[ForwardError::Shed.kind_index()].add(1);
                Err(ForwardError::Shed)
            }
        }
    }

    fn attempt<'a>(
        &'a self,
        pool: &'a Rc<Pool>,
        call: &'a mut Call<'_>,
        endpoints: &'a [Arc<Endpoint>],
        tries: &'a Tries,
        mut now: Instant,
        (progress, entered): (&'a Progress, &'a Cell<Option<Entered>>),
    ) -> impl Future<Output = Result<Response<Body>, Attempt>> + 'a {
        async move {
            let Tries { failed: tried, stale, .. } = tries;
            let own = call.pinned.and_then(|peer| pinned::take(peer, endpoints, stale, now));
            // Rare futures are boxed, so that a request on the direct path reserves no space for them.
            let (mut endpoint, mut address, own) = match own {
                Some((endpoint, address, own)) => (endpoint, address, Some(own)),
                None => match self.known(endpoints, tried, pool, now) {
                    Some((endpoint, address)) => (endpoint, address, None),
                    None => {
                        let (endpoint, address) = Box::pin(self.pick(endpoints, tried, now)).await?;
                        (endpoint, address, None)
                    }
                },
            };
            progress.address.replace(Some(address.clone()));
            let mut share = match self.share(call, endpoint, &address)? {
                Some(share) => share,
                None => {
                    let permit = Box::pin(self.permit(&address, call, progress)).await?;
                    now = clock::now();
                    Share::connection(permit)
                }
            };
            match own {
                Some(Pinned::Http1(connection)) => {
                    let lease = Lease::new(address, share);
                    return self.over_http1(pool, call, connection, lease, Some(now), progress).await;
                }
                Some(Pinned::Http2(own)) => {
                    let lease = Lease::new(address, share);
                    let sent = self.over_http2(call, endpoint, own, lease, true, (progress, entered));
                    return Box::pin(sent).await;
                }
                None => {}
            }
            let http1_only = call.upgrade.is_some()
                || call.pinned.is_some() && !matches!(endpoint.policy.scheme, Scheme::H2c);
            let fresh = tries.apart || stale.contains(&address.id);
            if !fresh && let Some(connection) = pool.take(&address, now) {
                let lease = Lease::new(address, share);
                return self.over_http1(pool, call, connection, lease, Some(now), progress).await;
            }
            if !http1_only
                && !fresh
                && call.pinned.is_none()
                && let Some(shared) = pool.shared(&address)
                && shared.may_share(address.max_head.load(Ordering::Relaxed), || head_size(call))
            {
                let lease = Lease::new(address, share);
                return Box::pin(self.over_http2(call, endpoint, shared, lease, true, (progress, entered)))
                    .await;
            }
            if call.upgrade.is_some() && matches!(endpoint.policy.scheme, Scheme::H2c) {
                return Err(Attempt::before_sending(ForwardError::CannotUpgrade));
            }
            // A new connection goes to a present address of the name.
            if endpoint.is_stale(now, !tried.is_empty()) {
                let _ = endpoint.refresh(self.policy.connect_timeout).await;
            }
            if !endpoint.resolved.load().has(address.id)
                && let Some((chosen, other)) = self.choose(endpoints, tried, None)
            {
                share = match self.share(call, chosen, &other)? {
                    Some(share) => share,
                    None => Share::connection(Box::pin(self.permit(&other, call, progress)).await?),
                };
                (endpoint, address) = (chosen, other);
                progress.address.replace(Some(address.clone()));
            }
            let mut lease = Lease::new(address.clone(), share);
            let connecting =
                connect::connect(&endpoint.policy, &address, self.policy.connect_timeout, http1_only);
            match Box::pin(connecting).await {
                Err(error) => {
                    self.counters.connect_failures.add(1);
                    Err(Attempt::before_sending(ForwardError::Connect(address.target.clone(), error)))
                }
                Ok(Connected::Http1(stream)) => {
                    self.counters.connects.add(1);
                    if address.http2.swap(false, Ordering::Relaxed) && call.streaming != Streaming::Always {
                        // The address spoke HTTP/2 before: the presumed stream is an ordinary request.
                        lease.become_request(Box::pin(self.permit(&address, call, progress)).await?);
                    }
                    let connection = Box::new(ClientConnection::new(stream));
                    self.over_http1(pool, call, connection, lease, None, progress).await
                }
                Ok(Connected::Http2(stream)) => {
                    self.counters.connects.add(1);
                    address.http2.store(true, Ordering::Relaxed);
                    let greeting = Http2Connection::new(
                        stream,
                        &address.name,
                        call.limits,
                        self.policy.keep_alive,
                        call.room.map(|room| room.memory().clone()),
                        clock::now(),
                    );
                    let connection = Rc::new(Box::pin(greeting).await.map_err(Attempt::before_sending)?);
                    // A request that may end its connection uses it alone until it has its response.
                    let large = is_large(call, &address);
                    let apart = tries.apart || large;
                    match call.pinned {
                        Some(peer) => {
                            let own = Pinned::Http2(connection.clone());
                            pinned::keep(peer, call.client, address.clone(), own);
                        }
                        None if apart => {}
                        None => pool.share(&address, connection.clone()),
                    }
                    let sent = self.over_http2(
                        call,
                        endpoint,
                        connection.clone(),
                        lease,
                        false,
                        (progress, entered),
                    );
                    let response = Box::pin(sent).await?;
                    if large {
                        address.max_head.fetch_max(head_size(call), Ordering::Relaxed);
                    }
                    if apart && call.pinned.is_none() {
                        pool.share(&address, connection);
                    }
                    Ok(response)
                }
            }
        }
    }

    /// Chooses an address without a query, if all names are known.
    fn known<'a>(
        &'a self,
        endpoints: &'a [Arc<Endpoint>],
        tried: &[u64],
        pool: &Pool,
        now: Instant,
    ) -> Option<(&'a Endpoint, Arc<Address>)> {
        if let [endpoint] = endpoints {
            let resolved = endpoint.resolved.load();
            if let Some(only) = resolved.only() {
                endpoint.refresh_behind(&resolved, self.policy.connect_timeout, now);
                return Some((endpoint, only.clone()));
            }
        }
        for endpoint in endpoints {
            let resolved = endpoint.resolved.load();
            if !resolved.addresses.is_empty() {
                endpoint.refresh_behind(&resolved, self.policy.connect_timeout, now);
            } else if endpoint.is_stale(now, true) {
                return None;
            }
        }
        self.choose(endpoints, tried, Some((pool, now)))
    }

    /// Chooses an address, after queries for names that are not known.
    async fn pick<'a>(
        &'a self,
        endpoints: &'a [Arc<Endpoint>],
        tried: &[u64],
        now: Instant,
    ) -> Result<(&'a Endpoint, Arc<Address>), Attempt> {
        let mut failure = None;
        for endpoint in endpoints {
            if endpoint.resolved.load().addresses.is_empty()
                && endpoint.is_stale(now, true)
                && let Err(error) = endpoint.refresh(self.policy.connect_timeout).await
            {
                failure = Some(error);
            }
        }
        self.choose(endpoints, tried, None).ok_or_else(|| {
            let error = failure.unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
            Attempt::before_sending(ForwardError::Resolve(error))
        })
    }

    /// Takes a permit of `address` for a stream or a connection. Returns `None` if a connection has to wait for it.
    fn share(
        &self,
        call: &Call<'_>,
        endpoint: &Endpoint,
        address: &Address,
    ) -> Result<Option<Share>, Attempt> {
        let stream = match call.streaming {
            Streaming::No => false,
            Streaming::OverHttp2 => endpoint.speaks_http2(address),
            Streaming::Always => true,
        };
        if !stream {
            return Ok(address.permits.try_acquire(call.client).map(Share::connection));
        }
        match address.streams.try_acquire(call.client) {
            Some(permit) => Ok(Some(Share::stream(permit))),
            None => Err(Attempt::before_sending(ForwardError::TooManyStreams)),
        }
    }

    /// Takes a permit of `address`, after a bounded wait in a bounded queue, oldest first.
    async fn permit(
        &self,
        address: &Arc<Address>,
        call: &Call<'_>,
        progress: &Progress,
    ) -> Result<Permit, Attempt> {
        let client = call.client;
        if let Some(permit) = address.permits.try_acquire(client) {
            return Ok(permit);
        }
        let refused = |error| {
            self.counters.queue_refused.add(1);
            Err(Attempt::before_sending(error))
        };
        let _place = match Place::take(&address.waiting, self.policy.max_waiting) {
            Some(place) => place,
            None => return refused(ForwardError::QueueFull),
        };
        self.counters.waits.add(1);
        // The queue is long if the upstream is slow, so its memory counts and less is buffered meanwhile.
        let _memory = call.room.filter(|_| !call.counted).map(|room| {
            let mut memory = room.reservation();
            memory.resize(OF_A_WAIT);
            memory
        });
        let since = clock::now();
        let acquire = address.permits.acquire(client, self.policy.max_waiting);
        progress.line.replace(Some(Queued::new(address.permits.clone(), client)));
        let waited = tokio::time::timeout(self.policy.queue_timeout, acquire).await;
        progress.line.replace(None);
        let nanoseconds = clock::nanoseconds(clock::now().saturating_duration_since(since));
        self.counters.wait_nanoseconds.add(nanoseconds);
        match waited {
            Ok(Some(permit)) => Ok(permit),
            Ok(None) => refused(ForwardError::QueueFull),
            Err(_) => refused(ForwardError::QueueTimeout(self.policy.queue_timeout)),
        }
    }
}
