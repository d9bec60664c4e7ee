//! The names of invalidations, as they travel between processes: each process hashes them with a secret of its own, and
//! two that run different versions still agree on names.

use serde::{Deserialize, Serialize};

use crate::cache::invalidation::key::{InvalidationKey, KeyHasher};

/// One thing that an invalidation can name; see [`crate::cache::invalidation::key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Name {
    Everything,
    Tag(Box<str>),
    /// A cache group of an origin.
    Group(Box<str>, Box<str>),
    Path(Box<str>),
    Prefix(Box<str>),
    /// The keyed hash of a credential.
    Credential([u8; 32]),
    Route(Box<str>),
    /// Another name, for one credential alone.
    OfCredential([u8; 32], Box<Name>),
}

impl Name {
    /// Returns the memory that it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Name>()
            + match self {
                Name::Everything | Name::Credential(_) => 0,
                Name::Tag(text) | Name::Path(text) | Name::Prefix(text) | Name::Route(text) => text.len(),
                Name::Group(origin, group) => origin.len() + group.len(),
                Name::OfCredential(_, of) => of.size(),
            }
    }

    /// Returns the key of this name in this process.
    pub(crate) fn key(&self, key_hasher: KeyHasher) -> InvalidationKey {
        match self {
            Name::Everything => key_hasher.everything(),
            Name::Tag(tag) => key_hasher.tag(tag),
            Name::Group(origin, group) => key_hasher.group(origin.as_bytes(), group),
            Name::Path(path) => key_hasher.path(path),
            Name::Prefix(path) => key_hasher.prefix(path),
            Name::Credential(hash) => key_hasher.credential(hash),
            Name::Route(label) => key_hasher.route(label),
            Name::OfCredential(hash, of) => key_hasher.of_credential(hash, of.key(key_hasher)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_text_and_has_the_key_of_its_kind() {
        let key_hasher = KeyHasher::new(7);
        let tag = Name::Tag("a".into());
        for (name, wanted) in [
            (Name::Everything, key_hasher.everything()),
            (tag.clone(), key_hasher.tag("a")),
            (Name::Group("A.example".into(), "g".into()), key_hasher.group(b"a.example", "g")),
            (Name::Path("/a/".into()), key_hasher.path("/a")),
            (Name::Prefix("/a".into()), key_hasher.prefix("/a/")),
            (Name::Credential([3; 32]), key_hasher.credential(&[3; 32])),
            (Name::Route("GET /**".into()), key_hasher.route("GET /**")),
            (
                Name::OfCredential([3; 32], Box::new(tag)),
                key_hasher.of_credential(&[3; 32], key_hasher.tag("a")),
            ),
        ] {
            assert_eq!(name.key(key_hasher), wanted, "{name:?}");
            let text = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<Name>(&text).unwrap(), name, "{text}");
        }
    }
}
