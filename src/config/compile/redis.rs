//! `[redis]`.

use std::sync::Arc;

use super::Compiler;
use crate::cache::outgoing;
use crate::config::file::{File, Redis};
use crate::config::keys::redis as keys;
use crate::config::table_reader::Spanned;
use crate::config::tls;
use crate::limit::shared;
use crate::policy::{Copies, CopiesPolicy, FleetPolicy};
use crate::redis::settings::Settings;
use crate::redis::url::RedisUrl;

/// Minimum length of `identity.hash_key` with `[redis]`, in bytes: it seals all that is stored there.
const MIN_HASH_KEY: usize = 32;
/// Maximum length of `redis.prefix`.
const MAX_PREFIX: usize = 64;

impl Compiler<'_> {
    pub(super) fn redis(&mut self, file: &File) -> Option<FleetPolicy> {
        let raw = file.redis.as_ref()?;
        let hash_key = &file.identity.hash_key;
        if hash_key.value.len() < MIN_HASH_KEY {
            let span = hash_key.span.as_ref().filter(|_| hash_key.is_written()).unwrap_or(&raw.span);
            let message = format!("[redis] needs an identity.hash_key of at least {MIN_HASH_KEY} bytes");
            let help = "it seals all that is in Redis; write hash_key = \"${PILLION_HASH_KEY}\" in [identity], the same \
                for all processes, with the output of: openssl rand -base64 32";
            self.fail(Some(span), message, help);
        }
        let prefix = self.redis_prefix(raw);
        let url = self.redis_url(raw);
        let cache_url = self.cache_url(raw);
        let tls = [&url, &cache_url].into_iter().flatten().any(|url| url.tls);
        let tls = tls.then(|| self.redis_tls(raw)).flatten();
        if let Some(url) = url.as_ref().filter(|_| tls.is_none() && !raw.ca.value.is_empty()) {
            let message = format!("redis.ca without TLS: the url is {url}");
            self.fail(raw.ca.span.as_ref(), message, "write rediss://, or remove ca");
        }
        let password_file =
            (!raw.password_file.value.is_empty()).then(|| self.folder.join(&raw.password_file.value));
        if let Some(path) = &password_file {
            if let Err(error) = std::fs::read(path) {
                let message = format!("redis.password_file {} cannot be read: {error}", path.display());
                let help = self.unreadable(path, &error, "name a file that exists");
                self.fail(raw.password_file.span.as_ref(), message, help);
            }
            if url.as_ref().is_some_and(|url| url.password.is_some()) {
                let message = "redis.password_file and a password in redis.url";
                self.fail(raw.password_file.span.as_ref(), message, "remove one of them");
            }
        }
        let (url, prefix) = (url?, prefix?);
        let at = |url: RedisUrl| Settings {
            tls: tls.clone().filter(|_| url.tls),
            url,
            password_file: password_file.clone(),
            prefix: prefix.clone(),
            timeout: raw.timeout.value,
        };
        let (elsewhere, settings) = (cache_url.map(at), at(url));
        let copies = self.copies(raw, elsewhere);
        self.soft_timeout(raw);
        let limits = raw.rate_limit.then(|| self.shared_limits(raw));
        Some(FleetPolicy {
            settings,
            limits,
            own_writes: raw.read_your_writes,
            copies,
            on_lost: raw.on_lost,
            hash_keys: vec![hash_key.value.clone().into()],
        })
    }

    fn copies(&mut self, raw: &Redis, elsewhere: Option<Settings>) -> Option<CopiesPolicy> {
        if raw.cache == Copies::Off {
            if let Some(at) = &raw.cache_url {
                self.fail(
                    at.span.as_ref(),
                    "redis.cache_url with redis.cache = \"off\"",
                    "remove one of them",
                );
            }
            return None;
        }
        Some(CopiesPolicy {
            outgoing: outgoing::Settings {
                users: raw.cache == Copies::All,
                max_object_size: usize::try_from(raw.max_object_size.value.0).unwrap_or(usize::MAX),
            },
            elsewhere,
            timeout: raw.soft_timeout.value,
        })
    }

    fn soft_timeout(&mut self, raw: &Redis) {
        if raw.soft_timeout.value > raw.timeout.value {
            let message = "redis.soft_timeout is longer than redis.timeout";
            self.fail(
                raw.soft_timeout.span.as_ref(),
                message,
                "a request waits no longer than a command may take",
            );
        }
    }

    fn shared_limits(&mut self, raw: &Redis) -> shared::Settings {
        let replicas = self.within("redis.replicas", &raw.replicas, keys::REPLICAS.bounds());
        shared::Settings {
            on_error: raw.on_error,
            timeout: raw.soft_timeout.value,
            replicas: usize::try_from(replicas).unwrap_or(1),
        }
    }

    fn redis_url(&mut self, raw: &Redis) -> Option<RedisUrl> {
        let Some(at) = raw.url.as_ref().filter(|at| !at.value.is_empty()) else {
            self.fail(Some(&raw.span), "[redis] without a url", "url = \"redis://redis:6379\"");
            return None;
        };
        self.parsed_url("redis.url", at)
    }

    fn cache_url(&mut self, raw: &Redis) -> Option<RedisUrl> {
        let at = raw.cache_url.as_ref().filter(|at| !at.value.is_empty())?;
        self.parsed_url("redis.cache_url", at)
    }

    fn parsed_url(&mut self, name: &str, at: &Spanned<String>) -> Option<RedisUrl> {
        RedisUrl::parse(&at.value)
            .inspect_err(|error| {
                let help = "expected a URL like redis://user:password@host:6379/0";
                self.fail(at.span.as_ref(), format!("{name} has {error}"), help);
            })
            .ok()
    }

    fn redis_prefix(&mut self, raw: &Redis) -> Option<String> {
        let Some(at) = raw.prefix.as_ref().filter(|at| !at.value.is_empty()) else {
            let help = "prefix = \"NAME-OF-THE-APP\": two fleets with one prefix would take each other's invalidations";
            self.fail(Some(&raw.span), "[redis] without a prefix", help);
            return None;
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if at.value.len() > MAX_PREFIX || !at.value.bytes().all(fits) {
            let help = format!("expected at most {MAX_PREFIX} letters, digits, _, . and -");
            self.fail(at.span.as_ref(), format!("redis.prefix is {:?}", at.value), help);
            return None;
        }
        Some(at.value.clone())
    }

    fn redis_tls(&mut self, raw: &Redis) -> Option<Arc<rustls::ClientConfig>> {
        let ca = (!raw.ca.value.is_empty()).then(|| self.file(&raw.ca.value));
        tls::client_config(ca.as_deref(), None)
            .inspect_err(|message| {
                self.fail(raw.ca.span.as_ref().or(Some(&raw.span)), message.clone(), "expected a PEM file");
            })
            .ok()
            .map(Arc::new)
    }
}
