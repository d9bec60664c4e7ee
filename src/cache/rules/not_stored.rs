//! Decides what follows from a response that is not stored: what is remembered of its key (hit-for-miss), whether the
//! stored response before it stays, and what the requests learn that wait for it.

use http::StatusCode;

use super::storability::{NotStorable, is_of_request_alone};
use crate::rendering::words::words;

/// The reason why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotStored {
    /// A rule of RFC 9111 forbids it.
    Refused(NotStorable),
    /// The rules allow it, and something else prevents it.
    Unkept(Unkept),
}

words! {
    /// Reasons why a response is not stored although the rules of RFC 9111 allow it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Unkept {
        /// An invalidation of one of its keys overtook it on its way.
        Overtaken => "overtaken",
        /// It has more tags than the maximum.
        TooManyTags => "tags",
        /// It was not expected to be stored, so the request fields it varies with were not kept; the next one is
        /// stored.
        Unexpected => "unexpected",
        /// It is larger than `cache.max_object_size`, or there is no room for it.
        TooLarge => "too-large",
        /// Its request has a field that selects fragments, and its Vary does not name that field.
        Fragment => "fragment",
        Endless => "endless",
    }
}

/// Returns a sentence about a reason for not storing a response, by its word.
pub(crate) fn sentence(word: &str) -> Option<&'static str> {
    let refused = NotStorable::ALL.into_iter().find(|refused| refused.as_str() == word);
    let unkept = Unkept::ALL.into_iter().find(|unkept| unkept.as_str() == word);
    refused.map(NotStorable::sentence).or(unkept.map(Unkept::sentence))
}

impl Unkept {
    fn sentence(self) -> &'static str {
        match self {
            Unkept::Overtaken => "an invalidation overtook the response",
            Unkept::TooManyTags => "the response has more tags than the maximum",
            Unkept::Unexpected => "the response was not expected to be stored; the next one is",
            Unkept::TooLarge => {
                "the response is larger than cache.max_object_size, or there is no room for it"
            }
            Unkept::Fragment => {
                "the request may ask for a fragment, and the response's Vary does not name its field"
            }
            Unkept::Endless => "the response is the other side of an upgraded connection",
        }
    }
}

impl NotStored {
    /// Returns the reason as a word for `Cache-Status` and the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            NotStored::Refused(refusal) => refusal.as_str(),
            NotStored::Unkept(unkept) => unkept.as_str(),
        }
    }
}

/// A response that the upstream sent, as far as it is known before its content is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    /// Whether it is the other side of an upgraded connection.
    pub is_tunnel: bool,
    /// Whether anything gives it a lifetime; see [`super::freshness::may_have_lifetime`].
    pub may_have_lifetime: bool,
    /// The length of its content in bytes, if it is known.
    pub length: Option<u64>,
}

/// Returns why a response is not stored whatever its fields say. `max` is the maximum length of stored content in
/// bytes.
pub(crate) fn screen(arrived: Arrived, max: usize) -> Result<(), NotStored> {
    if arrived.is_tunnel {
        Err(NotStored::Unkept(Unkept::Endless))
    } else if !arrived.may_have_lifetime {
        Err(NotStored::Refused(NotStorable::NoLifetime))
    } else if is_too_long(arrived.length, max) {
        Err(NotStored::Unkept(Unkept::TooLarge))
    } else {
        Ok(())
    }
}

/// Judges a response under a key whose recent responses were not stored: it could be stored, so that the next one is
/// judged in full, or it could not. `refused` is the verdict of the rules, the rest as in [`screen`].
pub(crate) fn reconsider(
    refused: Option<NotStorable>,
    length: Option<u64>,
    max: usize,
) -> Result<(), NotStored> {
    match refused {
        Some(refused) => Err(NotStored::Refused(refused)),
        None if is_too_long(length, max) => Err(NotStored::Unkept(Unkept::TooLarge)),
        None => Ok(()),
    }
}

fn is_too_long(length: Option<u64>, max: usize) -> bool {
    length.is_some_and(|length| length > max as u64)
}

