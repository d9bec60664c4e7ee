//! `[[routes]]`: the requests that a route matches, and the treatment of them and of their responses.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

use super::cache::RouteCache;
use super::limits::RouteLimits;
use super::loose::LooseRoutes;
use super::pattern::{Methods, Pattern};
use super::secrets::SecretSegments;
use super::table::{Order, RouteTable};
use super::template::Template;
use super::when::When;
use crate::cache::settings::Scope;
use crate::rendering::json_text::EscapedText;

#[derive(Debug)]
pub(crate) struct Routes {
    pub table: RouteTable,
    /// The index for loose readings of paths.
    pub loose: LooseRoutes,
    /// The routes in configured order, then one for requests that match none.
    pub routes: Vec<Arc<RoutePolicy>>,
    /// The needs of the conditions of routes; `None` if no route has any.
    pub conditions: Option<Conditions>,
}

/// The facts about all routes that `when` of some needs.
#[derive(Debug)]
pub(crate) struct Conditions {
    /// The index of the routes that rewrite paths, for any method.
    rewrites: RouteTable,
    /// The fields that decide about routes.
    fields: Vec<HeaderName>,
}

impl Conditions {
    /// Collects what the conditions need; `None` if no route has any.
    pub(crate) fn new(patterns: &[Pattern], routes: &[Arc<RoutePolicy>]) -> Option<Conditions> {
        let whens = || routes.iter().filter_map(|route| route.when.as_deref());
        whens().next()?;
        let rewrites: Vec<(Order, Pattern)> = (0..)
            .zip(patterns.iter().zip(routes))
            .filter(|(_, (_, route))| matches!(route.action, Action::Rewrite(_)))
            .map(|(order, (pattern, _))| (order, Pattern { methods: Methods::Any, ..pattern.clone() }))
            .collect();
        let rewrites = RouteTable::at(rewrites.iter().map(|(order, pattern)| (*order, pattern)));
        let mut fields: Vec<HeaderName> = whens().flat_map(When::fields).cloned().collect();
        fields.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        fields.dedup();
        Some(Conditions { rewrites, fields })
    }
}

impl Routes {
    /// Returns whether a route has conditions beside its pattern.
    pub(crate) fn has_conditions(&self) -> bool {
        self.conditions.is_some()
    }

    /// Returns whether a condition of a route is about a field.
    pub(crate) fn is_condition(&self, field: &str) -> bool {
        self.conditions.as_ref().is_some_and(|conditions| conditions.fields.iter().any(|name| name == field))
    }

    /// Returns the paths that routes make of a normalized path, whatever their methods and conditions.
    pub(crate) fn rewritten(&self, host: &str, path: &str) -> Vec<String> {
        let Some(conditions) = &self.conditions else { return Vec::new() };
        let mut all = Vec::new();
        let mut from = 0;
        while let Some(order) = conditions.rewrites.find(&Method::GET, host, path, from) {
            from = order + 1;
            let route = self.routes.get(order as usize);
            if let Some((Action::Rewrite(to), Some(pattern))) =
                route.map(|route| (&route.action, &route.pattern))
            {
                all.push(to.fill(&pattern.template, path));
            }
        }
        all
    }

    /// Iterates over the routes that may take a request, by what their conditions decide: those up to the first that has
    /// none.
    pub(crate) fn candidates<'a>(
        &'a self,
        method: &'a Method,
        host: &'a str,
        path: &'a str,
    ) -> impl Iterator<Item = &'a Arc<RoutePolicy>> {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let order = self.table.find(method, host, path, from?);
            let route = order.and_then(|order| self.routes.get(order as usize));
            from = match (order, route) {
                (Some(order), Some(route)) if route.when.is_some() => Some(order + 1),
                _ => None,
            };
            Some(route.unwrap_or_else(|| self.unmatched()))
        })
    }

    /// Returns whether some route stores a separate response for each user.
    pub(crate) fn keep_users(&self) -> bool {
        self.routes.iter().any(|route| route.cache.route_settings.scope == Scope::User)
    }

    /// Returns the policy for requests that match no route.
    pub(crate) fn unmatched(&self) -> &Arc<RoutePolicy> {
        // The compiler always appends this route.
        self.routes.last().expect("the last route is the one for requests that match none")
    }
}

