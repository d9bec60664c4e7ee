//! `[identity]`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;
use http::uri::PathAndQuery;

use super::Compiler;
use crate::config::file::{File, Jwt};
use crate::config::keys::{IGNORED_COOKIES, PRINCIPAL};
use crate::config::table_reader::{Spanned, nearest};
use crate::fields::cookie::Ignored;
use crate::fields::glob;
use crate::identity::credential::{Hasher, Source, Tokens};
use crate::identity::jwt::Verifier;
use crate::identity::keys;
use crate::identity::principal::Identity;
use crate::policy::{Carrier, Checks, KeySource, UpstreamPolicy, WRITTEN};

/// A shorter secret can be guessed.
const MIN_SECRET: usize = 16;

/// Whether limits ask for a claim.
fn claims_of_limits(file: &File) -> bool {
    let limits = file.rate_limit.tier.iter().chain([&file.identity.api_key]);
    limits.into_iter().any(|at| at.value.starts_with("jwt:"))
}

/// The built-in session cookie that an `ignore_cookies` pattern means, if it means one: it covers its whole name, or is
/// covered by it.
fn session_meant(pattern: &str) -> Option<&'static str> {
    let one = pattern.as_bytes();
    PRINCIPAL.into_iter().find(|source| {
        source.strip_prefix("cookie:").map(str::as_bytes).is_some_and(|other| {
            glob::matches_without_case(one, other) || glob::matches_without_case(other, one)
        })
    })
}

/// Whether an `ignore_cookies` pattern was chosen here, not by whoever wrote the file.
fn is_of_default(pattern: &str) -> bool {
    IGNORED_COOKIES.contains(&pattern)
}

/// The cookies that do not count. What a pattern with a star ignores is no cookie that `principal` lists, or would by
/// default, unless the file says so in as many words, of which [`Compiler::ignored_credentials`] warns.
pub(super) fn ignored_cookies(file: &File) -> Ignored {
    // What Pillion sets itself makes no request personal.
    let own = file.redis.iter().filter(|redis| redis.read_your_writes == Some(Carrier::Cookie));
    let patterns = file.cache.ignore_cookies.iter().map(|at| at.value.clone());
    let patterns = patterns.chain(own.map(|_| WRITTEN.to_owned())).collect();
    let listed = file.identity.principal.iter().map(|at| at.value.as_str()).chain(PRINCIPAL);
    let sessions = listed.filter_map(|source| source.strip_prefix("cookie:")).map(str::to_owned).collect();
    let means_sessions = |pattern: &str| !is_of_default(pattern) && session_meant(pattern).is_some();
    Ignored::new(patterns, means_sessions, sessions)
}

