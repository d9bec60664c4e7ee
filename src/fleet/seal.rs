//! Sealing of everything that is stored in Redis: a dump shows nothing, and nobody without the key can plant anything.
//!
//! The key is derived from `identity.hash_key` for one purpose and one process (HKDF, RFC 5869), and the content is
//! sealed by AES-256-GCM with a random nonce (NIST SP 800-38D 8.2.2). A process seals far fewer than the 2^32 messages
//! for which random nonces are safe.
//!
//! A sealed value is: the identifier of the key (4 bytes), the salt of the process (16), the nonce (12), the sealed
//! content with its tag (16).

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of the identifier of a key.
const KEY_ID: usize = 4;
/// Bytes of the salt of a process.
const SALT: usize = 16;
/// Bytes in front of the sealed content.
const HEAD: usize = KEY_ID + SALT + NONCE_LEN;

/// The use of a sealed value; values of one purpose cannot be opened as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An entry of the invalidation log.
    Log,
    /// The state of a process, as the others see it.
    Member,
    /// A stored response.
    Copy,
}

impl Purpose {
    const fn info(self) -> &'static [u8] {
        match self {
            Purpose::Log => b"pillion log 1",
            Purpose::Member => b"pillion member 1",
            Purpose::Copy => b"pillion copy 1",
        }
    }
}

/// The reason why a value cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    UnknownKey,
    Damaged,
    UnknownVersion,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unreadable::UnknownKey => "it was sealed with another identity.hash_key",
            Unreadable::Damaged => "it is damaged, or was not sealed by Pillion",
            Unreadable::UnknownVersion => "it was written by a version of Pillion that this one cannot read",
        })
    }
}

impl std::error::Error for Unreadable {}

struct Secret {
    id: [u8; KEY_ID],
    bytes: Box<[u8]>,
}

/// The keys of a fleet, and the salt of this process.
pub(crate) struct Keys {
    /// The first seals, all open.
    secrets: Vec<Secret>,
    salt: [u8; SALT],
    random: SystemRandom,
    /// Makes names of the first secret.
    names: hmac::Key,
}

impl Keys {
    /// Creates the keys from the values of `identity.hash_key`, of which there must be at least one.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Keys {
        let secrets = secrets.into_iter().map(|bytes| Secret { id: key_id(bytes), bytes: bytes.into() });
        let (secrets, random): (Vec<Secret>, _) = (secrets.collect(), SystemRandom::new());
        let of_names = secrets.first().map_or(&[][..], |secret| &secret.bytes);
        // A key of its own, so that no name is a tag of anything else.
        let of_names = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, of_names), b"pillion names in Redis");
        let names = hmac::Key::new(hmac::HMAC_SHA256, of_names.as_ref());
        Keys { secrets, salt: fill(&random), random, names }
    }

    /// Returns the name in Redis of what these parts identify; it tells nothing about them.
    pub(crate) fn name(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut name = [0; 32];
        name.copy_from_slice(hmac::sign(&self.names, &joined(parts)).as_ref());
        name
    }

    /// Returns whether a name is that of these parts.
    pub(crate) fn is_name(&self, parts: &[&[u8]], name: &[u8]) -> bool {
        hmac::verify(&self.names, &joined(parts), name).is_ok()
    }

    /// Seals content for a purpose; `bound` is what it belongs to, and must be given to open it.
    pub(crate) fn seal(&self, purpose: Purpose, bound: &[u8], content: &[u8]) -> Vec<u8> {
        let Some(secret) = self.secrets.first() else { return Vec::new() };
        let nonce: [u8; NONCE_LEN] = fill(&self.random);
        let mut sealed = content.to_vec();
        let key = derive(secret, &self.salt, purpose);
        let done = key.and_then(|key| {
            key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), &mut sealed)
                .ok()
        });
        if done.is_none() {
            return Vec::new();
        }
        [&secret.id[..], &self.salt, &nonce, &sealed].concat()
    }

    /// Opens a sealed value.
    pub(crate) fn open(&self, purpose: Purpose, bound: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unreadable> {
        self.open_in_place(purpose, bound, &mut sealed.to_vec()).map(<[u8]>::to_vec)
    }

    /// Opens a sealed value where it is, and returns its content.
    pub(crate) fn open_in_place<'a>(
        &self,
        purpose: Purpose,
        bound: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], Unreadable> {
        let (head, content) = sealed.split_at_mut_checked(HEAD).ok_or(Unreadable::Damaged)?;
        let (id, head) = head.split_at(KEY_ID);
        let (salt, nonce) = head.split_at(SALT);
        let secret = self.secrets.iter().find(|secret| secret.id == id).ok_or(Unreadable::UnknownKey)?;
        let key = derive(secret, salt, purpose).ok_or(Unreadable::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unreadable::Damaged)?;
        let opened = key.open_in_place(nonce, Aad::from(bound), content);
        opened.map(|content| &*content).map_err(|_| Unreadable::Damaged)
    }
}

