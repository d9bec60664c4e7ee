//! `[rate_limit]`, and the limits of a route, as they are written; and the file of API keys.

use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::keys::{api_key, limit, rate_limit, route, tier};
use crate::config::table_reader::{Rate, Section, Spanned};
use crate::config::value::{EMPTY, Node, Table, Value};
use crate::policy::limits::{KeyKind, Unlisted};

pub(crate) struct RateLimit {
    pub enabled: Option<Spanned<bool>>,
    pub key: Vec<KeyKind>,
    pub key_span: Option<Span>,
    pub unlisted_keys: Unlisted,
    pub tier: Vec<Spanned<String>>,
    pub default: Spanned<String>,
    pub keys: Spanned<String>,
    pub shadow: bool,
    pub headers: Vec<Spanned<String>>,
    pub max_keys: Spanned<u64>,
    pub ipv6_prefix: Spanned<u64>,
    pub tiers: Vec<Tier>,
}

/// One of `[rate_limit.tiers.*]`.
pub(crate) struct Tier {
    pub name: Spanned<String>,
    pub upgrade: Option<Spanned<String>>,
    /// `None` where the section's mode holds.
    pub shadow: Option<bool>,
    pub limits: Vec<Limit>,
}

/// One of `[rate_limit.tiers.*.limits]`.
pub(crate) struct Limit {
    pub name: Spanned<String>,
    pub span: Span,
    pub rate: Option<Spanned<Rate>>,
    pub burst: Option<Spanned<u64>>,
    pub named: bool,
    pub exact: bool,
}

/// `limits` of a route.
pub(crate) enum RouteLimits {
    /// `"none"`.
    None(Span),
    Named(Vec<Spanned<String>>),
}

/// One of `[[keys]]` in the file of keys.
pub(crate) struct ApiKey {
    pub span: Span,
    pub sha256: Option<Spanned<String>>,
    pub tier: Option<Spanned<String>>,
    pub name: Option<Spanned<String>>,
    pub limits: Vec<Limit>,
}

pub(super) fn read_rate_limit(table: Option<&Table>, p: &mut Diagnostics) -> RateLimit {
    let mut s = Section::new("rate_limit", table.unwrap_or(EMPTY));
    let tiers = s.table(rate_limit::TIERS.name, p).map_or_else(Vec::new, |(table, _)| read_tiers(table, p));
    let section = RateLimit {
        enabled: s.read(&rate_limit::ENABLED, p),
        key_span: s.node(rate_limit::KEY.name).map(|node| node.span.clone()),
        key: s.read(&rate_limit::KEY, p),
        unlisted_keys: s.read(&rate_limit::UNLISTED_KEYS, p),
        tier: s.read(&rate_limit::TIER, p),
        default: s.read(&rate_limit::DEFAULT, p),
        keys: s.read(&rate_limit::KEYS, p),
        shadow: s.read(&rate_limit::MODE, p),
        headers: s.read(&rate_limit::HEADERS, p),
        max_keys: s.read(&rate_limit::MAX_KEYS_KEY, p),
        ipv6_prefix: s.read(&rate_limit::IPV6_PREFIX, p),
        tiers,
    };
    s.finish(p);
    section
}

fn read_tiers(table: &Table, p: &mut Diagnostics) -> Vec<Tier> {
    let mut tiers = Vec::new();
    for (key, node) in &table.entries {
        let Value::Table(table) = &node.value else {
            let message = format!("rate_limit.tiers.{} is {}", key.name, node.value.kind());
            p.at(&node.span, message).help("expected a table");
            continue;
        };
        let mut s = Section::new(format!("rate_limit.tiers.{}", key.name), table);
        let limits = read_limits(&mut s, tier::LIMITS.name, p);
        tiers.push(Tier {
            name: Spanned { value: key.name.clone(), span: Some(key.span.clone()) },
            upgrade: s.read(&tier::UPGRADE, p),
            shadow: s.read(&tier::MODE, p),
            limits,
        });
        s.finish(p);
    }
    tiers
}

fn read_limits(s: &mut Section<'_>, key: &'static str, p: &mut Diagnostics) -> Vec<Limit> {
    let Some((table, _)) = s.table(key, p) else { return Vec::new() };
    let mut limits = Vec::new();
    for (key, node) in &table.entries {
        let Value::Table(table) = &node.value else {
            s.mismatch(&format!("limits.{}", key.name), node, "{ rate = \"10/min\", burst = 2 }", p);
            continue;
        };
        let mut of = Section::new(format!("{}.limits.{}", s.name, key.name), table);
        if !of.has(limit::RATE.name) {
            p.at(&node.span, format!("{} has no rate", of.name)).help("rate = \"100/min\"");
        }
        limits.push(Limit {
            name: Spanned { value: key.name.clone(), span: Some(key.span.clone()) },
            span: node.span.clone(),
            rate: of.read(&limit::RATE, p),
            burst: of.read(&limit::BURST, p),
            named: of.read(&limit::ON, p),
            exact: of.read(&limit::SYNC, p),
        });
        of.finish(p);
    }
    limits
}

pub(super) fn read_route_limits(s: &mut Section<'_>, p: &mut Diagnostics) -> Option<RouteLimits> {
    let node = s.node(route::LIMITS.name)?;
    match &node.value {
        Value::String(word) if word == "none" => Some(RouteLimits::None(node.span.clone())),
        Value::Array(_) => Some(RouteLimits::Named(s.list(route::LIMITS.name, Vec::new(), p))),
        _ => {
            s.mismatch(route::LIMITS.name, node, "\"none\", or an array of names of limits", p);
            None
        }
    }
}

/// Reads the file of keys.
pub(crate) fn read_keys(table: &Table, p: &mut Diagnostics) -> Vec<ApiKey> {
    let mut root = Section::new("", table);
    let mut keys = Vec::new();
    let node: Option<&Node> = root.node("keys");
    match node.map(|node| (&node.value, node)) {
        None => {}
        Some((Value::Array(items), _)) => {
            for item in items {
                match &item.value {
                    Value::Table(table) => keys.push(read_key(table, item.span.clone(), p)),
                    other => {
                        p.at(&item.span, format!("a key is {}", other.kind())).help("expected a table");
                    }
                }
            }
        }
        Some((other, node)) => {
            p.at(&node.span, format!("keys is {}", other.kind())).help("expected [[keys]] tables");
        }
    }
    root.finish(p);
    keys
}

fn read_key(table: &Table, span: Span, p: &mut Diagnostics) -> ApiKey {
    let mut s = Section::new("keys", table);
    let limits = read_limits(&mut s, api_key::LIMITS.name, p);
    let key = ApiKey {
        span,
        sha256: s.read(&api_key::SHA256, p),
        tier: s.read(&api_key::TIER, p),
        name: s.read(&api_key::NAME, p),
        limits,
    };
    s.finish(p);
    key
}
