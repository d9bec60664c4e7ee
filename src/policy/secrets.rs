//! Secret path segments, for masking: those that a route template gives a name in `log.mask`. A request that misses its
//! route may contain the same secret (a `GET` for a `POST` route, another host, an extra slash). Segments that a
//! request's own route does not name are therefore looked up in the templates of all routes.

use std::collections::HashSet;
use std::sync::Arc;

use http::Method;

use super::path;
use super::pattern::{Host, Methods, Pattern};
use super::segment::{NamedSegment, Place, Segment, segments};
use super::table::RouteTable;
use super::template::Template;

/// The secret path segments of one route's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SecretSegments {
    /// The segments that the route's own template names as secrets.
    named: Vec<Place>,
    /// The segments that the own template does not name, and the templates of all routes to look them up; `None` if the
    /// own template names every segment.
    unnamed: Option<(Unnamed, Arc<SecretPaths>)>,
    /// For a route that rewrites paths: its template and the new one, whose paths other routes may name.
    rewritten: Option<Box<(Template, Template)>>,
}

/// The segments that `**` stands for: their first one, and how many segments follow them. Without a template these are
/// all segments.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Unnamed {
    from: usize,
    tail: usize,
}

/// The secret segments of a target's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundSegments {
    /// Indices of the secret segments, counted from 0.
    These(Vec<usize>),
    /// The path contains a secret, but its segments cannot be identified, because routes match a different form of the
    /// path than the one received.
    Somewhere,
}

/// A route without secret segments.
pub(crate) static NO_SECRET_SEGMENTS: SecretSegments =
    SecretSegments { named: Vec::new(), unnamed: None, rewritten: None };

impl SecretSegments {
    /// Creates the segments of a route with this template, or of unmatched requests without one. `paths` is built from
    /// all routes.
    pub(crate) fn new(
        template: Option<&Template>,
        is_secret: impl Fn(&str) -> bool,
        paths: &Arc<SecretPaths>,
    ) -> SecretSegments {
        let named = template
            .map_or_else(Vec::new, |template| template.places(is_secret).map(|(_, place)| place).collect());
        let rest = template.map_or(Some(Unnamed::default()), |template| {
            let (front, tail) = template.around_rest();
            tail.map(|tail| Unnamed { from: front.len(), tail: tail.len() })
        });
        let unnamed = rest.filter(|_| !paths.ends.is_empty()).map(|rest| (rest, paths.clone()));
        SecretSegments { named, unnamed, rewritten: None }
    }

    /// Adds a rewrite of the paths of `template` to `to`.
    pub(crate) fn rewriting(
        mut self,
        template: &Template,
        to: &Template,
        paths: &Arc<SecretPaths>,
    ) -> SecretSegments {
        if !paths.ends.is_empty() {
            // Without `**` in the own template, only the rewritten path has segments left to look up.
            self.unnamed.get_or_insert((Unnamed { from: usize::MAX, tail: 0 }, paths.clone()));
            self.rewritten = Some(Box::new((template.clone(), to.clone())));
        }
        self
    }

    /// Returns whether no path of the route has a secret segment.
    #[inline(always)]
    pub(crate) fn are_none(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none()
    }

    /// Returns the secret segments of a path as received.
    pub(crate) fn find(&self, path: &str) -> FoundSegments {
        let count = segments(path).count();
        let mut all: Vec<usize> = self.named.iter().filter_map(|place| place.index(count)).collect();
        if let Some((rest, paths)) = &self.unnamed {
            let Some(found) = paths.find(path) else { return FoundSegments::Somewhere };
            // In another form the path may have more segments, and the last ones are not known.
            let until =
                if rest.tail == 0 || is_odd(path) { usize::MAX } else { count.saturating_sub(rest.tail) };
            all.extend(found.into_iter().filter(|at| *at >= rest.from && *at < until));
            if let Some(rewritten) = &self.rewritten {
                let Some(moved) = moved(path, rewritten, paths) else { return FoundSegments::Somewhere };
                all.extend(moved);
            }
        }
        if !all.is_empty() && is_odd(path) { FoundSegments::Somewhere } else { FoundSegments::These(all) }
    }
}

