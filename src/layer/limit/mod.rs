//! What may not pass is stopped here, before any work is done for it: callers beyond their limits, API keys that
//! nobody listed, bodies that are too long.

mod caller;
pub mod told;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use tower::Service;

use super::Routed;
use super::either::Either;
use crate::body::Body;
use crate::error::BoxError;
use crate::fields::rate_limit;
use crate::limit::tier::{CONCURRENCY, Tier};
use crate::limit::{Ask, Limiter, Verdict, Which};
use crate::policy::limits::LimitPolicy;
use caller::{Caller, Rejected};
use told::Told;

/// Nobody knows when a request in flight ends.
const IN_FLIGHT_WAIT: Duration = Duration::from_secs(1);

/// A request that was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// A body that says it is longer than this many bytes.
    TooLarge(u64),
    /// Its caller is beyond a limit.
    Exceeded {
        /// The limits.
        names: Vec<String>,
        /// Whose they are.
        tier: String,
        /// Where better ones can be had.
        upgrade: Option<String>,
        /// After so many seconds it conforms.
        retry_after: u64,
    },
    /// Its API key is not listed.
    Rejected,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::TooLarge(most) => write!(f, "the request body exceeds {most} bytes"),
            LimitError::Exceeded { names, tier, .. } => {
                write!(f, "beyond {} of tier {tier:?}", names.join(", "))
            }
            LimitError::Rejected => f.write_str("the API key is not known"),
        }
    }
}

impl std::error::Error for LimitError {}

/// See the head of the file.
#[derive(Clone)]
pub struct Limit<S> {
    inner: S,
    limiter: Arc<Limiter>,
}

impl<S> Limit<S> {
    /// Around `inner`.
    pub fn new(inner: S, limiter: Arc<Limiter>) -> Limit<S> {
        Limit { inner, limiter }
    }
}

impl<S> Service<Box<Routed>> for Limit<S>
where
    S: Service<Box<Routed>, Response = Response<Body>, Error = BoxError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Either<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut routed: Box<Routed>) -> Self::Future {
        let policy = &routed.record.snapshot.policy;
        let limits = &routed.route.limits;
        if ((policy.limits.enabled && !limits.exempt) || limits.concurrency.is_some())
            && let Err(error) = limit(&self.limiter, &routed, &policy.limits)
        {
            return Either::error(error);
        }
        let most = routed.route.max_body_size.unwrap_or(policy.server.max_body_size);
        if most < u64::MAX {
            let body = routed.request.body_mut();
            if http_body::Body::size_hint(body).exact().is_some_and(|length| length > most) {
                return Either::error(LimitError::TooLarge(most));
            }
            // A body of unknown length is counted as it passes.
            body.set_limit(most);
        }
        Either::Below(self.inner.call(routed))
    }
}

/// Decides, counts, and notes what the answer is to say.
fn limit(limiter: &Arc<Limiter>, routed: &Routed, policy: &LimitPolicy) -> Result<(), LimitError> {
    let record = &routed.record;
    let limits = &routed.route.limits;
    let Caller { key, tier } = Caller::of(routed, policy).map_err(|Rejected| {
        limiter.counters.rejected.add(1);
        LimitError::Rejected
    })?;
    record.set_rank(tier.rank);
    let ask = Ask {
        key,
        tier,
        named: (policy.enabled && !limits.exempt).then_some(&limits.named),
        cost: limits.cost,
        concurrency: limits.concurrency,
    };
    let mut verdict = limiter.ask(&ask, record.started);
    count(routed, &ask, &verdict);
    record.limited(Told::of(&verdict, tier, &routed.route), verdict.permit.take());
    if verdict.conforms() || tier.shadow {
        return Ok(());
    }
    Err(exceeded(&verdict, tier))
}

fn exceeded(verdict: &Verdict, tier: &Tier) -> LimitError {
    let name = |which: &Which| match which {
        Which::Quota(at) => tier.limits.get(*at).map_or(String::new(), |limit| limit.name.clone()),
        Which::Concurrency => CONCURRENCY.to_owned(),
    };
    let wait = verdict.closest.and_then(|standing| standing.wait).unwrap_or(IN_FLIGHT_WAIT);
    LimitError::Exceeded {
        names: verdict.violated.iter().map(name).collect(),
        tier: tier.name.clone(),
        upgrade: tier.upgrade.clone(),
        retry_after: rate_limit::seconds(wait).max(1),
    }
}

/// By tier and limit.
fn count(routed: &Routed, ask: &Ask<'_>, verdict: &Verdict) {
    let snapshot = &routed.record.snapshot;
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
