//! `[rate_limit]`, the file of API keys, and the limits of routes.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::Compiler;
use crate::config::file::{self, ApiKey, File, Limit as RawLimit, Rate, Route, RouteLimits as RawRoute};
use crate::config::node;
use crate::config::problem::{Problems, Span};
use crate::config::section::{At, nearest};
use crate::fields::rate_limit;
use crate::identity::credential::{Hasher, Identity};
use crate::limit::quota::{MOST_A_SECOND, Quota, QuotaError};
use crate::limit::tier::{CONCURRENCY, Concurrency, Limit, NameId, Tier};
use crate::policy::Routes;
use crate::policy::limits::{ApiKeyPlace, LimitPolicy, ListedKey, RouteLimits, Tell, TierSource};

/// A tier with more is not understood by anybody; and a key remembers what it owes in two of them.
const MOST_LIMITS: usize = 16;
/// Names are sent to clients and are labels of metrics.
const LONGEST_NAME: usize = 64;
/// More cells than this are not one machine's.
const MOST_KEYS: u64 = 100_000_000;
/// What no key has in flight.
const MOST_IN_FLIGHT: u64 = 1_000_000;
/// Longer upgrade links and names of keys are a mistake.
const LONGEST_TEXT: usize = 1024;

/// What is known of limits while they are compiled.
#[derive(Default)]
struct Known {
    names: Vec<String>,
    series: Vec<(String, String)>,
}

impl Known {
    fn id(&mut self, name: &str) -> NameId {
        let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        NameId::try_from(at).unwrap_or(NameId::MAX)
    }

    fn series(&mut self, tier: &str, limit: &str) -> usize {
        let known = self.series.iter().position(|(of, name)| of == tier && name == limit);
        known.unwrap_or_else(|| {
            self.series.push((tier.to_owned(), limit.to_owned()));
            self.series.len() - 1
        })
    }
}

