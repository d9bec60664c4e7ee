//! WebDAV: which responses confirm that a tree was changed (RFC 4918), and which upstreams speak it.

use std::sync::{PoisonError, RwLock};

use http::StatusCode;

/// Maximum number of upstreams remembered; further ones are ignored.
const MAX: usize = 256;

/// The method of a write that may change a whole tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TreeMethod {
    /// COPY or MOVE, which only WebDAV has.
    CopyOrMove,
    /// DELETE, which every API has; with `Depth` it is WebDAV's.
    Delete { depth: bool },
}

impl TreeMethod {
    /// Returns whether a response confirms that the tree was changed. `speaks`: the upstream is known to speak WebDAV.
    pub(crate) fn is_done(self, status: StatusCode, speaks: bool) -> bool {
        match status.as_u16() {
            // RFC 4918 13: some members were changed.
            207 => true,
            // RFC 4918 9.6.1, 9.8.5, 9.9.4. An upstream that treats every method as GET responds with 200.
            201 | 204 => speaks || self != TreeMethod::Delete { depth: false },
            200..=299 => speaks,
            _ => false,
        }
    }
}

/// The names of upstreams that speak WebDAV; accessed only for WebDAV methods and DELETE.
#[derive(Debug, Default)]
pub(crate) struct WebDavUpstreams(RwLock<Vec<Box<str>>>);

impl WebDavUpstreams {
    /// Returns whether this upstream is known to speak WebDAV.
    pub(crate) fn contains(&self, upstream: &str) -> bool {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().any(|name| **name == *upstream)
    }

    /// Remembers that this upstream speaks WebDAV.
    pub(crate) fn insert(&self, upstream: &str) {
        if self.contains(upstream) {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MAX && !known.iter().any(|name| **name == *upstream) {
            known.push(upstream.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n4_12_which_responses_say_that_a_tree_was_changed() {
        use TreeMethod::{CopyOrMove, Delete};
        let (plain, deep) = (Delete { depth: false }, Delete { depth: true });
        for (method, status, unknown, speaks) in [
            (CopyOrMove, 200, false, true),
            (CopyOrMove, 201, true, true),
            (CopyOrMove, 202, false, true),
            (CopyOrMove, 204, true, true),
            (CopyOrMove, 207, true, true),
            (CopyOrMove, 302, false, false),
            (CopyOrMove, 502, false, false),
            (plain, 200, false, true),
            (plain, 204, false, true),
            (plain, 207, true, true),
            (plain, 303, false, false),
            (deep, 200, false, true),
            (deep, 204, true, true),
            (deep, 207, true, true),
            (deep, 405, false, false),
            (deep, 504, false, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(method.is_done(status, false), unknown, "{method:?} {status}");
            assert_eq!(
                method.is_done(status, true),
                speaks,
                "{method:?} {status} of an upstream that speaks it"
            );
        }
    }

    #[test]
    fn n4_12_upstreams_are_remembered_once_and_bounded() {
        let known = WebDavUpstreams::default();
        assert!(!known.contains("a"));
        (0..2).for_each(|_| known.insert("a"));
        assert!(known.contains("a") && !known.contains("b"));
        assert_eq!(known.0.read().unwrap().len(), 1);
        (0..2 * MAX).for_each(|number| known.insert(&number.to_string()));
        assert_eq!(known.0.read().unwrap().len(), MAX);
    }
}
