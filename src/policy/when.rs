//! `when` of a route: conditions on the query, the fields and the cookies of a request.

use std::fmt;

use http::{HeaderMap, HeaderName};

use crate::fields::{cookie, forwarded, glob, query};
use crate::rendering::digest::Digest;

/// Version of the members of a digest; it changes when a member changes its meaning.
const VERSION: u8 = 1;

/// The conditions of a route, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct When {
    /// Parameters of the query, each of which must be there with one of its values.
    query: Vec<Parameter>,
    /// Fields, each of which must be there with one of its values.
    header: Vec<(HeaderName, Vec<String>)>,
    /// Patterns of cookie names, of which one must be there.
    cookie: Vec<String>,
    /// Patterns of cookie names, of which none may be there.
    not_cookie: Vec<String>,
    /// Digest of all conditions.
    number: u64,
}

/// A condition on a parameter of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    /// The name as lenient apps read it, a pattern.
    fold: Vec<u8>,
    values: Vec<String>,
}

/// The parts of a request that conditions are about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Whether the request comes from a trusted proxy, whose forwarding fields are believed.
    pub trusted: bool,
}

/// One condition, for explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition<'a> {
    Query(&'a str),
    Header(&'a HeaderName),
    Cookie(&'a [String]),
    NotCookie(&'a [String]),
}

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Query(name) => write!(f, "query {name}"),
            Condition::Header(name) => write!(f, "header {name}"),
            Condition::Cookie(patterns) => write!(f, "cookie {}", patterns.join(" or ")),
            Condition::NotCookie(patterns) => write!(f, "not_cookie {}", patterns.join(", ")),
        }
    }
}

impl When {
    /// Creates the conditions. Values and names of cookies are patterns with `*`; conditions on parameters and fields
    /// are a name and its values.
    pub(crate) fn new(
        query: Vec<(String, Vec<String>)>,
        mut header: Vec<(HeaderName, Vec<String>)>,
        cookie: Vec<String>,
        not_cookie: Vec<String>,
    ) -> When {
        let mut query: Vec<Parameter> = query
            .into_iter()
            .map(|(name, values)| {
                let [_, fold] = query::folds(name.as_bytes());
                Parameter { name, fold, values }
            })
            .collect();
        // The order in the file does not matter.
        query.sort_by(|one, other| one.name.cmp(&other.name));
        header.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        let mut digest = Digest::new("when", VERSION);
        for Parameter { name, fold: _, values } in &query {
            digest.list("query", [name].into_iter().chain(values));
        }
        for (name, values) in &header {
            digest.list("header", [name.as_str()].into_iter().chain(values.iter().map(String::as_str)));
        }
        digest.list("cookie", &cookie);
        digest.list("not_cookie", &not_cookie);
        let number = digest.finish();
        When { query, header, cookie, not_cookie, number }
    }

    /// Returns a number that differs for other conditions. Other replicas compute the same.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Iterates over the names of the fields that the conditions are about.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &HeaderName> {
        self.header.iter().map(|(name, _)| name)
    }

    /// Iterates over the names of the parameters that the conditions are about.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.query.iter().map(|parameter| &*parameter.name)
    }

    /// Iterates over the conditions.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = Condition<'_>> {
        let query = self.query.iter().map(|parameter| Condition::Query(&parameter.name));
        let header = self.header.iter().map(|(name, _)| Condition::Header(name));
        let cookie = (!self.cookie.is_empty()).then_some(Condition::Cookie(&self.cookie));
        let not_cookie = (!self.not_cookie.is_empty()).then_some(Condition::NotCookie(&self.not_cookie));
        query.chain(header).chain(cookie).chain(not_cookie)
    }

    /// Returns whether a request meets all conditions.
    pub(crate) fn holds(&self, asked: Asked<'_>) -> bool {
        self.unmet(asked).is_none()
    }

    /// Returns the first condition that a request does not meet.
    pub(crate) fn unmet(&self, asked: Asked<'_>) -> Option<Condition<'_>> {
        let parameter = self.query.iter().find(|parameter| !parameter.is_in(asked.query));
        if let Some(parameter) = parameter {
            return Some(Condition::Query(&parameter.name));
        }
        if let Some((name, _)) = self.header.iter().find(|(name, values)| !has_field(asked, name, values)) {
            return Some(Condition::Header(name));
        }
        let has = |patterns: &[String]| {
            cookie::pairs(asked.headers)
                .any(|(name, _)| patterns.iter().any(|pattern| cookie::is_named(pattern, name)))
        };
        if !self.cookie.is_empty() && !has(&self.cookie) {
            return Some(Condition::Cookie(&self.cookie));
        }
        (!self.not_cookie.is_empty() && has(&self.not_cookie))
            .then_some(Condition::NotCookie(&self.not_cookie))
    }
}

