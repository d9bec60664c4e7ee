//! Which values of a file are secrets, and which are URLs, paths or addresses, by the declared keys.

use super::keys::{Declared, Form, Table, api_key, root};
use super::redact;
use super::table_reader::nearest;
use super::value::{Class, Classes};

/// Declared keys whose values are secrets.
const SECRET_KEYS: [&str; 5] = ["admin_token", "hash_key", "webhook", "webhook_secret", "sha256"];

/// Declared keys whose values are URLs, paths or addresses.
const PLACE_KEYS: [&str; 22] = [
    "url",
    "replicas",
    "listen",
    "admin",
    "probes",
    "admin_hosts",
    "trusted_proxies",
    "purge_from",
    "cert",
    "key",
    "ca",
    "client_ca",
    "server_name",
    "path",
    "paths",
    "keys",
    "hs256",
    "jwks_url",
    "otlp_endpoint",
    "rewrite",
    "to",
    "link",
];

/// The knowledge about the keys of a table.
#[derive(Clone, Copy)]
pub(super) enum Level {
    /// The whole file.
    Root,
    /// These keys are declared.
    Declared(&'static Table),
    /// The keys are names, and their tables have these keys.
    Names(&'static Table),
    /// The keys are names of fields and the like.
    Free(Class),
    /// Nobody declared the table.
    Unknown,
}

impl Classes for Level {
    fn step(self, key: &str) -> (Class, Level) {
        match self {
            Level::Root if key == "keys" => (Class::Other, Level::Declared(&api_key::TABLE)),
            Level::Root => declared(&root::TABLE, key),
            Level::Declared(table) => declared(table, key),
            Level::Names(table) => (Class::Other, Level::Declared(table)),
            Level::Free(Class::Secret) => (Class::Secret, self),
            Level::Free(_) if redact::is_secret(key) => (Class::Secret, self),
            Level::Free(_) => (Class::Other, self),
            Level::Unknown if redact::is_secret(key) => (Class::Secret, Level::Free(Class::Secret)),
            Level::Unknown => (Class::Other, Level::Unknown),
        }
    }
}

fn declared(table: &'static Table, key: &str) -> (Class, Level) {
    if let Some(known) = table.keys.iter().find(|known| known.name() == key) {
        return (class(key), level(*known));
    }
    // An unknown key is one that was meant, or may be anything; a word that only looks like one with a secret hides its
    // value.
    let names: Vec<&str> = table.keys.iter().map(|known| known.name()).collect();
    match nearest(key, &names) {
        Some(meant) if class(meant) != Class::Secret && !redact::is_secret(key) => {
            (Class::Other, Level::Unknown)
        }
        _ => (Class::Secret, Level::Free(Class::Secret)),
    }
}

fn class(key: &str) -> Class {
    if SECRET_KEYS.contains(&key) || key == "set_request" {
        Class::Secret
    } else if PLACE_KEYS.contains(&key) {
        Class::Place
    } else {
        Class::Other
    }
}

fn level(key: &dyn Declared) -> Level {
    match key.form() {
        Form::Table(table) | Form::Tables(table) => Level::Declared(table),
        Form::Named(table, _) => Level::Names(table),
        _ => Level::Free(class(key.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_told_by_its_declared_key() {
        for (path, class) in [
            ("server.admin_token", Class::Secret),
            ("server.admin_tokn", Class::Secret),
            ("server.whatever", Class::Secret),
            ("server.admin_token.value", Class::Secret),
            ("server.listen", Class::Place),
            ("server.lisen", Class::Other),
            ("upstream.retires", Class::Other),
            ("upstreams.a.url", Class::Place),
            ("identity.api_key", Class::Other),
            ("identity.principal", Class::Other),
            ("identity.jwt.token", Class::Other),
            ("cache.ignore_cookies", Class::Other),
            ("routes.set_request.x-a", Class::Secret),
            ("routes.set_response.x-a", Class::Other),
            ("routes.set_response.set-cookie", Class::Secret),
            ("keys.sha256", Class::Secret),
            ("keys.key", Class::Secret),
            ("redis.prefix", Class::Other),
            ("redis.url", Class::Place),
            ("whatever.prefix", Class::Secret),
        ] {
            let mut found = (Class::Other, Level::Root);
            for key in path.split('.') {
                found = found.1.step(key);
            }
            assert_eq!(found.0, class, "{path}");
        }
    }
}