/// Returns the segments of a path that are secret after the path is rewritten; `None` if they cannot be identified.
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

/// The secret segments in the templates of all routes, for any method and host.
pub(crate) struct SecretPaths {
    /// For every secret, the paths that may be intended for its template.
    table: RouteTable,
    /// For each order in the table, the place of the secret segment.
    ends: Vec<Place>,
}

impl SecretPaths {
    /// Builds the index from the templates of all routes.
    pub(crate) fn new<'a>(
        templates: impl IntoIterator<Item = &'a Template>,
        is_secret: impl Fn(&str) -> bool,
    ) -> SecretPaths {
        let mut patterns = Vec::new();
        let mut ends = Vec::new();
        let mut seen = HashSet::new();
        for template in templates {
            for (at, place) in template.places(&is_secret) {
                for (segments, directory, place) in astray(template, at, place) {
                    if seen.insert((segments.clone(), directory)) {
                        let template = Template { segments, directory };
                        patterns.push(Pattern { methods: Methods::Any, host: Host::Any, template });
                        ends.push(place);
                    }
                }
            }
        }
        SecretPaths { table: RouteTable::new(&patterns), ends }
    }

    /// Returns the segments of a path that any template names as secret; `None` if the path is invalid.
    fn find(&self, path: &str) -> Option<Vec<usize>> {
        let normal = path::normalise(path).ok()?.normal.to_ascii_lowercase();
        // An app may ignore the text after a semicolon (RFC 3986 3.3), and may read an encoded slash as a slash (2.2).
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
        let count = segments(path).count();
        while let Some(order) = self.table.find(&Method::GET, "", path, from) {
            found.extend(self.ends.get(order as usize).and_then(|place| place.index(count)));
            from = order + 1;
        }
        found
    }
}

/// Returns the paths that may be intended for a template with a secret at index `at`: all paths with the same beginning,
/// up to the secret and at least one literal. Without a literal, only paths of equal length count. After a `**`, paths
/// with the same end count, and those with one more segment.
fn astray(template: &Template, at: usize, place: Place) -> Vec<(Vec<Segment>, bool, Place)> {
    let (front, _) = template.around_rest();
    let mut segments: Vec<Segment> = template.segments.iter().map(nameless).collect();
    let is_literal = |segment: &Segment| matches!(segment, Segment::Literal(_));
    if let (Place::FromStart(_), Some(word)) = (place, front.iter().position(is_literal)) {
        segments.truncate(at.max(word) + 1);
        segments.push(Segment::Rest);
        return vec![(segments, false, place)];
    }
    let mut all = vec![(segments.clone(), false, place), (segments.clone(), true, place)];
    if let Place::FromEnd(end) = place
        && segments.iter().any(is_literal)
    {
        segments.push(Segment::Name(NamedSegment::default()));
        all.extend([false, true].map(|directory| (segments.clone(), directory, Place::FromEnd(end + 1))));
    }
    all
}

/// Makes templates equal that differ only in names or case.
fn nameless(segment: &Segment) -> Segment {
    match segment {
        Segment::Name(named) => Segment::Name(NamedSegment {
            prefix: named.prefix.to_ascii_lowercase(),
            name: String::new(),
            suffix: named.suffix.to_ascii_lowercase(),
        }),
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

/// Returns whether routes match a different form of a path than the one received, so that its segments cannot be
/// identified.
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
            "/shares/**/by/t-{token}",
        ]
        .map(template);
        let paths = Arc::new(SecretPaths::new(&all, is_secret));
        let ends: Vec<String> = paths.ends.iter().map(ToString::to_string).collect();
        assert_eq!(ends.join(" "), "1 1 3 2 -1 -1 -2 -2", "the same path twice is one");
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
            (Some("/shares/**/by/t-{token}"), "/shares/a/b/by/t-S3CRET", these(&[4])),
            (Some("/shares/**"), "/shares/a/by/t-S3CRET", these(&[3])),
            (None, "/Shares/by/T-S3CRET/more", these(&[2])),
            (None, "/shares/by/other", these(&[])),
            (Some("/a/**/{token}"), "/a/b/c/S3CRET", these(&[3])),
            (Some("/x/**/by/{id}"), "/x/reset/by/7", these(&[])),
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
