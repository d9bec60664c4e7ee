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

/// Tells whether the further conditions of a route hold for the request that is searched for.
pub(crate) trait Condition {
    /// Returns whether the route at a position matches the request. It is asked only about routes that have conditions,
    /// and of these about every one that would be the result.
    fn holds(&mut self, order: Order) -> bool;
}

/// For searches that need no condition.
pub(super) struct Always;

impl Condition for Always {
    fn holds(&mut self, _order: Order) -> bool {
        true
    }
}

/// A route at the end of a template.
#[derive(Clone, Debug)]
struct Entry {
    order: Order,
    methods: Methods,
    /// Whether the route has conditions beside its pattern.
    conditional: bool,
}

#[derive(Debug)]
struct Node {
    literal: HashMap<Box<str>, Node>,
    /// The node after a name that any segment is a value of.
    name: Option<Box<Node>>,
    /// The nodes after names with a prefix or a suffix.
    affixed: Affixed<Node>,
    /// Routes that end here, earliest first. Routes whose path ends in a slash are separate.
    here: Vec<Entry>,
    here_directory: Vec<Entry>,
    /// Routes that end in a `**` that starts at this node.
    rest: Vec<Entry>,
    /// The patterns after a `**` that starts at this node: a tree of the segments from the last one to the first.
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
        entry: Entry,
        mut segments: impl DoubleEndedIterator<Item = &'a Segment>,
        directory: bool,
    ) {
        let mut node = self;
        loop {
            node.earliest = node.earliest.min(entry.order);
            node.latest = node.latest.max(entry.order);
            node = match segments.next() {
                None if directory => return node.here_directory.push(entry),
                None => return node.here.push(entry),
                Some(Segment::Literal(text)) => node.literal.entry(text.as_str().into()).or_default(),
                Some(Segment::Name(named)) if named.is_plain() => node.name.get_or_insert_default(),
                Some(Segment::Name(named)) => node.affixed.entry(&named.prefix, &named.suffix),
                Some(Segment::Rest) => {
                    let tail: Vec<&Segment> = segments.rev().collect();
                    if tail.is_empty() && !directory {
                        return node.rest.push(entry);
                    }
                    let tails = node.tails.get_or_insert_default();
                    return tails.insert_tail(entry, &tail, directory);
                }
            };
        }
    }

    /// Inserts the segments after a `**`, from the last one to the first.
    fn insert_tail(&mut self, entry: Entry, tail: &[&Segment], directory: bool) {
        self.insert(entry, tail.iter().copied(), directory);
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
    condition: &'a mut dyn Condition,
    /// Nodes, routes and affixes that were looked at.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl<'a> Search<'a> {
    fn new(method: &'a Method, from: Order, condition: &'a mut dyn Condition) -> Search<'a> {
        Search {
            method,
            from,
            best: Order::MAX,
            condition,
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

    fn take(&mut self, routes: &[Entry]) {
        for entry in routes {
            self.count(1);
            if entry.order < self.from {
                continue;
            }
            if entry.order >= self.best {
                return;
            }
            if entry.methods.contains(self.method)
                && (!entry.conditional || self.condition.holds(entry.order))
            {
                self.best = entry.order;
                return;
            }
        }
    }
}

/// The index of all routes.
#[derive(Debug, Default)]
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
        RouteTable::with_conditions(patterns.into_iter().map(|(order, pattern)| (order, pattern, false)))
    }

    /// Builds the same index; the last member says whether a route has conditions beside its pattern.
    pub(crate) fn with_conditions<'a>(
        patterns: impl IntoIterator<Item = (Order, &'a Pattern, bool)>,
    ) -> RouteTable {
        let mut table = RouteTable::default();
        for (order, pattern, conditional) in patterns {
            table.insert(order, pattern, conditional);
        }
        table
    }

    /// Adds a pattern with its position, which must be greater than all before.
    pub(crate) fn insert(&mut self, order: Order, pattern: &Pattern, conditional: bool) {
        let root = match &pattern.host {
            Host::Any => &mut self.any,
            Host::Exact(host) => self.exact.entry(host.as_str().into()).or_default(),
            Host::Below(host) => self.below.entry(host.as_str().into()).or_default(),
        };
        let entry = Entry { order, methods: pattern.methods.clone(), conditional };
        root.insert(entry, pattern.template.segments.iter(), pattern.template.directory);
    }

    /// Returns the first matching route at or after `from`, whatever its conditions. `path` must be normalized.
    pub(crate) fn find(&self, method: &Method, host: &str, path: &str, from: Order) -> Option<Order> {
        self.find_where((method, host, path), from, &mut Always)
    }

    /// Returns the first matching route at or after `from` whose condition holds.
    pub(crate) fn find_where(
        &self,
        (method, host, path): (&Method, &str, &str),
        from: Order,
        condition: &mut dyn Condition,
    ) -> Option<Order> {
        let mut search = Search::new(method, from, condition);
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
mod tests;
