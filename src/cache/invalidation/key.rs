//! Invalidation keys: everything that an invalidation can name, as numbers. A stored response has one for each of its
//! tags, for its path and the paths above, for its credentials, for its route, and one that all responses share.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Maximum number of tags of a response; a response with more is not stored.
pub(crate) const MAX_TAGS: usize = 64;
/// Maximum number of path segments that have keys of their own; deeper paths share the key of the last one.
pub(crate) const MAX_PREFIXES: usize = 16;

/// Bit that is set in the keys of paths, which any client can choose, and in no others.
const PATH: u64 = 1 << 16;

/// A number for one thing that an invalidation can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct InvalidationKey(u64);

/// The kinds of keys; keys of different kinds are never equal.
#[derive(Clone, Copy)]
enum Kind {
    Everything = 1,
    Tag,
    Group,
    Path,
    Prefix,
    Credential,
    Route,
    OfCredential,
}

/// Computes keys with a secret, so that no client can choose tags that collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyHasher(u64);

impl KeyHasher {
    /// Creates a hasher with a secret of this process.
    pub(crate) fn new(secret: u64) -> KeyHasher {
        KeyHasher(secret)
    }

    fn invalidation_key(self, kind: Kind, text: &[u8]) -> InvalidationKey {
        let hash = xxh3_64_with_seed(text, self.0 ^ (kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        InvalidationKey(if matches!(kind, Kind::Path) { hash | PATH } else { hash & !PATH })
    }

    pub(crate) fn everything(self) -> InvalidationKey {
        self.invalidation_key(Kind::Everything, b"")
    }

    /// Returns the key of a tag, configured for a route or sent by the upstream.
    pub(crate) fn tag(self, tag: &str) -> InvalidationKey {
        self.invalidation_key(Kind::Tag, tag.as_bytes())
    }

    /// Returns the key of a cache group of one origin (RFC 9875); host names are compared without case.
    pub(crate) fn group(self, origin: &[u8], group: &str) -> InvalidationKey {
        let mut text = Vec::with_capacity(origin.len() + group.len() + 1);
        text.extend_from_slice(&origin.to_ascii_lowercase());
        text.push(0);
        text.extend_from_slice(group.as_bytes());
        self.invalidation_key(Kind::Group, &text)
    }

    /// Returns the key of a path in normal form without its query, for every variant and every principal.
    pub(crate) fn path(self, path: &str) -> InvalidationKey {
        self.invalidation_key(Kind::Path, trimmed(path).as_bytes())
    }

    /// Returns the key of a path and everything below it.
    pub(crate) fn prefix(self, path: &str) -> InvalidationKey {
        let path = trimmed(path);
        self.invalidation_key(Kind::Prefix, cut(path).as_bytes())
    }

    /// Returns the prefix keys of a path: its own and one for each path above it.
    pub(crate) fn prefixes(self, path: &str) -> impl Iterator<Item = InvalidationKey> {
        let path = trimmed(path);
        let ends = path.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
        let whole = (!path.is_empty()).then_some(path.len());
        let ends = ends.chain(whole).take(MAX_PREFIXES);
        [0].into_iter()
            .chain(ends)
            .map(move |end| self.invalidation_key(Kind::Prefix, &path.as_bytes()[..end]))
    }

    /// Returns the key of one credential, given its keyed hash.
    pub(crate) fn credential(self, hash: &[u8]) -> InvalidationKey {
        self.invalidation_key(Kind::Credential, hash)
    }

    /// Returns the key of responses that have another key and were made for a credential.
    pub(crate) fn of_credential(self, hash: &[u8], invalidation_key: InvalidationKey) -> InvalidationKey {
        self.invalidation_key(Kind::OfCredential, &[hash, &invalidation_key.0.to_be_bytes()].concat())
    }

    /// Returns the key of a route, by its label.
    pub(crate) fn route(self, label: &str) -> InvalidationKey {
        self.invalidation_key(Kind::Route, label.as_bytes())
    }
}

impl InvalidationKey {
    /// Returns whether it is the key of a path without its query.
    pub(crate) fn is_path(self) -> bool {
        self.0 & PATH != 0
    }

    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

/// Returns a path without its final slash: a folder and its path are invalidated together.
fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Returns the part of a path that has keys of its own.
fn cut(path: &str) -> &str {
    let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    match slashes.skip(1).nth(MAX_PREFIXES - 1) {
        Some(end) => &path[..end],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_prefixes_take() {
        let key_hasher = KeyHasher::new(7);
        for (prefix, path, wanted) in [
            ("/", "/", true),
            ("/", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("/a/", "/a", true),
            ("/a", "/a/b/c", true),
            ("/a/b", "/a/b/c", true),
            ("/a/b", "/a/bc", false),
            ("/a/b", "/a", false),
        ] {
            let found = key_hasher
                .prefixes(path)
                .any(|invalidation_key| invalidation_key == key_hasher.prefix(prefix));
            assert_eq!(found, wanted, "{prefix} {path}");
        }
        assert_ne!(key_hasher.path("/a"), key_hasher.prefix("/a"));
        assert!(
            key_hasher.path("/a").is_path()
                && !key_hasher.prefix("/a").is_path()
                && !key_hasher.tag("/a").is_path()
        );
        assert_ne!(key_hasher.tag("a"), KeyHasher::new(8).tag("a"));
        let deep = "/a".repeat(20);
        assert_eq!(key_hasher.prefixes(&deep).count(), MAX_PREFIXES + 1);
        assert!(
            key_hasher.prefixes(&deep).any(|invalidation_key| invalidation_key == key_hasher.prefix(&deep)),
            "errs towards a fetch"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_below_is_taken(path in "(/[a-c]{1,2}){0,20}", below in "(/[a-c]){0,20}") {
            let key_hasher = KeyHasher::new(1);
            let invalidation_key = key_hasher.prefix(&path);
            let whole = format!("{path}{below}");
            prop_assert!(key_hasher.prefixes(&whole).any(|other| other == invalidation_key));
        }
    }
}
