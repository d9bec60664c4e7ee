//! The route table: an index from requests to routes that keeps first-match order. Each host has a tree of segments.
//! Every node knows the earliest and latest route below it, so a search follows only branches that can still beat the
//! best match so far.

use std::collections::HashMap;

use http::Method;

use super::template::{Host, Methods, Pattern, Segment};
use crate::fields::host;

/// The position of a route in the configuration. The earliest match wins.
pub(crate) type Order = u32;

#[derive(Debug)]
struct Node {
    literal: HashMap<Box<str>, Node>,
    name: Option<Box<Node>>,
    /// Routes that end here, earliest first. Routes whose path ends in a slash are separate.
    here: Vec<(Order, Methods)>,
    here_directory: Vec<(Order, Methods)>,
    /// Routes whose `**` starts at this node.
    rest: Vec<(Order, Methods)>,
    earliest: Order,
    latest: Order,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            literal: HashMap::new(),
            name: None,
            here: Vec::new(),
            here_directory: Vec::new(),
            rest: Vec::new(),
            // An empty node counts as later than every route, so that no search enters it.
            earliest: Order::MAX,
            latest: 0,
        }
    }
}

impl Node {
    fn insert(&mut self, order: Order, segments: &[Segment], directory: bool, methods: &Methods) {
        self.earliest = self.earliest.min(order);
        self.latest = self.latest.max(order);
        match segments.split_first() {
            None if directory => self.here_directory.push((order, methods.clone())),
            None => self.here.push((order, methods.clone())),
            Some((Segment::Rest, _)) => self.rest.push((order, methods.clone())),
            Some((Segment::Literal(text), below)) => {
                self.literal.entry(text.as_str().into()).or_default().insert(order, below, directory, methods)
            }
            Some((Segment::Name(_), below)) => {
                self.name.get_or_insert_with(Box::<Node>::default).insert(order, below, directory, methods)
            }
        }
    }

    fn find(&self, path: &str, search: &mut Search<'_>) {
        if self.earliest >= search.best || self.latest < search.from {
            return;
        }
        search.take(&self.rest);
        let Some(path) = path.strip_prefix('/') else {
            search.take(&self.here);
            return;
        };
        if path.is_empty() {
            search.take(&self.here_directory);
            return;
        }
        let (segment, below) = path.split_at(path.find('/').unwrap_or(path.len()));
        if let Some(node) = self.literal.get(segment) {
            node.find(below, search);
        }
        if let Some(node) = &self.name {
            node.find(below, search);
        }
    }
}

struct Search<'a> {
    method: &'a Method,
    from: Order,
    best: Order,
}

impl Search<'_> {
    fn take(&mut self, routes: &[(Order, Methods)]) {
        let first = routes
            .iter()
            .skip_while(|(order, _)| *order < self.from)
            .take_while(|(order, _)| *order < self.best)
            .find(|(_, methods)| methods.contains(self.method));
        if let Some((order, _)) = first {
            self.best = *order;
        }
    }
}

/// The index of all routes.
#[derive(Debug)]
pub(crate) struct RouteTable {
    any: Node,
    exact: HashMap<Box<str>, Node>,
    below: HashMap<Box<str>, Node>,
}

impl RouteTable {
    /// Builds the index of patterns in configured order.
    pub(crate) fn new<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> RouteTable {
        RouteTable::at((0..).zip(patterns))
    }

