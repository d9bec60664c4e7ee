//! Puts the facts about a request into words, part by part.

use std::fmt;
use std::time::Duration;

use super::facts::{
    CacheFacts, CodingFacts, Exemption, Facts, Fate, Forwarded, InvalidationFacts, LifetimeFacts, LimitFacts,
    Mismatch, ReadFacts, RouteFacts, Token, Treatment, Whose,
};
use crate::cache::rules::storability::Personal;
use crate::cache::settings::{Override, Scope};
use crate::fields::cache_control::RequestDirectives;
use crate::policy::login_redirect::OnRedirect;

/// A text of named parts, each of one or more lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explanation {
    pub parts: Vec<(&'static str, Vec<String>)>,
}

impl Explanation {
    /// Puts facts into words.
    pub(crate) fn new(facts: &Facts) -> Explanation {
        let mut told = Explanation::default();
        if let Some(host) = &facts.assumed_host {
            told.say("host", format!("{host}, because neither the URL nor a field names another"));
        }
        if let Some(path) = &facts.path {
            if path.normal != path.given {
                told.say("path", format!("{} is matched as {}", path.given, path.normal));
            }
            if let Some(loose) = &path.loose {
                told.say("path", format!("some apps read it as {loose}: deny applies to that too"));
            }
        }
        if let Some(found) = &facts.route {
            route(&mut told, found);
        }
        match &facts.fate {
            Fate::Refused { status, detail } => {
                told.say("refused", format!("{}: {detail}", status.as_u16()));
            }
            Fate::Responded { status, location } => {
                told.say("answered", format!("{status} here, {location}"));
            }
            Fate::Forwarded(found) => forwarded(&mut told, found),
        }
        told
    }

    /// Returns the lines of a part.
    pub(crate) fn part(&self, name: &str) -> impl Iterator<Item = &str> {
        let lines = self.parts.iter().filter(move |(known, _)| *known == name).flat_map(|(_, lines)| lines);
        lines.map(String::as_str)
    }

    fn say(&mut self, part: &'static str, line: impl Into<String>) {
        match self.parts.last_mut() {
            Some((known, lines)) if *known == part => lines.push(line.into()),
            _ => self.parts.push((part, vec![line.into()])),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, lines) in &self.parts {
            for (at, line) in lines.iter().enumerate() {
                writeln!(f, "{:<12} {line}", if at == 0 { part } else { "" })?;
            }
        }
        Ok(())
    }
}

fn route(told: &mut Explanation, found: &RouteFacts) {
    match &found.pattern {
        Some(pattern) => told.say("route", format!("{} of {}: {pattern}", found.position, found.total)),
        None => told.say("route", "none matches: the defaults apply"),
    }
    if !found.conditions.is_empty() {
        told.say("route", format!("its when holds: {}", found.conditions.join(", ")));
    }
    for skipped in &found.skipped {
        let why = match &skipped.why {
            Mismatch::Path => "another path".to_owned(),
            Mismatch::Host => "another host".to_owned(),
            Mismatch::Method => "another method".to_owned(),
            Mismatch::Condition(condition) => format!("its when does not hold: {condition}"),
        };
        told.say("route", format!("not {}, {}: {why}", skipped.position, skipped.pattern));
    }
}

fn forwarded(told: &mut Explanation, found: &Forwarded) {
    for name in &found.dropped {
        told.say("dropped", format!("{name}: some apps read it as another field (server.underscores)"));
    }
    if let Some((label, target)) = &found.rewritten {
        told.say("rewritten", format!("by {label} to {target}"));
    }
    if let Some(upstream) = &found.upstream {
        let timing = match upstream.timeout {
            None => {
                "a stream from its start: it counts toward max_streams and has no response_timeout".to_owned()
            }
            Some(timeout) => format!("responds within {timeout:?}"),
        };
        told.say("app", format!("{} ({}), {timing}", upstream.name, upstream.urls.join(", ")));
    }
    match found.token {
        Token::NotConfigured => {}
        Token::Absent => told.say("token", "the request has none"),
        Token::Verified => told.say("token", "it verifies"),
        Token::Invalid => {
            told.say("token", "it does not verify: it proves nothing, and the cache is bypassed")
        }
    }
    if found.credentials.is_empty() {
        told.say("principal", "none: the request carries none of identity.principal");
    } else {
        let hash = found.principal_hash.as_ref().map_or(String::new(), |hash| format!(": {hash}"));
        told.say("principal", format!("the keyed hash of {}{hash}", found.credentials.join(" and ")));
    }
    match &found.limits {
        None => told.say("limits", "none: no tier is configured"),
        Some(found) => limits(told, found),
    }
    coding(told, &found.coding);
    cache(told, &found.cache);
    if let Some(found) = &found.invalidation {
        invalidation(told, found);
    }
}