/// A fetch whose response is not stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnstoredFetch {
    pub why: NotStored,
    pub status: StatusCode,
    /// Whether the length of its content was known when its head arrived.
    pub has_length: bool,
    /// Whether its request had conditions or a Range of its own.
    pub conditional: bool,
    /// Whether its request is of the class that all requests are of which carry no credentials.
    pub is_anybodys: bool,
    /// Whether a response is stored that is fresh, so that only its client demanded this one.
    pub has_fresh: bool,
    /// Whether its request waited for one that the upstream refused.
    pub follows_refused: bool,
}

/// The change to what hit-for-miss knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    Unchanged,
    /// Responses under the key are not stored.
    Remember,
    /// The next response may be stored.
    Forget,
}

/// The message to requests that wait for a fetch whose response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForWaiting {
    /// The response is out of date: the next fetch may serve them.
    Overtaken,
    /// The upstream refused this client's request: another one may be served.
    Refused,
    /// The response is for one request.
    NotShared,
}

/// The consequences of a response that is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consequences {
    /// The change to the memory of the key, for requests of the same class.
    pub memory: Memory,
    /// Whether the response stored before is not used any more (RFC 9111 4.3.3).
    pub drops_stored: bool,
    /// Whether requests do not wait for the next fetch of the key. It is remembered where others may have waited for
    /// this one.
    pub nobody_waits: bool,
    pub for_waiting: ForWaiting,
}

