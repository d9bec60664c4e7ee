//! Remembers which upstreams speak WebDAV.

use std::sync::{PoisonError, RwLock};

/// Maximum number of upstreams remembered; further ones are ignored.
const MAX: usize = 256;

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