fn limits(told: &mut Explanation, found: &LimitFacts) {
    let name = found.key_name.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    told.say("limits", format!("as {}{name}, tier {:?}", found.kind.as_str(), found.tier));
    if found.rejected {
        told.say("limits", "401: its API key is not listed");
    }
    match found.exemption {
        Exemption::NotGiven => {}
        Exemption::Given => told.say("limits", "limits = \"none\": no quota applies here"),
        Exemption::Withheld => {
            told.say("limits", "limits = \"none\" does not exempt a path that can be read in two ways");
        }
    }
    for quota in &found.quotas {
        let shadow = if found.shadow { ", in shadow mode" } else { "" };
        told.say(
            "limits",
            format!("{}: {} in {:?}, {} at once{shadow}", quota.name, quota.count, quota.period, quota.burst),
        );
    }
    if found.cost > 1 {
        told.say("limits", format!("it counts as {}", found.cost));
    }
    if let Some(max) = found.max_in_flight {
        told.say("limits", format!("at most {max} in flight on this route"));
    }
}

fn coding(told: &mut Explanation, found: &CodingFacts) {
    match found {
        CodingFacts::Refused(status, detail) => told.say("coding", format!("{}: {detail}", status.as_u16())),
        CodingFacts::Off => {
            told.say("coding", "none: compress is off here, or the request says no-transform")
        }
        CodingFacts::NotAccepted => {
            told.say("coding", "none: the client accepts none of compression.codings");
        }
        CodingFacts::NothingAccepted => {
            told.say("coding", "406: the client rejects every coding and the content without one");
        }
        CodingFacts::Chosen { coding, min_size } => told.say(
            "coding",
            format!("{}, for content of {min_size} bytes or more of the listed types", coding.as_str()),
        ),
    }
}

fn cache(told: &mut Explanation, found: &CacheFacts) {
    let scope = match found.scope {
        Scope::Auto => {
            "auto: one copy for all if nothing identifies the user; otherwise only responses that \
            are marked as public"
        }
        Scope::Shared => "shared: one copy for all",
        Scope::User => "user: one copy for each principal",
        Scope::Off => "off",
    };
    let written = |write: &bool| if *write { "a write, and " } else { "" };
    match &found.treatment {
        Treatment::Off => told.say("cache", "off: cache.enabled is false"),
        Treatment::Upgrade { protocols, write } => told.say(
            "cache",
            format!("{}bypassed: the request asks for an upgrade to {protocols}", written(write)),
        ),
        Treatment::Grpc { write } => {
            told.say("cache", format!("{}bypassed: gRPC responds in trailers", written(write)));
        }
        Treatment::Purge => told
            .say("cache", "answered by Pillion: stored responses for this URL are purged (cache.purge_from)"),
        Treatment::Write => told.say("cache", "a write: its response never comes from the cache"),
        Treatment::Bypass(why) => {
            told.say("cache", format!("bypassed: {} (scope {scope})", why.sentence()));
        }
        Treatment::Content => {
            told.say("cache", format!("scope {scope}; the content is part of the cache key"));
            lifetime(told, &found.lifetime);
        }
        Treatment::Read(read) => {
            told.say("cache", format!("scope {scope}"));
            self::read(told, read, found.scope);
            lifetime(told, &found.lifetime);
        }
    }
}

