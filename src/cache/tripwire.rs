//! Detects routes that are configured as shared but are not. A hit is requested again as one user, as another user and
//! as the first once more. If the first gets the same response twice and the other another one, users would receive
//! each other's responses. Two such results in a row stop the caching of a route with scope "shared" for a while. With
//! scope "auto" an operator is only warned: there the users may differ in a field that no list knows, and a client
//! could stop the caching of a route by inventing one.
//!
//! Each request is repeated whole, as its user sent it. Only the last one carries the identifiers of the other user's
//! request, so that a page which shows its request id does not look different between users. No other request is made
//! up. This file decides when to compare and what follows; `layer::cache::compare` sends the requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::{HeaderMap, HeaderName, Uri};

use super::comparable::{self, Bearing, Side, bearing};

/// Seconds between comparisons on one route.
const INTERVAL: u32 = 60;
/// Seconds until the comparison that confirms a difference.
const AGAIN: u32 = 1;
/// How long a first user's request is kept for a second user's, in seconds.
const TIMEOUT: u32 = 10;
/// Number of comparisons in a row that must differ.
const CONFIRMED: u32 = 2;
/// Seconds between two warnings about one route.
const WARNED: u32 = 3600;
/// Maximum size of the fields of a kept request in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// One user's request for a response of a shared route, as the user sent it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub target: Uri,
    pub headers: HeaderMap,
    pub peer: SocketAddr,
    pub tls: bool,
    /// The client address that a trusted proxy reported.
    pub client: Option<IpAddr>,
}

/// A request that was a cache hit, offered for a comparison.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    pub key: &'a [u8],
    pub target: &'a Uri,
    pub headers: &'a HeaderMap,
    /// The client address that a trusted proxy reported.
    pub client: Option<IpAddr>,
    /// Whether it carries a known credential.
    pub says_who: bool,
    /// Whether its route has scope "auto".
    pub auto: bool,
}

struct Waiting {
    key: Vec<u8>,
    sample: Sample,
    since: u32,
}

#[derive(Default)]
pub(crate) struct Tripwire {
    /// The second before which no comparison begins.
    next: AtomicU32,
    /// Whether a first user's request is kept for a second one.
    waits: AtomicBool,
    /// One more than the second in which a request was last searched for fields that no list knows.
    looked: AtomicU32,
    waiting: Mutex<Option<Waiting>>,
    /// Comparisons in a row that differed.
    differed: AtomicU32,
    /// The second from which on the next warning is due.
    warns_from: AtomicU32,
}

/// Two users' requests for the same target.
#[derive(Debug)]
pub(crate) struct Pair {
    pub one: Sample,
    pub other: Sample,
}

impl Pair {
    /// Returns the first user's request with the identifiers of the other's.
    pub(crate) fn again(&self) -> Sample {
        let headers = comparable::with_identifiers(&self.one.headers, &self.other.headers);
        Sample { headers, ..self.one.clone() }
    }
}

impl Tripwire {
    /// Offers a hit; returns two users' requests when a comparison is due. `sample` copies the request; `is_credential`
    /// tells whether a field is a known credential.
    pub(crate) fn hit(
        &self,
        seen: Observed<'_>,
        second: u32,
        is_credential: impl Fn(&HeaderName) -> bool,
        sample: impl FnOnce() -> Sample,
    ) -> Option<Pair> {
        if self.next.load(Ordering::Relaxed) > second {
            return None;
        }
        // Two requests without credentials are not compared; the first must have one.
        let may_begin = seen.says_who || (seen.auto && self.looked.load(Ordering::Relaxed) <= second);
        if !may_begin && !self.waits.load(Ordering::Relaxed) {
            return None;
        }
        // If another worker holds the lock, the next hit gets its turn.
        let mut waiting = self.waiting.try_lock().ok()?;
        let kept = waiting.as_ref().filter(|kept| kept.since + TIMEOUT > second);
        let Some(kept) = kept else {
            let says = seen.says_who || (seen.auto && self.has_unknown(seen.headers, second, &is_credential));
            let size: usize =
                seen.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
            let keeps = says && size <= MAX_HEAD;
            *waiting = keeps.then(|| Waiting { key: seen.key.to_vec(), sample: sample(), since: second });
            self.waits.store(keeps, Ordering::Relaxed);
            return None;
        };
        if kept.key != seen.key || kept.sample.target != *seen.target {
            return None;
        }
        let one = Side { headers: &kept.sample.headers, client: kept.sample.client };
        let other = Side { headers: seen.headers, client: seen.client };
        if !comparable::are_comparable(one, other, seen.auto, is_credential) {
            return None;
        }
        let one = waiting.take()?.sample;
        self.waits.store(false, Ordering::Relaxed);
        self.next.store(second + INTERVAL, Ordering::Relaxed);
        Some(Pair { one, other: sample() })
    }

