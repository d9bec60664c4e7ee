//! Routes that are said to be shared and are not: an answer is asked for as one user, as another, and as the first
//! again. Where the first gets the same twice and the other something else, one user would be given another's
//! answer, and the route is cached no longer.
//!
//! Here is when to ask and what follows; who asks is the layer's part.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use http::{HeaderMap, HeaderValue, header};

/// Seconds between comparisons on one route.
const INTERVAL: u32 = 60;
/// Seconds for which a first user's request waits for a second user's.
const PATIENCE: u32 = 10;

/// What makes a user, as their requests show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    authorization: Vec<HeaderValue>,
    cookies: Vec<HeaderValue>,
}

impl Credentials {
    /// Of a request.
    pub fn of(headers: &HeaderMap) -> Credentials {
        let all = |name| headers.get_all(name).iter().cloned().collect();
        Credentials { authorization: all(header::AUTHORIZATION), cookies: all(header::COOKIE) }
    }

    /// In the place of those of a request.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.remove(header::AUTHORIZATION);
        headers.remove(header::COOKIE);
        for value in &self.authorization {
            headers.append(header::AUTHORIZATION, value.clone());
        }
        for value in &self.cookies {
            headers.append(header::COOKIE, value.clone());
        }
    }
}

struct Sample {
    key: Vec<u8>,
    credentials: Credentials,
    since: u32,
}

/// Of one route.
#[derive(Default)]
pub struct Tripwire {
    /// The second before which nothing is done.
    next: AtomicU32,
    sample: Mutex<Option<Sample>>,
}

/// Two users' credentials, for one comparison.
#[derive(Debug)]
pub struct Pair {
    /// The first.
    pub one: Credentials,
    /// The other.
    pub other: Credentials,
}

impl Tripwire {
    /// A hit: gives two users to compare, now and then.
    pub fn hit(&self, key: &[u8], headers: &HeaderMap, second: u32) -> Option<Pair> {
        if self.next.load(Ordering::Relaxed) > second {
            return None;
        }
        // Whoever does not get it at once leaves it to the next hit.
        let mut sample = self.sample.try_lock().ok()?;
        let kept = sample.as_ref().filter(|kept| kept.since + PATIENCE > second);
        let Some(kept) = kept else {
            let credentials = Credentials::of(headers);
            // Between two who say nothing there is nothing to compare; the first says something.
            if credentials != Credentials::default() {
                *sample = Some(Sample { key: key.to_vec(), credentials, since: second });
            }
            return None;
        };
        if kept.key != key {
            return None;
        }
        let other = Credentials::of(headers);
        if other == kept.credentials {
            return None;
        }
        let one = sample.take()?.credentials;
        self.next.store(second + INTERVAL, Ordering::Relaxed);
        Some(Pair { one, other })
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

/// Whether users differ: the first gets the same twice, and the other something else.
pub fn differs(one: Digest, other: Digest, again: Digest) -> bool {
    one == again && one != other
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
    fn two_users_of_one_key_are_compared_now_and_then() {
        let wire = Tripwire::default();
        assert!(wire.hit(b"k", &user(""), 1).is_none());
        assert!(wire.hit(b"k", &user("a"), 1).is_none());
        assert!(wire.hit(b"k", &user("a"), 2).is_none(), "the same user");
        assert!(wire.hit(b"other", &user("b"), 2).is_none(), "another key");
        let pair = wire.hit(b"k", &user("b"), 3).unwrap();
        assert_eq!((pair.one, pair.other), (Credentials::of(&user("a")), Credentials::of(&user("b"))));
        assert!(wire.hit(b"k", &user("a"), 4).is_none() && wire.hit(b"k", &user("b"), 5).is_none());
        assert!(wire.hit(b"k", &user("a"), 63).is_none());
        assert!(wire.hit(b"k", &user(""), 64).is_some(), "nobody is somebody else");
        assert!(wire.hit(b"k", &user("a"), 200).is_none());
        assert!(wire.hit(b"k", &user("b"), 211).is_none(), "the first waited too long");
    }

    #[test]
    fn what_trips() {
        let of = |content| Digest { status: 200, content };
        assert!(differs(of(1), of(2), of(1)));
        assert!(!differs(of(1), of(1), of(1)));
        assert!(!differs(of(1), of(2), of(3)), "it changes by itself");
        assert!(differs(of(1), Digest { status: 403, content: 1 }, of(1)));
    }
}