impl Parameter {
    fn is_in(&self, query: Option<&str>) -> bool {
        let Some(query) = query else { return false };
        query.split('&').filter(|pair| !pair.is_empty()).any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_named = query::folds(name.as_bytes()).iter().any(|fold| glob::matches(&self.fold, fold));
            is_named && is_one_of(&self.values, &query::decoded(value.as_bytes()))
        })
    }
}

/// Returns whether a field is there with one of the values. What a stranger says of its client is replaced before the
/// upstream gets it, so it is as if it were not there.
fn has_field(asked: Asked<'_>, name: &HeaderName, values: &[String]) -> bool {
    if !asked.trusted && forwarded::is_claim(name) {
        return false;
    }
    asked.headers.get_all(name).iter().any(|line| is_one_of(values, line.as_bytes().trim_ascii()))
}

fn is_one_of(patterns: &[String], value: &[u8]) -> bool {
    patterns.iter().any(|pattern| glob::matches(pattern.as_bytes(), value))
}

/// The conditions that were evaluated for a request, with their outcomes, by the positions of their routes.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(Vec<(u32, u64, bool)>);

impl Outcomes {
    /// Evaluates the conditions of the route at a position, or returns their known outcome.
    pub(crate) fn evaluate(&mut self, order: u32, when: &When, asked: Asked<'_>) -> bool {
        if let Some((_, _, held)) = self.0.iter().find(|(known, _, _)| *known == order) {
            return *held;
        }
        let held = when.holds(asked);
        self.0.push((order, when.number, held));
        held
    }

    /// Returns a number for the outcomes up to the route that was found, for cache keys; 0 if there are none. The
    /// positions of routes are not part of it, so a route that is added elsewhere changes no key.
    pub(crate) fn number(mut self, found: Option<u32>) -> u64 {
        // Most requests meet no condition.
        if self.0.is_empty() {
            return 0;
        }
        self.0.retain(|(order, _, _)| found.is_none_or(|found| *order <= found));
        if self.0.is_empty() {
            return 0;
        }
        self.0.sort_unstable();
        let mut digest = Digest::new("outcomes", VERSION);
        for (_, number, held) in &self.0 {
            digest.number("when", *number);
            digest.number("held", *held);
        }
        // Zero stands for no outcomes.
        digest.finish().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
    }

    #[test]
    fn a_parameter_is_there_as_lenient_apps_read_it() {
        for (name, values, query, wanted) in [
            ("action", "x", Some("action=x"), true),
            ("action", "x", Some("a=1&action=x"), true),
            ("action", "x", Some("action=y"), false),
            ("action", "x", Some("action=y&action=x"), true),
            ("action", "x", Some("ACTION=x"), true),
            ("action", "x", Some("action[]=x"), true),
            ("action", "x", Some("act%69on=%78"), true),
            ("action", "x", Some("action=X"), false),
            ("action", "x", Some("actions=x"), false),
            ("action", "x", Some("action"), false),
            ("action", "x", Some(""), false),
            ("action", "x", None, false),
            ("action", "*", Some("action"), true),
            ("action", "heart*", Some("action=heartbeat"), true),
            ("action", "a b", Some("action=a+b"), true),
            ("filter[a]", "1", Some("filter%5Ba%5D=1"), true),
            ("filter[a]", "1", Some("filter[b]=1"), false),
            ("x_*", "*", Some("x_source=1"), true),
        ] {
            let when = When::new(vec![(name.to_owned(), texts(&[values]))], vec![], vec![], vec![]);
            let headers = HeaderMap::new();
            let asked = Asked { query, headers: &headers, trusted: false };
            assert_eq!(when.holds(asked), wanted, "{name}={values} in {query:?}");
        }
    }

