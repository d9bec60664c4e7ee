//! The limit layer: stops requests before any work is done for them, if their caller is over a limit, their API key is
//! not listed, or their body is too long.

pub(super) mod announcement;
pub(super) mod caller;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use smallvec::SmallVec;
use tower::Service;

use super::cache::purge;
use super::either::Either;
use super::record::LimitDecision;
use super::request_body;
use super::routed::Routed;
use crate::fields::rate_limit;
use crate::limit::cells::Key;
use crate::limit::tier::{CONCURRENCY, Tier};
use crate::limit::{Ask, Decision, Limiter, Undecided, Verdict, Which};
use crate::message::body::Body;
use crate::message::error::BoxError;
use announcement::Announcement;
use caller::Caller;

/// The reason why a request was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LimitError {
    /// The body declares more than this many bytes.
    TooLarge(u64),
    /// The caller is over a limit.
    Exceeded {
        violated: SmallVec<[Which; 2]>,
        tier: Arc<Tier>,
        /// Seconds until the request conforms; `None`: when one of the caller's requests in flight ends.
        retry_after: Option<u64>,
    },
    /// The API key is not listed.
    Rejected,
    /// Redis is away, and requests are refused then.
    Unavailable,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::TooLarge(max) => write!(f, "the request body exceeds {max} bytes"),
            LimitError::Exceeded { violated, tier, .. } => {
                write!(
                    f,
                    "the request is beyond the limit {} of tier {:?}",
                    names(violated, tier).join(", "),
                    tier.name
                )
            }
            LimitError::Rejected => f.write_str("the API key is not known"),
            LimitError::Unavailable => f.write_str("the limits cannot be counted now"),
        }
    }
}

impl std::error::Error for LimitError {}

/// The limit layer as a tower layer; see the head of the file.
#[derive(Clone)]
pub(super) struct Limit<S> {
    inner: S,
    limiter: Arc<Limiter>,
}

impl<S> Limit<S> {
    /// Puts the limits before the service `inner`.
    pub(super) fn new(inner: S, limiter: Arc<Limiter>) -> Limit<S> {
        Limit { inner, limiter }
    }
}

impl<S> Service<Box<Routed>> for Limit<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Either<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut routed: Box<Routed>) -> Self::Future {
        match limit(&self.limiter, &routed) {
            Ok(None) => {}
            Ok(Some((asked, undecided))) => {
                // The one that is ready goes with the request.
                let next = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, next);
                return Either::Later(Box::pin(later(inner, self.limiter.clone(), routed, asked, undecided)));
            }
            Err(error) => return Either::error(error),
        }
        match bound(&mut routed) {
            Ok(()) => Either::Below(self.inner.call(routed)),
            Err(error) => Either::error(error),
        }
    }
}

/// Waits for the decision about a request, and passes it on if it conforms.
async fn later<S>(
    mut inner: S,
    limiter: Arc<Limiter>,
    mut routed: Box<Routed>,
    asked: Asked<Arc<Tier>>,
    undecided: Undecided,
) -> Result<Response<Body>, BoxError>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError>,
{
    let verdict = limiter.wait(&asked.ask(&routed), undecided).await;
    conclude(&routed, &asked, verdict)?;
    bound(&mut routed)?;
    inner.call(routed).await
}

/// Bounds the length of a request body and the time that it may take.
fn bound(routed: &mut Routed) -> Result<(), LimitError> {
    let of_server = routed.record.info.snapshot.policy.server.max_body_size;
    let max = routed.route.max_body_size.unwrap_or(of_server);
    if max < u64::MAX {
        let body = routed.request.body_mut();
        if http_body::Body::size_hint(body).exact().is_some_and(|length| length > max) {
            return Err(LimitError::TooLarge(max));
        }
        // A body of unknown length is counted as it passes.
        body.set_limit(max);
    }
    if routed.request.body().is_streaming() {
        request_body::hold_to_rate(routed);
    }
    Ok(())
}

/// A caller, and which of its limits hold for a request.
struct Asked<T> {
    key: Key,
    tier: T,
    quotas: bool,
    exempt: bool,
}

impl<T: Borrow<Arc<Tier>>> Asked<T> {
    fn ask<'a>(&'a self, routed: &'a Routed) -> Ask<'a> {
        let limits = &routed.route.limits;
        Ask {
            key: self.key,
            tier: self.tier.borrow(),
            named: self.quotas.then_some(&limits.named),
            cost: limits.cost,
            concurrency: limits.concurrency,
        }
    }
}

