//! Routes that are said to be shared and are not: an answer is asked for as one user, as another, and as the first
//! again. Where the first gets the same twice and the other something else, one user would be given another's
//! answer. Where that happens twice in a row, the route is not cached for a while.
//!
//! Each is asked for with the whole request of that user, as it came: a request that nobody sent is never made.
//! Here is when to ask and what follows; who asks is the layer's part.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{HeaderMap, Uri, header};

/// Seconds between comparisons on one route.
const INTERVAL: u32 = 60;
/// Seconds until the comparison that confirms one.
const AGAIN: u32 = 1;
/// Seconds for which a first user's request waits for a second user's.
const PATIENCE: u32 = 10;
/// Comparisons in a row that have to differ.
const CONFIRMED: u32 = 2;
/// Requests with longer heads are not kept; bytes.
const MOST_HEAD: usize = 16 * 1024;

/// A request for an answer of a shared route, as one user sent it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What for.
    pub target: Uri,
    /// Its fields.
    pub headers: HeaderMap,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Whether over TLS.
    pub tls: bool,
}

impl Sample {
    /// Whether two were sent by the same user.
    fn is_same_user(&self, headers: &HeaderMap) -> bool {
        let same = |name| self.headers.get_all(&name).iter().eq(headers.get_all(&name).iter());
        same(header::AUTHORIZATION) && same(header::COOKIE)
    }
}

struct Waiting {
    key: Vec<u8>,
    sample: Sample,
    since: u32,
}

/// Of one route.
#[derive(Default)]
pub struct Tripwire {
    /// The second before which nothing is done.
    next: AtomicU32,
    waiting: Mutex<Option<Waiting>>,
    /// Comparisons in a row that differed.
    differed: AtomicU32,
}

/// Two users' requests for the same.
#[derive(Debug)]
pub struct Pair {
    /// The first.
    pub one: Sample,
    /// The other.
    pub other: Sample,
}

impl Tripwire {
    /// A hit: gives two users to compare, now and then. `sample` copies the request.
    pub fn hit(
        &self,
        key: &[u8],
        (target, headers): (&Uri, &HeaderMap),
        second: u32,
        sample: impl FnOnce() -> Sample,
    ) -> Option<Pair> {
        if self.next.load(Ordering::Relaxed) > second {
            return None;
        }
        // Whoever does not get it at once leaves it to the next hit.
        let mut waiting = self.waiting.try_lock().ok()?;
        let kept = waiting.as_ref().filter(|kept| kept.since + PATIENCE > second);
        let Some(kept) = kept else {
            // Between two who say nothing there is nothing to compare; the first says something.
            let says = headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE);
            let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            if says && size <= MOST_HEAD {
                *waiting = Some(Waiting { key: key.to_vec(), sample: sample(), since: second });
            }
            return None;
        };
        // What is not part of the key may still make a difference to the app.
        if kept.key != key || kept.sample.target != *target || kept.sample.is_same_user(headers) {
            return None;
        }
        let one = waiting.take()?.sample;
        self.next.store(second + INTERVAL, Ordering::Relaxed);
        Some(Pair { one, other: sample() })
    }

    /// What a comparison came to; true: the route is not to be cached.
    pub fn compared(&self, differs: bool, second: u32) -> bool {
        if !differs {
            self.differed.store(0, Ordering::Relaxed);
            return false;
        }
        self.next.store(second + AGAIN, Ordering::Relaxed);
        self.differed.fetch_add(1, Ordering::Relaxed) + 1 >= CONFIRMED
    }
}

impl std::fmt::Debug for Tripwire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tripwire").field("next", &self.next).finish_non_exhaustive()
    }
}

/// What an answer came to, for comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The status.
    pub status: u16,
    /// The hash of the content.
    pub content: u128,
}

/// Whether users differ: the first gets the same twice, and the other something else. A refusal says nothing: it may
/// be about the request and not about the user.
pub fn differs(one: Digest, other: Digest, again: Digest) -> bool {
    one == again && one != other && (200..300).contains(&one.status) && (200..300).contains(&other.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers.insert(header::AUTHORIZATION, name.parse().unwrap());
        }
        headers
    }

    #[test]
    fn two_users_of_one_target_are_compared_now_and_then() {
        let wire = Tripwire::default();
        let hit = |key: &[u8], target: &str, name: &str, second| {
            let (target, headers): (Uri, _) = (target.parse().unwrap(), user(name));
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let sample = || Sample { target: target.clone(), headers: headers.clone(), peer, tls: false };
            wire.hit(key, (&target, &headers), second, sample)
        };
        assert!(hit(b"k", "/a", "", 1).is_none());
        assert!(hit(b"k", "/a", "a", 1).is_none());
        assert!(hit(b"k", "/a", "a", 2).is_none(), "the same user");
        assert!(hit(b"other", "/b", "b", 2).is_none(), "another key");
        assert!(hit(b"k", "/a?x", "b", 2).is_none(), "another target under the same key");
        let pair = hit(b"k", "/a", "b", 3).unwrap();
        assert_eq!((pair.one.headers, pair.other.headers), (user("a"), user("b")));
        assert!(hit(b"k", "/a", "a", 4).is_none() && hit(b"k", "/a", "b", 5).is_none());
        assert!(hit(b"k", "/a", "a", 63).is_none());
        assert!(hit(b"k", "/a", "", 64).is_some(), "nobody is somebody else");
        assert!(hit(b"k", "/a", "a", 200).is_none());
        assert!(hit(b"k", "/a", "b", 211).is_none(), "the first waited too long");
        let long = "x".repeat(MOST_HEAD);
        assert!(hit(b"k", "/a", &long, 300).is_none());
        assert!(hit(b"k", "/a", "a", 301).is_none(), "it was not kept");
    }

    #[test]
    fn what_trips() {
        let of = |content| Digest { status: 200, content };
        assert!(differs(of(1), of(2), of(1)));
        assert!(!differs(of(1), of(1), of(1)));
        assert!(!differs(of(1), of(2), of(3)), "it changes by itself");
        assert!(!differs(of(1), Digest { status: 403, content: 1 }, of(1)), "a refusal says nothing");
        let wire = Tripwire::default();
        assert!(!wire.compared(true, 1));
        assert!(!wire.compared(false, 2));
        assert!(!wire.compared(true, 3));
        assert!(wire.compared(true, 4), "twice in a row");
    }
}
