//! Finds the cookie that splits the stored responses of a user. With scope "user" every cookie that counts is part of
//! the cache key, so a cookie that changes with each request leaves stored responses that no request finds again.
//!
//! Each route keeps one request of one user; the next miss of the same user for the same target shows which cookie has
//! another value.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

/// Number of responses stored without a hit in between before a cookie is named.
const COPIES: u64 = 16;
/// Maximum number of cookies of one request that are compared.
const MAX_COOKIES: usize = 32;
/// Maximum bytes of a cookie name that are kept.
const MAX_NAME: usize = 64;

/// The kept request of a route: its user, its target and the hashes of its cookies.
struct Kept {
    user: [u8; 32],
    target: u64,
    cookies: Vec<(String, u64)>,
}

#[derive(Default)]
pub(crate) struct Apart {
    /// Hits of the route when the count of stored responses last started.
    hits: AtomicU64,
    stored: AtomicU64,
    kept: Mutex<Option<Kept>>,
    told: AtomicBool,
}

impl Apart {
    /// Records a miss of a user's request. `user` is the keyed hash of a credential; `stored` and `hits` are the
    /// route's counts so far. Returns the name of the cookie that splits the user's stored responses, once for each
    /// process.
    pub(crate) fn miss<'a>(
        &self,
        (stored, hits): (u64, u64),
        user: [u8; 32],
        target: &str,
        cookies: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Option<String> {
        if self.told.load(Ordering::Relaxed) {
            return None;
        }
        let known_hits = self.hits.swap(hits, Ordering::Relaxed);
        if known_hits != hits {
            self.stored.store(stored, Ordering::Relaxed);
        }
        // If another worker holds the lock, its miss stands in for this one.
        let mut kept = self.kept.try_lock().ok()?;
        let target = xxh3_64(target.as_bytes());
        let cookies: Vec<(String, u64)> = cookies
            .take(MAX_COOKIES)
            .map(|(name, value)| {
                let name = String::from_utf8_lossy(name).chars().take(MAX_NAME).collect();
                (name, xxh3_64(value))
            })
            .collect();
        let known = kept.as_ref().filter(|known| known.user == user && known.target == target);
        let differs = known.and_then(|known| {
            let other = cookies.iter().find(|cookie| !known.cookies.contains(cookie));
            other.map(|(name, _)| name.clone())
        });
        *kept = Some(Kept { user, target, cookies });
        let never_asked_twice = stored.saturating_sub(self.stored.load(Ordering::Relaxed)) >= COPIES;
        let name = differs.filter(|_| never_asked_twice)?;
        self.told.store(true, Ordering::Relaxed);
        Some(name)
    }
}

impl std::fmt::Debug for Apart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Apart").field("told", &self.told).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n1_5_a_cookie_that_changes_each_time_is_named_once() {
        let apart = Apart::default();
        let miss = |stored, hits, cookies: &[(&str, &str)]| {
            let pairs: Vec<_> =
                cookies.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            apart.miss((stored, hits), [1; 32], "/a", pairs.into_iter())
        };
        assert_eq!(miss(0, 0, &[("theme", "dark"), ("page", "1")]), None);
        assert_eq!(miss(5, 0, &[("theme", "dark"), ("page", "2")]), None, "too early to tell");
        assert_eq!(miss(20, 1, &[("theme", "dark"), ("page", "3")]), None, "there was a hit");
        assert_eq!(miss(36, 1, &[("theme", "dark"), ("page", "3")]), None, "nothing differs");
        assert_eq!(apart.miss((36, 1), [2; 32], "/a", [].into_iter()), None, "another user");
        assert_eq!(miss(37, 1, &[("theme", "dark"), ("page", "3")]), None, "nobody to compare with");
        let found = miss(37, 1, &[("theme", "dark"), ("page", "4")]);
        assert_eq!(found.as_deref(), Some("page"));
        assert_eq!(miss(99, 1, &[("theme", "dark"), ("page", "5")]), None, "said once");
    }
}
