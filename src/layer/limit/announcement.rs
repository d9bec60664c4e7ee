//! What an answer says of its caller's limits.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::clock;
use crate::fields::rate_limit;
use crate::limit::tier::{CONCURRENCY, Tier, joined};
use crate::limit::{Standing, Verdict, Which};
use crate::policy::RoutePolicy;
use crate::policy::limits::Tell;

/// Where a caller stood when the request came.
pub struct Announcement {
    tier: Arc<Tier>,
    route: Arc<RoutePolicy>,
    standing: Standing,
    refused: bool,
}

impl Announcement {
    /// Of a verdict; `None` where no limit holds, or none that is enforced: what is not refused is not told.
    pub fn of(verdict: &Verdict, tier: &Arc<Tier>, route: &Arc<RoutePolicy>) -> Option<Announcement> {
        let standing = verdict.closest.filter(|_| !tier.shadow)?;
        Some(Announcement {
            tier: tier.clone(),
            route: route.clone(),
            standing,
            refused: !verdict.conforms(),
        })
    }

    /// Tells it.
    pub fn tell(&self, headers: &mut HeaderMap, tell: Tell) {
        let concurrency = self.route.limits.concurrency.map_or(0, |concurrency| concurrency.most);
        let (name, quota) = match self.standing.which {
            Which::Concurrency => (CONCURRENCY, concurrency),
            Which::Quota(at) => match self.tier.limits.get(at) {
                Some(limit) => (limit.name.as_str(), limit.quota.count.max(limit.quota.burst.get())),
                None => return,
            },
        };
        let Standing { remaining, wait: reset, .. } = self.standing;
        let told = rate_limit::Told { name, quota, remaining, reset, refused: self.refused };
        if tell.ratelimit
            && let Some(policies) = self.policies()
        {
            rate_limit::tell(headers, &policies, &told);
        }
        if tell.legacy {
            rate_limit::tell_legacy(headers, &told, clock::unix_seconds(clock::wall()) as u64);
        }
    }

    /// Every limit that holds here.
    fn policies(&self) -> Option<HeaderValue> {
        let limits = &self.route.limits;
        if !limits.exempt && limits.named.is_empty() && limits.concurrency.is_none() {
            return self.tier.policies.clone();
        }
        let in_flight = limits.concurrency.map(|cap| rate_limit::concurrency_policy(CONCURRENCY, cap.most));
        let quotas = (!limits.exempt).then(|| self.tier.limits_on(&limits.named));
        let quotas = quotas.into_iter().flatten().map(|(_, limit)| limit.policy.as_str());
        joined(quotas.chain(in_flight.as_deref()))
    }
}
