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
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SecretSegments {
    /// Those that its own template names, counted from 0.
    named: Vec<usize>,
    /// From which segment on its template names none (after `**`; without a template the first), and what others name
    /// there; `None` where nothing is left to name.
    unnamed: Option<(usize, Arc<SecretPaths>)>,
    /// Where its paths are rewritten: from this template to that one, whose path others name anew.
    rewritten: Option<Box<(Template, Template)>>,
}

/// What a target's path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundSegments {
    /// These of its segments, counted from 0.
    These(Vec<usize>),
    /// Some, but which cannot be told, as routes are matched against it in another form than it came in.
    Somewhere,
}

/// Of no route, where nothing is to be found.
pub(crate) static NO_SECRET_SEGMENTS: SecretSegments =
    SecretSegments { named: Vec::new(), unnamed: None, rewritten: None };

impl SecretSegments {
    /// Of a route with this template (without one it is the route of requests that match none); `paths` is of all routes.
    pub(crate) fn new(
        template: Option<&Template>,
        is_secret: impl Fn(&str) -> bool,
        paths: &Arc<SecretPaths>,
    ) -> SecretSegments {
        let named = template.map_or_else(Vec::new, |template| secrets(template, is_secret).collect());
        let from = template.map_or(Some(0), |template| {
            template.segments.iter().position(|segment| *segment == Segment::Rest)
        });
        let unnamed = from.filter(|_| !paths.ends.is_empty()).map(|from| (from, paths.clone()));
        SecretSegments { named, unnamed, rewritten: None }
    }

    /// Of a route that rewrites the paths of `template` to `to`.
    pub(crate) fn rewriting(
        mut self,
        template: &Template,
        to: &Template,
        paths: &Arc<SecretPaths>,
    ) -> SecretSegments {
        if !paths.ends.is_empty() {
            // Without a rest of its own nothing is left to name but where its path is rewritten to.
            self.unnamed.get_or_insert((usize::MAX, paths.clone()));
            self.rewritten = Some(Box::new((template.clone(), to.clone())));
        }
        self
    }

    /// Whether no path of the route's holds one.
    #[inline(always)]
    pub(crate) fn are_none(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none()
    }

    /// Those of a path as it came in.
    pub(crate) fn find(&self, path: &str) -> FoundSegments {
        let mut all = self.named.clone();
        if let Some((from, paths)) = &self.unnamed {
            let Some(found) = paths.find(path) else { return FoundSegments::Somewhere };
            all.extend(found.into_iter().filter(|at| at >= from));
            if let Some(rewritten) = &self.rewritten {
                let Some(moved) = moved(path, rewritten, paths) else { return FoundSegments::Somewhere };
                all.extend(moved);
            }
        }
        if !all.is_empty() && is_odd(path) { FoundSegments::Somewhere } else { FoundSegments::These(all) }
    }
}

/// The segments of a path that are secrets where they are after it is rewritten; `None` where that cannot be told.
fn moved(path: &str, (from, to): &(Template, Template), paths: &SecretPaths) -> Option<Vec<usize>> {
    let normal = path::normalise(path).ok()?.normal;
    let rewritten = to.fill(from, &normal);
    let found = paths.find(&rewritten)?;
    if !found.is_empty() && is_odd(&rewritten) {
        return None;
    }
    let secrets: Vec<&str> = found.iter().filter_map(|at| rewritten.split('/').nth(at + 1)).collect();
    let segments = normal.split('/').skip(1).enumerate();
    Some(segments.filter(|(_, segment)| secrets.contains(segment)).map(|(at, _)| at).collect())
}

/// Where the templates of all routes name secrets, whatever the method and the host.
pub(crate) struct SecretPaths {
    /// For every secret the paths that may be meant for its template.
    table: RouteTable,
    /// By order in the table, the secret's segment.
    ends: Vec<usize>,
}

