//! Cache settings of routes and invalidation rules, with the tag templates that take segments from paths.

use std::time::Duration;

use http::Method;

use super::login_redirect::OnRedirect;
use super::pattern::{Methods, Pattern};
use super::segment::Capture;
use crate::cache::invalidation::Mode;
use crate::cache::settings::RouteCacheSettings;

/// Returns whether a method is safe: those of RFC 9110 9.2.1 and RFC 10008, and those that the IANA registry marks as
/// safe.
pub(crate) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
        || matches!(method.as_str(), "QUERY" | "PROPFIND" | "REPORT" | "SEARCH" | "PRI")
}

/// The cache settings of one route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteCache {
    /// Whether the configuration sets anything about caching for the route.
    pub written: bool,
    pub route_settings: RouteCacheSettings,
    /// The tags of stored responses.
    pub tags: Vec<TagTemplate>,
    /// Whether rules invalidate tags and paths only within one user's stored responses.
    pub keys_by_user: bool,
}

/// A literal text, or a segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// The value of a name in the template, and the name.
    Value(Capture, String),
}

/// A tag with segments of the matched path in it, such as `patient:{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagTemplate(Vec<Piece>);

/// As in the configuration, with the places of values in place of their names.
impl std::fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Value(Capture { place, prefix: 0, suffix: 0 }, _) => write!(f, "{{{place}}}"),
            Piece::Value(Capture { place, prefix, suffix }, _) => write!(f, "{{{place}:{prefix}:{suffix}}}"),
        })
    }
}

impl TagTemplate {
    /// Parses a tag. `pattern` defines the names of segments. The error says what is wrong.
    pub(crate) fn parse(text: &str, pattern: &Pattern) -> Result<TagTemplate, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let Some((name, after)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) else {
                return Err("a brace that is not closed, or not opened".to_owned());
            };
            match pattern.template.capture(name) {
                Some(capture) => pieces.push(Piece::Value(capture, name.to_owned())),
                None => return Err(format!("{{{name}}} is not in the path that is matched")),
            }
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(TagTemplate(pieces))
    }

    /// Fills the template from a normalized path that the pattern matches.
    pub(crate) fn fill(&self, path: &str) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Value(capture, _) => text.push_str(capture.value(path).unwrap_or("")),
            }
        }
        text
    }

    /// Returns whether the tag is the same for every path.
    pub(crate) fn is_fixed(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Returns whether both templates can produce the same tag.
    pub(crate) fn may_equal(&self, other: &TagTemplate) -> bool {
        // Only the literal text decides, because a segment can have any value.
        let shape = |filled: &TagTemplate| -> Vec<Option<String>> {
            filled
                .0
                .iter()
                .map(|piece| match piece {
                    Piece::Text(text) => Some(text.clone()),
                    Piece::Value(..) => None,
                })
                .collect()
        };
        let (one, two) = (shape(self), shape(other));
        let begins = match (one.first(), two.first()) {
            (Some(Some(a)), Some(Some(b))) => a.starts_with(b.as_str()) || b.starts_with(a.as_str()),
            _ => true,
        };
        if self.is_fixed() && other.is_fixed() { one == two } else { begins }
    }
}

/// A path to invalidate, alone or with everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidatePath {
    /// The path, without a trailing `/**`.
    pub path: TagTemplate,
    /// Whether everything below the path is invalidated too.
    pub prefix: bool,
}

/// A rule of `[[invalidate]]` in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidateRule {
    /// The rule as written in the configuration, which is also its label in metrics.
    pub label: String,
    pub on: Pattern,
    /// Whether the rule invalidates only the writer's own stored responses; all of them if it names neither tags nor
    /// paths.
    pub principal: bool,
    pub tags: Vec<TagTemplate>,
    pub paths: Vec<InvalidatePath>,
    pub mode: Mode,
    pub settle: Duration,
    /// Patterns of requests that the rule excludes although `on` matches them.
    pub except: Vec<Pattern>,
    /// How a redirect in response to the write affects the rule.
    pub on_redirect: OnRedirect,
}

impl InvalidateRule {
    /// Returns whether the rule also applies to reads: it names their methods.
    pub(crate) fn names_reads(&self) -> bool {
        matches!(&self.on.methods, Methods::Only(methods) if methods.iter().any(is_safe))
    }

    /// Returns whether the rule applies to a request. `path` must be normalized.
    pub(crate) fn takes(&self, method: &Method, host: &str, path: &str) -> bool {
        let takes = |pattern: &Pattern| pattern.takes(method, host, path);
        takes(&self.on) && !self.except.iter().any(takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_filled_from_paths() {
        let pattern = Pattern::parse("GET /api/{kind}/{id}/**").unwrap();
        let filled = TagTemplate::parse("{kind}:{id}!", &pattern).unwrap();
        assert_eq!(filled.fill("/api/patients/7/notes"), "patients:7!");
        assert_eq!(filled.fill("/api/patients/7"), "patients:7!");
        let pattern = Pattern::parse("GET /v2/**/blobs/sha256:{digest}").unwrap();
        let filled = TagTemplate::parse("blob:{digest}", &pattern).unwrap();
        assert_eq!(filled.fill("/v2/library/nginx/blobs/sha256:7"), "blob:7");
        let pattern = Pattern::parse("GET /api/{kind}/{id}/**").unwrap();
        assert!(TagTemplate::parse("{x}", &pattern).is_err());
        assert!(TagTemplate::parse("a}b", &pattern).is_err() && TagTemplate::parse("a{b", &pattern).is_err());
        let fixed = TagTemplate::parse("patients", &pattern).unwrap();
        assert!(!fixed.may_equal(&TagTemplate::parse("visits", &pattern).unwrap()));
        let by_id = TagTemplate::parse("patient:{id}", &pattern).unwrap();
        assert!(by_id.may_equal(&TagTemplate::parse("patient:7", &pattern).unwrap()));
        assert!(!by_id.may_equal(&TagTemplate::parse("visit:{id}", &pattern).unwrap()));
    }
}
