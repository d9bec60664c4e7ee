//! Route patterns: `METHOD[,METHOD] [host]path-template`, and the segments that `{name}` and `**` match.

use http::Method;

use super::path;
use crate::fields::host;

/// The methods that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Methods {
    /// Any method, written as `*`.
    Any,
    Only(Vec<Method>),
}

impl Methods {
    /// Returns whether `method` is matched.
    pub(crate) fn contains(&self, method: &Method) -> bool {
        match self {
            Methods::Any => true,
            // A route for GET also takes HEAD, which asks for the same response without content (RFC 9110 9.3.2).
            Methods::Only(methods) => {
                methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
            }
        }
    }
}

/// The hosts that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Any,
    /// This host, in lower case and without a port.
    Exact(String),
    /// Every host below this domain: `*.example.com` is stored as `example.com`.
    Below(String),
}

impl Host {
    /// Returns whether a `Host` value, as received, is matched.
    pub(crate) fn takes(&self, given: &str) -> bool {
        match self {
            Host::Any => true,
            Host::Exact(known) => host::name(given).eq_ignore_ascii_case(known),
            Host::Below(known) => {
                let given = host::name(given).to_ascii_lowercase();
                given.strip_suffix(known.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
        }
    }
}

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Literal(String),
    Name(String),
    Rest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    /// The segments; `Rest` occurs only as the last.
    pub segments: Vec<Segment>,
    /// Whether the template ends in a slash.
    pub directory: bool,
}

/// The requests that a route matches: `GET,HEAD *.example.com/api/{id}/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub methods: Methods,
    pub host: Host,
    pub template: Template,
}

impl std::fmt::Display for Methods {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Methods::Any => f.write_str("*"),
            Methods::Only(methods) => {
                let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

impl Methods {
    /// Returns whether these methods include all methods of the other.
    fn covers(&self, other: &Methods) -> bool {
        match (self, other) {
            (Methods::Any, _) => true,
            (Methods::Only(_), Methods::Any) => false,
            (Methods::Only(_), Methods::Only(other)) => other.iter().all(|method| self.contains(method)),
        }
    }
}

impl Host {
    /// Returns whether these hosts include all hosts of the other.
    fn covers(&self, other: &Host) -> bool {
        let is_below =
            |name: &str, domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match (self, other) {
            (Host::Any, _) => true,
            (Host::Exact(one), Host::Exact(other)) => one == other,
            (Host::Below(domain), Host::Exact(name)) => is_below(name, domain),
            (Host::Below(domain), Host::Below(name)) => name == domain || is_below(name, domain),
            (_, Host::Any) | (Host::Exact(_), Host::Below(_)) => false,
        }
    }
}

impl Template {
    /// Parses a path template without a query, for matching or for the upstream.
    pub(crate) fn parse_path(text: &str) -> Result<Template, String> {
        if let Some(odd) = text.find(['?', '#']) {
            let odd = text.get(odd..=odd).unwrap_or_default();
            return Err(format!("{odd:?} ends a path; queries and fragments are not matched"));
        }
        Template::parse(text)
    }

    /// Returns whether this template matches all paths that the other matches.
    fn covers(&self, other: &Template) -> bool {
        let mut others = other.segments.iter();
        for segment in &self.segments {
            let fits = match (segment, others.next()) {
                (Segment::Rest, _) => return true,
                (Segment::Literal(text), Some(Segment::Literal(other))) => text == other,
                (Segment::Name(_), Some(Segment::Literal(_) | Segment::Name(_))) => true,
                _ => false,
            };
            if !fits {
                return false;
            }
        }
        others.next().is_none() && self.directory == other.directory
    }

    /// Parses a template such as `/a/{name}/**`. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Template, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err("a path template begins with \"/\"".to_owned());
        };
        let mut segments = Vec::new();
        let mut directory = inner.is_empty();
        let mut parts = inner.split('/').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            match part {
                "" if last => directory = true,
                "" => {
                    return Err(
                        "an empty segment never matches: paths are matched with them merged".to_owned()
                    );
                }
                "**" if last => segments.push(Segment::Rest),
                "**" => return Err("\"**\" stands for the rest and can only be the last segment".to_owned()),
                _ => segments.push(parse_segment(part)?),
            }
        }
        let names = segments.iter().filter_map(|segment| match segment {
            Segment::Name(name) => Some(name),
            _ => None,
        });
        let mut seen: Vec<&String> = Vec::new();
        for name in names {
            if seen.contains(&name) {
                return Err(format!("{{{name}}} is there twice"));
            }
            seen.push(name);
        }
        Ok(Template { segments, directory })
    }

    /// Returns whether the template ends in `**`.
    pub(crate) fn has_rest(&self) -> bool {
        self.segments.last() == Some(&Segment::Rest)
    }

    /// Returns whether the template has the segment `{name}`.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Name(known) if known == name))
    }

    /// Returns whether a normalized path is matched.
    pub(crate) fn takes(&self, path: &str) -> bool {
        let directory = path.ends_with('/');
        let mut given = path.split('/').filter(|segment| !segment.is_empty());
        for segment in &self.segments {
            match (segment, given.next()) {
                (Segment::Rest, _) => return true,
                (Segment::Literal(text), Some(given)) if text == given => {}
                (Segment::Name(_), Some(_)) => {}
                _ => return false,
            }
        }
        given.next().is_none() && directory == self.directory
    }

    /// Returns whether some path is matched by both templates.
    pub(crate) fn may_meet(&self, other: &Template) -> bool {
        let (mut one, mut two) = (self.segments.iter(), other.segments.iter());
        loop {
            match (one.next(), two.next()) {
                (Some(Segment::Rest), _) | (_, Some(Segment::Rest)) => return true,
                (None, None) => return self.directory == other.directory,
                (None, _) | (_, None) => return false,
                (Some(Segment::Literal(one)), Some(Segment::Literal(two))) if one != two => return false,
                _ => {}
            }
        }
    }

    /// Returns the index of the segment `{name}`.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.segments.iter().position(|segment| matches!(segment, Segment::Name(known) if known == name))
    }

    /// Fills this template with the segments that `matched` found in `path`. `path` may be the normalized or the
    /// client's form.
    pub(crate) fn fill(&self, matched: &Template, path: &str) -> String {
        let given: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let mut filled = String::with_capacity(path.len() + 16);
        let mut directory = self.directory;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => {
                    filled.push('/');
                    filled.push_str(text);
                }
                Segment::Name(name) => {
                    let at = matched
                        .segments
                        .iter()
                        .position(|segment| matches!(segment, Segment::Name(known) if known == name));
                    if let Some(found) = at.and_then(|at| given.get(at)) {
                        filled.push('/');
                        filled.push_str(found);
                    }
                }
                Segment::Rest => {
                    for found in given.iter().skip(matched.segments.len() - 1) {
                        filled.push('/');
                        filled.push_str(found);
                    }
                    directory = path.ends_with('/');
                }
            }
        }
        if directory || filled.is_empty() {
            filled.push('/');
        }
        filled
    }
}

