//! `[[routes]]`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{Compiler, masked_names};
use crate::cache::settings::Scope;
use crate::config::diagnostic::Span;
use crate::config::file::{Deprecated, File, Redirect, Route, Upstream};
use crate::config::keys::route as keys;
use crate::config::table_reader::{Spanned, nearest};
use crate::config::units;
use crate::log;
use crate::policy::cache::RouteCache;
use crate::policy::limits::RouteLimits;
use crate::policy::loose::LooseRoutes;
use crate::policy::pattern::{Methods, Pattern};
use crate::policy::secrets::{SecretPaths, SecretSegments};
use crate::policy::segment::Segment;
use crate::policy::table::RouteTable;
use crate::policy::template::Template;
use crate::policy::when::When;
use crate::policy::{Action, Conditions, FieldEdits, RoutePolicy, Routes};
use crate::rendering::json_text::EscapedText;

/// The label of requests that match no route.
pub(super) const UNMATCHED: &str = "unmatched";

/// Fields that edits may not touch: they are the framing, or Pillion's own word.
pub(super) static UNTOUCHABLE: [HeaderName; 5] =
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE, header::TE];

impl Compiler<'_> {
    /// Compiles all routes; `None` when something of them was wrong.
    pub(super) fn routes(&mut self, file: &File, limits: &[String]) -> Option<Routes> {
        let before = self.problems.len();
        let raw = &file.routes;
        let mut patterns = Vec::with_capacity(raw.len());
        let mut routes = Vec::with_capacity(raw.len() + 1);
        let mut above = RouteTable::default();
        for route in raw {
            let Some((pattern, policy)) = self.route(route, file, limits) else { continue };
            self.warn_hidden(route, &pattern, policy.when.as_deref(), &above, &patterns, &routes);
            above.insert(u32::try_from(patterns.len()).unwrap_or(u32::MAX), &pattern, false);
            patterns.push(pattern);
            routes.push(policy);
        }
        routes.push(RoutePolicy {
            label: EscapedText::plain(UNMATCHED),
            secrets: SecretSegments::default(),
            pattern: None,
            when: None,
            allow: None,
            action: Action::Forward,
            upstream: None,
            timeout: None,
            stream: false,
            max_body_size: None,
            compress: file.compression.enabled.value,
            etag: file.etag.generate.value,
            browser_ttl: None,
            cache: RouteCache::default(),
            limits: RouteLimits::default(),
            request: FieldEdits::default(),
            response: FieldEdits::default(),
        });
        name_secrets(&mut routes, &masked_names(file));
        let routes: Vec<Arc<RoutePolicy>> = routes.into_iter().map(Arc::new).collect();
        (self.problems.len() == before).then(|| {
            let conditional = || patterns.iter().zip(routes.iter().map(|route| route.when.is_some()));
            let entries = (0..).zip(conditional()).map(|(order, (pattern, when))| (order, pattern, when));
            Routes {
                table: RouteTable::with_conditions(entries),
                loose: LooseRoutes::new(conditional()),
                conditions: Conditions::new(&patterns, &routes),
                routes,
            }
        })
    }

    /// A route below one that takes everything it could match is never reached. One with conditions takes only what
    /// meets them. `above` is the index of the routes before.
    fn warn_hidden(
        &mut self,
        written: &Route,
        pattern: &Pattern,
        when: Option<&When>,
        above: &RouteTable,
        patterns: &[Pattern],
        routes: &[RoutePolicy],
    ) {
        // Among very many routes for one request the rest is not searched.
        const SEARCHED: usize = 1000;
        // Whatever covers the pattern matches its sample.
        let (method, host, path) = pattern.sample();
        let mut from = 0;
        let candidates = std::iter::from_fn(|| {
            let order = above.find(&method, &host, &path, from)?;
            from = order + 1;
            let at = usize::try_from(order).ok()?;
            Some((patterns.get(at)?, routes.get(at)?))
        });
        let hides = |(above, route): &(&Pattern, &RoutePolicy)| {
            (route.when.is_none() || route.when.as_deref() == when)
                && above.covers(pattern)
                && !matches!(route.action, Action::Rewrite(_))
        };
        if let Some((above, route)) = candidates.take(SEARCHED).find(hides) {
            let hidden = routes.len() + 1;
            let message = format!(
                "route {hidden} is never reached: \"{} {}\" above matches all its requests; move it \
                up, or remove it",
                above.methods, route.label
            );
            self.warn(written.pattern.as_ref().and_then(|at| at.span.as_ref()), message, "");
        }
    }

    fn route(&mut self, raw: &Route, file: &File, limits: &[String]) -> Option<(Pattern, RoutePolicy)> {
        let Some(written) = &raw.pattern else {
            if !raw.has_pattern {
                self.fail(Some(&raw.span), "the route has no match", "match = \"GET /path/**\"");
            }
            return None;
        };
        let pattern = match Pattern::parse(&written.value) {
            Ok(pattern) => Some(pattern),
            Err(message) => {
                let message = format!("match is {:?}: {message}", written.value);
                self.fail(written.span.as_ref(), message, "METHOD[,METHOD] [host]path-template");
                None
            }
        };
        if let Some(Pattern { methods: Methods::Only(methods), .. }) = &pattern {
            self.check_methods(methods, written);
        }
        let when = self.when(raw.when.as_ref(), &written.value, file);
        if let Some(pattern) = &pattern {
            self.warn_of_method(raw, &pattern.methods);
        }
        self.warn_of_route(raw);
        let action = self.action(raw, pattern.as_ref()).unwrap_or(Action::Forward);
        let allow = self.allow(raw, when.as_ref(), &action, &written.value);
        let upstream = raw.upstream.as_ref().and_then(|name| self.named(name, &file.upstreams));
        let mut response = self.edits(&raw.remove_response, &raw.set_response);
        if let Some(deprecated) = &raw.deprecated {
            self.deprecated(deprecated, &mut response);
        }
        if let Some(timeout) = &raw.timeout {
            self.duration("timeout", timeout, keys::TIMEOUT.bounds());
        }
        if let (Some(cache), false) = (&raw.cache, matches!(action, Action::Forward)) {
            let help = "put it in the route that matches what goes to the upstream";
            self.fail(Some(&cache.span), "cache on a route that sends nothing to an upstream", help);
        }
        let mut cache = self.route_cache(raw.cache.as_ref(), pattern.as_ref(), file);
        if let (Some(when), Some(names)) = (&when, &mut cache.route_settings.key_query) {
            // A parameter that decides about the route counts, so no request is fetched again without it.
            let missing = when.parameters().filter(|name| !names.iter().any(|known| known == name));
            let missing: Vec<String> = missing.map(str::to_owned).collect();
            names.extend(missing);
        }
        if cache.route_settings.scope == Scope::Auto
            && (cache.route_settings.ttl.is_some() || !cache.route_settings.ttl_by_status.is_empty())
        {
            let message = format!(
                "route {:?} has a lifetime and scope \"auto\": for a request that identifies its \
                user, only responses with public or s-maxage are used and stored; write scope = \
                \"user\" for a copy for each user, or scope = \"shared\" if all users get the same",
                written.value
            );
            self.warn(raw.cache.as_ref().map(|cache| &cache.span), message, "");
        }
        if !matches!(action, Action::Forward) {
            self.no_limits_here(raw);
        }
        if raw.stream.value {
            self.stream_route(raw, &action, cache.route_settings.scope != Scope::Off);
            // Nobody waits for a stream, as nothing of it is stored.
            cache.route_settings.scope = Scope::Off;
        }
        let label = written.value.split_once(' ').map_or("", |(_, rest)| rest.trim());
        let policy = RoutePolicy {
            label: EscapedText::new(label),
            // When all templates are known.
            secrets: SecretSegments::default(),
            pattern: pattern.clone(),
            when: when.map(Box::new),
            allow,
            action,
            upstream,
            timeout: raw.timeout.as_ref().map(|at| at.value),
            stream: raw.stream.value,
            compress: file.compression.enabled.value && raw.compress.value,
            etag: file.etag.generate.value && raw.etag.value,
            browser_ttl: raw.browser_ttl.as_ref().map(|at| at.value),
            cache,
            limits: self.route_limits(raw, &written.value, limits),
            max_body_size: raw.max_body_size.as_ref().map(|at| at.value.0.map_or(u64::MAX, |size| size.0)),
            request: self.edits(&raw.remove_request, &raw.set_request),
            response,
        };
        Some((pattern?, policy))
    }

    /// A stream goes to an app and is not stored.
    fn stream_route(&mut self, raw: &Route, action: &Action, stored: bool) {
        let span = raw.stream.span.as_ref().or(Some(&raw.span));
        if !matches!(action, Action::Forward) {
            let help = "put it in the route that matches what goes to the upstream";
            self.fail(span, "stream on a route that sends nothing to an upstream", help);
        } else if raw.cache.is_some() && stored {
            self.fail(
                span,
                "a route with stream = true has a cache",
                "streams are never stored: remove stream or cache",
            );
        }
    }

    fn action(&mut self, raw: &Route, pattern: Option<&Pattern>) -> Option<Action> {
        let written: Vec<&Span> = [
            raw.rewrite.as_ref().and_then(|at| at.span.as_ref()),
            raw.deny.as_ref().and_then(|at| at.span.as_ref()),
            raw.redirect.as_ref().map(|redirect| &redirect.span),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let [_, second, ..] = written[..] {
            self.fail(
                Some(second),
                "a route can have only one of rewrite, deny and redirect",
                "remove the others",
            );
        }
        // All that is written is checked, also where only one of it can be.
        let rewrite = raw.rewrite.as_ref().map(|rewrite| {
            if let Some(upstream) = &raw.upstream {
                let help = "name the upstream in the route that matches the rewritten path";
                self.fail(upstream.span.as_ref(), "a route that rewrites has no upstream of its own", help);
            }
            if let Err(message) = Template::parse_path(&rewrite.value) {
                let help = "expected a path without a query; the query of the request is kept";
                self.fail(rewrite.span.as_ref(), format!("{:?}: {message}", rewrite.value), help);
                return None;
            }
            self.template(rewrite, pattern).map(Action::Rewrite)
        });
        let deny = raw.deny.as_ref().map(|deny| self.deny(deny));
        let redirect = raw.redirect.as_ref().map(|redirect| self.redirect(redirect, pattern));
        rewrite.or(deny).or(redirect).unwrap_or(Some(Action::Forward))
    }

    fn deny(&mut self, deny: &Spanned<u64>) -> Option<Action> {
        match u16::try_from(deny.value).ok().and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(status) if status.is_client_error() || status.is_server_error() => {
                Some(Action::Deny(status))
            }
            _ => {
                let message = format!("deny is {}", deny.value);
                self.fail(deny.span.as_ref(), message, "expected a status from 400 to 599");
                None
            }
        }
    }

    /// A template filled from what `pattern` matches; without one, only its form is checked.
    fn template(&mut self, at: &Spanned<String>, pattern: Option<&Pattern>) -> Option<Template> {
        let template = match Template::parse(&at.value) {
            Ok(template) => template,
            Err(message) => {
                self.fail(at.span.as_ref(), format!("{:?}: {message}", at.value), "expected a path template");
                return None;
            }
        };
        for segment in &template.segments {
            let (known, shown) = match segment {
                Segment::Literal(_) => continue,
                Segment::Name(named) => {
                    let name = &named.name;
                    (pattern.is_none_or(|pattern| pattern.template.has_name(name)), format!("{{{name}}}"))
                }
                Segment::Rest => (pattern.is_none_or(|pattern| pattern.template.has_rest()), "**".to_owned()),
            };
            if !known {
                self.fail(
                    at.span.as_ref(),
                    format!("{shown} is not in match"),
                    "use names that match captures",
                );
                return None;
            }
        }
        Some(template)
    }

    fn redirect(&mut self, raw: &Redirect, pattern: Option<&Pattern>) -> Option<Action> {
        let Some(to) = &raw.to else {
            if !raw.has_to {
                let help = "redirect = { to = \"https://example.com/**\" }";
                self.fail(Some(&raw.span), "redirect without to", help);
            }
            return None;
        };
        let status = match raw.status.value {
            301 => Some(StatusCode::MOVED_PERMANENTLY),
            302 => Some(StatusCode::FOUND),
            303 => Some(StatusCode::SEE_OTHER),
            307 => Some(StatusCode::TEMPORARY_REDIRECT),
            308 => Some(StatusCode::PERMANENT_REDIRECT),
            other => {
                self.fail(
                    raw.status.span.as_ref(),
                    format!("status is {other}"),
                    "expected 301, 302, 303, 307 or 308",
                );
                None
            }
        };
        let start = to.value.find("://").map_or(0, |at| at + 3);
        let (base, path) =
            to.value.split_at(to.value[start..].find('/').map_or(to.value.len(), |at| start + at));
        let fine = base.is_empty() || base.parse::<http::Uri>().is_ok_and(|uri| uri.authority().is_some());
        if !fine {
            self.fail(
                to.span.as_ref(),
                format!("{base:?} is not a scheme and a host"),
                "expected a URL like https://example.com",
            );
            return None;
        }
        let path = if path.is_empty() { "/" } else { path };
        let template = self.template(&Spanned { value: path.to_owned(), span: to.span.clone() }, pattern)?;
        Some(Action::Redirect { base: base.to_owned(), to: template, status: status? })
    }

    /// The index of a named upstream; the first is `[upstream]`, which needs no name.
    fn named(&mut self, at: &Spanned<String>, upstreams: &[Upstream]) -> Option<usize> {
        let found = upstreams.iter().position(|upstream| upstream.name == at.value);
        if found.is_none() {
            let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
            let help = match nearest(&at.value, &names) {
                Some(name) => format!("did you mean {name:?}?"),
                None => format!("add [upstreams.{}] with a url", at.value),
            };
            self.fail(at.span.as_ref(), format!("there is no upstream {:?}", at.value), help);
        }
        found.map(|index| index + 1)
    }

    fn edits(
        &mut self,
        remove: &[Spanned<String>],
        set: &[(Spanned<String>, Spanned<String>)],
    ) -> FieldEdits {
        let mut edits = FieldEdits::default();
        for at in remove {
            edits.remove.extend(self.field_name(&at.value, at.span.as_ref()));
        }
        for (name, at) in set {
            let Some(name) = self.field_name(&name.value, name.span.as_ref()) else { continue };
            match HeaderValue::from_str(&at.value) {
                Ok(value) => edits.set.push((name, value)),
                Err(_) => {
                    // Which may be a credential.
                    let message = format!("the value of {name} is not a field value");
                    self.fail(at.span.as_ref(), message, "remove the control characters");
                }
            }
        }
        edits
    }

    pub(super) fn field_name(&mut self, written: &str, span: Option<&Span>) -> Option<HeaderName> {
        match HeaderName::from_bytes(written.as_bytes()) {
            Ok(name) if UNTOUCHABLE.contains(&name) => {
                self.fail(span, format!("{written:?} is a field of the connection"), "it cannot be edited");
                None
            }
            Ok(name) => Some(name),
            Err(_) => {
                self.fail(
                    span,
                    format!("{written:?} is not a field name"),
                    "expected letters, digits and dashes",
                );
                None
            }
        }
    }

    /// `Deprecation` (RFC 9745), `Sunset` (RFC 8594), `Link` with `rel="deprecation"`.
    fn deprecated(&mut self, raw: &Deprecated, edits: &mut FieldEdits) {
        let since = raw.since.as_ref().and_then(|at| self.date(at));
        let sunset = raw.sunset.as_ref().and_then(|at| self.date(at));
        if !raw.has_since {
            self.fail(Some(&raw.span), "deprecated without since", "since = \"2026-01-01\"");
        }
        if let (Some(since), Some(sunset)) = (since, sunset)
            && sunset < since
        {
            // RFC 9745 4: the sunset is not earlier than the deprecation.
            self.fail(Some(&raw.span), "sunset is before since", "swap them");
        }
        let mut add = |append: bool, name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                if append { edits.append.push((name, value)) } else { edits.set.push((name, value)) }
            }
        };
        if let Some(since) = since {
            add(false, HeaderName::from_static("deprecation"), format!("@{since}"));
        }
        if let Some(sunset) = sunset {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(sunset);
            add(false, HeaderName::from_static("sunset"), httpdate::fmt_http_date(at));
        }
        if let Some(link) = &raw.link {
            if link.value.parse::<http::Uri>().is_err() || link.value.contains(['<', '>', '"']) {
                self.fail(
                    link.span.as_ref(),
                    format!("{:?} is not a URL", link.value),
                    "expected a URL like https://example.com/v2",
                );
            }
            add(true, header::LINK, format!("<{}>; rel=\"deprecation\"", link.value));
        }
    }

    /// A date like `2026-01-31`, as seconds since the epoch at its midnight in UTC.
    fn date(&mut self, at: &Spanned<String>) -> Option<u64> {
        let parsed = parse_date(&at.value);
        if parsed.is_none() {
            self.fail(
                at.span.as_ref(),
                format!("{:?} is not a date", at.value),
                "expected one like \"2026-01-31\"",
            );
        }
        parsed
    }
}