fn read(told: &mut Explanation, found: &ReadFacts, scope: Scope) {
    match found.personal {
        Personal::Authorization if scope == Scope::Auto => told.say(
            "cache",
            "it identifies the user: only responses with public, s-maxage or must-revalidate are used \
            and stored",
        ),
        Personal::Otherwise if scope == Scope::Auto => told.say(
            "cache",
            "it identifies the user, by a cookie or a field: only responses with public or s-maxage are \
            used and stored",
        ),
        _ => {}
    }
    if !found.fragments.is_empty() {
        let names: Vec<&str> = found.fragments.iter().map(|name| name.as_str()).collect();
        let names = names.join(" and ");
        told.say(
            "cache",
            format!("it may ask for a fragment: only responses whose Vary names {names} are used and stored"),
        );
    }
    match found.uncounted {
        None => {}
        Some(true) => told.say(
            "cache",
            "the upstream gets it without the parameters that are not part of the cache key (strip_query)",
        ),
        Some(false) => told.say(
            "cache",
            "it has parameters that are not part of the cache key: it uses what is stored without them, \
            and leaves nothing",
        ),
    }
    directives(told, &found.directives);
    if let Some(stored) = &found.stored {
        let by = stored.told_host.as_ref().map_or(String::new(), |host| format!(", forwarded as {host}"));
        let whose = if stored.whose == Whose::All { "" } else { ", of this principal" };
        let version = match found.version.as_str() {
            "" => String::new(),
            version => format!(", version {version:?}"),
        };
        told.say("key", format!("{}{}{by}{whose}{version}", stored.host, stored.target));
    }
    match found.tags.is_empty() {
        true => told.say("tags", "none but those the upstream sends"),
        false => told.say("tags", found.tags.join(", ")),
    }
}

/// Explains the cache directives of the request (RFC 9111 5.2.1).
fn directives(told: &mut Explanation, directives: &RequestDirectives) {
    let said = [
        (directives.no_store, "no-store: its response is not stored"),
        (directives.no_cache, "no-cache: a stored response is revalidated before it is used"),
        (directives.only_if_cached, "only-if-cached: 504 if no stored response can be used"),
        (directives.max_age.is_some(), "max-age: no older stored response is used"),
        (directives.min_fresh.is_some(), "min-fresh: no stored response is used that is fresh for less time"),
        (directives.max_stale.is_some(), "max-stale: stale responses are accepted too"),
    ];
    for (_, what) in said.iter().filter(|(says, _)| *says) {
        told.say("cache", format!("the request says {what}"));
    }
}

fn lifetime(told: &mut Explanation, found: &LifetimeFacts) {
    match found.ttl {
        Some(ttl) => {
            let over = match found.overrides {
                Override::None => "if the upstream gives none",
                Override::Lifetime => "whatever max-age, no-cache and Expires say (override = \"lifetime\")",
                Override::NoStore => {
                    "whatever max-age, no-cache, Expires and no-store say (override = \"no-store\")"
                }
            };
            told.say("lifetime", format!("{ttl:?}, by the route, {over}"));
        }
        None => {
            let derived = match found.heuristic_max {
                Duration::ZERO => "none".to_owned(),
                max => format!("a tenth of the time since Last-Modified, at most {max:?}"),
            };
            told.say(
                "lifetime",
                format!("set by the upstream's Cache-Control or Expires; otherwise {derived}"),
            );
        }
    }
    if found.ttl.is_none() || found.overrides == Override::None {
        told.say("lifetime", format!("the upstream can set at most {:?} (cache.max_ttl)", found.max_ttl));
    }
    for (status, ttl) in &found.ttl_by_status {
        told.say("lifetime", format!("{ttl:?} for {}", status.as_u16()));
    }
    let stale = [
        ("while it is revalidated", found.stale_while_revalidate),
        ("if the upstream sends no response", found.stale_if_unreachable),
        ("in place of the upstream's own 502 to 504", found.stale_if_error),
    ];
    for (when, window) in stale.iter().filter(|(_, window)| *window > Duration::ZERO) {
        told.say(
            "lifetime",
            format!("then stale for {window:?} {when}, if the upstream gives no other time"),
        );
    }
}

fn invalidation(told: &mut Explanation, found: &InvalidationFacts) {
    let would = if found.writes { "" } else { "a write here would invalidate " };
    told.say("invalidates", format!("{would}its own path: {}", found.path));
    for rule in &found.rules {
        let paths =
            rule.paths.iter().map(|(path, below)| format!("{path}{}", if *below { "/**" } else { "" }));
        let mut all: Vec<String> = rule.tags.iter().cloned().chain(paths).collect();
        if rule.of_principal {
            let whose =
                if all.is_empty() { "all copies of the writer" } else { "among the copies of the writer" };
            all.push(whose.to_owned());
        }
        let on_redirect = match rule.on_redirect {
            OnRedirect::Auto => "",
            OnRedirect::Always => ", on every redirect",
            OnRedirect::Never => ", on no redirect",
        };
        let mode = rule.mode.as_str();
        told.say("invalidates", format!("{} by {:?} ({mode}{on_redirect})", all.join(", "), rule.label));
    }
}
