//! Reads of a client after its own writes: each write gives the client a token that names the entry of the log with its
//! invalidations. A process that has not read that entry serves the client nothing stored before.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::cache::invalidation::outbox::Outbox;
use crate::fields::cookie;
use crate::fleet::entry::Sender;
use crate::fleet::process::Fleet;
use crate::policy::{Carrier, WRITTEN};

const FIELD: HeaderName = HeaderName::from_static(WRITTEN);

/// How long a token holds. Every process has read the entry by then, or says that it has lost the log.
const LIVES: Duration = Duration::from_secs(30);
/// Bytes of the proof that a process of the fleet made the token.
const PROOF: usize = 32;
/// What the proof is for.
const PURPOSE: &[u8] = b"token of a write";
/// Bytes of a token: the sender, the number of the entry, the end of its life in milliseconds since 1970, the proof.
const LENGTH: usize = 16 + 8 + 8 + PROOF;

/// An entry of the log that a client has seen the effect of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    sender: Sender,
    number: u64,
}

/// The tokens of a fleet; see the head of the file.
#[derive(Debug)]
pub(crate) struct OwnWrites {
    fleet: Arc<Fleet>,
    carrier: Carrier,
    /// How long a request waits for an entry.
    timeout: Duration,
}

impl OwnWrites {
    /// Creates the tokens of a process. `timeout`: how long a request waits until this process has read of a write.
    pub(crate) fn new(fleet: Arc<Fleet>, carrier: Carrier, timeout: Duration) -> OwnWrites {
        OwnWrites { fleet, carrier, timeout }
    }

    /// Returns the outbox of this process.
    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.fleet.outbox
    }

    /// Makes the token of what this process just invalidated; `published` says whether it is in the log. `wall`: the
    /// time since 1970.
    fn make(&self, published: bool, wall: Duration) -> String {
        let stored = self.fleet.outbox.last_entry();
        // What is not in the log is in the entry on its way or in the one after it.
        let number = if published { stored } else { stored + 2 };
        let until = u64::try_from((wall + LIVES).as_millis()).unwrap_or(u64::MAX);
        let mut token = Vec::with_capacity(LENGTH);
        token.extend_from_slice(&self.fleet.sender.0);
        token.extend_from_slice(&number.to_be_bytes());
        token.extend_from_slice(&until.to_be_bytes());
        token.extend_from_slice(&self.fleet.keys.name(&[PURPOSE, &token]));
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Gives a client the token of its write.
    pub(crate) fn give(&self, headers: &mut HeaderMap, https: bool, published: bool, wall: Duration) {
        let token = self.make(published, wall);
        let (name, value) = match self.carrier {
            Carrier::Field => (FIELD, token),
            Carrier::Cookie => {
                let secure = if https { "; Secure" } else { "" };
                let lives = LIVES.as_secs();
                let cookie =
                    format!("{WRITTEN}={token}; Max-Age={lives}; Path=/; HttpOnly; SameSite=Lax{secure}");
                (header::SET_COOKIE, cookie)
            }
        };
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    }

    /// Returns the token of a request, if it is one of this fleet that still holds.
    pub(crate) fn token(&self, headers: &HeaderMap, wall: impl FnOnce() -> Duration) -> Option<Token> {
        let text = match self.carrier {
            Carrier::Field => headers.get(FIELD)?.as_bytes(),
            Carrier::Cookie => cookie::pairs(headers).find(|(name, _)| *name == WRITTEN.as_bytes())?.1,
        };
        let mut bytes = [0; LENGTH];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (head, proof) = bytes.get(..read)?.split_at_checked(LENGTH - PROOF)?;
        let proves = self.fleet.keys.is_name(&[PURPOSE, head], proof);
        let (sender, rest) = head.split_first_chunk()?;
        let (number, until) = rest.split_first_chunk()?;
        let until = Duration::from_millis(u64::from_be_bytes(until.try_into().ok()?));
        let token = Token { sender: Sender(*sender), number: u64::from_be_bytes(*number) };
        (proves && wall() < until).then_some(token)
    }

    /// Returns whether this process knows of a write.
    pub(crate) fn knows(&self, token: &Token) -> bool {
        token.sender == self.fleet.sender || self.fleet.has_read(token.sender) >= token.number
    }

    /// Waits until this process knows of a write, for at most the timeout; returns whether it does.
    pub(crate) async fn wait(&self, token: &Token) -> bool {
        if self.fleet.is_lost() {
            return false;
        }
        let mut view = self.fleet.view.subscribe();
        let read = view.wait_for(|_| self.knows(token));
        matches!(tokio::time::timeout(self.timeout, read).await, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::cache::invalidation::OnLost;
    use crate::fleet::seal::Keys;
    use crate::runtime::clock;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn process(key: &[u8], carrier: Carrier) -> OwnWrites {
        let cache = Arc::new(Cache::new(1, 1 << 20, clock::now()));
        let timeout = Duration::from_millis(50);
        let fleet = Fleet::new(Keys::new([key]), cache, "test".to_owned(), "0", timeout, OnLost::Serve);
        OwnWrites::new(Arc::new(fleet), carrier, timeout)
    }

    /// What a client sends back after a response.
    fn sent_back(given: &HeaderMap) -> HeaderMap {
        let mut request = HeaderMap::new();
        if let Some(cookie) = given.get(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            request.insert(header::COOKIE, format!("a=b; {pair}; c=d").parse().unwrap());
        }
        if let Some(value) = given.get(FIELD) {
            request.insert(FIELD, value.clone());
        }
        request
    }

    #[test]
    fn a_token_is_read_by_the_fleet_for_as_long_as_it_lives() {
        for carrier in [Carrier::Cookie, Carrier::Field] {
            let (one, other, stranger) =
                (process(KEY, carrier), process(KEY, carrier), process(&[7; 32], carrier));
            let mut given = HeaderMap::new();
            one.fleet.outbox.published(0, 41);
            one.give(&mut given, true, true, NOW);
            let request = sent_back(&given);
            let token = other.token(&request, || NOW).unwrap();
            assert_eq!((token.sender, token.number), (one.fleet.sender, 41));
            assert!(one.knows(&token) && !other.knows(&token));
            other.fleet.note_read(one.fleet.sender, 40);
            assert!(!other.knows(&token));
            other.fleet.note_read(one.fleet.sender, 41);
            assert!(other.knows(&token));
            assert_eq!(other.token(&request, || NOW + LIVES), None, "it is over");
            assert_eq!(stranger.token(&request, || NOW), None, "another fleet made it");
            let mut later = HeaderMap::new();
            one.give(&mut later, false, false, NOW);
            assert_eq!(other.token(&sent_back(&later), || NOW).unwrap().number, 43);
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        let one = process(KEY, Carrier::Field);
        let mut given = HeaderMap::new();
        one.give(&mut given, false, true, NOW);
        let text = given[FIELD].to_str().unwrap().to_owned();
        let changed = |at: usize| {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        };
        let wrong = (0..text.len()).map(changed).chain(["".to_owned(), "%".to_owned(), text[1..].to_owned()]);
        for wrong in wrong.chain([text.clone() + "AAAA", text.repeat(100)]) {
            let mut request = HeaderMap::new();
            request.insert(FIELD, wrong.parse().unwrap());
            assert_eq!(one.token(&request, || NOW), None, "{wrong}");
        }
    }
}
