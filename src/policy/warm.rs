//! `[[warm]]`: responses that are fetched before a client asks for them.

use std::time::Duration;

use http::uri::PathAndQuery;

/// A response that is kept in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warmed {
    pub target: PathAndQuery,
    /// The hosts for which it is fetched, each with whether clients use https; empty: those that clients ask for.
    pub hosts: Vec<(bool, String)>,
    /// The interval at which it is fetched anew in any case.
    pub every: Option<Duration>,
}