impl fmt::Debug for Keys {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("secrets", &self.secrets.len()).finish_non_exhaustive()
    }
}

/// Joins parts so that no others give the same.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
    for part in parts {
        joined.extend_from_slice(&(part.len() as u64).to_be_bytes());
        joined.extend_from_slice(part);
    }
    joined
}

/// Returns the identifier of a key, which tells nothing about it.
fn key_id(secret: &[u8]) -> [u8; KEY_ID] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"pillion key identifier");
    let mut id = [0; KEY_ID];
    id.copy_from_slice(&tag.as_ref()[..KEY_ID]);
    id
}

fn derive(secret: &Secret, salt: &[u8], purpose: Purpose) -> Option<LessSafeKey> {
    let prk = Salt::new(HKDF_SHA256, salt).extract(&secret.bytes);
    let info = [purpose.info()];
    let okm = prk.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(okm)))
}

/// Returns random bytes of the system.
pub(super) fn fill<const LENGTH: usize>(random: &SystemRandom) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    random.fill(&mut bytes).expect("the system has random bytes once a process runs");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NEW: &[u8] = b"fedcba9876543210fedcba9876543210";

    proptest! {
        #[test]
        fn what_is_sealed_opens_in_another_process_and_nowhere_else(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            bound in proptest::collection::vec(any::<u8>(), 0..40),
            flipped in any::<prop::sample::Index>(),
        ) {
            let (one, other) = (Keys::new([OLD]), Keys::new([OLD]));
            let sealed = one.seal(Purpose::Log, &bound, &content);
            prop_assert_eq!(other.open(Purpose::Log, &bound, &sealed), Ok(content.clone()));
            prop_assert_eq!(other.open(Purpose::Member, &bound, &sealed), Err(Unreadable::Damaged));
            let elsewhere = [&bound[..], b"x"].concat();
            prop_assert_eq!(other.open(Purpose::Log, &elsewhere, &sealed), Err(Unreadable::Damaged));
            let mut damaged = sealed.clone();
            let at = flipped.index(damaged.len());
            damaged[at] ^= 1;
            prop_assert!(other.open(Purpose::Log, &bound, &damaged).is_err());
            let cut = flipped.index(sealed.len());
            prop_assert!(other.open(Purpose::Log, &bound, &sealed[..cut]).is_err());
            if content.len() >= 4 {
                prop_assert!(!sealed.windows(content.len()).any(|part| part == content));
            }
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (before, between, after) = (Keys::new([OLD]), Keys::new([OLD, NEW]), Keys::new([NEW, OLD]));
        let open = |keys: &Keys, sealed: &[u8]| keys.open(Purpose::Log, b"", sealed);
        let of_before = before.seal(Purpose::Log, b"", b"a");
        let of_after = after.seal(Purpose::Log, b"", b"a");
        assert_eq!(open(&between, &of_before), Ok(b"a".to_vec()));
        assert_eq!(open(&between, &of_after), Ok(b"a".to_vec()));
        assert_eq!(open(&after, &of_before), Ok(b"a".to_vec()));
        assert_eq!(open(&before, &of_after), Err(Unreadable::UnknownKey));
        assert!(!format!("{after:?}").contains("fedc"));
    }

    #[test]
    fn no_two_values_are_alike() {
        let keys = Keys::new([OLD]);
        assert_ne!(keys.seal(Purpose::Log, b"", b"a"), keys.seal(Purpose::Log, b"", b"a"));
    }
}
