//! How locations are matched, as paths of routes.

use super::read::Directive;

/// How a location is matched; nginx tries them in this order, and prefixes the longest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    Exact,
    FirmPrefix,
    Regex,
    Prefix,
}

/// A location in the order in which it is tried.
pub(super) struct Location<'a> {
    pub directive: &'a Directive,
    pub form: Match,
    pub path: &'a str,
}

pub(super) fn matching(directive: &Directive) -> Location<'_> {
    let (form, path) = match (directive.arg(0), directive.arg(1)) {
        ("=", path) => (Match::Exact, path),
        ("^~", path) => (Match::FirmPrefix, path),
        ("~" | "~*", path) => (Match::Regex, path),
        (path, _) => (Match::Prefix, path),
    };
    Location { directive, form, path }
}

/// Returns the path of the route, and a remark on what it matches otherwise. `None` if it has no equivalent.
pub(super) fn pattern(location: &Location<'_>) -> Option<(String, Option<&'static str>)> {
    let path = location.path;
    match location.form {
        Match::Exact => Some((path.to_owned(), None)),
        Match::Regex => None,
        _ if path.starts_with('@') => None,
        _ if path.ends_with('/') => Some((format!("{path}**"), None)),
        _ => Some((
            format!("{path}/**"),
            Some("nginx takes longer names too, such as this one with letters behind it"),
        )),
    }
}

/// Returns the target of a redirect of the route with `path`; `None` if it has another variable than the path.
pub(super) fn redirect(url: &str, path: &str) -> Option<String> {
    let to = match url.strip_suffix("$request_uri").or_else(|| url.strip_suffix("$uri")) {
        Some(base) => format!("{}{path}", base.strip_suffix('/').unwrap_or(base)),
        None => url.to_owned(),
    };
    (!to.contains('$') && !to.is_empty()).then_some(to)
}