fn parse_date(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if (year.len(), month.len(), day.len()) != (4, 2, 2) {
        return None;
    }
    let (year, month, day): (u64, u64, u64) = (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    let month = usize::try_from(month - 1).ok()?;
    if day < 1 || day > lengths[month] {
        return None;
    }
    u64::try_from(units::days_from_civil(year as i64, month as i64 + 1, day as i64))
        .ok()
        .map(|days| days * 86_400)
}

/// Tells every route which segments are secrets, by the templates of all.
fn name_secrets(routes: &mut [RoutePolicy], names: &[String]) {
    let is_secret = |name: &str| log::is_secret(name.as_bytes(), names);
    let templates = routes.iter().filter_map(|route| route.pattern.as_ref()).map(|pattern| &pattern.template);
    let paths = Arc::new(SecretPaths::new(templates, is_secret));
    for route in routes {
        let template = route.pattern.as_ref().map(|pattern| &pattern.template);
        let secrets = SecretSegments::new(template, is_secret, &paths);
        route.secrets = match (&route.action, template) {
            (Action::Rewrite(to), Some(template)) => secrets.rewriting(template, to, &paths),
            _ => secrets,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::parse_date;

    #[test]
    fn dates() {
        assert_eq!(parse_date("1970-01-01"), Some(0));
        assert_eq!(parse_date("2026-12-31"), Some(1_798_675_200));
        assert_eq!(parse_date("2024-02-29"), Some(1_709_164_800));
        for wrong in ["2023-02-29", "2026-13-01", "2026-1-1", "2026", "x-y-z", "1969-12-31"] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }
}
