//! The loose reading of a path, as a lenient app may interpret it: an app that cuts parameters (servlet containers),
//! treats a backslash as a slash and ignores case (Windows), decodes twice (a server behind a server), or ignores extra
//! slashes. A deny rule applies if it matches either reading. Responses for paths whose readings differ are never
//! shared.

use std::borrow::Cow;

use http::Method;

use super::path::{is_unreserved, push_encoded, without_parameters};
use super::pattern::Pattern;
use super::segment::{NamedSegment, Segment};
use super::table::{Condition, Order, RouteTable};
use super::template::Template;
use crate::fields::query::octet;

/// Number of times that escapes are decoded.
const ROUNDS: usize = 2;

/// Returns the loose reading of a normalized path: `/API;v=1/%2561dmin%5Cusers/` is read as `/api/admin/users`.
pub(crate) fn reading(normal: &str) -> String {
    let mut segments: Vec<String> = Vec::new();
    for raw in normal.split('/') {
        // Parameters are cut first, as servlet containers do (RFC 3986 3.3).
        let mut text = Cow::Borrowed(raw.split(';').next().unwrap_or_default());
        for _ in 0..ROUNDS {
            if text.contains('%') {
                text = Cow::Owned(decoded(&text));
            }
        }
        for segment in text.split('/').map(without_parameters) {
            match segment {
                "" | "." => {}
                // A path cannot lead above the root (RFC 3986 5.2.4).
                ".." => drop(segments.pop()),
                _ => segments.push(segment.to_ascii_lowercase()),
            }
        }
    }
    if segments.is_empty() { "/".to_owned() } else { format!("/{}", segments.join("/")) }
}

/// Decodes escapes once, if they change the meaning of a path. A percent sign that starts no escape stands for itself,
/// as in lenient decoders.
fn decoded(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let Some(octet) = rest.as_bytes().get(at + 1..at + 3).and_then(octet) else {
            decoded.push('%');
            rest = &rest[at + 1..];
            continue;
        };
        match octet {
            b'/' | b'\\' => decoded.push('/'),
            b'%' | b';' => decoded.push(char::from(octet)),
            // A path may contain delimiters unescaped (RFC 3986 3.3), and apps decode them before they match routes.
            _ if is_unreserved(octet) || is_raw_delimiter(octet) => decoded.push(char::from(octet)),
            _ => push_encoded(&mut decoded, octet),
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    decoded
}

/// Returns whether a reserved character (RFC 3986 2.2) is part of a segment when unescaped. Square brackets count,
/// because clients send them unescaped.
fn is_raw_delimiter(octet: u8) -> bool {
    matches!(
        octet,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b':' | b'=' | b'@' | b'[' | b']'
    )
}

/// Stands for the value of a name while the text around it is read. No normal form has it, and no reading changes it.
const VALUE: char = '\u{1}';

/// Returns a template that matches the loose readings of all paths that the given template matches.
fn loosened(template: &Template) -> Template {
    let mut segments = Vec::with_capacity(template.segments.len());
    for segment in &template.segments {
        let read = match segment {
            Segment::Literal(text) => reading(&format!("/{text}")),
            Segment::Name(named) if !named.is_plain() => {
                reading(&format!("/{}{VALUE}{}", named.prefix, named.suffix))
            }
            Segment::Name(_) | Segment::Rest => {
                segments.push(segment.clone());
                continue;
            }
        };
        let parts = read.split('/').filter(|part| !part.is_empty());
        segments.extend(parts.map(|part| match (part.split_once(VALUE), segment) {
            (Some((prefix, suffix)), Segment::Name(named)) => Segment::Name(NamedSegment {
                prefix: prefix.to_owned(),
                name: named.name.clone(),
                suffix: suffix.to_owned(),
            }),
            _ => Segment::Literal(part.to_owned()),
        }));
    }
    let directory = segments.is_empty();
    Template { segments, directory }
}

/// The index of all routes for loose readings.
#[derive(Debug)]
pub(crate) struct LooseRoutes {
    /// Routes for paths that are odd.
    all: RouteTable,
    /// Routes for paths that are not odd. Only templates that are odd themselves can match such a path differently.
    odd: RouteTable,
    has_odd: bool,
    templates: Vec<Template>,
}

impl LooseRoutes {
    /// Builds the index of patterns in configured order; the second member says whether a route has conditions beside
    /// its pattern.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = (&'a Pattern, bool)>) -> LooseRoutes {
        let mut loose = Vec::new();
        let mut odd = Vec::new();
        for (order, (pattern, conditional)) in (0..).zip(patterns) {
            let template = loosened(&pattern.template);
            let is_odd = template != pattern.template;
            let pattern = Pattern { template, ..pattern.clone() };
            if is_odd {
                odd.push((order, pattern.clone(), conditional));
            }
            loose.push((order, pattern, conditional));
        }
        LooseRoutes {
            all: index(&loose),
            odd: index(&odd),
            has_odd: !odd.is_empty(),
            templates: loose.into_iter().map(|(_, pattern, _)| pattern.template).collect(),
        }
    }

    /// Returns the first route at or after `from` for a request whose method, host and loose reading are given.
    pub(crate) fn find(
        &self,
        request: (&Method, &str, &str),
        from: Order,
        condition: &mut dyn Condition,
    ) -> Option<Order> {
        self.all.find_where(request, from, condition)
    }

    /// Returns the same for a path that equals its loose reading. `found` is the route of its normal reading.
    pub(crate) fn find_plain(
        &self,
        request: (&Method, &str, &str),
        (from, found): (Order, Option<Order>),
        condition: &mut dyn Condition,
    ) -> Option<Order> {
        if !self.has_odd {
            return found;
        }
        let odd = self.odd.find_where(request, from, condition);
        [found, odd].into_iter().flatten().min()
    }

    /// Returns the template that a route uses for loose readings.
    pub(crate) fn template(&self, order: Order) -> Option<&Template> {
        self.templates.get(order as usize)
    }
}