fn parse_segment(part: &str) -> Result<Segment, String> {
    if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        let fine = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return if fine {
            Ok(Segment::Name(name.to_owned()))
        } else {
            Err(format!("{{{name}}} is not a name of letters, digits and underscores"))
        };
    }
    if part.contains(['{', '}', '*']) {
        return Err(format!("{part:?}: {{name}} and ** stand for whole segments"));
    }
    if let Some(name) = part.strip_prefix(':')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    {
        return Err(format!("{part:?}: a segment is named in braces: {{{name}}}"));
    }
    let normal = path::normalise(&format!("/{part}")).map_err(|error| error.to_string())?.normal.into_owned();
    match normal.strip_prefix('/') {
        Some(segment) if !segment.is_empty() => Ok(Segment::Literal(segment.to_owned())),
        _ => Err(format!("{part:?} is not a segment")),
    }
}

impl Pattern {
    /// Returns whether a request is matched. `path` must be normalized.
    pub(crate) fn takes(&self, method: &Method, host: &str, path: &str) -> bool {
        self.methods.contains(method) && self.host.takes(host) && self.template.takes(path)
    }

    /// Returns whether this pattern matches all requests that the other matches.
    pub(crate) fn covers(&self, other: &Pattern) -> bool {
        self.template.covers(&other.template)
            && self.methods.covers(&other.methods)
            && self.host.covers(&other.host)
    }

    /// Parses `METHOD[,METHOD] [host]path-template`. The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Pattern, String> {
        let (methods, rest) = text
            .split_once(' ')
            .ok_or("expected \"METHOD[,METHOD] [host]path\", for instance \"GET /api/**\"")?;
        let methods = if methods == "*" {
            Methods::Any
        } else {
            let parsed: Result<Vec<Method>, String> = methods
                .split(',')
                .map(|method| {
                    if method.chars().any(|c| c.is_ascii_lowercase()) {
                        return Err(format!(
                            "methods are written in capitals: {}",
                            method.to_ascii_uppercase()
                        ));
                    }
                    Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is not a method"))
                })
                .collect();
            Methods::Only(parsed?)
        };
        let rest = rest.trim();
        let slash = rest.find('/').ok_or("the path is missing; it begins with \"/\"")?;
        let (host, path) = rest.split_at(slash);
        Ok(Pattern { methods, host: parse_host(host)?, template: Template::parse_path(path)? })
    }
}