impl SecretPaths {
    /// Of the templates of all routes.
    pub(crate) fn new<'a>(
        templates: impl IntoIterator<Item = &'a Template>,
        is_secret: impl Fn(&str) -> bool,
    ) -> SecretPaths {
        let mut patterns = Vec::new();
        let mut ends = Vec::new();
        let mut seen = HashSet::new();
        for template in templates {
            for end in secrets(template, &is_secret) {
                for (segments, directory) in astray(template, end) {
                    if seen.insert((segments.clone(), directory)) {
                        let template = Template { segments, directory };
                        patterns.push(Pattern { methods: Methods::Any, host: Host::Any, template });
                        ends.push(end);
                    }
                }
            }
        }
        SecretPaths { table: RouteTable::new(&patterns), ends }
    }

    /// The segments of a path that any template calls a secret; `None` where it cannot be read.
    fn find(&self, path: &str) -> Option<Vec<usize>> {
        let normal = path::normalise(path).ok()?.normal.to_ascii_lowercase();
        // Apps may take what follows a semicolon for no part of a segment (RFC 3986 3.3), and an encoded slash for one (2.2).
        let plain: Vec<&str> =
            normal.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect();
        let plain = path::normalise(&plain.join("/")).ok()?.normal.to_ascii_lowercase();
        let decoded = plain.replace("%25", "%").replace("%2f", "/").replace("%5c", "/");
        let mut found = self.found(&plain);
        if decoded != plain {
            found.extend(self.found(&path::normalise(&decoded).ok()?.normal));
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

/// The paths that may be meant for a template with a secret there: all that begin like it, as far as the secret and a
/// word that tells that they do; without a word those as long as it.
fn astray(template: &Template, end: usize) -> Vec<(Vec<Segment>, bool)> {
    let mut segments: Vec<Segment> = template.segments.iter().map(nameless).collect();
    let word = segments.iter().position(|segment| matches!(segment, Segment::Literal(_)));
    let Some(word) = word else { return vec![(segments.clone(), false), (segments, true)] };
    segments.truncate(end.max(word) + 1);
    segments.push(Segment::Rest);
    vec![(segments, false)]
}

/// The segments of a template whose names are of secrets.
fn secrets(template: &Template, is_secret: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
    let segments = template.segments.iter().enumerate();
    segments
        .filter(move |(_, segment)| matches!(segment, Segment::Name(name) if is_secret(name)))
        .map(|(at, _)| at)
}

/// Templates that differ in names or in case only are one.
fn nameless(segment: &Segment) -> Segment {
    match segment {
        Segment::Name(_) => Segment::Name(String::new()),
        Segment::Literal(text) => Segment::Literal(text.to_ascii_lowercase()),
        Segment::Rest => Segment::Rest,
    }
}

/// The index is made of the templates of all routes, which a reload compares by themselves.
impl PartialEq for SecretPaths {
    fn eq(&self, other: &SecretPaths) -> bool {
        self.ends == other.ends
    }
}

impl std::fmt::Debug for SecretPaths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretPaths").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// A path that routes match in another form than it came in: which segment is which cannot be told.
fn is_odd(path: &str) -> bool {
    let encoded = |text: &str| path.to_ascii_lowercase().contains(text);
    ["//", "/.", "/;"].into_iter().any(|odd| path.contains(odd))
        || ["%2f", "%2e", "%5c", "%25"].into_iter().any(encoded)
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
        let these = |at: &[usize]| FoundSegments::These(at.to_vec());
        for (own, path, found) in [
            (Some("/reset/{token}"), "/reset/S3CRET", these(&[1])),
            (Some("/users/me"), "/users/me", these(&[])),
            (Some("/reset/{id}"), "/reset/7", these(&[])),
            (Some("/**"), "/reset/S3CRET", these(&[1])),
            (Some("/**"), "/%72eset/S3CRET/then", these(&[1])),
            (Some("/reset/{id}/**"), "/reset/7/x", these(&[])),
            (Some("/**"), "/reset/", these(&[])),
            (Some("/**"), "/files/reset/S3CRET", these(&[])),
            (None, "/Reset/S3CRET", these(&[1])),
            (None, "/reset;a=1/S3CRET", these(&[1])),
            (None, "/reset%252FS3CRET", FoundSegments::Somewhere),
            (None, "/users/S3CRET", these(&[1])),
            (None, "/users/S3CRET/and", these(&[1])),
            (None, "/users/S3CRET/and/S3CRET", these(&[1, 3])),
            (None, "/users/x/S3CRET", these(&[1, 2])),
            (None, "/", these(&[])),
            (None, "//reset/S3CRET", FoundSegments::Somewhere),
            (None, "/a/../reset/S3CRET", FoundSegments::Somewhere),
            (None, "/reset%2fS3CRET", FoundSegments::Somewhere),
            (None, "/reset%5CS3CRET", FoundSegments::Somewhere),
            (None, "/reset/%2fS3CRET", FoundSegments::Somewhere),
            (None, "/reset/S3%ZZ", FoundSegments::Somewhere),
            (None, "/..%2freset/S3CRET", FoundSegments::Somewhere),
            (None, "/a%2fb", these(&[])),
            (None, "*", these(&[])),
        ] {
            let own = own.map(template);
            let segments = SecretSegments::new(own.as_ref(), is_secret, &paths);
            assert_eq!(segments.find(path), found, "{own:?} {path}");
        }
    }

    #[test]
    fn where_no_word_tells_it_the_length_does() {
        let paths = Arc::new(SecretPaths::new(&[template("/{short_token}")], is_secret));
        let segments = SecretSegments::new(None, is_secret, &paths);
        for (path, found) in
            [("/S3CRET", vec![0]), ("/S3CRET/", vec![0]), ("/api/users/7", vec![]), ("/", vec![])]
        {
            assert_eq!(segments.find(path), FoundSegments::These(found), "{path}");
        }
    }

    #[test]
    fn secrets_are_found_where_they_were_before_they_were_moved() {
        let all = ["/reset/{token}", "/v1/**", "/old/{a}/{b}"].map(template);
        let paths = Arc::new(SecretPaths::new(&all, is_secret));
        for (own, to, path, found) in [
            ("/v1/**", "/**", "/v1/reset/S3CRET", vec![2]),
            ("/v1/**", "/**", "/v1/%72eset/S3CRET", vec![2]),
            ("/v1/**", "/**", "/v1/other/7", vec![]),
            ("/old/{a}/{b}", "/reset/{b}", "/old/x/S3CRET", vec![2]),
            ("/old/{a}/{b}", "/new/{b}", "/old/x/7", vec![]),
        ] {
            let (own, to) = (template(own), template(to));
            let segments = SecretSegments::new(Some(&own), is_secret, &paths).rewriting(&own, &to, &paths);
            assert_eq!(segments.find(path), FoundSegments::These(found), "{path}");
        }
        let (own, to) = (template("/v1/**"), template("/**"));
        let segments = SecretSegments::new(Some(&own), is_secret, &paths).rewriting(&own, &to, &paths);
        for path in
            ["/v1/reset%2FS3CRET", "/v1/x%2f..%2freset/S3CRET", "/v1/reset%252FS3CRET", "/v1/;a/reset/S3CRET"]
        {
            assert_eq!(segments.find(path), FoundSegments::Somewhere, "{path}");
        }
    }

    #[test]
    fn where_no_template_names_one_nothing_is_looked_up() {
        let paths = Arc::new(SecretPaths::new(&[template("/a/{id}")], is_secret));
        assert!(SecretSegments::new(None, is_secret, &paths).are_none());
        assert!(SecretSegments::new(Some(&template("/**")), is_secret, &paths).are_none());
        assert!(NO_SECRET_SEGMENTS.are_none());
    }
}
