//! The route table: an index from requests to routes that keeps first-match order. Each host has a tree of segments.
//! Every node knows the earliest and latest route below it, so a search follows only branches that can still beat the
//! best match so far.

use std::collections::HashMap;

use http::Method;

use super::affixed::Affixed;
use super::pattern::{Host, Methods, Pattern};
use super::segment::Segment;
use crate::fields::host;

/// The position of a route in the configuration. The earliest match wins.
pub(crate) type Order = u32;

#[derive(Debug)]
struct Node {
    literal: HashMap<Box<str>, Node>,
    /// What follows a name that any segment is a value of.
    name: Option<Box<Node>>,
    /// What follows a name with a prefix or a suffix.
    affixed: Affixed<Node>,
    /// Routes that end here, earliest first. Routes whose path ends in a slash are separate.
    here: Vec<(Order, Methods)>,
    here_directory: Vec<(Order, Methods)>,
    /// Routes that end in a `**` that starts at this node.
    rest: Vec<(Order, Methods)>,
    /// What follows a `**` that starts at this node: a tree of the segments from the last one to the first.
    tails: Option<Box<Node>>,
    earliest: Order,
    latest: Order,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            literal: HashMap::new(),
            name: None,
            affixed: Affixed::default(),
            here: Vec::new(),
            here_directory: Vec::new(),
            rest: Vec::new(),
            tails: None,
            // An empty node counts as later than every route, so that no search enters it.
            earliest: Order::MAX,
            latest: 0,
        }
    }
}

impl Node {
    fn insert<'a>(
        &mut self,
        order: Order,
        mut segments: impl DoubleEndedIterator<Item = &'a Segment>,
        directory: bool,
        methods: &Methods,
    ) {
        let mut node = self;
        loop {
            node.earliest = node.earliest.min(order);
            node.latest = node.latest.max(order);
            node = match segments.next() {
                None if directory => return node.here_directory.push((order, methods.clone())),
                None => return node.here.push((order, methods.clone())),
                Some(Segment::Literal(text)) => node.literal.entry(text.as_str().into()).or_default(),
                Some(Segment::Name(named)) if named.is_plain() => node.name.get_or_insert_default(),
                Some(Segment::Name(named)) => node.affixed.entry(&named.prefix, &named.suffix),
                Some(Segment::Rest) => {
                    let tail: Vec<&Segment> = segments.rev().collect();
                    if tail.is_empty() && !directory {
                        return node.rest.push((order, methods.clone()));
                    }
                    let tails = node.tails.get_or_insert_default();
                    return tails.insert_tail(order, &tail, directory, methods);
                }
            };
        }
    }

    /// Inserts the segments after a `**`, from the last one to the first.
    fn insert_tail(&mut self, order: Order, tail: &[&Segment], directory: bool, methods: &Methods) {
        self.insert(order, tail.iter().copied(), directory, methods);
    }

    /// Searches the routes below this node for the part of a path that its segments do not cover.
    fn find(&self, path: &str, search: &mut Search<'_>) {
        if search.is_beyond(self) {
            return;
        }
        search.take(&self.rest);
        if let Some(tails) = &self.tails {
            let (path, directory) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
            tails.find_back(path, directory, search);
        }
        let Some(path) = path.strip_prefix('/') else {
            search.take(&self.here);
            return;
        };
        if path.is_empty() {
            search.take(&self.here_directory);
            return;
        }
        let (segment, below) = path.split_at(path.find('/').unwrap_or(path.len()));
        self.step(segment, search, |node, search| node.find(below, search));
    }

    /// Searches a tree of tails from the end of a path, which has no slash at its end.
    fn find_back(&self, path: &str, directory: bool, search: &mut Search<'_>) {
        if search.is_beyond(self) {
            return;
        }
        search.take(if directory { &self.here_directory } else { &self.here });
        if let Some((before, segment)) = path.rsplit_once('/') {
            self.step(segment, search, |node, search| node.find_back(before, directory, search));
        }
    }

    /// Continues a search with the nodes that one segment leads to.
    #[inline(always)]
    fn step(&self, segment: &str, search: &mut Search<'_>, mut enter: impl FnMut(&Node, &mut Search<'_>)) {
        if let Some(node) = self.literal.get(segment) {
            enter(node, search);
        }
        if !self.affixed.is_empty() {
            let probes = self.affixed.find(segment, &mut |node| enter(node, search));
            search.count(probes);
        }
        if let Some(node) = &self.name {
            enter(node, search);
        }
    }
}

