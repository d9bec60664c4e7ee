//! Every configuration key, with its possible values and its default.

use pillion::internals::ReadKey;
use pillion::internals::contract;

use super::Facts;

/// Tables that must be present to list their keys. NAME stands for names that users choose.
const TABLES: &str = "\
[server.tls]\ncertificates = [{}]\n[upstream]\n[upstreams.NAME]\n[identity.jwt]\n[[routes]]\nredirect = {}\ndeprecated = {}\n\
limits = []\nwhen = {}\ncache = { key_query = [] }\n[[invalidate]]\n[[warm]]\n[rate_limit.tiers.NAME.limits.NAME]\n[redis]\n";

const KEYS: &str = "[[keys]]\n[keys.limits.NAME]\n";

fn fact(key: &ReadKey) -> String {
    let mut fact = key.path.clone();
    if let Some(default) = &key.default {
        fact += &format!(" = {default}");
    }
    if !key.expected.is_empty() {
        fact += &format!("  # {}", key.expected);
    }
    fact
}

pub(crate) fn gather(facts: &mut Facts) {
    for key in contract::configuration_keys(TABLES) {
        facts.add("configuration", fact(&key));
    }
    for key in contract::api_key_keys(KEYS) {
        facts.add("file of API keys", fact(&key));
    }
}

/// The list is the one that users see: the error for an unknown key names the known keys.
#[test]
fn the_list_of_keys_has_the_tables_of_the_reference() {
    let paths: Vec<String> = contract::configuration_keys(TABLES).into_iter().map(|key| key.path).collect();
    for wanted in [
        "server.tls.certificates.cert",
        "upstream.health.interval",
        "upstreams.NAME.tls.ca",
        "routes.cache.key_query",
        "routes.redirect.to",
        "routes.when.query",
        "routes.allow",
        "routes.deprecated.sunset",
        "invalidate.on",
        "identity.jwt.keys",
        "rate_limit.tiers.NAME.limits.NAME.rate",
        "redis.url",
    ] {
        assert!(paths.iter().any(|path| path == wanted), "{wanted}: {paths:#?}");
    }
}
