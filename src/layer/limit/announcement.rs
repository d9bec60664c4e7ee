//! The response fields about the limits of the caller.

use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

use crate::fields::rate_limit::{self, RateLimitState};
use crate::limit::tier::{CONCURRENCY, Tier, joined};
use crate::limit::{Standing, Verdict, Which};
use crate::policy::limits::{RouteLimits, Tell};
use crate::runtime::clock;

/// The state of a caller's limits when the request arrived.
pub(crate) struct Announcement {
    tier: Arc<Tier>,
    standing: Standing,
    refused: bool,
    /// The limits of a route that differ from those of all routes.
    here: Option<Box<RouteTier>>,
}

/// The limits of one tier on one route.
struct RouteTier {
    policies: Option<HeaderValue>,
    /// The limit of requests in flight; 0 without one.
    max: u32,
}

impl Announcement {
    /// Creates the announcement of a verdict. Returns `None` if no fields are configured, or if no limit applies or is
    /// enforced: a limit that does not refuse is not announced.
    pub(crate) fn new(
        verdict: &Verdict,
        tier: &Arc<Tier>,
        (limits, exempt): (&RouteLimits, bool),
        tell: Tell,
    ) -> Option<Announcement> {
        let standing = verdict.closest.filter(|_| !tier.shadow && (tell.ratelimit || tell.legacy))?;
        let usual = !exempt && limits.named.is_empty() && limits.concurrency.is_none();
        let here = (!usual).then(|| Box::new(RouteTier::new(tier, limits, exempt)));
        Some(Announcement { tier: tier.clone(), standing, refused: !verdict.conforms(), here })
    }

    /// Inserts the fields about the limits into those of a response.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap, tell: Tell) {
        let Some(state) = self.state() else { return };
        if tell.ratelimit
            && let Some(policies) = self.policies()
        {
            rate_limit::insert_into(headers, policies, &state);
        }
        if tell.legacy {
            rate_limit::insert_legacy_into(headers, &state, clock::unix_seconds(clock::wall()) as u64);
        }
    }

    /// Writes the same fields as lines, for a response that has none of them yet.
    pub(crate) fn write(&self, out: &mut BytesMut, tell: Tell) {
        let Some(state) = self.state() else { return };
        if tell.ratelimit
            && let Some(policies) = self.policies()
        {
            rate_limit::write(out, policies, &state);
        }
        if tell.legacy {
            rate_limit::write_legacy(out, &state, clock::unix_seconds(clock::wall()) as u64);
        }
    }

    fn state(&self) -> Option<RateLimitState<'_>> {
        let (name, quota) = match self.standing.which {
            Which::Concurrency => (CONCURRENCY, self.here.as_ref().map_or(0, |here| here.max)),
            Which::Quota(at) => {
                let limit = self.tier.limits.get(at)?;
                (limit.name.as_str(), limit.quota.count.max(limit.quota.burst.get()))
            }
        };
        let Standing { remaining, wait: reset, .. } = self.standing;
        Some(RateLimitState { name, quota, remaining, reset, refused: self.refused })
    }

    /// Returns the `RateLimit-Policy` value on this route.
    fn policies(&self) -> Option<&HeaderValue> {
        self.here.as_ref().map_or(&self.tier.policies, |here| &here.policies).as_ref()
    }
}

impl RouteTier {
    fn new(tier: &Tier, limits: &RouteLimits, exempt: bool) -> RouteTier {
        // If no tier is configured, the name of the default tier means nothing to clients.
        let name = if tier.limits.is_empty() { "" } else { tier.name.as_str() };
        let in_flight =
            limits.concurrency.map(|cap| rate_limit::concurrency_policy(CONCURRENCY, cap.max, name));
        let quotas = (!exempt).then(|| tier.limits_on(&limits.named));
        let quotas = quotas.into_iter().flatten().map(|(_, limit)| limit.policy.as_str());
        let policies = joined(quotas.chain(in_flight.as_deref()));
        RouteTier { policies, max: limits.concurrency.map_or(0, |cap| cap.max) }
    }
}