fn parse_host(host: &str) -> Result<Host, String> {
    let host = host.to_ascii_lowercase();
    let (name, below) = match host.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (host.as_str(), false),
    };
    let fine =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':');
    if name.is_empty() {
        return if below { Err("\"*.\" without a domain".to_owned()) } else { Ok(Host::Any) };
    }
    if !name.bytes().all(fine) || (name.contains(':') && !name.starts_with('[')) {
        return Err(format!("{host:?} is not a host; ports are not matched"));
    }
    Ok(if below { Host::Below(name.to_owned()) } else { Host::Exact(name.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_methods_a_host_and_a_template() {
        let pattern = Pattern::parse("GET,HEAD *.example.com/api/{id}/**").expect("well-formed");
        assert_eq!(pattern.methods, Methods::Only(vec![Method::GET, Method::HEAD]));
        assert_eq!(pattern.host, Host::Below("example.com".to_owned()));
        assert_eq!(pattern.template.segments[1], Segment::Name("id".to_owned()));
    }

    #[test]
    fn templates_are_filled_from_what_another_matched() {
        for (from, to, path, filled) in [
            ("/v1/**", "/api/**", "/v1/a/b", "/api/a/b"),
            ("/v1/**", "/api/**", "/v1", "/api"),
            ("/v1/**", "/api/**", "/v1/a/", "/api/a/"),
            ("/v1/**", "/**", "/v1", "/"),
            ("/u/{id}/x", "/user/{id}", "/u/7/x", "/user/7"),
            ("/{a}/{b}/**", "/{b}/{a}/**", "/1/2/3%2f4", "/2/1/3%2f4"),
        ] {
            let from = Template::parse(from).expect(from);
            assert_eq!(Template::parse(to).expect(to).fill(&from, path), filled);
        }
    }

    #[test]
    fn n2_7_templates_match_what_browsers_send() {
        for (text, path) in [
            ("GET /caf\u{e9}/{x}", "/caf%c3%a9/1"),
            ("GET /caf\u{e9}/{x}", "/caf\u{e9}/1"),
            ("GET /caf%C3%A9/{x}", "/caf\u{e9}/1"),
            ("GET /my files/**", "/my%20files/a"),
            ("GET /a|b", "/a%7Cb"),
            ("GET /things:verb", "/things:verb"),
        ] {
            let pattern = Pattern::parse(text).expect(text);
            let found = path::normalise(path).expect(path);
            assert!(pattern.takes(&Method::GET, "a", &found.normal), "{text} {path}");
        }
    }

    #[test]
    fn n2_7_what_one_pattern_covers() {
        for (above, below, wanted) in [
            ("GET /**", "GET /api/users", true),
            ("* /users/{id}", "GET /users/me", true),
            ("GET /users/{id}", "HEAD /users/{x}", true),
            ("GET,POST /a/**", "POST /a", true),
            ("* *.example.com/**", "GET a.example.com/x", true),
            ("* *.example.com/**", "GET *.a.example.com/x", true),
            ("GET /a/", "GET /a/", true),
            ("GET /**", "POST /a", false),
            ("GET /**", "* /a", false),
            ("HEAD /a", "GET /a", false),
            ("* /users/{id}", "GET /users/**", false),
            ("* /users/{id}", "GET /users/{id}/", false),
            ("* /users/me", "GET /users/{id}", false),
            ("* a.example.com/**", "GET /x", false),
            ("* *.example.com/**", "GET example.com/x", false),
            ("* *.example.com/**", "GET badexample.com/x", false),
        ] {
            let parse = |text: &str| Pattern::parse(text).expect(text);
            assert_eq!(parse(above).covers(&parse(below)), wanted, "{above} before {below}");
        }
    }

    #[test]
    fn patterns_that_make_no_sense() {
        for text in [
            "GET",
            "GET path",
            "get /a",
            "GET /a/**/b",
            "GET /a//b",
            "GET /{a}/{a}",
            "GET /x{a}",
            "GET /{}",
            "GET /*",
            "G T /a",
            "* a:80/x",
            "* *./x",
            "GET /%00",
            "GET /a?b",
            "GET /a#b",
            "GET /users/:id",
            "GET /:id/x",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
