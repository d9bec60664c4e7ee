//! `[[routes]]`: the requests that a route matches, and the treatment of them and of their responses.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::cache::RouteCache;
use super::limits::RouteLimits;
use super::loose::LooseRoutes;
use super::secrets::SecretSegments;
use super::table::RouteTable;
use super::template::{Pattern, Template};
use crate::cache::settings::Scope;
use crate::rendering::json_text::EscapedText;

#[derive(Debug)]
pub(crate) struct Routes {
    pub table: RouteTable,
    /// The index for loose readings of paths.
    pub loose: LooseRoutes,
    /// By order; one more at the end for requests that match none.
    pub routes: Vec<Arc<RoutePolicy>>,
}

impl Routes {
    /// Whether there is a copy for each user under some route.
    pub(crate) fn keep_users(&self) -> bool {
        self.routes.iter().any(|route| route.cache.route_settings.scope == Scope::User)
    }

    /// What holds for requests that match no route.
    pub(crate) fn unmatched(&self) -> &Arc<RoutePolicy> {
        // The compiler puts it there whatever the file holds.
        self.routes.last().expect("the last route is the one for requests that match none")
    }
}

/// One of `[[routes]]`.
#[derive(Debug, PartialEq)]
pub(crate) struct RoutePolicy {
    /// The label in metrics and logs: the path template.
    pub label: EscapedText,
    /// What of its paths is not written.
    pub secrets: SecretSegments,
    /// What it matches; `None` for the route of unmatched requests.
    pub pattern: Option<Pattern>,
    /// What becomes of the request.
    pub action: Action,
    /// The index of the upstream, where the route names one.
    pub upstream: Option<usize>,
    /// Instead of `response_timeout`.
    pub timeout: Option<Duration>,
    /// Whether its requests are streams from their start.
    pub stream: bool,
    /// Instead of `server.max_body_size`.
    pub max_body_size: Option<u64>,
    /// Whether answers may be coded.
    pub compress: bool,
    /// Whether answers without a tag get one.
    pub etag: bool,
    /// How long the client is told to keep answers.
    pub browser_ttl: Option<Duration>,
    pub cache: RouteCache,
    /// What its callers may do.
    pub limits: RouteLimits,
    /// Edits of the request's fields.
    pub request: FieldEdits,
    /// Edits of the answer's fields, with those of `deprecated`.
    pub response: FieldEdits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Forward,
    /// Rewrites the path; matching goes on with the routes below.
    Rewrite(Template),
    Deny(StatusCode),
    Redirect {
        /// What stands before the path: scheme and authority, or nothing.
        base: String,
        /// The path, filled from the match.
        to: Template,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
}

/// Changes to the fields of a message: removals first, then what is set or added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldEdits {
    pub remove: Vec<HeaderName>,
    /// Set, replacing what is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Added beside what is there.
    pub append: Vec<(HeaderName, HeaderValue)>,
}

impl FieldEdits {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.append.is_empty()
    }

    pub(crate) fn apply(&self, headers: &mut http::HeaderMap) {
        self.apply_where(headers, |_| true);
    }

    /// Applies them to a response of Pillion's own, but for the fields that say what that is and how long it holds.
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

/// Fields of a response of Pillion's own that no route edits: a 429 that is cacheable, or whose Retry-After is the
/// app's, would be wrong.
fn belongs_to_own(name: &str) -> bool {
    matches!(name, "cache-control" | "expires" | "etag" | "last-modified" | "vary" | "retry-after")
        || name.starts_with("content-")
        || name.starts_with("ratelimit")
        || name.ends_with("-cache-control")
}
