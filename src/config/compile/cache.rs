//! `[cache]`, `cache = {...}` of routes, and `[[invalidate]]`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};

use super::Compiler;
use super::identity::ignored_cookies;
use crate::cache::invalidation::key::MAX_TAGS;
use crate::cache::settings::{CacheSettings, Override, RouteCacheSettings, Scope};
use crate::config::file::{Cache, File, Invalidate, RouteCache as Raw};
use crate::config::keys::{cache, invalidate};
use crate::config::table_reader::{Spanned, nearest};
use crate::policy::cache::{InvalidatePath, InvalidateRule, RouteCache, TagTemplate, is_safe};
use crate::policy::pattern::{Methods, Pattern};
use crate::policy::segment::{NamedSegment, Segment};
use crate::policy::template::Template;
use crate::policy::{RoutePolicy, Routes};

/// `max_size = "auto"`: this, or a quarter of the cgroup's memory.
const AUTO_SIZE: u64 = 256 * 1024 * 1024;

impl Compiler<'_> {
    pub(super) fn cache(&mut self, file: &File) -> CacheSettings {
        let raw = &file.cache;
        let quarter = self.environment.memory_limit.map_or(AUTO_SIZE, |limit| limit / 4);
        let (min_size, _) = cache::MAX_SIZE.bounds();
        let auto = AUTO_SIZE.min(quarter).max(min_size);
        let max_size = raw.max_size.value.0.map_or(auto, |size| size.0);
        if max_size < min_size {
            let message = format!("cache.max_size is {max_size} bytes");
            self.fail(
                raw.max_size.span.as_ref(),
                message,
                "expected at least \"64KiB\"; to turn the cache off, write enabled = false",
            );
        }
        let max_object_size = raw.max_object_size.value.0;
        if max_object_size > max_size && raw.max_object_size.is_written() {
            let message = format!("cache.max_object_size is {max_object_size} bytes, more than max_size");
            self.fail(
                raw.max_object_size.span.as_ref(),
                message,
                format!("expected at most {max_size} bytes"),
            );
        }
        let written = file.routes.iter().any(|route| route.cache.is_some());
        if !raw.enabled.value && written {
            let message = "cache.enabled is false: the cache settings of routes have no effect";
            self.warn(raw.enabled.span.as_ref(), message, "");
        }
        let targeted: Vec<HeaderName> =
            raw.targeted.iter().filter_map(|at| self.field_name(&at.value, at.span.as_ref())).collect();
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        CacheSettings {
            enabled: raw.enabled.value,
            max_size: size(max_size),
            max_object_size: size(max_object_size.min(max_size)),
            heuristic_max: raw.heuristic_max.value,
            max_ttl: raw.max_ttl.value,
            stale_if_error: raw.stale_if_error.value,
            version: raw.version.value.clone(),
            ignore_query: raw.ignore_query.iter().map(|at| at.value.clone()).collect(),
            ignore_cookies: ignored_cookies(file),
            targeted,
            groups: raw.groups.value,
            x_cache: raw.x_cache.value,
            debug_header: raw.debug_header.value,
        }
    }

    /// `cache = {...}` of a route.
    pub(super) fn route_cache(
        &mut self,
        raw: Option<&Raw>,
        pattern: Option<&Pattern>,
        file: &File,
    ) -> RouteCache {
        let Some(raw) = raw else { return RouteCache::default() };
        let ttl = self.lifetime(raw, &file.cache);
        let ttl_by_status: Vec<(StatusCode, Duration)> = raw
            .ttl_by_status
            .iter()
            .filter_map(|(status, ttl)| Some((self.status(status)?, ttl.value)))
            .collect();
        let kept = ttl.is_some() || !ttl_by_status.is_empty();
        if raw.overrides != Override::None && !kept {
            self.fail(
                Some(&raw.span),
                "override without a lifetime that replaces the upstream's",
                "add tier or ttl",
            );
        }
        if raw.scope == Scope::Off && kept {
            self.fail(
                Some(&raw.span),
                "scope \"off\" and a lifetime contradict each other",
                "remove one of them",
            );
        }
        if raw.scope == Scope::User && file.identity.principal.iter().all(|at| at.value == "ip") {
            let help = "name what identifies users: identity.principal = [\"header:authorization\"]";
            self.fail(Some(&raw.span), "scope \"user\" without a principal", help);
        }
        if let (true, Some(Pattern { methods: Methods::Only(methods), .. })) = (raw.key_body.value, pattern)
            && !methods.iter().any(|method| *method == Method::POST || method.as_str() == "QUERY")
        {
            let help = "match POST or QUERY, or remove key_body";
            self.fail(raw.key_body.span.as_ref(), "key_body on a route whose methods have no content", help);
        }
        let tags = match pattern {
            Some(pattern) => self.filled(&raw.tags, pattern),
            None => Vec::new(),
        };
        if tags.len() > MAX_TAGS {
            let help = format!("expected at most {MAX_TAGS}");
            self.fail(Some(&raw.span), format!("a route with {} tags", tags.len()), help);
        }
        // The defaults are for routes that set a lifetime; elsewhere the app's word counts alone.
        let or = |written: &Option<Spanned<Duration>>, default: &Spanned<Duration>| match written {
            Some(at) => at.value,
            None if ttl.is_some() => default.value,
            None => Duration::ZERO,
        };
        let key_headers =
            raw.key_headers.iter().filter_map(|at| self.field_name(&at.value, at.span.as_ref())).collect();
        let route_settings = RouteCacheSettings {
            scope: raw.scope,
            ttl,
            overrides: raw.overrides,
            ttl_by_status,
            stale_while_revalidate: or(&raw.stale_while_revalidate, &file.cache.stale_while_revalidate),
            // A 500 that the route counts as an error is one for as long as an outage is.
            stale_if_error: raw
                .stale_if_error
                .as_ref()
                .map(|at| at.value)
                .or_else(|| raw.error_500.value.then_some(file.cache.stale_if_error.value)),
            error_500: raw.error_500.value,
            refresh: raw.refresh,
            serve_stale_after: raw.serve_stale_after.as_ref().map(|at| at.value),
            redis: raw.redis,
            key_headers,
            key_query: raw.key_query.as_ref().map(|names| names.iter().map(|at| at.value.clone()).collect()),
            strip_query: raw.strip_query.value,
            key_body: raw.key_body.value,
        };
        if let Some(after) = &raw.serve_stale_after
            && route_settings.stale_if_error.unwrap_or(file.cache.stale_if_error.value).is_zero()
        {
            let help = "set stale_if_error to how old the response may be, or remove serve_stale_after";
            self.warn(after.span.as_ref(), "serve_stale_after has no effect: stale_if_error is \"0s\"", help);
        }
        let keys_by_user = raw.scope == Scope::User
            && file
                .invalidate
                .iter()
                .any(|rule| rule.principal.value && !(rule.tags.is_empty() && rule.paths.is_empty()));
        RouteCache { written: true, route_settings, tags, keys_by_user }
    }

    fn lifetime(&mut self, raw: &Raw, cache: &Cache) -> Option<Duration> {
        if let (Some(_), Some(ttl)) = (&raw.tier, &raw.ttl) {
            self.fail(ttl.span.as_ref(), "tier and ttl both set the lifetime", "remove one of them");
        }
        let Some(tier) = &raw.tier else { return raw.ttl.as_ref().map(|ttl| ttl.value) };
        let known = cache.tiers.iter().find(|(name, _)| name.value == tier.value);
        if known.is_none() {
            let names: Vec<&str> = cache.tiers.iter().map(|(name, _)| name.value.as_str()).collect();
            let help = match nearest(&tier.value, &names) {
                Some(name) => format!("did you mean {name:?}?"),
                None => {
                    format!("known tiers: {}; cache.tiers = {{ {} = \"1m\" }}", names.join(", "), tier.value)
                }
            };
            self.fail(tier.span.as_ref(), format!("there is no tier {:?}", tier.value), help);
        }
        known.map(|(_, ttl)| ttl.value)
    }

    fn status(&mut self, at: &Spanned<String>) -> Option<StatusCode> {
        let status = at.value.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok());
        let fine = status.filter(|status| {
            !status.is_informational()
                && !matches!(*status, StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
                && status.as_u16() < 600
        });
        if fine.is_none() {
            let help = "expected one from 200 to 599 except 206 and 304, which are about other responses";
            self.fail(at.span.as_ref(), format!("{:?} is not a status that can be stored", at.value), help);
        }
        fine
    }

    fn filled(&mut self, texts: &[Spanned<String>], pattern: &Pattern) -> Vec<TagTemplate> {
        let mut filled = Vec::new();
        for at in texts {
            match TagTemplate::parse(&at.value, pattern) {
                Ok(_) if at.value.is_empty() => {
                    self.fail(at.span.as_ref(), "an empty tag", "remove it");
                }
                Ok(text) => filled.push(text),
                Err(message) => {
                    let help = "{name} stands for a segment that the route's path names";
                    self.fail(at.span.as_ref(), format!("{:?}: {message}", at.value), help);
                }
            }
        }
        filled
    }

    pub(super) fn invalidate(&mut self, file: &File, routes: Option<&Routes>) -> Vec<Arc<InvalidateRule>> {
        let mut rules = Vec::new();
        for raw in &file.invalidate {
            let Some(rule) = self.rule(raw) else { continue };
            if let Some(routes) = routes {
                self.warn_about(raw, &rule, routes);
            }
            rules.push(Arc::new(rule));
        }
        rules
    }

    fn rule(&mut self, raw: &Invalidate) -> Option<InvalidateRule> {
        let Some(on) = &raw.on else {
            if !raw.has_on {
                let help = "on = \"POST,PUT,PATCH,DELETE /path/**\"";
                self.fail(Some(&raw.span), "the rule has no on", help);
            }
            return None;
        };
        let pattern = self.pattern_of_rule("on", on)?;
        let principal = raw.principal.value;
        if let Methods::Only(methods) = &pattern.methods
            && !principal
            && let Some(safe) = methods.iter().find(|method| is_safe(method))
        {
            let help = "name methods that write, or * for all of them; a rule with principal = true \
                may also name GET";
            self.fail(on.span.as_ref(), format!("{safe} is a safe method, which invalidates nothing"), help);
        }
        if raw.tags.is_empty() && raw.paths.is_empty() && !principal {
            self.fail(
                Some(&raw.span),
                "a rule that invalidates nothing",
                "add tags or paths, or principal = true",
            );
        }
        let (_, max_settle) = invalidate::SETTLE.bounds();
        if raw.settle.value > Duration::from_millis(max_settle) {
            self.fail(raw.settle.span.as_ref(), "settle is longer than an hour", "expected at most \"1h\"");
        }
        let tags = self.filled(&raw.tags, &pattern);
        let paths = raw.paths.iter().filter_map(|at| self.invalid_path(at, &pattern)).collect();
        let except = self.exceptions(raw, &pattern);
        Some(InvalidateRule {
            label: on.value.clone(),
            on: pattern,
            principal,
            tags,
            paths,
            mode: raw.mode,
            settle: raw.settle.value,
            except,
            on_redirect: raw.on_redirect,
        })
    }

    pub(super) fn pattern_of_rule(&mut self, key: &str, at: &Spanned<String>) -> Option<Pattern> {
        match Pattern::parse(&at.value) {
            Ok(pattern) => {
                if let Methods::Only(methods) = &pattern.methods {
                    self.check_methods(methods, at);
                }
                Some(pattern)
            }
            Err(message) => {
                let message = format!("{key} is {:?}: {message}", at.value);
                self.fail(at.span.as_ref(), message, "METHOD[,METHOD] [host]path-template");
                None
            }
        }
    }

    /// `except` of a rule. One that has nothing in common with `on` was meant to name something else.
    fn exceptions(&mut self, raw: &Invalidate, on: &Pattern) -> Vec<Pattern> {
        let mut except = Vec::new();
        for at in &raw.except {
            let Some(pattern) = self.pattern_of_rule("except", at) else { continue };
            let methods = match (&on.methods, &pattern.methods) {
                (Methods::Only(methods), _) => methods.iter().any(|method| pattern.methods.contains(method)),
                (Methods::Any, Methods::Only(methods)) => methods.iter().any(|method| !is_safe(method)),
                (Methods::Any, Methods::Any) => true,
            };
            if !methods || !on.template.may_meet(&pattern.template) {
                let message = format!("except has {:?}, which on does not match", at.value);
                self.fail(at.span.as_ref(), message, "name requests that on matches, or remove it");
                continue;
            }
            except.push(pattern);
        }
        except
    }

    fn invalid_path(&mut self, at: &Spanned<String>, pattern: &Pattern) -> Option<InvalidatePath> {
        let (path, prefix) = match at.value.strip_suffix("/**") {
            Some("") => ("/", true),
            Some(path) => (path, true),
            None => (at.value.as_str(), false),
        };
        let checked = Template::parse_path(path).and_then(|template| {
            // In the form in which paths are kept: escapes normal, names as they are.
            let normal: Vec<String> = template
                .segments
                .iter()
                .map(|segment| match segment {
                    Segment::Literal(text) => Ok(text.clone()),
                    Segment::Name(NamedSegment { prefix, name, suffix }) => {
                        Ok(format!("{prefix}{{{name}}}{suffix}"))
                    }
                    Segment::Rest => Err("** must be the last segment".to_owned()),
                })
                .collect::<Result<_, _>>()?;
            TagTemplate::parse(&format!("/{}", normal.join("/")), pattern)
        });
        match checked {
            Ok(path) => Some(InvalidatePath { path, prefix }),
            Err(message) => {
                let help = "a path like \"/api/calendar\", or \"/api/calendar/**\" with all paths below it";
                self.fail(at.span.as_ref(), format!("{:?}: {message}", at.value), help);
                None
            }
        }
    }

    /// Rules that work and were probably not meant so.
    fn warn_about(&mut self, raw: &Invalidate, rule: &InvalidateRule, routes: &Routes) {
        let on = raw.on.as_ref().and_then(|at| at.span.as_ref()).or(Some(&raw.span));
        let touches = |cache: &RouteCache| {
            cache.tags.iter().any(|tag| rule.tags.iter().any(|other| tag.may_equal(other)))
        };
        let by_user = |route: &&Arc<RoutePolicy>| route.cache.route_settings.scope == Scope::User;
        if rule.principal && !routes.routes.iter().any(|route| by_user(&route)) {
            let message = format!(
                "the rule on {:?} has principal = true, and no route has scope \"user\": no \
                response is stored for one user alone, so the rule has no effect",
                rule.label
            );
            self.warn(raw.principal.span.as_ref(), message, "");
        }
        let cached: Vec<_> = routes.routes.iter().filter(|route| route.cache.written).collect();
        if rule.paths.is_empty() && !rule.tags.is_empty() && !cached.iter().any(|route| touches(&route.cache))
        {
            let message = format!(
                "the rule on {:?} names no tag of any cached route; it has an effect only if the \
                upstream sends such tags (Surrogate-Key, Cache-Tag)",
                rule.label
            );
            self.warn(raw.tags.first().and_then(|at| at.span.as_ref()), message, "");
        }
        for route in &cached {
            let Some(pattern) = &route.pattern else { continue };
            let posts = pattern.methods.contains(&Method::POST);
            let same = rule.on.methods.contains(&Method::POST)
                && rule.on.template.segments.starts_with(&pattern.template.segments);
            if posts && route.cache.route_settings.key_body && same && touches(&route.cache) {
                let message = format!(
                    "the rule on {:?} matches only POST requests that key_body of {:?} makes reads, \
                    and names their own tags; reads invalidate nothing, so the rule has no effect",
                    rule.label, route.label
                );
                self.warn(on, message, "");
            }
            let windows = &route.cache.route_settings;
            let stale = !windows.stale_while_revalidate.is_zero()
                || windows.stale_if_error.is_some_and(|window| !window.is_zero());
            if rule.mode == crate::cache::invalidation::Mode::Soft && touches(&route.cache) && !stale {
                let message = format!(
                    "the rule on {:?} has mode = \"soft\", but {:?} has no stale window: its \
                    responses are fetched again, as with \"hard\"",
                    rule.label, route.label
                );
                self.warn(on, message, "");
            }
        }
    }
}
