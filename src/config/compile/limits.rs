//! `[rate_limit]`: tiers, limits, and whose they are.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Compiler;
use crate::config::file::{File, Limit as RawLimit};
use crate::config::keys::rate_limit as keys;
use crate::config::table_reader::{Rate, Spanned, nearest};
use crate::fields::rate_limit;
use crate::identity::principal::Identity;
use crate::limit::gcra::{MAX_A_SECOND, Quota, QuotaError};
use crate::limit::tier::{CONCURRENCY, Limit, NameId, Tier};
use crate::policy::limits::{ApiKeyPlace, LimitPolicy, Tell, TierSource, Unlisted};

/// A tier with more is not understood by anybody; and a key remembers what it owes in two of them.
pub(super) const MAX_LIMITS: usize = 16;
/// Names are sent to clients and are labels of metrics.
const MAX_NAME_LENGTH: usize = 64;
/// Longer upgrade links and names of keys are a mistake.
pub(super) const MAX_TEXT_LENGTH: usize = 1024;

/// The limits known so far, while they are compiled.
#[derive(Default)]
pub(super) struct Known {
    names: Vec<String>,
    series: Vec<(String, String)>,
}

impl Known {
    /// Names are as few as limits are, which are few for each tier.
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
            let limits = self.tier_limits(&tier.name.value, &tier.limits, &mut known);
            if tier.limits.len() > MAX_LIMITS {
                let message = format!("tier {:?} has {} limits", tier.name.value, tier.limits.len());
                self.fail(tier.name.span.as_ref(), message, format!("expected at most {MAX_LIMITS}"));
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
        if !raw.keys.value.is_empty() && !tier_from.contains(&TierSource::Keys) {
            let warning = "rate_limit.tier has no \"keys\": the tiers and limits in the file of \
                keys have no effect";
            self.warn(raw.keys.span.as_ref(), warning, "");
        }
        if raw.key.is_empty() {
            let help = "expected some of \"api_key\", \"principal\", \"ip\"";
            self.fail(raw.key_span.as_ref(), "rate_limit.key is empty", help);
        }
        if enabled && raw.unlisted_keys == Unlisted::Reject && raw.keys.value.is_empty() {
            let warning = "rate_limit.unlisted_keys is \"reject\", and no key is listed: every \
                request with a key is rejected; see rate_limit.keys";
            let span = self.key_span("rate_limit.unlisted_keys");
            self.warn(span.as_ref(), warning, "");
        }
        if enabled && raw.unlisted_keys == Unlisted::Own {
            let warning = "rate_limit.unlisted_keys is \"own\": a client gets a fresh allowance \
                with each key it makes up";
            let span = self.key_span("rate_limit.unlisted_keys");
            self.warn(span.as_ref(), warning, "");
        }
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
        let max_keys = self.within("rate_limit.max_keys", &raw.max_keys, keys::MAX_KEYS_KEY.bounds());
        let ipv6_prefix = self.within("rate_limit.ipv6_prefix", &raw.ipv6_prefix, keys::IPV6_PREFIX.bounds());
        let policy = LimitPolicy {
            enabled,
            key: raw.key.clone(),
            api_key,
            unlisted: raw.unlisted_keys,
            tier_from,
            default: tiers[default].clone(),
            tiers,
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
                let span = raw.enabled.as_ref().and_then(|at| at.span.as_ref());
                self.warn(span, "rate_limit.enabled is false: no limit is applied", "");
            }
            return 0;
        }
        let found = tiers.iter().position(|tier| tier.name.as_str() == raw.default.value);
        if found.is_none() {
            let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
            let help = match nearest(&raw.default.value, &names) {
                _ if names.is_empty() => "write one: [rate_limit.tiers.free.limits]".to_owned(),
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("default = one of {}", names.join(", ")),
            };
            let span = raw.default.span.as_ref().or(raw.enabled.as_ref().and_then(|at| at.span.as_ref()));
            let span = span.or(raw.tiers.first().and_then(|tier| tier.name.span.as_ref()));
            self.fail(
                span,
                format!("there is no tier {:?}, which rate_limit.default names", raw.default.value),
                help,
            );
        }
        found.unwrap_or(0)
    }

    pub(super) fn tier_limits(&mut self, tier: &str, raw: &[RawLimit], known: &mut Known) -> Vec<Limit> {
        let mut limits = Vec::with_capacity(raw.len());
        for limit in raw {
            self.name("a limit", &limit.name);
            if limit.name.value == CONCURRENCY {
                let help = "choose another name: this one belongs to the cap on requests in flight";
                self.fail(limit.name.span.as_ref(), format!("a limit named {CONCURRENCY:?}"), help);
            }
            let Some(quota) = self.quota(limit) else { continue };
            let name = limit.name.value.clone();
            limits.push(Limit {
                id: known.id(&name),
                named: limit.named,
                exact: limit.exact,
                rule: Limit::rule_id(tier, &name, &quota),
                series: known.series(tier, &name),
                policy: rate_limit::quota_policy(&name, quota.count, quota.period, quota.burst.get(), tier),
                quota,
                name,
            });
        }
        limits
    }

    fn quota(&mut self, limit: &RawLimit) -> Option<Quota> {
        let Spanned { value: Rate(count, period), span } = limit.rate.as_ref()?;
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
                let help = format!("expected at most {MAX_A_SECOND} a second");
                self.fail(span.as_ref(), "a rate above the maximum", help);
                None
            }
            Err(QuotaError::TooSlow) => {
                let help = "a smaller burst, or a higher rate";
                self.fail(burst_span, "a burst that takes more than a year to refill", help);
                None
            }
        }
    }

    fn name(&mut self, what: &str, at: &Spanned<String>) {
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if at.value.is_empty() || at.value.len() > MAX_NAME_LENGTH || !at.value.chars().all(fine) {
            let help = format!("expected 1 to {MAX_NAME_LENGTH} characters: letters, digits and - _ . :");
            self.fail(at.span.as_ref(), format!("{:?} is not a valid name of {what}", at.value), help);
        }
    }

    fn upgrade(&mut self, at: &Spanned<String>) -> Option<String> {
        let url = at.value.parse::<http::Uri>().ok().filter(|url| url.authority().is_some());
        let web = url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")));
        let fine = web && at.value.len() <= MAX_TEXT_LENGTH;
        if !fine {
            let message = format!("upgrade is {:?}", at.value);
            self.fail(at.span.as_ref(), message, "expected a URL like \"https://example.com/pricing\"");
        }
        fine.then(|| at.value.clone())
    }

    fn api_key(&mut self, at: &Spanned<String>) -> ApiKeyPlace {
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

    fn tier_source(&mut self, at: &Spanned<String>, file: &File) -> Option<TierSource> {
        match at.value.split_once(':') {
            None if at.value == "keys" => Some(TierSource::Keys),
            Some(("jwt", claim)) if !claim.is_empty() => Some(TierSource::Claim(claim.to_owned())),
            Some(("header", name)) => {
                if file.server.trusted_proxies.is_empty() {
                    let help = "list the proxy that sets it in server.trusted_proxies: only trusted \
                        proxies may set it";
                    self.fail(
                        at.span.as_ref(),
                        format!("a tier from {:?}, and no trusted proxy that may set it", at.value),
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
        let help = "add [identity.jwt] with keys, hs256 or jwks_url: claims that are not verified \
            are never used";
        self.fail(span, "a claim of a token, and no key to verify the token", help);
    }
}
