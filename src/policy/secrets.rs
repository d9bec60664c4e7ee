//! Which segments of a path are secrets: those that templates of routes give a name of `log.mask`.
//!
//! A request that went astray says its secret too: `GET` where the route is of `POST`, another host, a slash too many.
//! So what a request's own route does not name is looked up in the templates of all.

use std::collections::HashSet;
use std::sync::Arc;

use http::Method;

use super::path;
use super::table::RouteTable;
use super::template::{Host, Methods, Pattern, Segment, Template};

/// The segments of paths that a route's requests have and that are secrets.
#[derive(Clone, Debug, Default)]
pub struct SecretSegments {
    /// Those that its own template names, counted from 0.
    named: Vec<usize>,
    /// From which segment on its template names none (after `**`; without a template the first), and what others name
    /// there; `None` where nothing is left to name.
    unnamed: Option<(usize, Arc<SecretPaths>)>,
}

/// What a target's path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These of its segments, counted from 0.
    These(Vec<usize>),
    /// Some, but which cannot be told, as routes are matched against it in another form than it came in.
    Somewhere,
}

/// Of no route, where nothing is to be found.
pub static NO_SEGMENTS: SecretSegments = SecretSegments { named: Vec::new(), unnamed: None };

impl SecretSegments {
    /// Of a route with this template (without one it is the route of requests that match none); `paths` is of all routes.
    pub fn new(
        template: Option<&Template>,
        is_secret: impl Fn(&str) -> bool,
        paths: &Arc<SecretPaths>,
    ) -> SecretSegments {
        let named = template.map_or_else(Vec::new, |template| secrets(template, is_secret).collect());
        let from = template.map_or(Some(0), |template| {
            template.segments.iter().position(|segment| *segment == Segment::Rest)
        });
        let unnamed = from.filter(|_| !paths.ends.is_empty()).map(|from| (from, paths.clone()));
        SecretSegments { named, unnamed }
    }

    /// Whether no path of the route's holds one.
    #[inline(always)]
    pub fn are_none(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none()
    }

    /// Those of a path as it came in.
    pub fn of(&self, path: &str) -> Found {
        let mut all = self.named.clone();
        if let Some((from, paths)) = &self.unnamed {
            match paths.of(path) {
                Some(found) => all.extend(found.into_iter().filter(|at| at >= from)),
                None => return Found::Somewhere,
            }
        }
        if !all.is_empty() && is_odd(path) { Found::Somewhere } else { Found::These(all) }
    }
}

/// Where the templates of all routes name secrets, whatever the method and the host.
#[derive(Debug)]
pub struct SecretPaths {
    /// For every secret the template up to it, and then anything.
    table: RouteTable,
    /// By order in the table, the secret's segment.
    ends: Vec<usize>,
}

impl SecretPaths {
    /// Of the templates of all routes.
    pub fn new<'a>(
        templates: impl IntoIterator<Item = &'a Template>,
        is_secret: impl Fn(&str) -> bool,
    ) -> SecretPaths {
        let mut patterns = Vec::new();
        let mut ends = Vec::new();
        let mut seen = HashSet::new();
        for template in templates {
            for end in secrets(template, &is_secret) {
                let mut segments: Vec<Segment> =
                    template.segments.iter().take(end + 1).map(nameless).collect();
                segments.push(Segment::Rest);
                if seen.insert(segments.clone()) {
                    let template = Template { segments, directory: false };
                    patterns.push(Pattern { methods: Methods::Any, host: Host::Any, template });
                    ends.push(end);
                }
            }
        }
        SecretPaths { table: RouteTable::new(&patterns), ends }
    }

    /// The segments of a path that any template calls a secret; `None` where it cannot be read.
    fn of(&self, path: &str) -> Option<Vec<usize>> {
        let normal = path::normalise(path).ok()?.normal.into_owned();
        // An app may take an encoded slash for one.
        let decoded = normal.replace("%2F", "/");
        let mut found = self.found(&path::normalise(&decoded).ok()?.normal);
        if decoded != normal {
            found.extend(self.found(&normal));
        }
        Some(found)
    }

    fn found(&self, path: &str) -> Vec<usize> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(order) = self.table.find(&Method::GET, "", path, from) {
            found.extend(self.ends.get(order as usize));
            from = order + 1;
        }
        found
    }
}

