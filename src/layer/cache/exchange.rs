//! A request on its way to the upstream, with its purpose for the cache and the decisions about its response.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, Response, StatusCode};
use tokio::time::Sleep;

use super::classify::Lookup;
use super::error::{CacheError, CacheResult};
use super::invalidate::InvalidationGuard;
use super::stale_if_error::{in_place_of_error, in_place_of_waiting};
use super::unattended::unattended;
use super::watched_body::Watched;
use super::{invalidation_keys, stored_response, webdav};
use crate::cache::Cache;
use crate::cache::collapse::{FetchOutcome, Leader, Line};
use crate::cache::counters::Event;
use crate::cache::hit_for_miss;
use crate::cache::invalidation::FetchEpoch;
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::cache::invalidation::outbox::Outbox;
use crate::cache::rules::eligibility::FwdReason;
use crate::cache::rules::freshen::{Validation, validation};
use crate::cache::rules::stored_fields;
use crate::cache::selection::Candidate;
use crate::fields::cache_status::Member;
use crate::fields::host;
use crate::fleet::own_writes::OwnWrites;
use crate::layer::record::RequestRecord;
use crate::layer::routed::Routed;
use crate::memory::buffers::{BufferReservation, ClientSlot};
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock::{self, Instant};
use crate::upstream::{ForwardError, Queued};

/// The invalidation keys of a response, and its tags.
pub(super) type Known = (Vec<InvalidationKey>, Vec<Box<str>>);

/// A fetch whose response may be stored.
pub(crate) struct Fetching {
    pub read: Box<Lookup>,
    /// The stored response for it.
    pub candidate: Option<Candidate>,
    /// Whether the request revalidates that response.
    pub asks: bool,
    pub leader: Option<Leader>,
    /// The invalidation keys and tags of the response, if they are computed already.
    pub known: Option<Known>,
    /// The paths that can invalidate the response; watched for as long as the fetch lasts.
    pub _watched: WatchedPaths,
    /// The start of the fetch, by the invalidation clock.
    pub begun: FetchEpoch,
    /// The start of the fetch, by the monotonic clock.
    pub requested: Instant,
    /// The fields of the request to the upstream; `None` if its response was not expected to be stored.
    pub headers: Option<HeaderMap>,
    /// Fetches the same request without the parameters that do not count, for a request that has some.
    pub fill: Option<Box<dyn FnOnce()>>,
}

impl Fetching {
    /// Returns whether there is a stored response that may be served in place of the one that is fetched.
    fn has_stale(&self) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| !candidate.gone)
    }
}

/// The purpose of a request to the upstream.
pub(crate) enum Purpose {
    /// Its response is not stored.
    Pass(FwdReason),
    /// Recent responses under this key were not stored. If this one could be, the next one is.
    Known(FwdReason, Vec<u8>, hit_for_miss::RequesterClass),
    Fetch(FwdReason, Box<Fetching>),
    Write(Box<InvalidationGuard>),
}

/// The fate of a request whose client disconnected.
pub(crate) enum WithoutClient {
    Ends,
    /// It continues unless the limit of such reads is reached; see [`super::unattended`].
    Reads,
    /// It continues for at most this long, and is never refused.
    Writes(Duration),
}

/// A request on its way to the upstream; see the head of the file.
pub(crate) struct CacheExchange {
    pub(super) cache: Arc<Cache>,
    pub(super) record: Rc<RequestRecord>,
    target: Option<PathAndQuery>,
    /// The requested authority; only for writes.
    host: String,
    errand: Option<Purpose>,
    /// Whether the waiting requests know that this one is queued.
    in_line: bool,
    /// When a stale response may be served instead; `None` without one.
    stale_due: Option<Pin<Box<Sleep>>>,
    /// The record of the request that the upstream works on, of which `record` is another once its client is served.
    sent: Option<Rc<RequestRecord>>,
    /// Invalidation rules that match a read.
    rules: Option<Box<InvalidationGuard>>,
    /// Gives the client a token of what it wrote.
    own_writes: Option<Arc<OwnWrites>>,
    /// Whether the client connected with https.
    https: bool,
}

impl CacheExchange {
    /// Creates the exchange of a request that is about to be sent.
    pub(crate) fn new(cache: Arc<Cache>, routed: &Routed, errand: Purpose) -> CacheExchange {
        let host = match &errand {
            Purpose::Write(_) => host::text(routed.request.headers()),
            Purpose::Pass(_) | Purpose::Known(..) | Purpose::Fetch(..) => "",
        };
        let rules = match &errand {
            Purpose::Write(_) => None,
            Purpose::Pass(_) | Purpose::Known(..) | Purpose::Fetch(..) => {
                InvalidationGuard::of_read(routed, &cache)
            }
        };
        let stale_due = match (&errand, routed.route.cache.route_settings.serve_stale_after) {
            // A background request has no client that waits.
            (Purpose::Fetch(_, fetching), Some(after))
                if fetching.has_stale() && !routed.record.timeline.is_done() =>
            {
                let waited = clock::now().saturating_duration_since(routed.record.info.started);
                Some(Box::pin(tokio::time::sleep(after.saturating_sub(waited))))
            }
            _ => None,
        };
        CacheExchange {
            stale_due,
            sent: None,
            cache,
            host: host.to_owned(),
            record: routed.record.clone(),
            target: routed.request.uri().path_and_query().cloned(),
            rules,
            in_line: false,
            errand: Some(errand),
            own_writes: None,
            https: routed.https,
        }
    }

