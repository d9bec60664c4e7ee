//! The route table for the benchmark of route matching.

use http::Method;

use crate::policy::pattern::Pattern;
use crate::policy::table::RouteTable;

/// A table of routes, given by their patterns.
pub struct Table(RouteTable);

impl Table {
    /// Builds a table from `patterns`. Invalid patterns are skipped.
    pub fn new(patterns: impl Iterator<Item = String>) -> Table {
        Table(RouteTable::new(&patterns.filter_map(|text| Pattern::parse(&text).ok()).collect::<Vec<_>>()))
    }

    /// Returns the index of the first route that matches the request.
    pub fn find(&self, method: &Method, host: &str, path: &str) -> Option<u32> {
        self.0.find(method, host, path, 0)
    }
}
