//! Route patterns: `METHOD[,METHOD] [host]path-template`.

use http::Method;

use super::template::{Template, UNUSUAL};
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

    /// Returns the method, the host and the path of a request that is matched by this pattern and by every other one that
    /// covers it.
    pub(crate) fn sample(&self) -> (Method, String, String) {
        let named = match &self.methods {
            Methods::Only(methods) => methods.first().cloned(),
            Methods::Any => None,
        };
        // Only a pattern for any method covers another one; such a method is in no list.
        let method = named.or_else(|| Method::from_bytes(b"PILLION-ANY").ok()).unwrap_or_default();
        let host = match &self.host {
            Host::Any => UNUSUAL.to_owned(),
            Host::Exact(host) => host.clone(),
            Host::Below(domain) => format!("{UNUSUAL}.{domain}"),
        };
        (method, host, self.template.sample())
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
    use crate::policy::path;
    use crate::policy::segment::Segment;

    #[test]
    fn a_pattern_has_methods_a_host_and_a_template() {
        let pattern = Pattern::parse("GET,HEAD *.example.com/api/{id}/**").expect("well-formed");
        assert_eq!(pattern.methods, Methods::Only(vec![Method::GET, Method::HEAD]));
        assert_eq!(pattern.host, Host::Below("example.com".to_owned()));
        assert!(matches!(&pattern.template.segments[1], Segment::Name(named) if named.name == "id"));
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
            ("* /**/{f}.css", "GET /a/b/{x}.min.css", true),
            ("* /**/{f}.css", "GET /{x}.css", true),
            ("* /**/{f}.css", "GET /a/**/x.css", true),
            ("* /**/{f}.css", "GET /a/**", false),
            ("* /**/{f}.css", "GET /a/{x}.css/", false),
            ("* /**", "GET /a/**/b", true),
            ("* /a/**", "GET /a/**/b/", true),
            ("* /a/**/", "GET /a/b/", true),
            ("* /a/**/", "GET /a/**", false),
            ("* /a/**/b", "GET /a/b", true),
            ("* /a/{x}/**/b", "GET /a/**/b", false),
            ("* /a/{x}/**", "GET /a/**/b/c", true),
            ("* /a/{x}/**/b", "GET /a/**/{y}/b", true),
            ("* /a/x{n}/**/b", "GET /a/**/c/b", false),
            ("* /a/**/{x}/b", "GET /a/c/**/b", true),
            ("* /a/**/b", "GET /a/**", false),
            ("* /a/{x}", "GET /a/**/b", false),
            ("* /@{scope}/{name}", "GET /@babel/core", true),
            ("* /@{scope}/{name}", "GET /{scope}/{name}", false),
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
            "GET /a/**/b/**",
            "GET /a**/b",
            "GET /{a}*",
            "GET /{a}{b}",
            "GET /{a}-{b}",
            "GET /{a",
            "GET /a}",
            "GET /x}{a}",
            "GET /%4{a}",
            "GET /..;{a}",
            "GET /{a-b}",
            "GET /{a}/**/x{a}",
            "GET /a//b",
            "GET /{a}/{a}",
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