    /// Gives the client of a write a token of it, where there are other processes that need one.
    pub(super) fn giving_tokens(self, own_writes: Option<&Arc<OwnWrites>>) -> CacheExchange {
        CacheExchange { own_writes: own_writes.cloned(), ..self }
    }

    /// Returns what happens to the request after its client disconnected.
    pub(crate) fn without_its_client(&self) -> WithoutClient {
        match &self.errand {
            // It continues if others wait, or if the response is likely to be stored; otherwise clients that disconnect
            // would cause upstream work that serves no client.
            Some(Purpose::Fetch(_, fetching)) => {
                let goes_on = fetching.leader.as_ref().is_some_and(|leader| {
                    let route_settings = &self.record.route_policy().cache.route_settings;
                    let stored = route_settings.ttl.is_some() || fetching.candidate.is_some();
                    stored || leader.fetch.is_waited_for()
                });
                if goes_on { WithoutClient::Reads } else { WithoutClient::Ends }
            }
            // A write has effect when the upstream says so, not when its client disconnects.
            Some(Purpose::Write(guard)) => guard.waits().map_or(WithoutClient::Ends, WithoutClient::Writes),
            Some(Purpose::Pass(_) | Purpose::Known(..)) | None => WithoutClient::Ends,
        }
    }

    /// Returns where the invalidations of this request are published, if it may have some and there are other processes.
    pub(super) fn published_to(&self) -> Option<Arc<Outbox>> {
        let outbox = self.cache.outbox()?;
        let may = self.rules.is_some() || matches!(self.errand, Some(Purpose::Write(_)));
        may.then(|| outbox.clone())
    }

    /// Returns what gives the client a token of what it wrote.
    pub(super) fn tokens(&self) -> Option<Tokens> {
        let own_writes = self.own_writes.clone()?;
        let before = own_writes.outbox().last();
        Some(Tokens { own_writes, record: self.record.clone(), https: self.https, before })
    }

    /// Tells the waiting requests whether this one is queued for the upstream.
    pub(crate) fn tell_of_line(&mut self) {
        let line = self.sent.as_ref().unwrap_or(&self.record).upstream.progress.line.borrow();
        if line.is_some() == self.in_line {
            return;
        }
        self.in_line = line.is_some();
        if let Some(Purpose::Fetch(_, fetching)) = &self.errand
            && let Some(leader) = &fetching.leader
        {
            let line = line.as_ref().map(|line| Box::new(line.clone()) as Box<dyn Line>);
            leader.fetch.set_line(line);
        }
    }

    /// Ends the client's request for the log and the counters.
    pub(crate) fn client_is_gone(&self) {
        self.record.client_left();
    }

    /// Returns a stale response once the upstream has not responded in time, and a place for the fetch, which goes on.
    /// Validity and age are judged at that moment.
    pub(super) fn poll_stale(&mut self, cx: &mut Context<'_>) -> Option<(Response<Body>, BufferReservation)> {
        let due = self.stale_due.as_mut()?;
        let Poll::Ready(()) = due.as_mut().poll(cx) else { return None };
        self.stale_due = None;
        let Some(Purpose::Fetch(_, fetching)) = &self.errand else { return None };
        let place = unattended(&self.cache, &self.record)?;
        let stale =
            in_place_of_waiting(&self.cache, &self.record, &fetching.read, fetching.candidate.as_ref())?;
        Some((stale, place))
    }

    /// Separates the exchange from its client, which got another response.
    pub(super) fn client_is_served(&mut self) {
        let background = Rc::new(self.record.for_background(clock::now()));
        self.sent = Some(std::mem::replace(&mut self.record, background));
    }

    /// See the head of the file.
    #[allow(clippy::boxed_local, reason = "it is in its box from the beginning: nothing moves it")]
    pub(crate) fn on_response(mut self: Box<Self>, result: CacheResult) -> CacheResult {
        // Without a response, dropping the guard stamps.
        if let (Some(mut rules), Ok(response)) = (self.rules.take(), &result) {
            rules.heed(self.asked(), response);
        }
        match self.errand.take() {
            None => result,
            Some(Purpose::Pass(why)) => result.map(|response| self.passed(response, why, None)),
            Some(Purpose::Known(why, key, traits)) => {
                result.map(|response| self.known(why, key, traits, response))
            }
            Some(Purpose::Write(guard)) => self.written(guard, result),
            Some(Purpose::Fetch(why, fetching)) => self.fetched(why, *fetching, result),
        }
    }

