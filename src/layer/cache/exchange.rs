//! A request on its way to the app, and what is decided about its answer when that comes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Response, StatusCode};

use super::classify::Lookup;
use super::error::{CacheError, CacheResult};
use super::invalidate::InvalidationGuard;
use super::miss::Candidate;
use super::stale_if_error::in_place_of_error;
use super::watched_body::Watched;
use super::{invalidation_keys, stored_response, webdav};
use crate::cache::Cache;
use crate::cache::collapse::{FetchOutcome, Leader, Line};
use crate::cache::counters::Event;
use crate::cache::hit_for_miss;
use crate::cache::invalidation::FetchEpoch;
use crate::cache::invalidation::key::InvalidationKey;
use crate::cache::invalidation::live_paths::WatchedPaths;
use crate::cache::rules::eligibility::FwdReason;
use crate::fields::cache_status::Member;
use crate::fields::host;
use crate::layer::record::RequestRecord;
use crate::layer::routed::Routed;
use crate::memory::buffers::ClientSlot;
use crate::message::body::Body;
use crate::message::error::BoxError;
use crate::runtime::clock::Instant;
use crate::upstream::{ForwardError, Queued};

/// What a response can be invalidated by, and its tags.
pub(super) type Known = (Vec<InvalidationKey>, Vec<Box<str>>);

/// A fetch of what may be stored.
pub(crate) struct Fetching {
    pub read: Box<Lookup>,
    /// What is stored for it.
    pub candidate: Option<Candidate>,
    /// Whether the app is asked about that.
    pub asks: bool,
    pub leader: Option<Leader>,
    /// What the answer can be invalidated by, and its tags, where that was asked already.
    pub known: Option<Known>,
    /// The paths that it can be invalidated by.
    pub _watched: WatchedPaths,
    /// When it began, by the invalidation clock.
    pub begun: FetchEpoch,
    /// And by the clock on the wall.
    pub requested: Instant,
    /// What the app was asked; `None` where the answer was not expected to be stored.
    pub headers: Option<HeaderMap>,
    /// For a request with parameters that do not count: fetches the same without them.
    pub fill: Option<Box<dyn FnOnce()>>,
}

/// Why a request is on its way.
pub(crate) enum Purpose {
    /// Nothing of it is stored.
    Pass(FwdReason),
    /// Nothing that came under this key was, lately; if this may be, the next one is.
    Known(FwdReason, Vec<u8>, hit_for_miss::RequesterClass),
    Fetch(FwdReason, Box<Fetching>),
    Write(Box<InvalidationGuard>),
}

/// What becomes of a request whose client has left.
pub(crate) enum WithoutClient {
    Ends,
    /// It goes on unless as many reads do so already as may; see [`unattended`].
    Reads,
    /// It goes on, for as long as this, and keeps its place.
    Writes(Duration),
}

/// See the head of the file.
pub(crate) struct CacheExchange {
    pub(super) cache: Arc<Cache>,
    pub(super) record: Rc<RequestRecord>,
    target: Option<PathAndQuery>,
    /// The authority that was asked; only for writes.
    host: String,
    errand: Option<Purpose>,
    /// Whether those who wait were told that it waits in line itself.
    in_line: bool,
    /// Rules that take a read.
    rules: Option<Box<InvalidationGuard>>,
}

impl CacheExchange {
    /// Of a request about to be sent.
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
        CacheExchange {
            cache,
            host: host.to_owned(),
            record: routed.record.clone(),
            target: routed.request.uri().path_and_query().cloned(),
            rules,
            in_line: false,
            errand: Some(errand),
        }
    }

    /// What becomes of it when its client has left.
    pub(crate) fn without_its_client(&self) -> WithoutClient {
        match &self.errand {
            // Where others wait, or there is reason to believe that what comes is going to be stored; else clients
            // that leave would keep the app busy with what nobody wants.
            Some(Purpose::Fetch(_, fetching)) => {
                let goes_on = fetching.leader.as_ref().is_some_and(|leader| {
                    let route_settings = &self.record.route().cache.route_settings;
                    let stored = route_settings.ttl.is_some() || fetching.candidate.is_some();
                    stored || leader.fetch.is_waited_for()
                });
                if goes_on { WithoutClient::Reads } else { WithoutClient::Ends }
            }
            // What it changes is changed when the app says so, not when its client left.
            Some(Purpose::Write(guard)) => guard.waits().map_or(WithoutClient::Ends, WithoutClient::Writes),
            Some(Purpose::Pass(_) | Purpose::Known(..)) | None => WithoutClient::Ends,
        }
    }

    /// Tells those who wait for it whether it waits in line itself.
    pub(crate) fn tell_of_line(&mut self) {
        let line = self.record.upstream.line.borrow();
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

    /// The client's request ends here, for the log and the counters.
    pub(crate) fn client_is_gone(&self) {
        self.record.client_left();
    }

    /// See the head of the file.
    #[allow(clippy::boxed_local, reason = "it is in its box from the beginning: nothing moves it")]
    pub(crate) fn on_response(mut self: Box<Self>, result: CacheResult) -> CacheResult {
        // Where there is no response, dropping the guard stamps.
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

    /// The response, or why there is none.
    fn written(&self, mut guard: Box<InvalidationGuard>, result: CacheResult) -> CacheResult {
        // Where there is none, dropping the guard stamps.
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

    /// An answer that is not stored.
    // Most are: as a call of its own it would move the response twice more.
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
        stored_response::strip(headers);
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
                    self.record.cached().count(Event::Failed);
                }
                let instead = self.instead(&fetching, None);
                if let Some(leader) = fetching.leader.take() {
                    // What a request's own bytes, or its client's share of the places, brought about is no one else's.
                    leader.tell(match is_everybodys(&error) {
                        true => FetchOutcome::Failed(error.clone()),
                        false => FetchOutcome::NotShared,
                    });
                }
                return match instead {
                    Some(response) => {
                        tracing::debug!(%error, "a stale answer in place of an error");
                        Ok(response)
                    }
                    None => Err(CacheError::Shared(error).into()),
                };
            }
        };
        let status = response.status();
        if fetching.candidate.is_some() && status.is_server_error() {
            self.record.cached().count(Event::Failed);
            if let Some(instead) = self.instead(&fetching, Some(status)) {
                if let Some(leader) = fetching.leader.take() {
                    leader.tell(FetchOutcome::Unwell(status));
                }
                return Ok(instead);
            }
        }
        if status == StatusCode::NOT_MODIFIED
            && fetching.asks
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
            self.record.cached().count(Event::Changed);
        }
        Ok(self.store_or_not(why, fetching, response))
    }

    /// The path that was asked for.
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

    /// What the answer can be invalidated by.
    pub(super) fn invalidation_keys(&self, fetching: &mut Fetching) -> (Vec<InvalidationKey>, Vec<Box<str>>) {
        fetching.known.take().unwrap_or_else(|| {
            invalidation_keys::for_path(
                self.path(),
                self.record.route(),
                &self.cache,
                fetching.read.principal.as_ref(),
            )
        })
    }
}

impl Line for Queued {
    fn serves_first(&self, client: ClientSlot) -> bool {
        Queued::serves_first(self, client)
    }
}

/// Whether any other request would have failed too: the upstream cannot be reached, or says nothing at all.
fn is_everybodys(error: &BoxError) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ForwardError::Resolve(_) | ForwardError::Connect(..) | ForwardError::TimedOut)
    )
}
