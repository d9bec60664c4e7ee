//! Effective settings mean what their file means, show every key once, and hide secrets.

use super::*;
use crate::config::{declared_keys, load, load_and_keep};

fn settings_with(text: &str, source: Source, variables: &[(&str, &str)]) -> Settings {
    let embedded = Some(("a.toml", &*Box::leak(text.to_owned().into_boxed_str())));
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let environment = Environment { variables, ..Environment::default() };
    let (_, kept) =
        load_and_keep(&Source { embedded, ..source }, &environment).unwrap_or_else(|e| panic!("{e}"));
    kept.settings().unwrap()
}

fn settings(text: &str) -> Settings {
    settings_with(text, Source::default(), &[])
}

/// The line of a setting, with its origin.
fn line<'a>(toml: &'a str, start: &str) -> &'a str {
    let mut lines = toml.lines();
    lines.find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no line {start} in\n{toml}"))
}

const UPSTREAM: &str = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n";

#[test]
fn setting_tells_its_value_and_its_origin() {
    let text = "[upstream]\nurl = \"http://${APP}:${PORT:-3000}\"\nretries = \"${TRIES}\"\n\n[server]\nlisten = 8081\n\
                idle_timeout = \"120s\"\n[cache.tiers]\nshort = \"90s\"\n";
    let source =
        Source { admin: Some("9901".to_owned()), probes: Some("9902".to_owned()), ..Source::default() };
    let variables = [("APP", "app"), ("TRIES", "0"), ("PILLION_ADMIN", "9901"), ("OTHER", "x")];
    // The address of the admin listener is not loopback.
    let text = text.replace("[server]", "[server]\nadmin_token = \"S3CRET-S3CRET-S3CRET\"");
    let toml = settings_with(&text, source, &variables).toml();
    for (start, wanted) in [
        ("url =", "url = \"http://app:3000\"  # a.toml:2 ${APP} ${PORT} (fallback)"),
        ("retries =", "retries = 0  # a.toml:3 ${TRIES}"),
        ("listen =", "listen = [\"8081\"]  # a.toml:7"),
        ("idle_timeout =", "idle_timeout = \"2m\"  # a.toml:8"),
        ("admin =", "admin = \"9901\"  # environment PILLION_ADMIN"),
        ("probes =", "probes = \"9902\"  # --probes"),
        ("admin_token =", "admin_token = \"****************\"  # a.toml:6"),
        ("workers =", "workers = \"auto\"  # default"),
        ("short =", "short = \"90s\"  # a.toml:10"),
    ] {
        assert_eq!(line(&toml, start), wanted);
    }
    assert!(!toml.contains("medium") && !toml.contains("S3CRET"), "{toml}");
}

#[test]
fn every_declared_key_with_a_default_is_shown_once() {
    let settings = settings(UPSTREAM);
    for key in declared_keys() {
        let is_of_a_table = [
            "routes.",
            "invalidate.",
            "warm.",
            "upstreams.",
            "server.tls.",
            "identity.jwt.",
            "rate_limit.tiers.",
            "redis.",
        ];
        if key.default.is_none() || is_of_a_table.iter().any(|table| key.path.starts_with(table)) {
            continue;
        }
        let below = format!("{}.", key.path);
        let shown = settings.all.iter().filter(|setting| setting.key() == key.path).count();
        let inside = settings.all.iter().any(|setting| setting.key().starts_with(&below));
        assert!(shown == 1 || inside, "{} is shown {shown} times", key.path);
    }
}

#[test]
fn digest_changes_with_a_setting_and_not_with_a_secret_an_order_or_a_comment() {
    let digest = |text: &str| settings(text).digest();
    let one = "[server]\nidle_timeout = \"1m\"\nadmin_token = \"0123456789abcdef\"\n[upstream]\nurl = \"http://127.0.0.1:3000\"\n";
    let first = digest(one);
    for same in [
        one.replace("1m", "60s"),
        one.replace("0123456789abcdef", "another-token-of-mine"),
        format!("# a comment\n{one}"),
        "[upstream]\nurl = \"http://127.0.0.1:3000\"\n[server]\nadmin_token = \"0123456789abcdef\"\nidle_timeout = \"60_000ms\"\n".to_owned(),
        one.replace("[server]", "[server]\nwatch = true"),
    ] {
        assert_eq!(digest(&same), first, "{same}");
    }
    for other in [
        one.replace("1m", "61s"),
        one.replace("admin_token = \"0123456789abcdef\"\n", ""),
        one.replace("[server]", "[server]\nwatch = false"),
        format!("{one}[[routes]]\nmatch = \"GET /a\"\n"),
    ] {
        assert_ne!(digest(&other), first, "{other}");
    }
    assert_eq!(first.len(), 32);
}

#[test]
fn no_secret_is_shown() {
    let text = format!(
        "{UPSTREAM}[server]\nadmin_token = \"S3CRET-S3CRET-S3CRET\"\n[identity]\nhash_key = \"S3CRET-S3CRET-S3CRET\"\n[health]\nwebhook = \
         \"http://h/S3CRET\"\nwebhook_secret = \"S3CRET-S3CRET-S3CRET\"\n[tracing]\notlp_endpoint = \"http://h/?k=S3CRET\"\n[[routes]]\n\
         match = \"GET /a\"\nset_request = {{ x-a = \"S3CRET\", authorization = \"${{T}}\" }}\nset_response = {{ x-api-key = \"S3CRET\", x-b = \"b\" }}\n"
    );
    let settings = settings_with(&text, Source::default(), &[("T", "S3CRET")]);
    for shown in [settings.toml(), settings.json().to_string(), format!("{settings:?}")] {
        assert!(!shown.contains("S3CRET"), "{shown}");
    }
    let toml = settings.toml();
    assert!(
        line(&toml, "authorization =").starts_with("authorization = \"****************\"  # a.toml:"),
        "{toml}"
    );
    assert!(line(&toml, "otlp_endpoint =").contains("\"http://h/?*=*\""), "{toml}");
    assert!(line(&toml, "x-b =").contains("\"b\""), "{toml}");
    assert!(settings.toml_with_secrets().contains("http://h/?k=S3CRET"));
}

#[test]
fn names_and_texts_of_any_kind_are_valid_toml() {
    let text = format!(
        "{UPSTREAM}[upstreams.\"a b.c\"]\nurl = \"http://127.0.0.1:1\"\n[rate_limit.tiers.free]\n[rate_limit.tiers.pro.limits.\"x.y\"]\nrate = \"1_0/s\"\n[[routes]]\n\
         match = \"GET /a\"\nset_response = {{ x-a = \"a \\\"b\\\" $${{NO}}\" }}\n[[routes]]\nmatch = \"GET /b\"\ncache = {{}}\nlimits = \"none\"\n[[invalidate]]\non = \
         \"POST /a\"\npaths = [\"/a\"]\n"
    );
    let first = settings(&text);
    let toml = first.toml();
    let again = settings(&toml);
    assert_eq!(again.digest(), first.digest(), "{toml}");
    assert!(
        toml.contains("[rate_limit.tiers.free]  # a.toml:") && toml.contains("[upstreams.\"a b.c\"]"),
        "{toml}"
    );
    assert!(
        load(
            &Source { embedded: Some(("b", Box::leak(toml.into_boxed_str()))), ..Source::default() },
            &Environment::default()
        )
        .is_ok()
    );
}
