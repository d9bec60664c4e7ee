//! One word for how the cache handled a request.

use crate::rendering::words::words;

words! {
    /// The outcome of the cache for a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum ByCache {
        /// Served from a fresh stored response.
        Hit => "hit",
        /// Served from a stale stored response.
        Stale => "stale",
        /// Served from a stale stored response, because the upstream failed.
        StaleIfError => "stale-if-error",
        /// Served from a stored response that the upstream confirmed with a 304.
        Revalidated => "revalidated",
        /// Served from a response that another request fetched.
        Collapsed => "collapsed",
        /// The cache had no matching response.
        Miss => "miss",
        /// The cache had a response that was no longer usable.
        Expired => "expired",
        Bypass => "bypass",
        Write => "write",
        Purge => "purge",
    }
}