impl UnstoredFetch {
    /// Decides what follows; see the head of the file.
    pub(crate) fn consequences(&self) -> Consequences {
        use NotStorable::{Credentials, RequestNoStore};
        use NotStored::{Refused, Unkept as Not};
        // A response about this request alone says nothing about the next one. A refusal of a client that demanded a
        // revalidation says nothing about the response that others still get (RFC 9111 4.4, 5.2.1.4); only a response
        // that can replace the stored one does.
        let of_request_alone = self.conditional || is_of_request_alone(self.status);
        let says_nothing = of_request_alone || self.has_fresh;
        let memory = match self.why {
            // The next response may be stored, unless it could be too long again.
            Not(Unkept::Unexpected) if self.has_length => Memory::Forget,
            Not(Unkept::Unexpected | Unkept::Overtaken | Unkept::Fragment) => Memory::Unchanged,
            Refused(RequestNoStore) => Memory::Unchanged,
            _ if says_nothing => Memory::Unchanged,
            _ => Memory::Remember,
        };
        // A response that the upstream replaced is not used any more, even if the replacement cannot be stored.
        let is_of_client = matches!(self.why, Refused(RequestNoStore | Credentials) | Not(Unkept::Fragment));
        let drops_stored = self.is_anybodys && !is_of_client && !says_nothing;
        // A refusal of one client says nothing about the requests that wait, until one of them is refused too.
        let is_refused = of_request_alone && self.status.is_client_error() && !self.follows_refused;
        let is_for_others = is_refused || matches!(self.why, Not(Unkept::Overtaken | Unkept::Fragment));
        let for_waiting = match self.why {
            Not(Unkept::Overtaken) => ForWaiting::Overtaken,
            _ if is_refused => ForWaiting::Refused,
            _ => ForWaiting::NotShared,
        };
        Consequences { memory, drops_stored, nobody_waits: !self.has_fresh && !is_for_others, for_waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_screened_by_kind_lifetime_and_length() {
        let stored = Arrived { is_tunnel: false, may_have_lifetime: true, length: Some(10) };
        for (arrived, wanted) in [
            (stored, Ok(())),
            (Arrived { length: None, ..stored }, Ok(())),
            (Arrived { length: Some(11), ..stored }, Err("too-large")),
            (Arrived { may_have_lifetime: false, length: Some(11), ..stored }, Err("no-lifetime")),
            (Arrived { is_tunnel: true, may_have_lifetime: false, ..stored }, Err("endless")),
        ] {
            assert_eq!(screen(arrived, 10).map_err(NotStored::as_str), wanted, "{arrived:?}");
        }
    }

    #[test]
    fn a_key_is_judged_again_once_a_response_could_be_stored() {
        for (refused, length, wanted) in [
            (None, Some(10), Ok(())),
            (None, None, Ok(())),
            (None, Some(11), Err("too-large")),
            (Some(NotStorable::NoStore), Some(10), Err("no-store")),
            (Some(NotStorable::NoStore), Some(11), Err("no-store")),
            (Some(NotStorable::SetCookie), None, Err("set-cookie")),
        ] {
            let found = reconsider(refused, length, 10).map_err(NotStored::as_str);
            assert_eq!(found, wanted, "{refused:?} {length:?}");
        }
    }

    #[test]
    fn consequences_of_a_response_that_is_not_stored() {
        use ForWaiting::{NotShared, Overtaken, Refused as Denied};
        use Memory::{Forget, Remember, Unchanged};
        let refused = |why| UnstoredFetch {
            why: NotStored::Refused(why),
            status: StatusCode::OK,
            has_length: true,
            conditional: false,
            is_anybodys: true,
            has_fresh: false,
            follows_refused: false,
        };
        let unkept = |why| UnstoredFetch { why: NotStored::Unkept(why), ..refused(NotStorable::NoStore) };
        let no_store = refused(NotStorable::NoStore);
        let status = |code| UnstoredFetch { status: StatusCode::from_u16(code).unwrap(), ..no_store };
        let again = |fetch| UnstoredFetch { follows_refused: true, ..fetch };
        for (fetch, memory, drops_stored, nobody_waits, for_waiting) in [
            (no_store, Remember, true, true, NotShared),
            (refused(NotStorable::Private), Remember, true, true, NotShared),
            (refused(NotStorable::SetCookie), Remember, true, true, NotShared),
            (refused(NotStorable::NoLifetime), Remember, true, true, NotShared),
            (refused(NotStorable::Varies), Remember, true, true, NotShared),
            (refused(NotStorable::Stream), Remember, true, true, NotShared),
            (refused(NotStorable::Status), Remember, true, true, NotShared),
            // These are about the client, whose request says nothing about those of others.
            (refused(NotStorable::RequestNoStore), Unchanged, false, true, NotShared),
            (refused(NotStorable::Credentials), Remember, false, true, NotShared),
            (UnstoredFetch { is_anybodys: false, ..no_store }, Remember, false, true, NotShared),
            (unkept(Unkept::TooLarge), Remember, true, true, NotShared),
            (unkept(Unkept::TooManyTags), Remember, true, true, NotShared),
            (unkept(Unkept::Endless), Remember, true, true, NotShared),
            (unkept(Unkept::Overtaken), Unchanged, true, false, Overtaken),
            (unkept(Unkept::Fragment), Unchanged, false, false, NotShared),
            (unkept(Unkept::Unexpected), Forget, true, true, NotShared),
            (
                UnstoredFetch { has_length: false, ..unkept(Unkept::Unexpected) },
                Unchanged,
                true,
                true,
                NotShared,
            ),
            // A stored response that is fresh stays, whatever one client got.
            (UnstoredFetch { has_fresh: true, ..no_store }, Unchanged, false, false, NotShared),
            (
                UnstoredFetch { has_fresh: true, ..unkept(Unkept::Unexpected) },
                Forget,
                false,
                false,
                NotShared,
            ),
            (UnstoredFetch { conditional: true, ..no_store }, Unchanged, false, true, NotShared),
            // These say nothing about the resource.
            (status(206), Unchanged, false, true, NotShared),
            (status(302), Unchanged, false, true, NotShared),
            (status(503), Unchanged, false, true, NotShared),
            (status(401), Unchanged, false, false, Denied),
            (status(403), Unchanged, false, false, Denied),
            (again(status(403)), Unchanged, false, true, NotShared),
            (status(404), Remember, true, true, NotShared),
            (status(410), Remember, true, true, NotShared),
            (UnstoredFetch { conditional: true, ..status(404) }, Unchanged, false, false, Denied),
        ] {
            let wanted = Consequences { memory, drops_stored, nobody_waits, for_waiting };
            assert_eq!(fetch.consequences(), wanted, "{fetch:?}");
        }
    }
}