impl Compiler<'_> {
    /// The limits, and the names by which routes may call them.
    pub(super) fn limits(&mut self, file: &File, identity: &Identity) -> (LimitPolicy, Vec<String>) {
        let raw = &file.rate_limit;
        let mut known = Known::default();
        let enabled = raw.enabled.as_ref().map_or(!raw.tiers.is_empty(), |at| at.value);
        let mut tiers = Vec::new();
        for (rank, tier) in raw.tiers.iter().enumerate() {
            let shadow = tier.shadow.unwrap_or(raw.shadow);
            self.name("a tier", &tier.name);
            let upgrade = tier.upgrade.as_ref().and_then(|at| self.upgrade(at));
            let limits = self.limits_of(&tier.name.value, &tier.limits, &mut known);
            if tier.limits.len() > MOST_LIMITS {
                let message = format!("tier {:?} has {} limits", tier.name.value, tier.limits.len());
                self.fail(tier.name.span.as_ref(), message, format!("expected at most {MOST_LIMITS}"));
            }
            let series = known.series(&tier.name.value, CONCURRENCY);
            tiers.push(Arc::new(Tier::new(&tier.name.value, rank, shadow, upgrade, limits, series)));
        }
        let default = self.default_tier(file, enabled, &tiers);
        if tiers.is_empty() {
            let series = known.series(&raw.default.value, CONCURRENCY);
            tiers.push(Arc::new(Tier::new(&raw.default.value, 0, raw.shadow, None, Vec::new(), series)));
        }
        let api_key = self.api_key(&file.identity.api_key);
        let tier_from: Vec<TierSource> =
            raw.tier.iter().filter_map(|at| self.tier_source(at, file)).collect();
        self.need_tokens(file, &api_key, &tier_from, identity);
        let listed = self.listed(&raw.keys, &tiers, identity.hasher(), &mut known);
        let mut tell = Tell { ratelimit: false, legacy: false };
        for at in &raw.headers {
            match at.value.as_str() {
                "ratelimit" => tell.ratelimit = true,
                "legacy" => tell.legacy = true,
                other => {
                    let message = format!("rate_limit.headers has {other:?}");
                    self.fail(at.span.as_ref(), message, "expected \"ratelimit\" or \"legacy\"");
                }
            }
        }
        let max_keys = self.within("rate_limit.max_keys", &raw.max_keys, 1, MOST_KEYS);
        let ipv6_prefix = self.within("rate_limit.ipv6_prefix", &raw.ipv6_prefix, 1, 128);
        let policy = LimitPolicy {
            enabled,
            key: raw.key.clone(),
            api_key,
            unlisted: raw.unlisted_keys,
            tier_from,
            tiers,
            default,
            listed,
            tell,
            max_keys: usize::try_from(max_keys).unwrap_or(usize::MAX),
            ipv6_prefix: u8::try_from(ipv6_prefix).unwrap_or(128),
            series: known.series,
        };
        (policy, known.names)
    }

    fn default_tier(&mut self, file: &File, enabled: bool, tiers: &[Arc<Tier>]) -> usize {
        let raw = &file.rate_limit;
        if !enabled {
            if !raw.tiers.is_empty() {
                self.warnings.push("rate_limit.enabled is false: nobody is limited".to_owned());
            }
            return 0;
        }
        let found = tiers.iter().position(|tier| tier.name == raw.default.value);
        if found.is_none() {
            let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
            let help = match nearest(&raw.default.value, &names) {
                _ if names.is_empty() => "write one: [rate_limit.tiers.free.limits]".to_owned(),
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("default = one of {}", names.join(", ")),
            };
            let span = raw.default.span.as_ref().or(raw.enabled.as_ref().and_then(|at| at.span.as_ref()));
            let span = span.or(raw.tiers.first().and_then(|tier| tier.name.span.as_ref()));
            self.fail(span, format!("there is no tier {:?} for whoever names none", raw.default.value), help);
        }
        found.unwrap_or(0)
    }

    fn limits_of(&mut self, tier: &str, raw: &[RawLimit], known: &mut Known) -> Vec<Limit> {
        let mut limits = Vec::with_capacity(raw.len());
        for limit in raw {
            self.name("a limit", &limit.name);
            if limit.name.value == CONCURRENCY {
                let help = "another name: this one is that of the cap on requests in flight";
                self.fail(limit.name.span.as_ref(), format!("a limit named {CONCURRENCY:?}"), help);
            }
            let Some(quota) = self.quota(limit) else { continue };
            let name = limit.name.value.clone();
            limits.push(Limit {
                id: known.id(&name),
                named: limit.named,
                rule: Limit::rule_of(tier, &name, &quota),
                series: known.series(tier, &name),
                policy: rate_limit::quota_policy(&name, quota.count, quota.period, quota.burst.get()),
                quota,
                name,
            });
        }
        limits
    }

    fn quota(&mut self, limit: &RawLimit) -> Option<Quota> {
        let At { value: Rate(count, period), span } = limit.rate.as_ref()?;
        let written = limit.burst.as_ref().map_or(*count, |at| at.value);
        let burst_span = limit.burst.as_ref().and_then(|at| at.span.as_ref()).or(Some(&limit.span));
        let Some(burst) = u32::try_from(written).ok().and_then(NonZeroU32::new) else {
            let help = format!("expected 1 to {}", u32::MAX);
            self.fail(burst_span, format!("burst is {written}"), help);
            return None;
        };
        match u32::try_from(*count)
            .map_err(|_| QuotaError::TooFast)
            .and_then(|count| Quota::new(count, *period, burst))
        {
            Ok(quota) => Some(quota),
            Err(QuotaError::TooFast) => {
                let help = format!("expected at most {MOST_A_SECOND} a second");
                self.fail(span.as_ref(), "a rate that limits nothing", help);
                None
            }
            Err(QuotaError::TooSlow) => {
                let help = "a smaller burst, or a higher rate";
                self.fail(burst_span, "a burst that takes more than a year to be there again", help);
                None
            }
        }
    }

    fn name(&mut self, what: &str, at: &At<String>) {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if at.value.is_empty() || at.value.len() > LONGEST_NAME || !at.value.chars().all(fine) {
            let help = format!("1 to {LONGEST_NAME} letters, digits and - _ . :");
            self.fail(at.span.as_ref(), format!("{:?} is no name of {what}", at.value), help);
        }
    }

    fn upgrade(&mut self, at: &At<String>) -> Option<String> {
        let fine = at.value.len() <= LONGEST_TEXT && at.value.parse::<http::Uri>().is_ok();
        if !fine {
            let message = format!("upgrade is {:?}", at.value);
            self.fail(at.span.as_ref(), message, "a URL, like \"https://example.com/pricing\"");
        }
        fine.then(|| at.value.clone())
    }

    fn api_key(&mut self, at: &At<String>) -> ApiKeyPlace {
        let place = match at.value.split_once(':') {
            Some(("header", name)) => self.field_name(name, at.span.as_ref()).map(ApiKeyPlace::Header),
            Some(("query", name)) if !name.is_empty() => Some(ApiKeyPlace::Query(name.to_owned())),
            Some(("jwt", claim)) if !claim.is_empty() => Some(ApiKeyPlace::Claim(claim.to_owned())),
            _ => {
                let message = format!("identity.api_key is {:?}", at.value);
                self.fail(
                    at.span.as_ref(),
                    message,
                    "expected \"header:NAME\", \"query:NAME\" or \"jwt:CLAIM\"",
                );
                None
            }
        };
        place.unwrap_or(ApiKeyPlace::Query(String::new()))
    }

    fn tier_source(&mut self, at: &At<String>, file: &File) -> Option<TierSource> {
        match at.value.split_once(':') {
            None if at.value == "keys" => Some(TierSource::Keys),
            Some(("jwt", claim)) if !claim.is_empty() => Some(TierSource::Claim(claim.to_owned())),
            Some(("header", name)) => {
                if file.server.trusted_proxies.is_empty() {
                    let help =
                        "list the proxy that sets it in server.trusted_proxies: nobody else is believed";
                    self.fail(
                        at.span.as_ref(),
                        format!("a tier from {:?}, and no trusted proxy", at.value),
                        help,
                    );
                }
                self.field_name(name, at.span.as_ref()).map(TierSource::Header)
            }
            _ => {
                let message = format!("rate_limit.tier has {:?}", at.value);
                self.fail(at.span.as_ref(), message, "expected \"keys\", \"jwt:CLAIM\" or \"header:NAME\"");
                None
            }
        }
    }

    /// Unverified claims are never believed.
    fn need_tokens(
        &mut self,
        file: &File,
        api_key: &ApiKeyPlace,
        tier_from: &[TierSource],
        identity: &Identity,
    ) {
        if identity.proves() || file.identity.jwt.is_some() {
            return;
        }
        let claim = file.rate_limit.tier.iter().find(|at| at.value.starts_with("jwt:"));
        let of_tier = tier_from.iter().any(|source| matches!(source, TierSource::Claim(_)));
        let span = match api_key {
            ApiKeyPlace::Claim(_) => file.identity.api_key.span.as_ref(),
            _ if of_tier => claim.and_then(|at| at.span.as_ref()),
            _ => return,
        };
        let help = "[identity.jwt] with keys, hs256 or jwks_url: unverified claims are never believed";
        self.fail(span, "a claim of a token, and nothing to verify it by", help);
    }

    fn listed(
        &mut self,
        at: &At<String>,
        tiers: &[Arc<Tier>],
        hasher: &Hasher,
        known: &mut Known,
    ) -> HashMap<[u8; 32], Arc<ListedKey>> {
        let mut listed = HashMap::new();
        if at.value.is_empty() {
            return listed;
        }
        let path = self.file(&at.value);
        let content = match std::fs::read_to_string(&path) {
            Ok(content) => content,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                self.fail(at.span.as_ref(), message, "`pillion keys add` makes it");
                return listed;
            }
        };
        // Its problems are shown with its own lines.
        let own = std::mem::replace(&mut self.problems, Problems::new(&path, &content));
        let raw = node::parse(&content, &self.environment.variables, &mut self.problems)
            .map(|table| file::read_keys(&table, &mut self.problems))
            .unwrap_or_default();
        let mut names: Vec<&str> = Vec::new();
        for key in &raw {
            let Some((digest, entry)) = self.listed_key(key, tiers, hasher, known) else { continue };
            if let Some(name) = &key.name {
                names.push(&name.value);
            }
            if listed.insert(digest, Arc::new(entry)).is_some() {
                let span = key.sha256.as_ref().and_then(|at| at.span.as_ref());
                self.fail(span, "this key is listed twice", "remove one of them");
            }
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let twice = raw.iter().rev().find(|key| key.name.as_ref().is_some_and(|at| at.value == pair[0]));
            let span = twice.and_then(|key| key.name.as_ref()).and_then(|at| at.span.as_ref());
            self.fail(span, format!("two keys are named {:?}", pair[0]), "give each a name of its own");
        }
        let theirs = std::mem::replace(&mut self.problems, own);
        self.problems.include(theirs);
        listed
    }

    fn listed_key(
        &mut self,
        key: &ApiKey,
        tiers: &[Arc<Tier>],
        hasher: &Hasher,
        known: &mut Known,
    ) -> Option<([u8; 32], ListedKey)> {
        let Some(written) = &key.sha256 else {
            self.fail(Some(&key.span), "a key without sha256", "`pillion keys hash` makes it of a key");
            return None;
        };
        let Some(digest) = digest(&written.value) else {
            let help = "expected 64 hexadecimal digits; `pillion keys hash` makes them of a key";
            self.fail(written.span.as_ref(), "sha256 is no SHA-256", help);
            return None;
        };
        let Some(tier) = &key.tier else {
            self.fail(Some(&key.span), "a key without a tier", "tier = \"free\"");
            return None;
        };
        let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
        let Some(of) = tiers.iter().find(|known| known.name == tier.value) else {
            let help = match nearest(&tier.value, &names) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}", names.join(", ")),
            };
            self.fail(tier.span.as_ref(), format!("there is no tier {:?}", tier.value), help);
            return None;
        };
        if let Some(name) = &key.name
            && (name.value.is_empty() || name.value.len() > LONGEST_TEXT)
        {
            self.fail(name.span.as_ref(), "a name that is none", "some characters");
        }
        let tier = match key.limits.is_empty() {
            true => of.clone(),
            false => {
                // Its own limits take the place of its tier's by the same names, and are counted with them.
                let own = self.limits_of(&of.name, &key.limits, known);
                let theirs =
                    of.limits.iter().filter(|limit| own.iter().all(|other| other.name != limit.name));
                let limits = theirs.cloned().chain(own.iter().cloned()).collect();
                let upgrade = of.upgrade.clone();
                Arc::new(Tier::new(&of.name, of.rank, of.shadow, upgrade, limits, of.concurrency_series))
            }
        };
        let name = key.name.as_ref().map(|at| at.value.clone());
        Some((digest, ListedKey { name, tier, partition: hasher.api_key(&digest) }))
    }

    /// The limits of one route; `names` are those there are.
    pub(super) fn route_limits(&mut self, raw: &Route, route: &str, names: &[String]) -> RouteLimits {
        let mut limits = RouteLimits::default();
        match &raw.limits {
            None => {}
            Some(RawRoute::None(_)) => limits.exempt = true,
            Some(RawRoute::Named(written)) => {
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
            let most = self.within("concurrency", concurrency, 1, MOST_IN_FLIGHT);
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            limits.concurrency = Some(Concurrency::of(route, most));
        }
        limits
    }

    fn no_limit(&mut self, at: &At<String>, names: &[String]) {
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
            RawRoute::None(span) => Some(span.clone()),
            RawRoute::Named(names) => names.first().and_then(|at| at.span.clone()),
        });
        let numbers = [&raw.cost, &raw.concurrency].into_iter().flatten().map(|at| at.span.clone());
        if let Some(span) = limits.into_iter().chain(numbers).next() {
            let help = "put it in the route that matches what goes to the app";
            self.fail(span.as_ref().or(Some(&raw.span)), "limits on a route that asks no app", help);
        }
    }

    /// What only tiers and routes together can have wrong.
    pub(super) fn check_costs(&mut self, file: &File, limits: &LimitPolicy, routes: &Routes) {
        let own = limits.listed.values().map(|key| &key.tier);
        let tiers: Vec<&Arc<Tier>> = limits.tiers.iter().chain(own).collect();
        let spans = file
            .routes
            .iter()
            .map(|raw| raw.cost.as_ref().and_then(|at| at.span.clone()).or(Some(raw.span.clone())));
        let routes: Vec<(Option<Span>, &RouteLimits)> =
            spans.chain([None]).zip(routes.routes.iter().map(|route| &route.limits)).collect();
        for (span, route) in routes.iter().filter(|(_, route)| !route.exempt) {
            let exceeded = tiers.iter().find_map(|tier| {
                let mut limits = tier.limits_on(&route.named);
                limits.find(|(_, limit)| limit.quota.burst < route.cost).map(|(_, limit)| (tier, limit))
            });
            if let Some((tier, limit)) = exceeded {
                let message = format!(
                    "a cost of {} is more than the burst of {} of {:?} in tier {:?}: no request would ever conform",
                    route.cost, limit.quota.burst, limit.name, tier.name
                );
                self.fail(span.as_ref(), message, "a lower cost, or a higher burst");
            }
        }
        let named = |id: NameId| routes.iter().any(|(_, route)| route.named.contains(&id));
        for tier in &limits.tiers {
            for limit in tier.limits.iter().filter(|limit| limit.named && !named(limit.id)) {
                self.warnings.push(format!(
                    "limit {:?} of tier {:?} holds nowhere: it is on = \"named\", and no route names it",
                    limit.name, tier.name
                ));
            }
        }
        let used = file.routes.iter().any(|route| route.limits.is_some() || route.cost.is_some());
        if used && !limits.enabled {
            self.warnings.push(
                "no tier is written or rate_limit is off: limits and cost of routes do nothing".to_owned(),
            );
        }
    }
}

/// Of hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0u8; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}
