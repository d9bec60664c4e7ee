//! One word for how the cache handled a request.

use crate::rendering::words::words;

words! {
    /// What the cache did with a request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum ByCache {
        /// It answered with a fresh stored response.
        Hit => "hit",
        /// It answered with a stale stored response.
        Stale => "stale",
        /// It answered with a stale stored response because the app failed.
        StaleIfError => "stale-if-error",
        /// It answered with a stored response that the app confirmed with a 304.
        Revalidated => "revalidated",
        /// It answered with what another request fetched.
        Collapsed => "collapsed",
        /// It had nothing that fits.
        Miss => "miss",
        /// It had a response that was no longer usable.
        Expired => "expired",
        Bypass => "bypass",
        Write => "write",
        Purge => "purge",
    }
}
