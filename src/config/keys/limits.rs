//! `[rate_limit]`, its tiers and limits, and the file of API keys.

use super::declare::{Form, table};
use super::kind::{
    Named, Optional, Own, SomeWords, TEXT, Text, Texts, Value, Word, number, optional_number, texts,
};
use crate::config::table_reader::Rate;
use crate::policy::limits::{KeyKind, Unlisted};

/// More cells than this are not one machine's.
const MAX_KEYS: u64 = 100_000_000;

const KINDS: [(&str, KeyKind); 3] =
    [("api_key", KeyKind::ApiKey), ("principal", KeyKind::Principal), ("ip", KeyKind::Ip)];

const ALL_KINDS: [KeyKind; 3] = [KeyKind::ApiKey, KeyKind::Principal, KeyKind::Ip];

const TIER_MODES: [(&str, Option<bool>); 2] = [("enforce", Some(false)), ("shadow", Some(true))];

const UNLISTED: [(&str, Unlisted); 3] =
    [("ip", Unlisted::Ip), ("own", Unlisted::Own), ("reject", Unlisted::Reject)];

const SYNC_WORDS: [(&str, bool); 2] = [("lease", false), ("exact", true)];

table! {
    /// `[rate_limit]`.
    rate_limit, in limits, requires [];
    ENABLED "enabled": Optional<bool> = Optional::of_form(Form::Flag), Reload,
        "Whether requests are limited; without it they are as soon as a tier is written.";
    KEY "key": SomeWords<KeyKind> = SomeWords { words: &KINDS, default: &ALL_KINDS }, Reload,
        "Sources of the partition key: the first that is present and proven counts.";
    UNLISTED_KEYS "unlisted_keys": Word<Unlisted> = Word { words: &UNLISTED, default: Unlisted::Ip }, Reload,
        "How an unknown API key is limited: by its address (\"ip\"), by itself (\"own\"), or with 401 (\"reject\").";
    TIER "tier": Texts = texts(&["keys"]), Reload,
        "Sources of the tier: \"keys\" (the file), \"jwt:CLAIM\" or \"header:NAME\" of a trusted proxy.";
    DEFAULT "default": Text = Text("free"), Reload,
        "Tier of a client whose sources name none.";
    KEYS "keys": Text = Text(""), Reload,
        "File of API keys, which `pillion keys add` writes.";
    MODE "mode": Word<bool> = Word { words: &[("enforce", false), ("shadow", true)], default: false }, Reload,
        "Whether limits refuse requests (\"enforce\") or only count them (\"shadow\").";
    HEADERS "headers": Texts = Texts { default: &["ratelimit"], known: &["ratelimit", "legacy"] }, Reload,
        "Fields that tell clients of their limits: \"ratelimit\" by the draft, \"legacy\" as X-RateLimit-*.";
    MAX_KEYS_KEY "max_keys": Value<u64> = number(100_000, 1..=MAX_KEYS), Reload,
        "Maximum number of partition keys that are remembered.";
    IPV6_PREFIX "ipv6_prefix": Value<u64> = number(64, 1..=128), Reload,
        "Number of bits of an IPv6 address that tell clients apart.";
    TIERS "tiers": Named = Named(&tier::TABLE, &[]), Reload,
        "Tiers by their names, the lowest first.";
}

table! {
    /// One of `[rate_limit.tiers]`.
    tier, in limits, requires [];
    UPGRADE "upgrade": Optional<String> = TEXT, Reload,
        "URL that a 429 response shows as the way to a higher tier.";
    MODE "mode": Word<Option<bool>> = Word { words: &TIER_MODES, default: None }, Reload,
        "The tier's own value of rate_limit.mode.";
    LIMITS "limits": Named = Named(&limit::TABLE, &["rate"]), Reload,
        "Limits of the tier by their names; a request must conform to all of them.";
}

table! {
    /// One of `limits` of a tier, or of an API key.
    limit, in limits, requires ["rate"];
    RATE "rate": Optional<Rate> = Optional::of_form(Form::Rate), Reload,
        "Rate at which requests are allowed, like \"100/min\".";
    BURST "burst": Optional<u64> = optional_number(1..=u32::MAX as u64), Reload,
        "Number of requests allowed at once; without it the count of the rate.";
    ON "on": Word<bool> = Word { words: &[("all", false), ("named", true)], default: false }, Reload,
        "Whether the limit holds on all routes or only on those that name it.";
    SYNC "sync": Word<bool> = Word { words: &SYNC_WORDS, default: false }, Reload,
        "How processes that share [redis] count: by tokens that each takes ahead (\"lease\"), or by asking each time (\"exact\").";
}

table! {
    /// One of `[[keys]]` in the file of API keys.
    api_key, in limits, requires ["sha256", "tier"];
    SHA256 "sha256": Optional<String> = TEXT, Reload,
        "SHA-256 of the key in hexadecimal digits.";
    TIER "tier": Optional<String> = TEXT, Reload,
        "Name of the key's tier.";
    NAME "name": Optional<String> = TEXT, Reload,
        "Name of the key for people.";
    LIMITS "limits": Own = Own(Form::Named(&limit::TABLE, &["rate"])), Reload,
        "Limits of the key, in place of its tier's limits with the same names.";
}
