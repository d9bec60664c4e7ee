//! `[rate_limit]`, and the limits of a route, as they are written; and the file of API keys.

use super::{EMPTY, text};
use crate::config::diagnostic::{Diagnostics, Span};
use crate::config::table_reader::{FromNode, Section, Spanned};
use crate::config::units;
use crate::config::value::{Node, Table, Value};
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
}

/// A count and its period.
pub(crate) struct Rate(pub u64, pub std::time::Duration);

impl FromNode for Rate {
    const EXPECTED: &'static str = "a rate like \"20/s\", \"100/min\", \"1000/h\" or \"5000/d\"";
    fn from_value(value: &Value) -> Option<Self> {
        String::from_value(value)
            .and_then(|text| units::rate(&text))
            .map(|(count, period)| Rate(count, period))
    }

    fn written(&self) -> String {
        format!("\"{} in {:?}\"", self.0, self.1)
    }
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

const MODES: [(&str, bool); 2] = [("enforce", false), ("shadow", true)];

pub(super) fn read_rate_limit(table: Option<&Table>, p: &mut Diagnostics) -> RateLimit {
    let mut s = Section::new("rate_limit", table.unwrap_or(EMPTY));
    let kinds = [("api_key", KeyKind::ApiKey), ("principal", KeyKind::Principal), ("ip", KeyKind::Ip)];
    let unlisted = [("ip", Unlisted::Ip), ("own", Unlisted::Own), ("reject", Unlisted::Reject)];
    let tiers = s.table("tiers", p).map_or_else(Vec::new, |(table, _)| read_tiers(table, p));
    let section = RateLimit {
        enabled: s.get("enabled", p),
        key_span: s.node("key").map(|node| node.span.clone()),
        key: s.choices("key", &kinds, &[KeyKind::ApiKey, KeyKind::Principal, KeyKind::Ip], p),
        unlisted_keys: s.choice("unlisted_keys", &unlisted, Unlisted::Ip, p),
        tier: s.list("tier", vec![text("keys")], p),
        default: s.or("default", text("free"), p),
        keys: s.or("keys", text(""), p),
        shadow: s.choice("mode", &MODES, false, p),
        headers: s.list("headers", vec![text("ratelimit")], p),
        max_keys: s.or("max_keys", 100_000, p),
        ipv6_prefix: s.or("ipv6_prefix", 64, p),
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
        let limits = read_limits(&mut s, p);
        tiers.push(Tier {
            name: Spanned { value: key.name.clone(), span: Some(key.span.clone()) },
            upgrade: s.get("upgrade", p),
            shadow: s.choice("mode", &MODES.map(|(word, shadow)| (word, Some(shadow))), None, p),
            limits,
        });
        s.finish(p);
    }
    tiers
}

fn read_limits(s: &mut Section<'_>, p: &mut Diagnostics) -> Vec<Limit> {
    let Some((table, _)) = s.table("limits", p) else { return Vec::new() };
    let mut limits = Vec::new();
    for (key, node) in &table.entries {
        let Value::Table(table) = &node.value else {
            s.mismatch(&format!("limits.{}", key.name), node, "{ rate = \"10/min\", burst = 2 }", p);
            continue;
        };
        let mut of = Section::new(format!("{}.limits.{}", s.name, key.name), table);
        if !of.has("rate") {
            p.at(&node.span, format!("{} has no rate", of.name)).help("rate = \"100/min\"");
        }
        limits.push(Limit {
            name: Spanned { value: key.name.clone(), span: Some(key.span.clone()) },
            span: node.span.clone(),
            rate: of.get("rate", p),
            burst: of.get("burst", p),
            named: of.choice("on", &[("all", false), ("named", true)], false, p),
        });
        of.finish(p);
    }
    limits
}

pub(super) fn read_route_limits(s: &mut Section<'_>, p: &mut Diagnostics) -> Option<RouteLimits> {
    let node = s.node("limits")?;
    match &node.value {
        Value::String(word) if word == "none" => Some(RouteLimits::None(node.span.clone())),
        Value::Array(_) => Some(RouteLimits::Named(s.list("limits", Vec::new(), p))),
        _ => {
            s.mismatch("limits", node, "\"none\", or an array of names of limits", p);
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
    let limits = read_limits(&mut s, p);
    let key =
        ApiKey { span, sha256: s.get("sha256", p), tier: s.get("tier", p), name: s.get("name", p), limits };
    s.finish(p);
    key
}