    #[test]
    fn fields_and_cookies_are_there_or_not() {
        let when = |header: &[(&'static str, &[&str])], cookie: &[&str], not_cookie: &[&str]| {
            let header = header.iter().map(|(name, values)| (HeaderName::from_static(name), texts(values)));
            When::new(vec![], header.collect(), texts(cookie), texts(not_cookie))
        };
        let plan = when(&[("x-plan", &["pro", "team-*"])], &[], &[]);
        let both = when(&[("x-plan", &["*"]), ("x-beta", &["*"])], &[], &[]);
        let login = when(&[], &["wordpress_logged_in_*", "sid"], &[]);
        let nobody = when(&[], &[], &["wordpress_logged_in_*", "sid"]);
        let https = when(&[("x-forwarded-proto", &["https"])], &[], &[]);
        for (when, lines, wanted) in [
            (&plan, vec![("x-plan", "pro")], true),
            (&plan, vec![("x-plan", "team-7")], true),
            (&plan, vec![("x-plan", "free"), ("x-plan", "pro")], true),
            (&plan, vec![("x-plan", "Pro")], false),
            (&plan, vec![("x_plan", "pro")], false),
            (&plan, vec![], false),
            (&both, vec![("x-plan", "")], false),
            (&both, vec![("x-plan", ""), ("x-beta", "1")], true),
            (&login, vec![("cookie", "a=1; wordpress_logged_in_7=x")], true),
            (&login, vec![("cookie", "a=1"), ("cookie", "__Host-SID=x")], true),
            (&login, vec![("cookie", "a=1; sids=2")], false),
            (&nobody, vec![("cookie", "a=1; sids=2")], true),
            (&nobody, vec![("cookie", "sid=")], false),
            (&nobody, vec![], true),
            (&https, vec![("x-forwarded-proto", "https")], false),
        ] {
            let headers = headers(&lines);
            let asked = Asked { query: None, headers: &headers, trusted: false };
            assert_eq!(when.holds(asked), wanted, "{when:?} {lines:?}");
        }
        let headers = headers(&[("x-forwarded-proto", "https")]);
        assert!(https.holds(Asked { query: None, headers: &headers, trusted: true }));
    }

    #[test]
    fn the_order_in_the_file_does_not_matter_and_all_else_does() {
        let query = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), texts(&[value])));
            When::new(pairs.collect(), vec![], vec![], vec![])
        };
        let when = query(&[("a", "1"), ("b", "2")]);
        assert_eq!(when, query(&[("b", "2"), ("a", "1")]));
        assert_ne!(when.number(), query(&[("a", "1"), ("b", "3")]).number());
        assert_ne!(when.number(), query(&[("a", "1")]).number());
        let cookie = When::new(vec![], vec![], texts(&["a"]), vec![]);
        assert_ne!(cookie.number(), When::new(vec![], vec![], vec![], texts(&["a"])).number());
    }

    #[test]
    fn outcomes_beyond_the_route_that_was_found_do_not_count() {
        let (headers, query) = (HeaderMap::new(), Some("a=1"));
        let asked = Asked { query, headers: &headers, trusted: false };
        let [a, b] =
            ["a", "b"].map(|name| When::new(vec![(name.to_owned(), texts(&["*"]))], vec![], vec![], vec![]));
        let number = |orders: &[(u32, &When)], found| {
            let mut outcomes = Outcomes::default();
            orders.iter().for_each(|(order, when)| {
                outcomes.evaluate(*order, when, asked);
            });
            outcomes.number(found)
        };
        assert_eq!(number(&[], None), 0);
        assert_eq!(number(&[(7, &a)], Some(3)), 0);
        assert_eq!(number(&[(7, &a), (2, &b)], Some(7)), number(&[(3, &b), (9, &a)], None));
        assert_ne!(number(&[(2, &b)], None), number(&[(2, &a)], None));
        assert_eq!(number(&[(2, &b), (2, &b)], None), number(&[(2, &b)], None));
    }
}