/// Builds an index of patterns with their positions.
fn index(patterns: &[(Order, Pattern, bool)]) -> RouteTable {
    RouteTable::with_conditions(
        patterns.iter().map(|(order, pattern, conditional)| (*order, pattern, *conditional)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path::normalise;
    use crate::policy::table::Always;
    use proptest::prelude::*;

    #[test]
    fn n2_6_one_loose_reading() {
        for (path, loose) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("//a///b", "/a/b"),
            ("/Admin/Users", "/admin/users"),
            ("/admin;v=1/x", "/admin/x"),
            ("/;jsessionid=1/admin", "/admin"),
            ("/admin%3bv=1/x", "/admin/x"),
            ("/a%5cb", "/a/b"),
            ("/a%2fb", "/a/b"),
            ("/a%252fb", "/a/b"),
            ("/a%25252fb", "/a%2fb"),
            ("/a%255Cb", "/a/b"),
            ("/%2561dmin", "/admin"),
            ("/API;v=1/%2561dmin%5Cusers/", "/api/admin/users"),
            ("/x/%252e%252e/admin", "/admin"),
            ("/x%252F..%252fadmin", "/admin"),
            ("/%252e%252e/%252e%252e/admin", "/admin"),
            ("/ADMIN/100%25", "/admin/100%"),
            ("/ADMIN/%25zz", "/admin/%zz"),
            ("/caf%c3%a9", "/caf%c3%a9"),
            ("/a%20b", "/a%20b"),
            ("/v1/things%3Awipe", "/v1/things:wipe"),
            ("/%40me/%24metadata/_cat%28x%29/a%2bb", "/@me/$metadata/_cat(x)/a+b"),
            ("/%21%26%27%2A%2C%3D%5B%5D", "/!&'*,=[]"),
            ("/a%253Ab", "/a:b"),
            ("/a%3fb%23c", "/a%3fb%23c"),
        ] {
            let found = normalise(path).expect(path);
            assert_eq!(reading(&found.normal), loose, "{path}");
            assert!(found.is_odd || found.normal == loose, "{path} is not told to be odd");
        }
    }

    #[test]
    fn n2_6_readings_meet_templates_as_they_are_read() {
        let texts = [
            "* /Admin/**",
            "* /a%2Fb",
            "* /dir/",
            "* /plain/{id}",
            "* /;x/y",
            "* /v1/things:wipe",
            "* /%40Me",
            "* /**/{x}.BAK",
            "* /old/V{x}%2Fy/z",
            "* /param/p;{x}",
        ];
        let patterns: Vec<Pattern> = texts.iter().map(|text| Pattern::parse(text).expect(text)).collect();
        let routes = LooseRoutes::new(patterns.iter().map(|pattern| (pattern, false)));
        let exact = RouteTable::new(&patterns);
        for (path, wanted) in [
            ("/admin/x", Some(0)),
            ("/ADMIN", Some(0)),
            ("/a/b", Some(1)),
            ("/A%5CB", Some(1)),
            ("/dir", Some(2)),
            ("/plain/7/", Some(3)),
            ("/y", Some(4)),
            ("/v1/things%3awipe", Some(5)),
            ("/%40me", Some(6)),
            ("/@me", Some(6)),
            ("/a/b/Dump.bak", Some(7)),
            ("/a/b/dump%2Ebak;v=1", Some(7)),
            ("/a/b/dump.back", None),
            ("/old/v2%2fy/z", Some(8)),
            ("/old/v2/y/z", Some(8)),
            ("/param/p", Some(9)),
            ("/other", None),
        ] {
            let found = normalise(path).expect(path);
            let read = reading(&found.normal);
            assert_eq!(routes.find((&Method::GET, "h", &read), 0, &mut Always), wanted, "{path}");
            if !found.is_odd {
                let exact = exact.find(&Method::GET, "h", &found.normal, 0);
                let plain = routes.find_plain((&Method::GET, "h", &found.normal), (0, exact), &mut Always);
                assert_eq!(plain, wanted, "{path}, plain");
            }
        }
    }

    proptest! {
        /// A path that is not odd equals its loose reading, and both indices find the same route for it.
        #[test]
        fn n2_6_what_is_not_odd_has_one_reading(
            path in "/([abA;:@%2fF/]|%2[fF]|%3A|%40|%5C|%25|%6[1-3]|\u{e9}){0,12}",
            patterns in prop::collection::vec("\\* (/\\*\\*)?(/([abAB]|a%2F|a:b|%3Ab|\\{x\\}|[aA]\\{x\\}|\\{x\\}[bB])){0,1}(/b|/B){0,1}(/\\*\\*|/)?", 0..8),
        ) {
            let Ok(found) = normalise(&path) else { return Ok(()) };
            let read = reading(&found.normal);
            prop_assert_eq!(normalise(&read).map(|again| reading(&again.normal)).unwrap_or(read.clone()), read.clone());
            if found.is_odd {
                return Ok(());
            }
            prop_assert_eq!(&read, &found.normal.to_ascii_lowercase());
            let patterns: Vec<Pattern> = patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
            let routes = LooseRoutes::new(patterns.iter().map(|pattern| (pattern, false)));
            let exact = RouteTable::new(&patterns).find(&Method::GET, "h", &found.normal, 0);
            prop_assert_eq!(
                routes.find_plain((&Method::GET, "h", &found.normal), (0, exact), &mut Always),
                routes.find((&Method::GET, "h", &read), 0, &mut Always)
            );
        }
    }
}
