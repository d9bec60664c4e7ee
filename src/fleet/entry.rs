//! An entry of the invalidation log: its sender, its number and what is sealed in it.
//!
//! A process numbers its entries without holes. A reader that finds a hole knows that it missed something.

use serde::{Deserialize, Serialize};

use crate::cache::invalidation::outbox::Batch;
use crate::fleet::seal::{Keys, Purpose, Unreadable};

/// Version of the format. A reader that does not know it must assume the worst.
const VERSION: u8 = 1;
/// Bytes in front of the sealed content: the version, the sender and the number.
const HEAD: usize = 1 + 16 + 8;

/// Identifies a process; random, and new with each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sender(pub [u8; 16]);

impl std::fmt::Display for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The content of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    #[serde(default, skip_serializing_if = "Batch::is_empty")]
    pub batch: Batch,
    /// Whether the sender waits until all others have applied it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaited: bool,
    /// The epoch of the log for which the sender has sent its recent entries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resent_for: Option<Box<str>>,
    /// Whether it is the last entry of its sender.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goodbye: bool,
}

/// An entry of the log; see the head of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub sender: Sender,
    /// Counts from 1.
    pub number: u64,
    pub content: Content,
}

impl Entry {
    /// Returns the entry as it stands in the log.
    pub(crate) fn to_bytes(&self, keys: &Keys) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD);
        head.push(VERSION);
        head.extend_from_slice(&self.sender.0);
        head.extend_from_slice(&self.number.to_be_bytes());
        let content = serde_json::to_vec(&self.content).unwrap_or_default();
        let sealed = keys.seal(Purpose::Log, &head, &content);
        head.extend_from_slice(&sealed);
        head
    }

    /// Reads an entry of the log.
    pub(crate) fn from_bytes(keys: &Keys, bytes: &[u8]) -> Result<Entry, Unreadable> {
        match bytes.first() {
            None => return Err(Unreadable::Damaged),
            Some(&VERSION) => {}
            Some(_) => return Err(Unreadable::UnknownVersion),
        }
        let (head, sealed) = bytes.split_at_checked(HEAD).ok_or(Unreadable::Damaged)?;
        let (mut sender, mut number) = ([0; 16], [0; 8]);
        sender.copy_from_slice(&head[1..17]);
        number.copy_from_slice(&head[17..]);
        let content = keys.open(Purpose::Log, head, sealed)?;
        // It is sealed, so it is what a process wrote: one of another version.
        let content = serde_json::from_slice(&content).map_err(|_| Unreadable::UnknownVersion)?;
        Ok(Entry { sender: Sender(sender), number: u64::from_be_bytes(number), content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::invalidation::Mode;
    use crate::cache::invalidation::name::Name;
    use crate::cache::invalidation::outbox::Invalidated;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn entry() -> Entry {
        let names = [Name::Tag("s3cret-tag".into()), Name::Path("/s3cret/path".into())];
        let batch = Batch { invalidated: vec![Invalidated::once(&names, Mode::Soft)], ..Batch::default() };
        Entry { sender: Sender([7; 16]), number: 12, content: Content { batch, ..Content::default() } }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_shows_nothing() {
        let (one, other) = (Keys::new([KEY]), Keys::new([KEY]));
        let bytes = entry().to_bytes(&one);
        assert_eq!(Entry::from_bytes(&other, &bytes), Ok(entry()));
        assert!(!String::from_utf8_lossy(&bytes).contains("s3cret"));
    }

    #[test]
    fn what_is_not_an_entry_is_refused() {
        let keys = Keys::new([KEY]);
        let bytes = entry().to_bytes(&keys);
        let mut renumbered = bytes.clone();
        renumbered[HEAD - 1] += 1;
        let mut stolen = bytes.clone();
        stolen[1] += 1;
        let mut newer = bytes.clone();
        newer[0] = VERSION + 1;
        for (bytes, wanted) in [
            (&renumbered[..], Unreadable::Damaged),
            (&stolen, Unreadable::Damaged),
            (&newer, Unreadable::UnknownVersion),
            (&bytes[..HEAD - 1], Unreadable::Damaged),
            (&[], Unreadable::Damaged),
        ] {
            assert_eq!(Entry::from_bytes(&keys, bytes), Err(wanted));
        }
        let others = Keys::new([&b"another key of thirty-two bytes!"[..]]);
        assert_eq!(Entry::from_bytes(&others, &bytes), Err(Unreadable::UnknownKey));
    }

    #[test]
    fn a_beat_is_small() {
        let beat = Entry { sender: Sender([7; 16]), number: 1, content: Content::default() };
        assert!(beat.to_bytes(&Keys::new([KEY])).len() < 100);
    }
}
