//! Holds the keys that a reload refuses to change to those that the configuration declares to need a restart.

use std::path::{Path, PathBuf};

use super::{FIXED, difference, needs_restart};
use crate::config::changes::{Change, Effect, Kind, Listing, Marks, Pairing, changes};
use crate::config::{self, DeclaredKey, Environment, Source, declared_keys};
use crate::policy::Policy;
use crate::state::route_digest;

/// Enough for every key that needs another one.
const BASE: &[(&str, &str)] = &[
    ("upstream.url", "\"http://127.0.0.1:1\""),
    ("server.trusted_proxies", "[\"private\"]"),
    ("server.admin_token", "\"a token\""),
    ("health.webhook", "\"http://127.0.0.1:2/\""),
    ("rate_limit.tiers.free.limits.a.rate", "\"10/s\""),
    ("rate_limit.tiers.pro.limits.a.rate", "\"20/s\""),
];

/// Keys whose default does not tell another value.
const SAMPLES: &[(&str, &str)] = &[
    ("server.listen", "[\"127.0.0.1:8081\"]"),
    ("server.admin", "\"127.0.0.1:9901\""),
    ("server.probes", "\"127.0.0.1:9902\""),
    ("server.admin_token", "\"another token\""),
    ("server.admin_hosts", "[\"a.example\"]"),
    ("server.workers", "2"),
    ("server.max_body_size", "\"1MiB\""),
    ("server.buffer_memory", "\"1MiB\""),
    ("server.trusted_proxies", "[\"10.0.0.0/8\"]"),
    ("server.underscores", "\"drop\""),
    ("upstream.url", "\"http://127.0.0.1:3\""),
    ("upstream.replicas", "[\"http://127.0.0.1:3\"]"),
    ("upstream.writes_to", "\"any\""),
    ("upstream.health.path", "\"/healthz\""),
    ("compression.codings", "[\"gzip\"]"),
    ("compression.types", "[\"text/*\"]"),
    ("compression.effort", "\"best\""),
    ("compression.ask_app", "\"client\""),
    ("identity.principal", "[\"ip\"]"),
    ("identity.api_key", "\"query:key\""),
    ("identity.hash_key", "\"0123456789abcdef\""),
    ("cache.max_size", "\"16MiB\""),
    ("cache.version", "\"2\""),
    ("cache.ignore_query", "[\"a\"]"),
    ("cache.ignore_cookies", "[\"a\"]"),
    ("cache.targeted", "[\"cdn-cache-control\"]"),
    ("cache.purge_from", "[\"private\"]"),
    ("rate_limit.enabled", "false"),
    ("rate_limit.key", "[\"ip\"]"),
    ("rate_limit.unlisted_keys", "\"own\""),
    ("rate_limit.tier", "[\"header:x-tier\"]"),
    ("rate_limit.default", "\"pro\""),
    ("rate_limit.mode", "\"shadow\""),
    ("rate_limit.headers", "[\"legacy\"]"),
    ("health.ready_requires", "[\"memory\"]"),
    ("health.memory_limit", "\"1GiB\""),
    ("health.webhook", "\"http://127.0.0.1:3/\""),
    ("health.webhook_secret", "\"a secret\""),
    ("maintenance.allow", "[\"private\"]"),
    ("maintenance.except", "[\"GET /healthz\"]"),
    ("log.format", "\"pretty\""),
    ("log.level", "\"debug\""),
    ("log.access", "\"off\""),
    ("log.mask", "[\"a\"]"),
    ("metrics.buckets", "[1]"),
    ("tracing.otlp_endpoint", "\"http://127.0.0.1:3\""),
];

/// Keys whose values a policy does not show.
const SECRETS: [&str; 4] =
    ["server.admin_token", "identity.hash_key", "health.webhook", "health.webhook_secret"];

