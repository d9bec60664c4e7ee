//! The limits of routes, and what only routes and tiers together can have wrong.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Compiler;
use crate::config::file::{File, Route, RouteLimits as Raw};
use crate::config::keys::route;
use crate::config::table_reader::{Spanned, nearest};
use crate::limit::tier::{Concurrency, NameId, Tier};
use crate::policy::Routes;
use crate::policy::limits::{LimitPolicy, RouteLimits};

impl Compiler<'_> {
    /// The limits of one route; `names` are those there are.
    pub(super) fn route_limits(&mut self, raw: &Route, route: &str, names: &[String]) -> RouteLimits {
        let mut limits = RouteLimits::default();
        match &raw.limits {
            None => {}
            Some(Raw::None(_)) => limits.exempt = true,
            Some(Raw::Named(written)) => {
                for at in written {
                    match names.iter().position(|name| *name == at.value) {
                        Some(id) => limits.named.push(NameId::try_from(id).unwrap_or(NameId::MAX)),
                        None => self.no_limit(at, names),
                    }
                }
            }
        }
        if let Some(cost) = &raw.cost {
            match u32::try_from(cost.value).ok().and_then(NonZeroU32::new) {
                Some(cost) => limits.cost = cost,
                None => {
                    let help = "expected 1 or more; limits = \"none\" exempts a route";
                    self.fail(cost.span.as_ref(), format!("cost is {}", cost.value), help);
                }
            }
        }
        if let Some(concurrency) = &raw.concurrency {
            let max = self.within("concurrency", concurrency, route::CONCURRENCY.bounds());
            let max = u32::try_from(max).unwrap_or(u32::MAX);
            limits.concurrency = Some(Concurrency::new(route, max));
        }
        limits
    }

    fn no_limit(&mut self, at: &Spanned<String>, names: &[String]) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let help = match nearest(&at.value, &names) {
            Some(near) => format!("did you mean {near:?}?"),
            None if names.is_empty() => "no tier has limits; write [rate_limit.tiers.NAME.limits]".to_owned(),
            None => format!("there are {}", names.join(", ")),
        };
        self.fail(at.span.as_ref(), format!("no tier has a limit {:?}", at.value), help);
    }

    /// A route that answers by itself, or that only rewrites, comes to no limit.
    pub(super) fn no_limits_here(&mut self, raw: &Route) {
        let limits = raw.limits.as_ref().map(|limits| match limits {
            Raw::None(span) => Some(span.clone()),
            Raw::Named(names) => names.first().and_then(|at| at.span.clone()),
        });
        let numbers = [&raw.cost, &raw.concurrency].into_iter().flatten().map(|at| at.span.clone());
        if let Some(span) = limits.into_iter().chain(numbers).next() {
            let help = "put it in the route that matches what goes to the upstream";
            self.fail(
                span.as_ref().or(Some(&raw.span)),
                "limits on a route that sends nothing to an upstream",
                help,
            );
        }
    }

    /// Checks that need tiers and routes together.
    pub(super) fn check_costs(&mut self, file: &File, limits: &LimitPolicy, routes: &Routes) {
        // Most keys have their tier's limits; those with limits of their own are looked at by themselves.
        let is_tier = |tier: &Arc<Tier>| limits.tiers.iter().any(|known| Arc::ptr_eq(known, tier));
        let own = limits.listed.values().filter(|key| !is_tier(&key.tier));
        let of_key = own
            .map(|key| (&key.tier, format!("of key {:?}", key.name.as_deref().unwrap_or("without a name"))));
        let tiers = limits.tiers.iter().map(|tier| (tier, format!("in tier {:?}", tier.name)));
        let tiers: Vec<(&Arc<Tier>, String)> = tiers.chain(of_key).collect();
        let spans = file.routes.iter().map(|raw| {
            let cost = raw.cost.as_ref().and_then(|at| at.span.clone());
            cost.unwrap_or_else(|| raw.span.clone())
        });
        let routes = &routes.routes;
        // Nearly all routes cost 1, which every burst pays.
        let dear = spans
            .zip(routes)
            .filter(|(_, route)| !route.limits.exempt && route.limits.cost > NonZeroU32::MIN);
        for (span, route) in dear {
            let route = &route.limits;
            let exceeded = tiers.iter().find_map(|(tier, whose)| {
                let mut limits = tier.limits_on(&route.named);
                limits.find(|(_, limit)| limit.quota.burst < route.cost).map(|(_, limit)| (whose, limit))
            });
            if let Some((whose, limit)) = exceeded {
                let message = format!(
                    "a cost of {} is more than the burst of {} of {:?} {whose}: no request could \
                    ever pass",
                    route.cost, limit.quota.burst, limit.name
                );
                self.fail(Some(&span), message, "a lower cost, or a higher burst");
            }
        }
        let named = |id: NameId| routes.iter().any(|route| route.limits.named.contains(&id));
        for tier in &limits.tiers {
            for limit in tier.limits.iter().filter(|limit| limit.named && !named(limit.id)) {
                let written = file.rate_limit.tiers.iter().find(|raw| raw.name.value == tier.name.as_str());
                let mut raw = written.iter().flat_map(|raw| &raw.limits);
                let span = raw.find(|raw| raw.name.value == limit.name.as_str()).map(|raw| raw.span.clone());
                let message = format!(
                    "limit {:?} of tier {:?} has no effect: it is on = \"named\", and no route names it",
                    limit.name, tier.name
                );
                self.warn(span.as_ref(), message, "");
            }
        }
        let used = file.routes.iter().find(|route| route.limits.is_some() || route.cost.is_some());
        if let Some(route) = used.filter(|_| !limits.enabled) {
            let span = route.cost.as_ref().and_then(|at| at.span.as_ref()).unwrap_or(&route.span);
            let message =
                "no tier is configured, or rate_limit is off: limits and cost of routes have no effect";
            self.warn(Some(span), message, "");
        }
    }
}