struct Search<'a> {
    method: &'a Method,
    from: Order,
    best: Order,
    /// Nodes, routes and affixes that were looked at.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl<'a> Search<'a> {
    fn new(method: &'a Method, from: Order) -> Search<'a> {
        Search {
            method,
            from,
            best: Order::MAX,
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        }
    }

    #[cfg(test)]
    fn count(&self, steps: usize) {
        self.steps.set(self.steps.get() + steps);
    }

    #[cfg(not(test))]
    fn count(&self, _steps: usize) {}

    /// Returns whether no route below a node can be the result.
    fn is_beyond(&self, node: &Node) -> bool {
        self.count(1);
        node.earliest >= self.best || node.latest < self.from
    }

    fn take(&mut self, routes: &[(Order, Methods)]) {
        let first = routes
            .iter()
            .inspect(|_| self.count(1))
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
            let template = &pattern.template;
            root.insert(order, template.segments.iter(), template.directory, &pattern.methods);
        }
        table
    }

    /// Returns the first matching route at or after `from`. `path` must be normalized.
    pub(crate) fn find(&self, method: &Method, host: &str, path: &str, from: Order) -> Option<Order> {
        let mut search = Search::new(method, from);
        self.search(host, path, &mut search);
        (search.best != Order::MAX).then_some(search.best)
    }

    fn search(&self, host: &str, path: &str, search: &mut Search<'_>) {
        self.any.find(path, search);
        if !self.exact.is_empty() || !self.below.is_empty() {
            let host = host::name(host).to_ascii_lowercase();
            if let Some(node) = self.exact.get(host.as_str()) {
                node.find(path, search);
            }
            let mut rest = host.as_str();
            while let Some((_, below)) = rest.split_once('.') {
                if let Some(node) = self.below.get(below) {
                    node.find(path, search);
                }
                rest = below;
            }
        }
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

    /// Returns whether a pattern matches a path, by trying every length of `**`.
    fn matches(pattern: &Pattern, path: &str) -> bool {
        fn match_all(segments: &[Segment], given: &[&str]) -> bool {
            match (segments.split_first(), given.split_first()) {
                (None, None) => true,
                (None, Some(_)) => false,
                (Some((Segment::Rest, below)), _) => {
                    (0..=given.len()).any(|length| match_all(below, &given[length..]))
                }
                (Some((segment, below)), Some((first, rest))) => {
                    let fits = match segment {
                        Segment::Literal(text) => text == first,
                        Segment::Name(named) => {
                            let (prefix, suffix) = (&*named.prefix, &*named.suffix);
                            first.len() > prefix.len() + suffix.len()
                                && first.starts_with(prefix)
                                && first.ends_with(suffix)
                        }
                        Segment::Rest => false,
                    };
                    fits && match_all(below, rest)
                }
                (Some(_), None) => false,
            }
        }
        let mut given: Vec<&str> = path.split('/').skip(1).collect();
        let directory = given.last() == Some(&"");
        if directory {
            given.pop();
        }
        let template = &pattern.template;
        let any_end = template.segments.last() == Some(&Segment::Rest) && !template.directory;
        (any_end || directory == template.directory) && match_all(&template.segments, &given)
    }

    /// Random templates: literals, names with and without prefix and suffix, and one `**` at most.
    fn pattern() -> impl Strategy<Value = Pattern> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "{}", "a{}", "{}b", "a{}b", "ab{}", "{}aa"]);
        let segments = prop::collection::vec(segment, 0..4);
        (segments, prop::option::of(0usize..4), any::<bool>()).prop_map(|(segments, rest, directory)| {
            let mut segments: Vec<String> = segments
                .into_iter()
                .enumerate()
                .map(|(at, segment)| segment.replace("{}", &format!("{{x{at}}}")))
                .collect();
            if let Some(rest) = rest {
                segments.insert(rest.min(segments.len()), "**".to_owned());
            }
            let end = if directory && !segments.is_empty() { "/" } else { "" };
            Pattern::parse(&format!("* /{}{end}", segments.join("/"))).expect("a template")
        })
    }

    fn path() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "c", "ab", "aab", "aa", "abb"]);
        (prop::collection::vec(segment, 0..6), any::<bool>()).prop_map(|(segments, directory)| {
            let end = if directory && !segments.is_empty() { "/" } else { "" };
            format!("/{}{end}", segments.join("/"))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_index_finds_what_a_walk_down_the_list_finds(
            patterns in prop::collection::vec(pattern(), 0..12),
            path in path(),
            from in 0u32..4,
        ) {
            let naive = patterns.iter().enumerate().skip(from as usize).find(|(_, p)| matches(p, &path)).map(|(at, _)| at as u32);
            prop_assert_eq!(RouteTable::new(&patterns).find(&Method::GET, "h", &path, from), naive);
            for pattern in &patterns {
                prop_assert_eq!(pattern.template.takes(&path), matches(pattern, &path));
            }
        }

        /// A template that covers another matches all of its paths, and two that meet nowhere share none.
        #[test]
        fn templates_are_compared_as_they_match(one in pattern(), other in pattern(), path in path()) {
            let both = (one.template.takes(&path), other.template.takes(&path));
            prop_assert!(!one.covers(&other) || both.0 || !both.1, "{:?} {:?}", one, other);
            prop_assert!(one.template.may_meet(&other.template) || both != (true, true), "{:?} {:?}", one, other);
            if both.0 {
                prop_assert_eq!(one.template.fill(&one.template, &path), path);
            }
        }
    }

    /// A table with `count` routes of every form.
    fn table_of(count: usize) -> RouteTable {
        let texts = (0..count).flat_map(|at| {
            [
                format!("* /api/r{at}/{{id}}"),
                format!("* /@u{at}-{{x}}/p"),
                format!("* /{{x}}.e{at}/p"),
                format!("* /**/{{f}}.f{at}"),
                format!("* /**/blobs{at}/{{d}}"),
                format!("* /t{at}/**/tags/{{d}}"),
                format!("* h{at}.example.com/x/**"),
            ]
        });
        let patterns: Vec<Pattern> = texts.map(|text| Pattern::parse(&text).expect("a template")).collect();
        RouteTable::new(&patterns)
    }

    #[test]
    fn a_search_among_ten_thousand_routes_takes_the_steps_of_one_among_ten() {
        // Seven routes each.
        let (few, many) = (table_of(10), table_of(1_500));
        for path in [
            "/api/r7/1",
            "/@u7-x/p",
            "/x.e7/p",
            "/a/b/x.f7",
            "/a/blobs7/x",
            "/t7/a/b/tags/1",
            "/x/y",
            "/none/of/these",
        ] {
            let [few, many] = [&few, &many].map(|table| {
                let mut search = Search::new(&Method::GET, 0);
                table.search("h3.example.com", path, &mut search);
                search.steps.get()
            });
            // Prefixes and suffixes of more lengths are tried, never more of them.
            assert!((1..=few + 8).contains(&many), "{path}: {few} steps, then {many}");
        }
    }
}