impl Compiler<'_> {
    pub(super) fn identity(&mut self, file: &File) -> (Identity, Option<KeySource>) {
        let raw = &file.identity;
        let sources: Vec<Source> = raw.principal.iter().filter_map(|at| self.source(at)).collect();
        let secret = raw.hash_key.value.as_bytes();
        if raw.hash_key.is_written() && !secret.is_empty() && secret.len() < MIN_SECRET {
            let help = format!("expected at least {MIN_SECRET} characters that cannot be guessed");
            self.fail(raw.hash_key.span.as_ref(), "identity.hash_key is too short", help);
        }
        // A reload keeps the cache, so it keeps the secret too.
        let secret = if secret.is_empty() { &self.environment.secret.expose()[..] } else { secret };
        let claims = sources.iter().any(|source| matches!(source, Source::Claim(_)));
        let mut source = None;
        let tokens = match &raw.jwt {
            Some(jwt) => self.tokens(jwt, claims || claims_of_limits(file)).map(|(tokens, found)| {
                source = found;
                tokens
            }),
            None if claims => {
                let span = raw.principal.iter().find(|at| at.value.starts_with("jwt:"));
                let help = "add [identity.jwt] with keys, hs256 or jwks_url: claims that are not verified \
                    are never used";
                self.fail(
                    span.and_then(|at| at.span.as_ref()),
                    "a claim of a token, and no key to verify the token",
                    help,
                );
                None
            }
            None => None,
        };
        self.ignored_credentials(file);
        let identity = Identity::new(sources, Hasher::new(secret), tokens).ignoring(ignored_cookies(file));
        // An answer to one caller's key is not for the next, also where keys are for limits alone.
        let api_key = raw.api_key.value.strip_prefix("header:");
        let identity = match api_key.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
            Some(field) => identity.also_told_by(field),
            None => identity,
        };
        (identity, source)
    }

    /// A cookie that counts for nothing cannot say who asks.
    fn ignored_credentials(&mut self, file: &File) {
        let raw = &file.identity;
        let token = raw.jwt.as_ref().map(|jwt| &jwt.token);
        for at in raw.principal.iter().filter(|at| at.is_written()).chain(token) {
            let Some(cookie) = at.value.strip_prefix("cookie:") else { continue };
            // A cookie is listed with its prefixes too.
            let plain = |name: &str| {
                let prefixes = ["__Host-", "__Secure-"];
                prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_owned()
            };
            let covers = |pattern: &&Spanned<String>| {
                let plain = plain(&pattern.value);
                let ignored = [pattern.value.as_str(), &plain];
                // No cookie that is ignored by default matches a glob in principal.
                let meets =
                    if is_of_default(&pattern.value) { glob::matches_without_case } else { glob::overlap };
                ignored.iter().any(|ignored| meets(ignored.as_bytes(), cookie.as_bytes()))
            };
            if let Some(pattern) = file.cache.ignore_cookies.iter().find(covers) {
                let message =
                    format!("{:?} is ignored by cache.ignore_cookies = {:?}", at.value, pattern.value);
                let help = "remove that pattern from ignore_cookies: an ignored cookie does not \
                    identify a user";
                self.fail(at.span.as_ref(), message, help);
            }
        }
        for at in file.cache.ignore_cookies.iter().filter(|at| at.is_written() && !is_of_default(&at.value)) {
            if at.value == "*" {
                let message = "cache.ignore_cookies holds \"*\": no cookie identifies a user, so one user may \
                    get the response of another";
                self.warn(at.span.as_ref(), message, "");
            } else if let Some(known) = session_meant(&at.value) {
                let message = format!(
                    "cache.ignore_cookies holds {:?}, which covers session cookies of frameworks \
                    ({known}): such a cookie no longer identifies a user",
                    at.value
                );
                self.warn(at.span.as_ref(), message, "");
            }
        }
    }

    fn tokens(&mut self, jwt: &Jwt, claims: bool) -> Option<(Tokens, Option<KeySource>)> {
        let place = match jwt.token.value.split_once(':') {
            Some(("header" | "cookie", _)) => self.source(&jwt.token)?,
            _ => {
                let message = format!("token is {:?}", jwt.token.value);
                self.fail(jwt.token.span.as_ref(), message, "expected \"header:NAME\" or \"cookie:NAME\"");
                return None;
            }
        };
        let mut keys = Vec::new();
        for at in &jwt.keys {
            if let Some(content) = self.key_file(at) {
                match keys::parse(&content) {
                    Ok(read) => keys.extend(read),
                    Err(error) => {
                        self.fail(at.span.as_ref(), format!("{}: {error}", at.value), "see the file")
                    }
                }
            }
        }
        if !jwt.hs256.value.is_empty()
            && let Some(content) = self.key_file(&jwt.hs256)
        {
            match keys::shared_secret(&content) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    self.fail(
                        jwt.hs256.span.as_ref(),
                        format!("{}: {error}", jwt.hs256.value),
                        "see the file",
                    );
                }
            }
        }
        if jwt.keys.is_empty() && jwt.hs256.value.is_empty() && jwt.jwks_url.value.is_empty() {
            let help = "keys = [\"keys.pem\"], or hs256 or jwks_url";
            self.fail(Some(&jwt.span), "[identity.jwt] without a key: no token can be verified", help);
        }
        if !claims {
            let warning = "[identity.jwt] verifies tokens, but no key uses a \"jwt:\" claim";
            self.warn(Some(&jwt.span), format!("{warning}: no principal, no API key, no tier"), "");
        }
        let given = |at: &Spanned<String>| (!at.value.is_empty()).then(|| at.value.clone());
        for (name, at) in [("issuer", &jwt.issuer), ("audience", &jwt.audience)] {
            if at.value.is_empty() {
                let message = format!(
                    "identity.jwt.{name} is empty: tokens that the same keys signed for others are \
                    accepted"
                );
                self.warn(at.span.as_ref().or(Some(&jwt.span)), message, "");
            }
        }
        let checks = Checks {
            keys,
            issuer: given(&jwt.issuer),
            audience: given(&jwt.audience),
            require_exp: jwt.require_exp.value,
        };
        let verifier = Arc::new(ArcSwap::from_pointee(checks.verifier(&[])));
        let source = match jwt.jwks_url.value.as_str() {
            "" => None,
            _ => self.key_source(&jwt.jwks_url, checks, verifier.clone()),
        };
        Some((Tokens { place, verifier }, source))
    }

    fn key_source(
        &mut self,
        at: &Spanned<String>,
        checks: Checks,
        verifier: Arc<ArcSwap<Verifier>>,
    ) -> Option<KeySource> {
        let (upstream, target) = self.fetched("identity.jwt.jwks_url", at)?;
        let fetched = Arc::default();
        Some(KeySource { url: at.value.clone(), upstream, target, checks, verifier, fetched })
    }

    /// Returns the upstream and the target of a request that Pillion makes itself.
    pub(super) fn fetched(
        &mut self,
        key: &str,
        at: &Spanned<String>,
    ) -> Option<(UpstreamPolicy, PathAndQuery)> {
        let parsed = at.value.parse::<http::Uri>().ok();
        let parsed = parsed
            .filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some());
        let Some(url) = parsed else {
            let help = "expected a URL like \"https://login.example.com/path\"";
            // The path of a webhook is as good as a password.
            let told =
                if key == "health.webhook" { "something".to_owned() } else { format!("{:?}", at.value) };
            self.fail(at.span.as_ref(), format!("{key} is {told}, which is not a URL"), help);
            return None;
        };
        let (scheme, authority) = (url.scheme_str().unwrap_or("https"), url.authority()?);
        let origin = Spanned { value: format!("{scheme}://{authority}"), span: at.span.clone() };
        let raw = crate::config::file::upstream_at(origin, &mut self.problems);
        // Nobody is to take it for the app.
        let name = key.to_owned();
        Some((UpstreamPolicy { name, ..self.upstream(&raw)? }, url.path_and_query()?.clone()))
    }

    fn key_file(&mut self, at: &Spanned<String>) -> Option<Vec<u8>> {
        let path = self.file(&at.value);
        match std::fs::read(&path) {
            Ok(content) => Some(content),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let help = self.unreadable(&path, &error, "name a file that exists and can be read");
                self.fail(at.span.as_ref(), message, help);
                None
            }
        }
    }

    fn source(&mut self, at: &Spanned<String>) -> Option<Source> {
        let (kind, name) = at.value.split_once(':').unwrap_or((&at.value, ""));
        match (kind, name) {
            ("basic", "") => Some(Source::Basic),
            ("ip", "") => Some(Source::Ip),
            ("header", name) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Some(Source::Header(name)),
                Err(_) => {
                    let message = format!("{:?} is not the name of a field", at.value);
                    self.fail(at.span.as_ref(), message, "expected a source like \"header:authorization\"");
                    None
                }
            },
            ("jwt", claim) if !claim.is_empty() => Some(Source::Claim(claim.to_owned())),
            ("cookie", name) if !name.is_empty() => Some(Source::Cookie(name.to_owned())),
            _ => {
                let help = match nearest(kind, &["header", "cookie", "basic", "ip", "jwt"]) {
                    Some(near) if near != kind => format!("did you mean {near:?}?"),
                    _ => "expected \"header:NAME\", \"cookie:NAME\", \"jwt:CLAIM\", \"basic\" or \"ip\""
                        .to_owned(),
                };
                self.fail(at.span.as_ref(), format!("{:?} is not a source of a principal", at.value), help);
                None
            }
        }
    }
}