/// Settings of one entry in `[[routes]]`.
#[derive(Debug, PartialEq)]
pub(crate) struct RoutePolicy {
    /// The label in metrics and logs: the path template.
    pub label: EscapedText,
    /// The path segments that logs must mask.
    pub secrets: SecretSegments,
    /// The requests that the route matches; `None` for the route of unmatched requests.
    pub pattern: Option<Pattern>,
    /// Further conditions on the requests that it matches.
    pub when: Option<Box<When>>,
    /// The clients that the route serves; `None`: all.
    pub allow: Option<Vec<IpNet>>,
    /// The action for a matching request.
    pub action: Action,
    /// The index of the upstream, if the route names one.
    pub upstream: Option<usize>,
    /// Timeout that replaces the upstream's `response_timeout`.
    pub timeout: Option<Duration>,
    /// Whether requests are streams from their start.
    pub stream: bool,
    /// The limit that replaces `server.max_body_size`.
    pub max_body_size: Option<u64>,
    /// Whether responses may be compressed.
    pub compress: bool,
    /// Whether responses without an entity tag get one.
    pub etag: bool,
    /// The freshness lifetime that is sent to clients.
    pub browser_ttl: Option<Duration>,
    pub cache: RouteCache,
    /// The rate limits of the route.
    pub limits: RouteLimits,
    /// Edits of the request's fields.
    pub request: FieldEdits,
    /// Edits of the response's fields, with those of `deprecated`.
    pub response: FieldEdits,
}

impl RoutePolicy {
    /// Returns whether the route serves a client.
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        self.allow.as_ref().is_none_or(|networks| networks.iter().any(|net| net.contains(&client)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Forward,
    /// Rewrites the path; matching continues with the routes below.
    Rewrite(Template),
    Deny(StatusCode),
    Redirect {
        /// The scheme and authority before the path, or nothing.
        base: String,
        /// The target path, filled from the match.
        to: Template,
        /// One of 301, 302, 303, 307 and 308.
        status: StatusCode,
    },
}

/// Changes to the fields of a message: removals first, then replacements and additions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldEdits {
    pub remove: Vec<HeaderName>,
    /// Fields to set; they replace existing values.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields to add; existing values stay.
    pub append: Vec<(HeaderName, HeaderValue)>,
}

impl FieldEdits {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }

    pub(crate) fn apply(&self, headers: &mut http::HeaderMap) {
        self.apply_where(headers, |_| true);
    }

    /// Applies the edits to a response that Pillion made itself, except for the fields that describe its content and
    /// its caching.
    pub(crate) fn apply_to_own(&self, headers: &mut http::HeaderMap) {
        self.apply_where(headers, |name| !belongs_to_own(name.as_str()));
    }

    fn apply_where(&self, headers: &mut http::HeaderMap, applies: impl Fn(&HeaderName) -> bool) {
        for name in self.remove.iter().filter(|name| applies(name)) {
            headers.remove(name);
        }
        for (name, value) in self.set.iter().filter(|(name, _)| applies(name)) {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in self.append.iter().filter(|(name, _)| applies(name)) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// Returns whether routes must not edit a field in Pillion's own responses. A 429 that is cacheable, or that has the
/// upstream's `Retry-After`, would be wrong.
fn belongs_to_own(name: &str) -> bool {
    matches!(name, "cache-control" | "expires" | "etag" | "last-modified" | "vary" | "retry-after")
        || name.starts_with("content-")
        || name.starts_with("ratelimit")
        || name.ends_with("-cache-control")
}