/// Tables of users' own, and keys that name files: `check` would read them.
const ELSEWHERE: &[&str] = &[
    "upstreams.",
    "routes.",
    "invalidate.",
    "warm.",
    "server.tls.",
    "upstream.tls.",
    "identity.jwt.",
    "rate_limit.tiers.",
    // See below.
    "redis.",
    "rate_limit.keys",
    "maintenance.document",
    // Only among the durations of routes, of which there is none.
    "cache.tiers",
    "cache.stale_while_revalidate",
    "cache.stale_if_error",
];

fn load(text: String) -> Policy {
    let source = Source { embedded: Some(("test", Box::leak(text.into_boxed_str()))), ..Source::default() };
    config::load(&source, &Environment::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// The base with one key set.
fn text_with(changed: Option<(&str, &str)>) -> String {
    let is_other = |(path, _): &&(&str, &str)| changed.is_none_or(|(other, _)| *path != other);
    let lines = BASE.iter().filter(is_other).copied().chain(changed);
    lines.map(|(path, value)| format!("{path} = {value}\n")).collect()
}

fn with(changed: Option<(&str, &str)>) -> Policy {
    load(text_with(changed))
}

/// The changes from the base to the base with one key set.
fn changes_with(changed: (&str, &str)) -> Vec<Change> {
    let load = |text: String| {
        let source = Source { embedded: Some(("test", text.leak())), ..Source::default() };
        config::load_and_keep(&source, &Environment::default())
            .map(|(policy, kept)| (policy, kept.settings().unwrap()))
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let ((before, old), (after, new)) = (load(text_with(None)), load(text_with(Some(changed))));
    let rules = |policy: &Policy| route_digest::local(policy, policy.routes.unmatched());
    let (one, other) = (Listing::new(&old), Listing::new(&new));
    let pairing = Pairing::new(&one, &other);
    let marks = Marks::new(&new, &after, &pairing, &|_| rules(&after)).unwrap();
    let differing = marks.compare(&old, &before, &|_| rules(&before)).unwrap();
    changes(&one, &other, &pairing, &differing)
}

/// Another value than the default, where its form is all that counts.
fn another(default: &str) -> Option<String> {
    let other = match default {
        "true" => "false".to_owned(),
        "false" => "true".to_owned(),
        quoted if quoted.starts_with('"') => {
            let text = quoted.trim_matches('"');
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
            let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
            format!("\"{}{unit}\"", count + 1)
        }
        number if number.contains('.') || number == "1" => "0.5".to_owned(),
        number => (number.parse::<u64>().ok()? + 1).to_string(),
    };
    Some(other)
}

fn name_of(path: &str) -> &str {
    match path.split_once('.') {
        Some((section @ ("metrics" | "redis"), _)) => section,
        _ => path,
    }
}

#[test]
fn declared_restart_keys_are_those_that_a_reload_refuses() {
    let declared: Vec<DeclaredKey> = declared_keys().into_iter().filter(|key| key.restart).collect();
    for key in &declared {
        assert!(FIXED.iter().any(|(name, _)| *name == name_of(&key.path)), "{} needs no restart", key.path);
    }
    for (name, _) in FIXED {
        assert!(declared.iter().any(|key| name_of(&key.path) == name), "{name} is not declared to need one");
    }
}

#[test]
fn change_of_a_fleet_is_refused() {
    let fleet = |redis: &str| {
        let text = "[upstream]\nurl = \"http://127.0.0.1:1\"\n[identity]\nhash_key = \"0123456789abcdef0123456789abcdef\"\n";
        load(format!("{text}{redis}"))
    };
    const BASE: &str = "[redis]\nurl = \"redis://a\"\nprefix = \"a\"\n";
    let base = fleet(BASE);
    assert!(needs_restart(&base, &fleet(BASE)).is_empty());
    for changed in [
        "",
        &BASE.replace("redis://a", "redis://b"),
        &BASE.replace("\"a\"", "\"b\""),
        &format!("{BASE}timeout = \"1s\"\n"),
        &format!("{BASE}on_lost = \"revalidate\"\n"),
    ] {
        assert_eq!(needs_restart(&base, &fleet(changed)), ["redis"], "{changed}");
    }
}

#[test]
fn change_of_each_key_reaches_the_policy_and_is_refused_only_where_declared() {
    let base = with(None);
    assert_eq!(format!("{base:?}"), format!("{:?}", with(None)), "nothing in a policy is random");
    let (mut held, mut silent) = (0, Vec::new());
    for key in declared_keys() {
        let is_elsewhere = ELSEWHERE.iter().any(|path| key.path.starts_with(path));
        if !key.path.contains('.') || is_elsewhere {
            continue;
        }
        let sample = SAMPLES.iter().find(|(path, _)| *path == key.path).map(|(_, value)| (*value).to_owned());
        let Some(value) = sample.or_else(|| another(key.default.as_deref()?)) else {
            // Tables.
            assert!(key.default.is_none(), "{} has no sample", key.path);
            continue;
        };
        let changed = with(Some((&key.path, &value)));
        let is_seen = format!("{base:?}") != format!("{changed:?}");
        assert!(is_seen || SECRETS.contains(&key.path.as_str()), "{} = {value} changes nothing", key.path);
        let refused = needs_restart(&base, &changed);
        let expected: Vec<&str> = key.restart.then_some(name_of(&key.path)).into_iter().collect();
        assert_eq!(refused, expected, "{} = {value}", key.path);
        let told = difference(&base, &changed);
        if !key.restart && told == "nothing" {
            silent.push(key.path.clone());
        }
        let told = changes_with((&key.path, &value));
        let names = |change: &Change| match &change.kind {
            Kind::Set { setting, .. } | Kind::Secret { setting } => *setting == key.path,
            _ => false,
        };
        let named: Vec<&Change> = told.iter().filter(|change| names(change)).collect();
        let restarts = named.iter().any(|change| change.effects.contains(&Effect::Restart));
        assert!(named.len() == 1 && restarts == key.restart, "{} = {value}: {told:#?}", key.path);
        let others = told.iter().filter(|change| !names(change) && change.kind != Kind::Rules).count();
        assert_eq!(others, 0, "{} = {value}: {told:#?}", key.path);
        held += 1;
    }
    assert!(held > 80, "{held}");
    assert!(silent.is_empty(), "a reload that changes these says so: {silent:?}");
}

/// The configurations of the repository.
fn configurations() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["config", "examples"].map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let paths = files.into_iter().flatten().map(|file| file.unwrap().path());
    let is_one = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.ends_with(".toml") && !name.ends_with(".test.toml") && !name.ends_with("-keys.toml")
    };
    paths.filter(is_one).collect()
}

#[test]
fn effective_settings_written_as_a_file_make_the_same_policy() {
    let environment = Environment { cores: 2, ..Environment::default() };
    // Files that a configuration names are relative to its folder.
    let load = |path: &Path, text: String| {
        let name: &'static str = path.display().to_string().leak();
        let source = Source { embedded: Some((name, text.leak())), ..Source::default() };
        config::load_and_keep(&source, &environment).map(|(policy, kept)| (policy, kept.settings().unwrap()))
    };
    let mut held = 0;
    for path in configurations() {
        // Some need variables.
        let Ok((policy, settings)) = load(&path, std::fs::read_to_string(&path).unwrap()) else { continue };
        let text = settings.toml_with_secrets();
        let again = load(&path, text.clone());
        let (again, shown) = again.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(difference(&policy, &again), "nothing", "{}:\n{text}", path.display());
        assert_eq!(needs_restart(&policy, &again), Vec::<&str>::new(), "{}", path.display());
        assert_eq!(shown.digest(), settings.digest(), "{}", path.display());
        held += 1;
    }
    assert!(held >= 8, "{held}");
}