    /// Stamps by the response, and watches for its end.
    fn written(&self, mut guard: Box<InvalidationGuard>, result: CacheResult) -> CacheResult {
        // Without a response, dropping the guard stamps.
        let response = result?;
        if !guard.judge(self.asked(), &response) {
            return Ok(self.passed(response, FwdReason::Method, None));
        }
        let response = self.passed(response, FwdReason::Method, None);
        let (parts, body) = response.into_parts();
        if body.content().is_some() || body.is_tunnel() {
            return Ok(Response::from_parts(parts, body));
        }
        let endless = body.is_endless();
        let mut body = Body::streaming(Watched { body, guard: Some(guard) });
        if endless {
            body.set_endless();
        }
        Ok(Response::from_parts(parts, body))
    }

    /// Passes a response on that is not stored.
    // Inlined because most responses come here, and a call would move each of them twice more.
    #[inline]
    pub(super) fn passed(
        &self,
        mut response: Response<Body>,
        why: FwdReason,
        detail: Option<&'static str>,
    ) -> Response<Body> {
        let status = response.status().as_u16();
        if why == FwdReason::Method {
            webdav::heed(&self.cache, &self.record, &response);
        }
        let headers = response.headers_mut();
        stored_fields::strip(headers);
        let member = Member {
            forwarded: Some(why.as_str()),
            forwarded_status: Some(status),
            detail,
            ..Member::default()
        };
        stored_response::say(&self.record, headers, member);
        response
    }

    fn fetched(&self, why: FwdReason, mut fetching: Fetching, result: CacheResult) -> CacheResult {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                let error = Arc::new(error);
                if fetching.candidate.is_some() {
                    self.record.cache_counters().count(Event::Failed);
                }
                let instead = self.instead(&fetching, None);
                if let Some(leader) = fetching.leader.take() {
                    // An error caused by this request's bytes or by its client's share of places concerns no other
                    // request.
                    leader.tell(match is_everybodys(&error) {
                        true => FetchOutcome::Failed(error.clone()),
                        false => FetchOutcome::NotShared,
                    });
                }
                return match instead {
                    Some(response) => {
                        tracing::debug!(%error, "a stale response was sent in place of an error");
                        Ok(response)
                    }
                    None => Err(CacheError::Shared(error).into()),
                };
            }
        };
        let status = response.status();
        let validation = validation(status, fetching.candidate.is_some(), fetching.asks);
        if validation == Validation::Failed {
            self.record.cache_counters().count(Event::Failed);
            if let Some(instead) = self.instead(&fetching, Some(status)) {
                if let Some(leader) = fetching.leader.take() {
                    leader.tell(FetchOutcome::Unwell(status));
                }
                return Ok(instead);
            }
        }
        if validation == Validation::Confirmed
            && let Some(candidate) = fetching.candidate.take()
        {
            return Ok(self.freshen_from_304(why, fetching, &candidate, response));
        }
        if fetching.read.uncounted {
            return Ok(self.as_it_came(why, fetching, response));
        }
        if fetching.read.head {
            return Ok(self.freshen_from_head(why, fetching, response));
        }
        if fetching.candidate.is_some() && fetching.asks {
            self.record.cache_counters().count(Event::Changed);
        }
        Ok(self.store_or_not(why, fetching, response))
    }

    /// Returns the path sent to the upstream.
    fn path(&self) -> &str {
        self.target.as_ref().map_or("/", PathAndQuery::path)
    }

    /// The host and the path that were asked, as a write's response is judged by them.
    fn asked(&self) -> (&str, &str) {
        (&self.host, self.path())
    }

    fn instead(&self, fetching: &Fetching, status: Option<StatusCode>) -> Option<Response<Body>> {
        in_place_of_error(&self.cache, &self.record, &fetching.read, fetching.candidate.as_ref(), status)
    }

    /// Returns the invalidation keys and tags of the response, as far as the request decides them.
    pub(super) fn invalidation_keys(&self, fetching: &mut Fetching) -> (Vec<InvalidationKey>, Vec<Box<str>>) {
        fetching.known.take().unwrap_or_else(|| {
            invalidation_keys::for_path(
                self.path(),
                self.record.route_policy(),
                &self.cache,
                fetching.read.principal.as_ref(),
            )
        })
    }
}

/// Gives the client of a write a token of it.
pub(super) struct Tokens {
    own_writes: Arc<OwnWrites>,
    record: Rc<RequestRecord>,
    https: bool,
    /// The last invalidation of this process before the response came.
    before: u64,
}

impl Tokens {
    /// Gives the token if something was invalidated; `published` says whether the others can know it.
    pub(super) fn give(&self, result: &mut CacheResult, published: bool) {
        if self.own_writes.outbox().last() == self.before {
            return;
        }
        let wall = self.record.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Ok(response) = result {
            self.own_writes.give(response.headers_mut(), self.https, published, wall);
        }
    }
}

impl Line for Queued {
    fn serves_first(&self, client: ClientSlot) -> bool {
        Queued::serves_first(self, client)
    }
}

/// Returns whether any other request would have failed too: the upstream cannot be reached, or is silent.
fn is_everybodys(error: &BoxError) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ForwardError::Resolve(_) | ForwardError::Connect(..) | ForwardError::TimedOut)
    )
}