    /// Builds the index of some patterns with their positions, in increasing order.
    pub(crate) fn at<'a>(patterns: impl IntoIterator<Item = (Order, &'a Pattern)>) -> RouteTable {
        let mut table = RouteTable { any: Node::default(), exact: HashMap::new(), below: HashMap::new() };
        for (order, pattern) in patterns {
            let root = match &pattern.host {
                Host::Any => &mut table.any,
                Host::Exact(host) => table.exact.entry(host.as_str().into()).or_default(),
                Host::Below(host) => table.below.entry(host.as_str().into()).or_default(),
            };
            root.insert(order, &pattern.template.segments, pattern.template.directory, &pattern.methods);
        }
        table
    }

    /// Returns the first matching route at or after `from`. `path` must be normalized.
    pub(crate) fn find(&self, method: &Method, host: &str, path: &str, from: Order) -> Option<Order> {
        let mut search = Search { method, from, best: Order::MAX };
        self.any.find(path, &mut search);
        if !self.exact.is_empty() || !self.below.is_empty() {
            let host = host::name(host).to_ascii_lowercase();
            if let Some(node) = self.exact.get(host.as_str()) {
                node.find(path, &mut search);
            }
            let mut rest = host.as_str();
            while let Some((_, below)) = rest.split_once('.') {
                if let Some(node) = self.below.get(below) {
                    node.find(path, &mut search);
                }
                rest = below;
            }
        }
        (search.best != Order::MAX).then_some(search.best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(patterns: &[&str]) -> RouteTable {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).expect(text)).collect();
        RouteTable::new(&patterns)
    }

    #[test]
    fn the_first_match_wins() {
        let table = table(&[
            "GET /api/reports/**",
            "* /api/{kind}/7",
            "POST,PUT /api/reports/7",
            "* admin.example.com/**",
            "* *.example.com/x",
            "GET /",
            "* /dir/",
            "* /api/**",
        ]);
        for (method, host, path, expected) in [
            ("GET", "a", "/api/reports", Some(0)),
            ("GET", "a", "/api/reports/7", Some(0)),
            ("POST", "a", "/api/reports/7", Some(1)),
            ("POST", "a", "/api/reports/8", Some(7)),
            ("GET", "admin.example.com:8080", "/any/where", Some(3)),
            ("GET", "Admin.Example.com", "/", Some(3)),
            ("GET", "b.c.example.com", "/x", Some(4)),
            ("GET", "example.com", "/x", None),
            ("GET", "a", "/", Some(5)),
            ("POST", "a", "/", None),
            ("GET", "a", "/dir/", Some(6)),
            ("GET", "a", "/dir", None),
            ("GET", "a", "/apix", None),
        ] {
            let method = Method::from_bytes(method.as_bytes()).expect(method);
            assert_eq!(table.find(&method, host, path, 0), expected, "{method} {host}{path}");
        }
        assert_eq!(table.find(&Method::GET, "a", "/api/reports/7", 1), Some(1), "after a rewrite by 0");
        assert_eq!(table.find(&Method::GET, "a", "/api/reports/7", 2), Some(7));
    }

    fn matches(pattern: &Pattern, path: &str) -> bool {
        let mut given: Vec<&str> = path.split('/').skip(1).collect();
        let directory = given.last() == Some(&"");
        if directory {
            given.pop();
        }
        let template = &pattern.template;
        let fixed = template.segments.len() - usize::from(template.has_rest());
        let length = if template.has_rest() {
            given.len() >= fixed
        } else {
            given.len() == fixed && directory == template.directory
        };
        length
            && template.segments.iter().take(fixed).zip(&given).all(|(segment, given)| match segment {
                Segment::Literal(text) => text == given,
                _ => true,
            })
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_walk_down_the_list_finds(
            patterns in prop::collection::vec("\\* (/([ab]|\\{x\\})){0,3}(/\\*\\*|/)?", 0..12),
            path in "(/[abc]){0,4}/?",
            from in 0u32..4,
        ) {
            let patterns: Vec<Pattern> = patterns.iter().filter_map(|text| {
                let mut count = 0;
                let text: String = text.split("{x}").map(|part| { count += 1; format!("{part}{{x{count}}}") }).collect();
                let text = text.strip_suffix(&format!("{{x{count}}}")).expect("added above").to_owned();
                Pattern::parse(&text).ok()
            }).collect();
            let path = if path.is_empty() { "/" } else { &path };
            let naive = patterns.iter().enumerate().skip(from as usize).find(|(_, p)| matches(p, path)).map(|(at, _)| at as u32);
            prop_assert_eq!(RouteTable::new(&patterns).find(&Method::GET, "h", path, from), naive);
        }
    }
}