/// A request that waits for the decision about its limits.
type Waiting = (Asked<Arc<Tier>>, Undecided);

/// Decides about a request. Returns what to wait for if it is not decided yet.
fn limit(limiter: &Arc<Limiter>, routed: &Routed) -> Result<Option<Waiting>, LimitError> {
    let record = &routed.record;
    let policy = &record.info.snapshot.policy.limits;
    let limits = &routed.route.limits;
    if !policy.enabled && limits.concurrency.is_none() {
        return Ok(None);
    }
    // A purge is not limited: it sends nothing to the upstream, and a client purges many URLs at once.
    if purge::is_for_us(&routed.request, record, &routed.peer) {
        return Ok(None);
    }
    // A request that may be read as one of another route is not exempt.
    let exempt = limits.exempt && !routed.readings_differ;
    let quotas = policy.enabled && !exempt;
    let Caller { key, tier, rejected } = Caller::identify(routed, policy);
    record.limit.set_rank(tier.rank);
    if quotas && rejected && !tier.shadow {
        limiter.counters.rejected.add(1);
        return Err(LimitError::Rejected);
    }
    let unlimited = !quotas || tier.limits_on(&limits.named).next().is_none();
    if unlimited && limits.concurrency.is_none() {
        return Ok(None);
    }
    let asked = Asked { key, tier, quotas, exempt };
    match limiter.ask(&asked.ask(routed), record.info.started) {
        Decision::Decided(verdict) => conclude(routed, &asked, verdict).map(|()| None),
        Decision::Undecided(undecided) => {
            let owned = Asked { key, tier: tier.clone(), quotas, exempt };
            Ok(Some((owned, undecided)))
        }
    }
}

/// Counts a decision, and records the response fields about the limits.
fn conclude<T: Borrow<Arc<Tier>>>(
    routed: &Routed,
    asked: &Asked<T>,
    mut verdict: Verdict,
) -> Result<(), LimitError> {
    let record = &routed.record;
    let limits = &routed.route.limits;
    let Asked { key, exempt, .. } = asked;
    let tier: &Arc<Tier> = asked.tier.borrow();
    count(routed, &asked.ask(routed), &verdict);
    let policy = &record.info.snapshot.policy;
    let is_shown = !verdict.conforms() || policy.tells_of_requests() || record.is_tailed();
    let decision =
        is_shown.then(|| LimitDecision { key: *key, tier: tier.clone(), violated: verdict.violated.clone() });
    let announcement = Announcement::new(&verdict, tier, (limits, *exempt), policy.limits.tell);
    record.limit.decided(decision, announcement, verdict.permit.take());
    if verdict.conforms() || tier.shadow {
        return Ok(());
    }
    if verdict.unavailable {
        return Err(LimitError::Unavailable);
    }
    let wait = verdict.closest.and_then(|standing| standing.wait);
    let retry_after = wait.map(|wait| rate_limit::seconds(wait).max(1));
    Err(LimitError::Exceeded { violated: verdict.violated, tier: tier.clone(), retry_after })
}

/// Returns the names of limits as clients see them.
pub(super) fn names<'a>(violated: &[Which], tier: &'a Tier) -> Vec<&'a str> {
    let name = |which: &Which| match which {
        Which::Quota(at) => tier.limits.get(*at).map_or("", |limit| limit.name.as_str()),
        Which::Concurrency => CONCURRENCY,
    };
    violated.iter().map(name).collect()
}

fn count(routed: &Routed, ask: &Ask<'_>, verdict: &Verdict) {
    let snapshot = &routed.record.info.snapshot;
    let series = |which: &Which| match which {
        Which::Quota(at) => ask.tier.limits.get(*at).map(|limit| limit.series),
        Which::Concurrency => Some(ask.tier.concurrency_series),
    };
    if verdict.conforms() {
        let quotas = ask.named.iter().flat_map(|named| ask.tier.limits_on(named));
        let in_flight = ask.concurrency.map(|_| ask.tier.concurrency_series);
        for series in quotas.map(|(_, limit)| limit.series).chain(in_flight) {
            snapshot.limited(series).allowed.add(1);
        }
        return;
    }
    for series in verdict.violated.iter().filter_map(series) {
        let counters = snapshot.limited(series);
        let counted = if ask.tier.shadow { &counters.would_limit } else { &counters.limited };
        counted.add(1);
    }
}

#[cfg(test)]
mod tests;