/// The segments of a template whose names are of secrets.
fn secrets(template: &Template, is_secret: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
    let segments = template.segments.iter().enumerate();
    segments
        .filter(move |(_, segment)| matches!(segment, Segment::Name(name) if is_secret(name)))
        .map(|(at, _)| at)
}

/// Templates that differ in names only are one.
fn nameless(segment: &Segment) -> Segment {
    match segment {
        Segment::Name(_) => Segment::Name(String::new()),
        other => other.clone(),
    }
}

/// A path that routes match in another form than it came in: which segment is which cannot be told.
fn is_odd(path: &str) -> bool {
    let encoded = |text: &str| path.to_ascii_lowercase().contains(text);
    path.contains("//") || path.contains("/.") || encoded("%2f") || encoded("%2e") || encoded("%5c")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_secret(name: &str) -> bool {
        name.contains("token")
    }

    fn template(text: &str) -> Template {
        Template::parse(text).expect(text)
    }

    #[test]
    fn what_a_route_does_not_name_is_a_secret_where_another_says_so() {
        let all = [
            "/reset/{token}",
            "/reset/{reset_token}/now",
            "/users/me",
            "/users/{token}/and/{other_token}",
            "/{kind}/x/{token}",
            "/files/**",
        ]
        .map(template);
        let paths = Arc::new(SecretPaths::new(&all, is_secret));
        assert_eq!(paths.ends, [1, 1, 3, 2], "the same path twice is one");
        let these = |at: &[usize]| Found::These(at.to_vec());
        for (own, path, found) in [
            (Some("/reset/{token}"), "/reset/S3CRET", these(&[1])),
            (Some("/users/me"), "/users/me", these(&[])),
            (Some("/reset/{id}"), "/reset/7", these(&[])),
            (Some("/**"), "/reset/S3CRET", these(&[1])),
            (Some("/**"), "/%72eset/S3CRET/then", these(&[1])),
            (Some("/reset/{id}/**"), "/reset/7/x", these(&[])),
            (Some("/**"), "/reset/", these(&[])),
            (Some("/**"), "/files/reset/S3CRET", these(&[])),
            (None, "/users/S3CRET", these(&[1])),
            (None, "/users/S3CRET/and", these(&[1])),
            (None, "/users/S3CRET/and/S3CRET", these(&[1, 3])),
            (None, "/users/x/S3CRET", these(&[1, 2])),
            (None, "/", these(&[])),
            (None, "//reset/S3CRET", Found::Somewhere),
            (None, "/a/../reset/S3CRET", Found::Somewhere),
            (None, "/reset%2fS3CRET", Found::Somewhere),
            (None, "/reset/%2fS3CRET", Found::Somewhere),
            (None, "/reset/S3%ZZ", Found::Somewhere),
            (None, "/..%2freset/S3CRET", Found::Somewhere),
            (None, "/a%2fb", these(&[])),
            (None, "*", these(&[])),
        ] {
            let own = own.map(template);
            let segments = SecretSegments::new(own.as_ref(), is_secret, &paths);
            assert_eq!(segments.of(path), found, "{own:?} {path}");
        }
    }

    #[test]
    fn where_no_template_names_one_nothing_is_looked_up() {
        let paths = Arc::new(SecretPaths::new(&[template("/a/{id}")], is_secret));
        assert!(SecretSegments::new(None, is_secret, &paths).are_none());
        assert!(SecretSegments::new(Some(&template("/**")), is_secret, &paths).are_none());
        assert!(NO_SEGMENTS.are_none());
    }
}
