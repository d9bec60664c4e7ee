//! The targets of one invalidation: the keys that this process stamps, and their names where other processes must be
//! told of them.

use crate::cache::invalidation::key::{InvalidationKey, KeyHasher};
use crate::cache::invalidation::name::Name;

/// Collects what an invalidation names. Names cost allocations, so they are kept only if they travel.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    key_hasher: KeyHasher,
    keys: Vec<InvalidationKey>,
    names: Option<Vec<Name>>,
}

impl Targets {
    /// Creates an empty collection; `named`: the names are kept too.
    pub(crate) fn new(key_hasher: KeyHasher, named: bool) -> Targets {
        Targets { key_hasher, keys: Vec::new(), names: named.then(Vec::new) }
    }

    fn add(&mut self, key: InvalidationKey, name: impl FnOnce() -> Name) {
        self.keys.push(key);
        if let Some(names) = &mut self.names {
            names.push(name());
        }
    }

    pub(crate) fn everything(&mut self) {
        self.add(self.key_hasher.everything(), || Name::Everything);
    }

    pub(crate) fn tag(&mut self, tag: &str) {
        self.add(self.key_hasher.tag(tag), || Name::Tag(tag.into()));
    }

    /// Adds a cache group of one origin (RFC 9875).
    pub(crate) fn group(&mut self, origin: &str, group: &str) {
        self.add(self.key_hasher.group(origin.as_bytes(), group), || {
            Name::Group(origin.into(), group.into())
        });
    }

    pub(crate) fn path(&mut self, path: &str) {
        self.add(self.key_hasher.path(path), || Name::Path(path.into()));
    }

    pub(crate) fn prefix(&mut self, path: &str) {
        self.add(self.key_hasher.prefix(path), || Name::Prefix(path.into()));
    }

    /// Adds a credential, by its keyed hash.
    pub(crate) fn credential(&mut self, hash: &[u8; 32]) {
        self.add(self.key_hasher.credential(hash), || Name::Credential(*hash));
    }

    pub(crate) fn route(&mut self, label: &str) {
        self.add(self.key_hasher.route(label), || Name::Route(label.into()));
    }

    /// Limits the targets to the stored responses of one user: each with each of the credentials.
    pub(crate) fn of_credentials(&self, hashes: &[[u8; 32]]) -> Targets {
        let mut limited = Targets::new(self.key_hasher, self.names.is_some());
        for hash in hashes {
            limited.keys.extend(self.keys.iter().map(|key| self.key_hasher.of_credential(hash, *key)));
            if let (Some(names), Some(known)) = (&mut limited.names, &self.names) {
                names.extend(known.iter().map(|name| Name::OfCredential(*hash, Box::new(name.clone()))));
            }
        }
        limited
    }

    /// Adds the targets of another collection of the same process.
    pub(crate) fn extend(&mut self, other: Targets) {
        self.keys.extend(other.keys);
        if let (Some(names), Some(others)) = (&mut self.names, other.names) {
            names.extend(others);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn keys(&self) -> &[InvalidationKey] {
        &self.keys
    }

    /// Returns the names; none if they do not travel.
    pub(crate) fn names(&self) -> &[Name] {
        self.names.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_key_in_the_same_place() {
        let key_hasher = KeyHasher::new(7);
        let mut targets = Targets::new(key_hasher, true);
        targets.everything();
        targets.tag("a");
        targets.group("a.example", "g");
        targets.path("/a");
        targets.prefix("/b");
        targets.credential(&[1; 32]);
        targets.route("GET /**");
        let limited = targets.of_credentials(&[[2; 32], [3; 32]]);
        assert_eq!(limited.keys().len(), 14);
        targets.extend(limited);
        let keys: Vec<_> = targets.names().iter().map(|name| name.key(key_hasher)).collect();
        assert_eq!(keys, targets.keys());
    }

    #[test]
    fn names_are_not_kept_where_nobody_is_told() {
        let mut targets = Targets::new(KeyHasher::new(7), false);
        targets.tag("a");
        assert_eq!((targets.keys().len(), targets.names().len()), (1, 0));
    }
}