    /// Returns whether a request has a field that no list knows; at most one request a second is searched.
    fn has_unknown(
        &self,
        headers: &HeaderMap,
        second: u32,
        is_credential: impl Fn(&HeaderName) -> bool,
    ) -> bool {
        let before = self.looked.swap(second + 1, Ordering::Relaxed);
        before <= second && headers.keys().any(|name| bearing(name, &is_credential) == Bearing::Unknown)
    }

    /// Records the result of a comparison; returns true if it confirms that users differ.
    pub(crate) fn compared(&self, differs: bool, second: u32) -> bool {
        if !differs {
            self.differed.store(0, Ordering::Relaxed);
            return false;
        }
        self.next.store(second + AGAIN, Ordering::Relaxed);
        self.differed.fetch_add(1, Ordering::Relaxed) + 1 >= CONFIRMED
    }

    /// Returns whether to warn an operator about a route that stays cached.
    pub(crate) fn warns(&self, second: u32) -> bool {
        // The difference is confirmed; another comparison would reveal nothing new for a while.
        self.next.store(second + INTERVAL, Ordering::Relaxed);
        let from = self.warns_from.load(Ordering::Relaxed);
        if from <= second {
            self.warns_from.store(second + WARNED, Ordering::Relaxed);
        }
        from <= second
    }
}

impl std::fmt::Debug for Tripwire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tripwire").field("next", &self.next).finish_non_exhaustive()
    }
}

/// The summary of a response, for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub status: u16,
    /// The hash of the content.
    pub content: u128,
}

/// Returns whether users get different responses: the first user gets the same twice, also with the identifiers of the
/// other's request, and the other user gets another one. An error status counts for nothing: it may be about the
/// request and not about the user.
pub(crate) fn differs(one: Digest, other: Digest, again: Digest) -> bool {
    one == again && one != other && (200..300).contains(&one.status) && (200..300).contains(&other.status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    fn user(name: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers.insert(header::AUTHORIZATION, name.parse().unwrap());
        }
        headers
    }

    fn ask(wire: &Tripwire, seen: Observed<'_>, second: u32) -> Option<Pair> {
        let sample = || Sample {
            target: seen.target.clone(),
            headers: seen.headers.clone(),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            tls: false,
            client: None,
        };
        wire.hit(seen, second, |name| *name == header::AUTHORIZATION, sample)
    }

    #[test]
    fn two_users_of_one_target_are_compared_now_and_then() {
        let wire = Tripwire::default();
        let hit = |key: &[u8], target: &str, name: &str, second| {
            let (target, headers): (Uri, _) = (target.parse().unwrap(), user(name));
            let says_who = !name.is_empty();
            let seen =
                Observed { key, target: &target, headers: &headers, client: None, says_who, auto: false };
            ask(&wire, seen, second)
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
        let long = "x".repeat(MAX_HEAD);
        assert!(hit(b"k", "/a", &long, 300).is_none());
        assert!(hit(b"k", "/a", "a", 301).is_none(), "it was not kept");
    }

    #[test]
    fn n3_9_in_scope_auto_a_field_that_no_list_knows_says_who_asks() {
        let wire = Tripwire::default();
        let hit = |field: &str, second| {
            let mut headers = HeaderMap::new();
            let (name, value) = field.split_once(": ").unwrap();
            headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            let target: Uri = "/a".parse().unwrap();
            let (says_who, auto) = (false, true);
            ask(
                &wire,
                Observed { key: b"k", target: &target, headers: &headers, client: None, says_who, auto },
                second,
            )
        };
        assert!(hit("user-agent: a", 1).is_none() && hit("user-agent: b", 1).is_none());
        assert!(hit("x-member: a", 1).is_none() && hit("x-member: b", 1).is_none(), "one look in a second");
        assert!(hit("x-member: a", 2).is_none() && hit("x-member: a", 2).is_none());
        assert!(hit("x-member: b", 2).is_some());
        assert!(wire.warns(3) && !wire.warns(4) && wire.warns(3 + WARNED));
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
